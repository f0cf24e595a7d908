//! The embedded store: one SQLite table keyed by object, write-ahead log, full synchronization.
//!
//! All objects are in memory too; the database is only read at start. One thread owns the connection and commits what
//! has queued up as one transaction (group commit), so an acknowledged write costs its share of one fdatasync.
//! What is written behind goes to disk with a later flush, when a few minutes have passed or the store is closed.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, params};
use task::SharedClock;
use tokio::sync::{mpsc, oneshot};

use crate::core::{Core, HistoryLimits, Request, Stored};
use crate::watch::HistoryWatch;
use crate::writer::{Job, Writer};
use crate::{Durability, Entry, Expect, Key, Page, Range, Revision, Shared, Store, StoreError, Watch};

/// Version of the table layout, kept in the database's `user_version`.
const LAYOUT: i64 = 1;
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
}

impl SqliteStore {
    /// Opens or creates the database file (mode 0600); no second process can open it at the same time.
    ///
    /// # Errors
    /// When the file is damaged, of a newer layout, in use, or not writable.
    pub fn open(path: &Path, options: SqliteOptions, clock: SharedClock) -> Result<Self, StoreError> {
        let mut database = Database::open(path)?;
        let (objects, reserved) = database.load()?;
        let core = Arc::new(Shared::new(Core::new(objects, Revision(reserved), options.history)));
        let (jobs, queue) = mpsc::channel(QUEUE);
        let writer = Writer::new(database, core.clone(), clock, options.flush_after, reserved);
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.run(queue))
            .map_err(|source| failed("start of the writer", source))?;
        Ok(Self { core, jobs })
    }

    /// Writes everything to disk, ends all watches and refuses further writes.
    ///
    /// # Errors
    /// When the last flush fails.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.ask(|reply| Job::Close { reply }).await
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

/// The file.
#[derive(Debug)]
pub(crate) struct Database {
    connection: Connection,
    path: PathBuf,
}

#[derive(Debug, thiserror::Error)]
#[error("{path}")]
struct InFile<E: std::error::Error + 'static> {
    path: PathBuf,
    #[source]
    source: E,
}

#[derive(Debug, thiserror::Error)]
#[error("its layout {found} is newer than the newest one that this version knows, {LAYOUT}")]
struct NewerLayout {
    found: i64,
}

impl Database {
    fn open(path: &Path) -> Result<Self, StoreError> {
        let create = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
        create.map_err(|source| failed("open", InFile { path: path.to_owned(), source }))?;
        let connection = Connection::open(path).map_err(|source| Self::error(path, "open", source))?;
        connection.busy_timeout(Duration::ZERO).map_err(|source| Self::error(path, "open", source))?;
        let database = Self { connection, path: path.to_owned() };
        database.prepare().map_err(|source| Self::error(path, "open", source))?;
        let layout: i64 = database
            .connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(|source| Self::error(path, "open", source))?;
        if layout > LAYOUT {
            return Err(failed("open", InFile { path: path.to_owned(), source: NewerLayout { found: layout } }));
        }
        database.create_tables().map_err(|source| Self::error(path, "creation of tables", source))?;
        Ok(database)
    }

    /// Exclusive locking keeps a second server out and makes the shared-memory file unnecessary.
    fn prepare(&self) -> rusqlite::Result<()> {
        self.connection.execute_batch(
            "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             PRAGMA cache_size = -512; PRAGMA temp_store = MEMORY; PRAGMA journal_size_limit = 8388608;",
        )
    }

    fn create_tables(&self) -> rusqlite::Result<()> {
        self.connection.execute_batch(&format!(
            "BEGIN IMMEDIATE;
             CREATE TABLE IF NOT EXISTS objects (key TEXT PRIMARY KEY, revision INTEGER NOT NULL, value BLOB NOT NULL)
               WITHOUT ROWID;
             CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
             INSERT OR IGNORE INTO meta VALUES ('reserved', 1);
             PRAGMA user_version = {LAYOUT};
             COMMIT;"
        ))
    }

    fn load(&mut self) -> Result<(BTreeMap<Key, Stored>, u64), StoreError> {
        self.read_all().map_err(|source| Self::error(&self.path, "load", source))
    }

    fn read_all(&self) -> rusqlite::Result<(BTreeMap<Key, Stored>, u64)> {
        let reserved = self.connection.query_row("SELECT value FROM meta WHERE name = 'reserved'", [], |r| r.get(0))?;
        let mut statement = self.connection.prepare("SELECT key, revision, value FROM objects")?;
        let rows = statement.query_map([], |row| {
            let value: Vec<u8> = row.get(2)?;
            Ok((Key(row.get(0)?), Stored { revision: Revision(row.get(1)?), value: Bytes::from(value) }))
        })?;
        Ok((rows.collect::<rusqlite::Result<_>>()?, reserved))
    }

    /// One transaction: these keys become what is given, and revisions up to `reserved` count as issued.
    pub(crate) fn commit<'a>(
        &mut self,
        rows: impl IntoIterator<Item = (&'a Key, Option<(Revision, &'a Bytes)>)>,
        reserved: Option<u64>,
    ) -> Result<(), StoreError> {
        let path = &self.path;
        let transaction = self.connection.transaction().map_err(|source| Self::error(path, "commit", source))?;
        let work = || -> rusqlite::Result<()> {
            for (key, row) in rows {
                match row {
                    Some((revision, value)) => transaction
                        .prepare_cached("INSERT OR REPLACE INTO objects VALUES (?1, ?2, ?3)")?
                        .execute(params![key.0, revision.0, value.as_ref()])?,
                    None => transaction.prepare_cached("DELETE FROM objects WHERE key = ?1")?.execute([&key.0])?,
                };
            }
            if let Some(reserved) = reserved {
                transaction
                    .prepare_cached("UPDATE meta SET value = ?1 WHERE name = 'reserved'")?
                    .execute([reserved])?;
            }
            transaction.commit()
        };
        work().map_err(|source| Self::error(path, "commit", source))
    }

    fn error(path: &Path, operation: &'static str, source: rusqlite::Error) -> StoreError {
        failed(operation, InFile { path: path.to_owned(), source })
    }
}

pub(crate) fn failed(operation: &'static str, source: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Database { operation, source: Box::new(source) }
}
