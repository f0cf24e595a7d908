//! The embedded store: all objects in memory, and each acknowledged write on disk ([`crate::database`]).
//!
//! The database is only read at start. One thread owns the connection and commits what
//! has queued up as one transaction (group commit), so an acknowledged write costs its share of one fdatasync.
//! What is written behind goes to disk with a later flush, when a few minutes have passed or the store is closed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use task::SharedClock;
use tokio::sync::{mpsc, oneshot};

use crate::core::{Core, HistoryLimits, Request, Stored};
use crate::database::{Contents, Database, Row, failed};
use crate::salvage;
use crate::seal::Seal;
use crate::watch::HistoryWatch;
use crate::writer::{Job, Writer};
use crate::{Durability, Entry, Expect, Key, Page, Range, Revision, Shared, Store, StoreError, Watch};

/// Writers that may wait for the disk at once; more wait for a place.
const QUEUE: usize = 1024;

/// How the embedded store behaves.
#[derive(Debug, Clone, Copy)]
pub struct SqliteOptions {
    /// How much history is kept.
    pub history: HistoryLimits,
    /// How long a write-behind change may stay in memory only.
    pub flush_after: Duration,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self { history: HistoryLimits::default(), flush_after: Duration::from_secs(600) }
    }
}

/// Objects in memory and in one SQLite file.
pub struct SqliteStore {
    core: Arc<Shared<Core>>,
    jobs: mpsc::Sender<Job>,
    seal: Option<Arc<Seal>>,
}

/// Makes objects plain; tells which of them are to be sealed anew.
fn unseal(seal: &Seal, objects: &mut BTreeMap<Key, Stored>) -> Result<Vec<Key>, StoreError> {
    let mut stale = Vec::new();
    for (key, stored) in objects {
        let opened = seal.unseal(key, stored.revision, &stored.value).map_err(|source| failed("load", source))?;
        if let Some(value) = opened.value {
            stored.value = value;
        }
        if opened.is_stale {
            stale.push(key.clone());
        }
    }
    Ok(stale)
}

impl SqliteStore {
    /// Opens or creates the database file (mode 0600); no second process can open it at the same time. Of a damaged file
    /// a copy is kept beside it, and of its objects those that are whole; what was lost is told as an error of the log.
    ///
    /// # Errors
    /// When nothing of a damaged file can be kept, or it is of a newer layout, in use, or not writable.
    pub fn open(path: &Path, options: SqliteOptions, clock: SharedClock) -> Result<Self, StoreError> {
        Self::start(path, options, clock, None)
    }

    /// As [`SqliteStore::open`]; some values are sealed on the disk. What was plain there is sealed now.
    ///
    /// # Errors
    /// As there, and when a value cannot be unsealed.
    pub fn open_sealed(
        path: &Path,
        options: SqliteOptions,
        clock: SharedClock,
        seal: Seal,
    ) -> Result<Self, StoreError> {
        Self::start(path, options, clock, Some(Arc::new(seal)))
    }

    fn start(
        path: &Path,
        options: SqliteOptions,
        clock: SharedClock,
        seal: Option<Arc<Seal>>,
    ) -> Result<Self, StoreError> {
        let (mut database, Contents { mut objects, reserved }) = salvage::open(path, clock.now())?;
        if let Some(seal) = &seal {
            let stale = unseal(seal, &mut objects)?;
            database.seal_with(seal);
            if !stale.is_empty() {
                let rows = stale.iter().map(|key| {
                    let own = objects.get(key);
                    let on_disk = own.map(|own| own.revision);
                    Row { key, on_disk, after: own.map(|own| (own.revision, &own.value)) }
                });
                database.seal_anew(rows)?;
            }
        }
        let core = Arc::new(Shared::new(Core::new(objects, Revision(reserved), options.history)));
        let (jobs, queue) = mpsc::channel(QUEUE);
        let writer = Writer::new(database, core.clone(), clock, options.flush_after, reserved);
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.run(queue))
            .map_err(|source| failed("start of the writer", source))?;
        Ok(Self { core, jobs, seal })
    }

    /// Writes everything to disk, ends all watches and refuses further writes.
    ///
    /// # Errors
    /// When the last flush fails.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.ask(|reply| Job::Close { reply }).await
    }

    /// Writes all objects as of now to a new file (mode 0600), from which [`Self::restore`] takes them.
    ///
    /// # Errors
    /// When the file exists or cannot be written.
    pub async fn save(&self, to: &Path) -> Result<Revision, StoreError> {
        let to = to.to_owned();
        self.ask(|reply| Job::Save { to, reply }).await
    }

    /// Makes the objects those of a file that [`Self::save`] has written, all at once: each that differs is a change,
    /// with a new revision, so that watches go on. All of it is on disk when this returns.
    ///
    /// # Errors
    /// When the file is not one, or damaged; nothing has changed then.
    pub async fn restore(&self, from: &Path) -> Result<Revision, StoreError> {
        let mut contents = Database::read_file(from)?;
        if let Some(seal) = &self.seal {
            unseal(seal, &mut contents.objects)?;
        }
        self.ask(|reply| Job::Restore { objects: contents.objects, reply }).await
    }

    async fn write(&self, request: Request, durability: Durability) -> Result<Revision, StoreError> {
        self.ask(|reply| Job::Write { request, durability, reply }).await
    }

    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Job) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(job(reply)).await.map_err(|_| failed("write", Closed))?;
        answer.await.map_err(|_| failed("write", Closed))?
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the store is closed")]
struct Closed;

#[async_trait]
impl Store for SqliteStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        Ok(self.core.lock().get(key))
    }

    async fn list(&self, range: Range) -> Result<Page, StoreError> {
        self.core.lock().list(&range)
    }

    async fn put(&self, key: &Key, value: Bytes, expect: Expect, how: Durability) -> Result<Revision, StoreError> {
        self.write(Request::Put { key: key.clone(), value, expect }, how).await
    }

    async fn delete(&self, key: &Key, expect: Revision, how: Durability) -> Result<Revision, StoreError> {
        self.write(Request::Delete { key: key.clone(), expect }, how).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        Ok(Box::new(HistoryWatch::start(&self.core, prefix, after)?))
    }

    fn revision(&self) -> Revision {
        self.core.lock().newest()
    }
}
