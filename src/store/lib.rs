//! The object store: keys to bytes under one global revision.
//!
//! Only the API server uses it. It knows keys, revisions and durability, and nothing of Kubernetes objects: values are
//! kept and served as bytes. Invariants: revisions only grow and are never issued twice, not even one that only a
//! watcher saw, across any crash; a durable write that was acknowledged survives power loss; all watchers see changes
//! in the same order.

mod core;
mod database;
mod memory;
mod salvage;
mod seal;
mod sqlite;
#[cfg(test)]
mod tests;
mod wal;
mod watch;
mod writer;

pub use core::HistoryLimits;
pub use memory::MemoryStore;
pub use seal::{Seal, SealError};
pub use sqlite::{SqliteOptions, SqliteStore};

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

/// A mutex whose holders only move finished values in and out: after a panic what it guards is still whole.
#[derive(Debug)]
pub(crate) struct Shared<T>(Mutex<T>);

impl<T> Shared<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The position of a change in the one global order; the `resourceVersion` of an object is its last change's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `<group>/<resource>/<namespace>/<name>`, with an empty namespace for cluster-scoped kinds; sorts like a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub String);

/// Whether a write is acknowledged before or after it has reached the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Acknowledged after fdatasync.
    Durable,
    /// Written behind; may be lost in a crash. For Events, node heartbeats and node leases.
    WriteBehind,
}

/// What must hold for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The key does not exist.
    Absent,
    /// The key exists at exactly this revision.
    At(Revision),
}

/// A stored object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it is stored.
    pub key: Key,
    /// Its last change.
    pub revision: Revision,
    /// The object without its `resourceVersion`.
    pub value: Bytes,
}

/// One change, as watchers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What was changed.
    pub key: Key,
    /// When, in the global order.
    pub revision: Revision,
    /// The value before, if the key existed: watches with selectors need it for transitions.
    pub before: Option<Bytes>,
    /// The value after, or none for a deletion.
    pub after: Option<Bytes>,
}

/// A part of a listing.
#[derive(Debug, Clone)]
pub struct Page {
    /// Entries in key order.
    pub entries: Vec<Entry>,
    /// The revision at which the listing is exact.
    pub revision: Revision,
    /// How many entries of the prefix follow the last one of this page.
    pub remaining: usize,
}

/// What to list.
#[derive(Debug, Clone)]
pub struct Range {
    /// Keys that start with this.
    pub prefix: String,
    /// Only keys greater than this one.
    pub after: Option<Key>,
    /// At most so many entries; none means all.
    pub limit: Option<usize>,
    /// The listing as of this revision; none means now.
    pub at: Option<Revision>,
}

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The key exists already.
    #[error("{key:?} exists already")]
    Exists { key: Key },
    /// The key is gone or at another revision than expected.
    #[error("{key:?} has changed")]
    Conflict { key: Key, current: Option<Entry> },
    /// History before this revision is gone.
    #[error("revision {asked} is older than the oldest kept one, {oldest}")]
    Compacted { asked: Revision, oldest: Revision },
    /// The revision has not been issued yet.
    #[error("revision {asked} is newer than the newest one, {newest}")]
    Future { asked: Revision, newest: Revision },
    /// The database refused.
    #[error("database failed in {operation}")]
    Database {
        operation: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The seam between the API server and what keeps its objects.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The entry at `key`, as of now.
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError>;

    /// Entries below a prefix.
    async fn list(&self, range: Range) -> Result<Page, StoreError>;

    /// Creates or replaces the value at `key` and returns its new revision.
    async fn put(
        &self,
        key: &Key,
        value: Bytes,
        expect: Expect,
        durability: Durability,
    ) -> Result<Revision, StoreError>;

    /// Removes `key`, which must be at `expect`, and returns the revision of the removal.
    async fn delete(&self, key: &Key, expect: Revision, durability: Durability) -> Result<Revision, StoreError>;

    /// Changes below `prefix` after the revision `after`, in order.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError>;

    /// The newest revision.
    fn revision(&self) -> Revision;
}

/// What a watch yields next.
#[derive(Debug, Clone)]
pub enum Watched {
    /// A change of a key below the prefix.
    Changed(Change),
    /// The watcher was too slow and must start again from the last revision that it saw.
    Overrun,
}

/// A running watch; dropping it ends it.
#[async_trait]
pub trait Watch: Send {
    /// The next change, or none when the store has closed. Cancel safe.
    async fn next(&mut self) -> Option<Watched>;

    /// All changes of the prefix up to this revision have been returned by [`Watch::next`]: for bookmarks.
    fn progress(&self) -> Revision;
}
