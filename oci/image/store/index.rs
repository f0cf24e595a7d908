//! The index: every image that is complete, in one file that is replaced atomically.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::image::{Digest, LayerRecord, Record, Reference};

/// A beginning of an image id shorter than this is taken for a name.
const SHORTEST_PREFIX: usize = 4;

/// What the store holds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Index {
    /// Complete images by id.
    #[serde(with = "as_list")]
    pub(super) images: BTreeMap<Digest, Record>,
    /// Complete layers of pulls that broke off on the network, for the next attempt.
    #[serde(default)]
    pub(super) kept: Vec<LayerRecord>,
}

impl Index {
    /// Every layer that must stay.
    pub(super) fn layers(&self) -> impl Iterator<Item = &LayerRecord> {
        self.images.values().flat_map(|image| &image.layers).chain(&self.kept)
    }

    pub(super) fn find(&self, text: &str) -> Option<&Record> {
        if let Some(image) = text.parse().ok().and_then(|id: Digest| self.images.get(&id)) {
            return Some(image);
        }
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if let Some(image) = self.find_by_hex(hex) {
            return Some(image);
        }
        self.find_by_name(&text.parse().ok()?)
    }

    fn find_by_hex(&self, hex: &str) -> Option<&Record> {
        let is_hex = hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !is_hex || hex.len() < SHORTEST_PREFIX {
            return None;
        }
        // A repository may be called `cafe`, and means itself.
        if hex.parse().ok().and_then(|name| self.find_by_name(&name)).is_some() {
            return None;
        }
        let mut matching = self.images.values().filter(|image| image.id.hex().starts_with(hex));
        let first = matching.next()?;
        matching.next().is_none().then_some(first)
    }

    fn find_by_name(&self, name: &Reference) -> Option<&Record> {
        if let Some(digest) = name.digest() {
            let wanted = name.with_digest(digest);
            return self.images.values().find(|image| image.digests.contains(&wanted));
        }
        let wanted = name.tagged()?;
        self.images.values().find(|image| image.tags.contains(&wanted))
    }

    /// Adds an image or the names of one that is there already; a name belongs to one image only.
    pub(super) fn insert(&mut self, mut record: Record) -> Record {
        for image in self.images.values_mut().filter(|image| image.id != record.id) {
            image.tags.retain(|tag| !record.tags.contains(tag));
        }
        if let Some(present) = self.images.get(&record.id) {
            record.tags.extend(present.tags.iter().cloned());
            record.digests.extend(present.digests.iter().cloned());
            record.pinned |= present.pinned;
        }
        self.kept.retain(|kept| !record.layers.contains(kept));
        self.images.insert(record.id.clone(), record.clone());
        record
    }

    pub(super) fn untag(&mut self, reference: &Reference) -> bool {
        let Some(id) = self.find_by_name(reference).map(|image| image.id.clone()) else { return false };
        let Some(image) = self.images.get_mut(&id) else { return false };
        match reference.digest() {
            Some(digest) => image.digests.remove(&reference.with_digest(digest)),
            None => reference.tagged().is_some_and(|tag| image.tags.remove(&tag)),
        };
        if image.tags.is_empty() && (image.digests.is_empty() || reference.digest().is_none()) {
            self.images.remove(&id);
        }
        true
    }

    pub(super) fn keep(&mut self, layers: Vec<LayerRecord>) {
        for layer in layers {
            if !self.layers().any(|known| known.diff_id == layer.diff_id) {
                self.kept.push(layer);
            }
        }
    }
}

/// The index on disk, with the last parsed one in memory.
#[derive(Debug)]
pub(super) struct IndexFile {
    path: PathBuf,
    cache: Mutex<Option<(Stamp, Arc<Index>)>>,
}

/// Tells one file from the one that replaced it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl IndexFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, cache: Mutex::new(None) }
    }

    /// The index as it is now; empty if there never was one.
    pub(super) fn read(&self) -> Result<Arc<Index>, StoreError> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Arc::default()),
            Err(source) => return Err(StoreError::io("open", &self.path, source)),
        };
        let metadata = file.metadata().map_err(|source| StoreError::io("read", &self.path, source))?;
        let stamp =
            Stamp { inode: metadata.ino(), size: metadata.size(), modified: (metadata.mtime(), metadata.mtime_nsec()) };
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, index)) = &*cache
            && *known == stamp
        {
            return Ok(Arc::clone(index));
        }
        let text = io::read_to_string(file).map_err(|source| StoreError::io("read", &self.path, source))?;
        let parsed = serde_json::from_str(&text);
        let index: Index = parsed.map_err(|source| StoreError::Damaged { path: self.path.clone(), source })?;
        let index = Arc::new(index);
        *cache = Some((stamp, Arc::clone(&index)));
        Ok(index)
    }

    /// Replaces the index. The caller holds the store's lock.
    pub(super) fn write(&self, index: &Index) -> Result<(), StoreError> {
        let content = serde_json::to_vec(index);
        let content = content.map_err(|source| StoreError::Damaged { path: self.path.clone(), source })?;
        replace_file(&self.path, &content)
    }
}

/// Writes a file so that after a crash there is the old one or the new one. The caller holds the store's lock.
pub(super) fn replace_file(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let fresh = path.with_extension("new");
    let written = write_durably(&fresh, path, content);
    written.map_err(|source| {
        let _ = fs::remove_file(&fresh);
        StoreError::io("write", path, source)
    })
}

fn write_durably(fresh: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(fresh)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(fresh, path)?;
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// A map whose values carry their keys is written as a list.
mod as_list {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use crate::image::{Digest, Record};

    pub(super) fn serialize<S: Serializer>(images: &BTreeMap<Digest, Record>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(images.values())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<Digest, Record>, D::Error> {
        let images = Vec::<Record>::deserialize(from)?;
        Ok(images.into_iter().map(|image| (image.id.clone(), image)).collect())
    }
}
