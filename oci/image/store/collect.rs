//! Collection: what no image names and no living process leases is removed.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::index::Index;
use super::session::Session;
use super::{Lock, Store, StoreError};

/// Layers and blobs that have been taken out of the store and are now to be deleted, at leisure and without the lock.
#[derive(Debug)]
#[must_use = "what was taken out has to be deleted"]
pub(super) struct Garbage(Vec<PathBuf>);

impl Garbage {
    /// Deletes it. What cannot be deleted goes with the session.
    pub(super) fn delete(self) {
        for path in self.0 {
            if let Err(error) = fs::remove_dir_all(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot delete a layer that nothing uses");
            }
        }
    }
}

impl Store {
    /// Takes everything out of the store that `index` does not name.
    pub(super) fn collect_locked(&self, _lock: &Lock, index: &Index) -> Result<Garbage, StoreError> {
        let mut used: BTreeSet<String> = index.layers().map(|layer| layer.diff_id.hex().to_owned()).collect();
        used.extend(Session::leased(&self.0.directory.join("temp"))?);
        let mut garbage = Garbage(Vec::new());
        for layer in unused(&self.0.directory.join("layers"), &used)? {
            let place = self.0.session.fresh("garbage");
            match fs::rename(&layer, &place) {
                Ok(()) => garbage.0.push(place),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(StoreError::io("remove", &layer, source)),
            }
        }
        self.collect_blobs(index)?;
        Ok(garbage)
    }

    fn collect_blobs(&self, index: &Index) -> Result<(), StoreError> {
        let named = index.images.values().flat_map(|image| [&image.manifest, &image.id]);
        let used: BTreeSet<String> = named.map(|digest| digest.hex().to_owned()).collect();
        for algorithm in unused(&self.0.directory.join("blobs"), &BTreeSet::new())? {
            for blob in unused(&algorithm, &used)? {
                fs::remove_file(&blob).map_err(|source| StoreError::io("remove", &blob, source))?;
            }
        }
        Ok(())
    }
}

/// What is in a directory under other names than those given.
fn unused(directory: &Path, used: &BTreeSet<String>) -> Result<Vec<PathBuf>, StoreError> {
    let failed = |source| StoreError::io("list", directory, source);
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if !entry.file_name().to_str().is_some_and(|name| used.contains(name)) {
            found.push(entry.path());
        }
    }
    Ok(found)
}
