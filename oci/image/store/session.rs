//! Work in progress of one process: layers being unpacked, and leases on layers that it is about to use.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::FlockOperation;

use super::StoreError;
use crate::image::Digest;

const LEASE: &str = "want-";

/// The directory of one process, locked by it for as long as it lives.
#[derive(Debug, Clone)]
pub(super) struct Session(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// Holds the flock that tells other processes that this one lives.
    _alive: File,
    leases: Mutex<BTreeMap<Digest, usize>>,
    counter: AtomicU64,
}

/// A session whose process has ended; holding it keeps others from removing it too.
#[derive(Debug)]
pub(super) struct Dead {
    path: PathBuf,
    _lock: File,
}

impl Session {
    /// Makes a session of its own. The caller holds the store's lock, so that nobody takes it for a dead one.
    pub(super) fn begin(temp: &Path) -> Result<Self, StoreError> {
        for attempt in 0_u32.. {
            let path = temp.join(format!("{}-{attempt}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Self::hold(path),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(StoreError::io("create directory", &path, source)),
            }
        }
        let full = io::Error::from(io::ErrorKind::AlreadyExists);
        Err(StoreError::io("create a session in", temp, full))
    }

    fn hold(path: PathBuf) -> Result<Self, StoreError> {
        let alive = File::open(&path).map_err(|source| StoreError::io("open", &path, source))?;
        let locked = rustix::fs::flock(&alive, FlockOperation::NonBlockingLockExclusive);
        locked.map_err(|errno| StoreError::io("lock", &path, errno.into()))?;
        let counter = AtomicU64::new(0);
        Ok(Self(Arc::new(Inner { path, _alive: alive, leases: Mutex::default(), counter })))
    }

    /// Sessions whose process is gone. The caller holds the store's lock.
    pub(super) fn dead(temp: &Path) -> Result<Vec<Dead>, StoreError> {
        let mut dead = Vec::new();
        for path in children(temp)? {
            let Ok(lock) = File::open(&path) else { continue };
            if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
                continue;
            }
            // Locked by us it looks alive; its leases end now.
            for lease in children(&path)?.iter().filter(|path| lease_of(path).is_some()) {
                fs::remove_file(lease).map_err(|source| StoreError::io("remove", lease, source))?;
            }
            dead.push(Dead { path, _lock: lock });
        }
        Ok(dead)
    }

    /// Removes what a dead session left.
    pub(super) fn remove_dead(dead: Dead) {
        if let Err(error) = fs::remove_dir_all(&dead.path) {
            tracing::warn!(path = %dead.path.display(), %error, "cannot remove leftovers of an earlier run");
        }
    }

    /// The hexadecimal digits of all layers that living sessions lease. The caller holds the store's lock.
    pub(super) fn leased(temp: &Path) -> Result<Vec<String>, StoreError> {
        let mut leased = Vec::new();
        for session in children(temp)? {
            let Ok(lock) = File::open(&session) else { continue };
            if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
                continue;
            }
            for entry in children(&session)? {
                leased.extend(lease_of(&entry).map(str::to_owned));
            }
        }
        Ok(leased)
    }

    /// Leases layers. The caller holds the store's lock.
    pub(super) fn lease(&self, diff_ids: &[Digest]) -> Result<Lease, StoreError> {
        let mut lease = Lease { session: self.clone(), held: Vec::new() };
        let mut leases = self.0.leases.lock().unwrap_or_else(PoisonError::into_inner);
        for diff_id in diff_ids {
            let path = self.marker(diff_id);
            let count = leases.entry(diff_id.clone()).or_default();
            if *count == 0 {
                File::create(&path).map_err(|source| StoreError::io("create", &path, source))?;
            }
            *count += 1;
            lease.held.push(diff_id.clone());
        }
        drop(leases);
        Ok(lease)
    }

    pub(super) fn workspace(&self) -> Result<Workspace, StoreError> {
        let path = self.fresh("work");
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|source| StoreError::io("create directory", &path, source))?;
        Ok(Workspace { session: self.clone(), path, published: false })
    }

    /// A name within the session that nothing has had.
    pub(super) fn fresh(&self, kind: &str) -> PathBuf {
        self.0.path.join(format!("{kind}-{}", self.0.counter.fetch_add(1, Ordering::Relaxed)))
    }

    fn marker(&self, diff_id: &Digest) -> PathBuf {
        self.0.path.join(format!("{LEASE}{}", diff_id.hex()))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Protects layers from collection while it lives.
#[derive(Debug)]
pub(crate) struct Lease {
    session: Session,
    held: Vec<Digest>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut leases = self.session.0.leases.lock().unwrap_or_else(PoisonError::into_inner);
        for diff_id in &self.held {
            let Some(count) = leases.get_mut(diff_id) else { continue };
            *count -= 1;
            if *count == 0 {
                leases.remove(diff_id);
                let _ = fs::remove_file(self.session.marker(diff_id));
            }
        }
    }
}

/// A directory that a layer is being unpacked into; removed with everything in it unless it is published.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// Keeps the session, and with it the directory, from being taken for a leftover.
    session: Session,
    path: PathBuf,
    published: bool,
}

impl Workspace {
    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn publish(mut self, place: &Path) -> Result<(), StoreError> {
        match fs::rename(&self.path, place) {
            Ok(()) => {
                self.published = true;
                Ok(())
            }
            // Somebody else unpacked the same layer meanwhile; content with the same digest is as good.
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
                Ok(())
            }
            Err(source) => Err(StoreError::io("move a layer to", place, source)),
        }
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), session = %self.session.0.path.display(), %error, "cannot remove a layer that was given up");
        }
    }
}

/// The digits of the layer that a file leases, if that is what it is for.
fn lease_of(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()?.strip_prefix(LEASE)
}

/// What is in a directory; a file among it does no harm.
fn children(directory: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let failed = |source| StoreError::io("list", directory, source);
    let entries = fs::read_dir(directory).map_err(failed)?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(failed)).collect()
}
