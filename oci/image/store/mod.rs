//! The images of one node on disk, shared by the server and the command line.
//!
//! ```text
//! <root>/images/            0700: nothing below is reachable by the host's users
//!   lock                    flock: whoever changes anything holds it
//!   index.json              every complete image; replaced atomically
//!   blobs/<algorithm>/<hex> manifests and configurations
//!   layers/<hex>/           unpacked layers by diff id: overlay lower directories
//!   temp/<session>/         work in progress of one process, which holds a flock on the directory while it lives;
//!                           `want-<hex>` leases a layer against collection
//! ```
//!
//! A crash at any point leaves the old index or the new one. What the index does not name and no living session leases
//! is removed when the store is opened, when an image is removed, and after each pull.

mod collect;
mod error;
mod index;
mod session;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use error::StoreError;
pub(crate) use session::{Lease, Workspace};

use super::{Digest, LayerRecord, Record, Reference};
use index::{Index, IndexFile};
use session::Session;

/// An opened store. Clones share it. All operations block on the disk.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    index: IndexFile,
    session: Session,
}

/// An image that is ready to be recorded: every layer is in place.
#[derive(Debug)]
pub(crate) struct NewImage {
    pub(crate) record: Record,
    pub(crate) manifest: Vec<u8>,
    pub(crate) config: Vec<u8>,
}

impl Store {
    /// Opens the store below `root`, creating it if need be, and removes what dead processes left there.
    ///
    /// # Errors
    /// When the directories cannot be made or the index cannot be read.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let directory = root.join("images");
        for part in ["layers", "blobs", "temp"] {
            let path = directory.join(part);
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.map_err(|source| StoreError::io("create directory", &path, source))?;
        }
        let lock = Lock::take(&directory)?;
        let dead = Session::dead(&directory.join("temp"))?;
        let session = Session::begin(&directory.join("temp"))?;
        let index = IndexFile::new(directory.join("index.json"));
        let store = Self(Arc::new(Inner { directory, index, session }));
        let index = store.0.index.read()?;
        let garbage = store.collect_locked(&lock, &index)?;
        drop(lock);
        dead.into_iter().for_each(Session::remove_dead);
        garbage.delete();
        Ok(store)
    }

    /// The image of a name, `name@digest`, image id or unique beginning of an image id.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn find(&self, reference: &str) -> Result<Option<Record>, StoreError> {
        let index = self.0.index.read()?;
        Ok(index.find(reference).cloned())
    }

    /// All images, ordered by id.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn list(&self) -> Result<Vec<Record>, StoreError> {
        Ok(self.0.index.read()?.images.values().cloned().collect())
    }

    /// The directory of an unpacked layer.
    pub fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.layers_directory().join(diff_id.hex())
    }

    pub(crate) fn layers_directory(&self) -> PathBuf {
        self.0.directory.join("layers")
    }

    /// A manifest or configuration of an image in the store.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn blob(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        let path = self.blob_path(digest);
        fs::read(&path).map_err(|source| StoreError::io("read", &path, source))
    }

    /// Removes an image with the layers that nothing else uses; tells whether it was there.
    ///
    /// # Errors
    /// When the index cannot be replaced.
    pub fn remove(&self, id: &Digest) -> Result<bool, StoreError> {
        let lock = self.lock()?;
        let mut index = Index::clone(&*self.0.index.read()?);
        let removed = index.images.remove(id).is_some();
        index.kept.clear();
        self.0.index.write(&index)?;
        let garbage = self.collect_locked(&lock, &index)?;
        drop(lock);
        garbage.delete();
        Ok(removed)
    }

    /// Takes one name off its image; the image goes with its last name. Tells whether the name was there.
    ///
    /// # Errors
    /// When the index cannot be replaced.
    pub fn untag(&self, reference: &Reference) -> Result<bool, StoreError> {
        let lock = self.lock()?;
        let mut index = Index::clone(&*self.0.index.read()?);
        let found = index.untag(reference);
        self.0.index.write(&index)?;
        let garbage = self.collect_locked(&lock, &index)?;
        drop(lock);
        garbage.delete();
        Ok(found)
    }

    /// Removes what no image uses, layers of interrupted pulls included.
    ///
    /// # Errors
    /// When the index cannot be replaced.
    pub fn collect(&self) -> Result<(), StoreError> {
        let lock = self.lock()?;
        let mut index = Index::clone(&*self.0.index.read()?);
        if !index.kept.is_empty() {
            index.kept.clear();
            self.0.index.write(&index)?;
        }
        let garbage = self.collect_locked(&lock, &index)?;
        drop(lock);
        garbage.delete();
        Ok(())
    }

    /// Protects layers from collection for as long as the lease lives, and tells which are present, with their sizes.
    pub(crate) fn lease(&self, diff_ids: &[Digest]) -> Result<(Lease, BTreeMap<Digest, u64>), StoreError> {
        let _lock = self.lock()?;
        let lease = self.0.session.lease(diff_ids)?;
        let index = self.0.index.read()?;
        let wanted = index.layers().filter(|layer| diff_ids.contains(&layer.diff_id));
        let present = wanted.filter(|layer| self.layer_path(&layer.diff_id).is_dir());
        Ok((lease, present.map(|layer| (layer.diff_id.clone(), layer.size)).collect()))
    }

    /// An empty directory to unpack a layer into, removed with the workspace unless it is published.
    pub(crate) fn workspace(&self) -> Result<Workspace, StoreError> {
        self.0.session.workspace()
    }

    /// Moves a complete layer into its place. A layer that is there already is as good.
    pub(crate) fn publish(&self, workspace: Workspace, diff_id: &Digest) -> Result<(), StoreError> {
        workspace.publish(&self.layer_path(diff_id))
    }

    /// Records an image whose layers are in place; its names are taken from whichever image had them.
    pub(crate) fn commit(&self, image: NewImage) -> Result<Record, StoreError> {
        self.sync()?;
        let lock = self.lock()?;
        for layer in &image.record.layers {
            let path = self.layer_path(&layer.diff_id);
            fs::symlink_metadata(&path).map_err(|source| StoreError::io("find layer", &path, source))?;
        }
        self.write_blob(&image.record.manifest, &image.manifest)?;
        self.write_blob(&image.record.id, &image.config)?;
        let mut index = Index::clone(&*self.0.index.read()?);
        let record = index.insert(image.record);
        self.0.index.write(&index)?;
        let garbage = self.collect_locked(&lock, &index)?;
        drop(lock);
        garbage.delete();
        Ok(record)
    }

    /// After a pull that broke off: keeps complete layers for the next attempt, removes the rest.
    pub(crate) fn keep(&self, mut layers: Vec<LayerRecord>) -> Result<(), StoreError> {
        if !layers.is_empty() {
            self.sync()?;
        }
        let lock = self.lock()?;
        layers.retain(|layer| self.layer_path(&layer.diff_id).is_dir());
        let mut index = Index::clone(&*self.0.index.read()?);
        if !layers.is_empty() {
            index.keep(layers);
            self.0.index.write(&index)?;
        }
        let garbage = self.collect_locked(&lock, &index)?;
        drop(lock);
        garbage.delete();
        Ok(())
    }

    /// One flush of the file system for all layers of an image.
    fn sync(&self) -> Result<(), StoreError> {
        let path = self.layers_directory();
        let directory = File::open(&path).map_err(|source| StoreError::io("open", &path, source))?;
        rustix::fs::syncfs(&directory).map_err(|errno| StoreError::io("sync", &path, errno.into()))
    }

    fn lock(&self) -> Result<Lock, StoreError> {
        Lock::take(&self.0.directory)
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.0.directory.join("blobs").join(digest.algorithm()).join(digest.hex())
    }

    fn write_blob(&self, digest: &Digest, content: &[u8]) -> Result<(), StoreError> {
        let path = self.blob_path(digest);
        if path.exists() {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(parent);
            made.map_err(|source| StoreError::io("create directory", parent, source))?;
        }
        index::replace_file(&path, content)
    }
}

/// The store's lock; also excludes other threads, as each holds a description of its own.
#[derive(Debug)]
struct Lock(#[expect(dead_code, reason = "closing it gives the lock back")] File);

impl Lock {
    fn take(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join("lock");
        let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = opened.map_err(|source| StoreError::io("open", &path, source))?;
        loop {
            match rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive) {
                Ok(()) => return Ok(Self(file)),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(StoreError::io("lock", &path, errno.into())),
            }
        }
    }
}

#[cfg(test)]
mod tests;
