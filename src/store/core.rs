//! What both stores have in common: the objects of now, the history behind them, and the rules of a write.
//!
//! Pure and synchronous: no disk, no waiting. A write is first evaluated ([`Core::evaluate`]) against the present and
//! the writes that are about to happen, then made durable by whoever owns the core, then applied ([`Core::apply`]),
//! and only then visible.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::{Change, Entry, Expect, Key, Page, Range, Revision, StoreError};

/// How much history is kept for watches that resume and for listings that continue.
#[derive(Debug, Clone, Copy)]
pub struct HistoryLimits {
    /// Sum of the values, in bytes.
    pub bytes: usize,
    /// Age of a change.
    pub age: Duration,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        Self { bytes: 16 << 20, age: Duration::from_secs(600) }
    }
}

/// A stored value with its revision.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) revision: Revision,
    pub(crate) value: Bytes,
}

/// What a caller wants to happen.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    Put { key: Key, value: Bytes, expect: Expect },
    Delete { key: Key, expect: Revision },
}

/// A write that will happen: evaluated, with its revision.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub(crate) key: Key,
    pub(crate) revision: Revision,
    pub(crate) after: Option<Bytes>,
}

/// A change in history; `before` carries its revision so that the past can be listed.
#[derive(Debug)]
struct Past {
    at: Timestamp,
    key: Key,
    revision: Revision,
    before: Option<Stored>,
    after: Option<Bytes>,
}

impl Past {
    fn bytes(&self) -> usize {
        let before = self.before.as_ref().map_or(0, |stored| stored.value.len());
        before + self.after.as_ref().map_or(0, Bytes::len) + self.key.0.len() + size_of::<Self>()
    }

    fn change(&self) -> Change {
        Change {
            key: self.key.clone(),
            revision: self.revision,
            before: self.before.as_ref().map(|stored| stored.value.clone()),
            after: self.after.clone(),
        }
    }
}

/// The objects, their history, and who waits for changes.
#[derive(Debug)]
pub(crate) struct Core {
    objects: BTreeMap<Key, Stored>,
    history: VecDeque<Past>,
    history_bytes: usize,
    limits: HistoryLimits,
    /// Changes up to this revision are no longer in history.
    forgotten: Revision,
    newest: Revision,
    waiting: HashMap<String, watch::Sender<()>>,
}

impl Core {
    /// A core with these objects, whose next revision is greater than `newest`.
    pub(crate) fn new(objects: BTreeMap<Key, Stored>, newest: Revision, limits: HistoryLimits) -> Self {
        let (history, waiting) = (VecDeque::new(), HashMap::new());
        Self { objects, history, history_bytes: 0, limits, forgotten: newest, newest, waiting }
    }

    pub(crate) fn newest(&self) -> Revision {
        self.newest
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Entry> {
        self.objects.get(key).map(|stored| entry(key, stored))
    }

    /// The revision at which a key is.
    pub(crate) fn revision_of(&self, key: &Key) -> Option<Revision> {
        self.objects.get(key).map(|stored| stored.revision)
    }

    /// Checks the request against the present plus `pending`, the writes that will be applied before it.
    pub(crate) fn evaluate(
        &self,
        pending: &HashMap<Key, Option<Stored>>,
        request: Request,
        revision: Revision,
    ) -> Result<Write, StoreError> {
        let current = |key: &Key| match pending.get(key) {
            Some(stored) => stored.clone(),
            None => self.objects.get(key).cloned(),
        };
        match request {
            Request::Put { key, value, expect } => {
                let present = current(&key);
                match (expect, &present) {
                    (Expect::Absent, None) => {}
                    (Expect::Absent, Some(_)) => return Err(StoreError::Exists { key }),
                    (Expect::At(revision), Some(stored)) if stored.revision == revision => {}
                    (Expect::At(_), _) => return Err(conflict(key, present.as_ref())),
                }
                Ok(Write { key, revision, after: Some(value) })
            }
            Request::Delete { key, expect } => {
                let present = current(&key);
                if present.as_ref().is_none_or(|stored| stored.revision != expect) {
                    return Err(conflict(key, present.as_ref()));
                }
                Ok(Write { key, revision, after: None })
            }
        }
    }

    /// Makes writes visible, in order, and wakes who waits for them.
    pub(crate) fn apply(&mut self, writes: impl IntoIterator<Item = Write>, now: Timestamp) {
        for Write { key, revision, after } in writes {
            let before = match &after {
                Some(value) => self.objects.insert(key.clone(), Stored { revision, value: value.clone() }),
                None => self.objects.remove(&key),
            };
            self.newest = revision;
            for bucket in [bucket_of(&key.0), ""] {
                if let Some(sender) = self.waiting.get(bucket) {
                    sender.send_replace(());
                }
            }
            let past = Past { at: now, key, revision, before, after };
            self.history_bytes += past.bytes();
            self.history.push_back(past);
        }
        self.forget(now);
    }

    fn forget(&mut self, now: Timestamp) {
        let oldest = now.saturating_sub(jiff::SignedDuration::try_from(self.limits.age).unwrap_or_default());
        let oldest = oldest.unwrap_or(Timestamp::MIN);
        while let Some(first) = self.history.front() {
            if self.history_bytes <= self.limits.bytes && first.at >= oldest {
                break;
            }
            self.history_bytes -= first.bytes();
            self.forgotten = first.revision;
            self.history.pop_front();
        }
    }

    pub(crate) fn list(&self, range: &Range) -> Result<Page, StoreError> {
        let Some(at) = range.at.filter(|at| *at != self.newest) else {
            let objects = self.below(&range.prefix);
            return Ok(page(objects, range, self.newest));
        };
        self.check(at)?;
        let mut objects: BTreeMap<&Key, &Stored> = self.below(&range.prefix).collect();
        let undone = self.history.iter().rev().take_while(|past| past.revision > at);
        for past in undone.filter(|past| past.key.0.starts_with(&range.prefix)) {
            match &past.before {
                Some(stored) => objects.insert(&past.key, stored),
                None => objects.remove(&past.key),
            };
        }
        Ok(page(objects.into_iter(), range, at))
    }

    /// Objects below a prefix, in key order.
    pub(crate) fn below<'a>(&'a self, prefix: &str) -> impl Iterator<Item = (&'a Key, &'a Stored)> + use<'a> {
        let prefix = prefix.to_owned();
        let start = Bound::Included(Key(prefix.clone()));
        self.objects.range((start, Bound::Unbounded)).take_while(move |(key, _)| key.0.starts_with(&prefix))
    }

    /// Whether changes after `revision` are all known.
    pub(crate) fn check(&self, revision: Revision) -> Result<(), StoreError> {
        if revision > self.newest {
            return Err(StoreError::Future { asked: revision, newest: self.newest });
        }
        if revision < self.forgotten {
            return Err(StoreError::Compacted { asked: revision, oldest: self.forgotten });
        }
        Ok(())
    }

    /// The first change below `prefix` after `after`.
    pub(crate) fn next_change(&self, prefix: &str, after: Revision) -> Option<Change> {
        let start = self.history.partition_point(|past| past.revision <= after);
        self.history.range(start..).find(|past| past.key.0.starts_with(prefix)).map(Past::change)
    }

    /// Notices of changes that may concern `prefix`.
    pub(crate) fn wait_for(&mut self, prefix: &str) -> watch::Receiver<()> {
        let bucket = bucket_of(prefix);
        self.waiting.retain(|_, sender| sender.receiver_count() > 0);
        self.waiting.entry(bucket.to_owned()).or_insert_with(|| watch::channel(()).0).subscribe()
    }

    /// Ends all watches.
    pub(crate) fn close(&mut self) {
        self.waiting.clear();
    }
}

/// `<group>/<resource>` of a key or a prefix that has both; empty for a shorter prefix.
fn bucket_of(key: &str) -> &str {
    let mut slashes = key.match_indices('/').map(|(index, _)| index);
    slashes.nth(1).map_or("", |second| &key[..second])
}

fn entry(key: &Key, stored: &Stored) -> Entry {
    Entry { key: key.clone(), revision: stored.revision, value: stored.value.clone() }
}

fn conflict(key: Key, present: Option<&Stored>) -> StoreError {
    let current = present.map(|stored| entry(&key, stored));
    StoreError::Conflict { key, current }
}

fn page<'a>(objects: impl Iterator<Item = (&'a Key, &'a Stored)>, range: &Range, revision: Revision) -> Page {
    let mut rest = objects.filter(|(key, _)| range.after.as_ref().is_none_or(|after| *key > after));
    let limit = range.limit.unwrap_or(usize::MAX);
    let entries: Vec<Entry> = rest.by_ref().take(limit).map(|(key, stored)| entry(key, stored)).collect();
    let remaining = if range.limit.is_some() { rest.count() } else { 0 };
    Page { entries, revision, remaining }
}
