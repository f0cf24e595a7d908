//! The one thread that changes the database: evaluates, commits in groups, then makes visible.
//!
//! ```text
//! caller ── Write ──► queue ──► evaluate all that queued ──► commit the durable ones ──► apply to memory ──► replies
//!                                                            (write-behind ones wait in `behind` for a flush)
//! ```

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use task::SharedClock;
use tokio::sync::{mpsc, oneshot};

use crate::core::{Core, Request, Stored, Write};
use crate::database::{Database, Row, failed};
use crate::{Durability, Key, Revision, Shared, StoreError};

/// Writes that share one transaction at most.
const GROUP: usize = 256;
/// Revisions that are reserved on disk at once. After a crash the next revision lies behind the reserved block.
const BLOCK: u64 = 1 << 16;

pub(crate) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the writer is asked to do.
pub(crate) enum Job {
    Write { request: Request, durability: Durability, reply: Reply<Revision> },
    Save { to: PathBuf, reply: Reply<Revision> },
    Restore { objects: BTreeMap<Key, Stored>, reply: Reply<Revision> },
    Close { reply: Reply<()> },
}

pub(crate) struct Writer {
    database: Database,
    core: Arc<Shared<Core>>,
    clock: SharedClock,
    flush_after: Duration,
    /// Revisions up to this one count as issued on disk.
    reserved: u64,
    /// The newest revision that has been given to a write.
    issued: u64,
    /// What is in memory but not on disk yet.
    behind: HashMap<Key, Behind>,
    flushed_at: Timestamp,
}

/// A key whose present state the disk does not have.
struct Behind {
    /// The row that the disk has of it.
    on_disk: Option<Revision>,
    stored: Option<Stored>,
}

/// A group of writes on its way.
#[derive(Default)]
struct Group {
    writes: Vec<(Write, Durability)>,
    pending: HashMap<Key, Option<Stored>>,
    replies: Vec<(Reply<Revision>, Revision)>,
}

impl Writer {
    pub(crate) fn new(
        database: Database,
        core: Arc<Shared<Core>>,
        clock: SharedClock,
        flush_after: Duration,
        reserved: u64,
    ) -> Self {
        let flushed_at = clock.now();
        Self { database, core, clock, flush_after, reserved, issued: reserved, behind: HashMap::new(), flushed_at }
    }

    /// Works until the store is closed or dropped; what is behind reaches the disk in both cases.
    pub(crate) fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut closing = None;
        while closing.is_none() {
            let Some(first) = queue.blocking_recv() else { break };
            let mut group = Group::default();
            let mut next = Some(first);
            while let Some(job) = next {
                match job {
                    Job::Write { request, durability, reply } => self.admit(&mut group, request, durability, reply),
                    // These stand between the writes before and after them.
                    job => {
                        self.finish(std::mem::take(&mut group));
                        closing = self.other(job);
                    }
                }
                if closing.is_some() {
                    break;
                }
                next = if group.replies.len() < GROUP { queue.try_recv().ok() } else { None };
            }
            self.finish(group);
        }
        queue.close();
        let flushed = self.flush();
        self.core.lock().close();
        // Whoever waits for the end may open the file again at once.
        drop(self.database);
        match (closing, flushed) {
            (Some(reply), flushed) => drop(reply.send(flushed)),
            (None, Err(error)) => tracing::error!(?error, "changes written behind are lost"),
            (None, Ok(())) => {}
        }
    }

    /// What is no write; the reply to a wish to close.
    fn other(&mut self, job: Job) -> Option<Reply<()>> {
        match job {
            Job::Save { to, reply } => {
                let saved = self.flush().and_then(|()| self.database.save(&to)).map(|()| self.core.lock().newest());
                drop(reply.send(saved));
            }
            Job::Restore { objects, reply } => drop(reply.send(self.restore(objects))),
            Job::Close { reply } => return Some(reply),
            Job::Write { .. } => unreachable!("writes are grouped"),
        }
        None
    }

    /// One transaction, then one batch of changes.
    fn restore(&mut self, objects: BTreeMap<Key, Stored>) -> Result<Revision, StoreError> {
        let mut changes: Vec<(Key, Option<Bytes>)> = Vec::new();
        {
            let core = self.core.lock();
            let gone = core.below("").filter(|(key, _)| !objects.contains_key(key)).map(|(key, _)| (key.clone(), None));
            changes.extend(gone);
            let differs = |key: &Key, stored: &Stored| core.get(key).is_none_or(|entry| entry.value != stored.value);
            let new = objects.iter().filter(|(key, stored)| differs(key, stored));
            changes.extend(new.map(|(key, stored)| (key.clone(), Some(stored.value.clone()))));
        }
        let mut group = Group::default();
        for (key, after) in changes {
            self.issued += 1;
            let revision = Revision(self.issued);
            group.pending.insert(key.clone(), after.clone().map(|value| Stored { revision, value }));
            group.writes.push((Write { key, revision, after }, Durability::Durable));
        }
        if !group.writes.is_empty() {
            self.persist(&group)?;
            self.core.lock().apply(group.writes.into_iter().map(|(write, _)| write), self.clock.now());
        }
        Ok(self.core.lock().newest())
    }

    fn admit(&mut self, group: &mut Group, request: Request, durability: Durability, reply: Reply<Revision>) {
        let revision = Revision(self.issued + 1);
        let evaluated = self.core.lock().evaluate(&group.pending, request, revision);
        match evaluated {
            Ok(write) => {
                self.issued = revision.0;
                let stored = write.after.clone().map(|value| Stored { revision, value });
                group.pending.insert(write.key.clone(), stored);
                group.writes.push((write, durability));
                group.replies.push((reply, revision));
            }
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    fn finish(&mut self, group: Group) {
        if group.writes.is_empty() {
            return;
        }
        if let Err(error) = self.persist(&group) {
            let shared = Arc::new(error);
            for (reply, _) in group.replies {
                drop(reply.send(Err(failed("commit", Common(shared.clone())))));
            }
            return;
        }
        self.core.lock().apply(group.writes.into_iter().map(|(write, _)| write), self.clock.now());
        for (reply, revision) in group.replies {
            drop(reply.send(Ok(revision)));
        }
        self.flush_when_due();
    }

    /// Commits the durable writes; a key that any of the group's writes made durable is no longer behind.
    fn persist(&mut self, group: &Group) -> Result<(), StoreError> {
        let durable: HashSet<&Key> =
            group.writes.iter().filter(|(_, how)| *how == Durability::Durable).map(|(write, _)| &write.key).collect();
        let (now, later): (Vec<_>, Vec<_>) = group.pending.iter().partition(|(key, _)| durable.contains(key));
        let reserve = (self.issued > self.reserved).then(|| self.issued + BLOCK);
        if !now.is_empty() || reserve.is_some() {
            let rows: Vec<Row<'_>> = {
                let core = self.core.lock();
                now.iter().map(|(key, stored)| row(key, on_disk(&self.behind, &core, key), stored.as_ref())).collect()
            };
            self.database.commit(rows, reserve)?;
            self.reserved = reserve.unwrap_or(self.reserved);
        }
        for (key, _) in now {
            self.behind.remove(key);
        }
        let core = self.core.lock();
        for (key, stored) in later {
            let on_disk = on_disk(&self.behind, &core, key);
            self.behind.insert(key.clone(), Behind { on_disk, stored: stored.clone() });
        }
        Ok(())
    }

    fn flush_when_due(&mut self) {
        let now = self.clock.now();
        let age = now.duration_since(self.flushed_at);
        if age.unsigned_abs() < self.flush_after {
            return;
        }
        self.flushed_at = now;
        if let Err(error) = self.flush() {
            tracing::error!(?error, "changes written behind could not be written");
        }
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        if self.behind.is_empty() {
            return Ok(());
        }
        let rows = self.behind.iter().map(|(key, behind)| row(key, behind.on_disk, behind.stored.as_ref()));
        self.database.commit(rows, None)?;
        self.behind.clear();
        Ok(())
    }
}

/// The revision of the row that the disk has of a key. Without changes behind it, that is the present one: no write of the
/// group on its way has been applied.
fn on_disk(behind: &HashMap<Key, Behind>, core: &Core, key: &Key) -> Option<Revision> {
    match behind.get(key) {
        Some(behind) => behind.on_disk,
        None => core.revision_of(key),
    }
}

fn row<'a>(key: &'a Key, on_disk: Option<Revision>, stored: Option<&'a Stored>) -> Row<'a> {
    Row { key, on_disk, after: stored.map(|stored| (stored.revision, &stored.value)) }
}

/// An error that several writers share.
#[derive(Debug, thiserror::Error)]
#[error("the group of writes failed")]
struct Common(#[source] Arc<StoreError>);
