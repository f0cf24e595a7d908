//! Answers of others, kept for as long as they may be.
//!
//! Times are given by the caller. Kept are messages as bytes, so that what they cost is known; the least recently used go
//! when there are too many bytes. Invariant: nothing is given after its time, with a TTL that has not shrunk by its age,
//! or to somebody who asked otherwise.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::time::Instant;

use crate::message::Flags;

/// Bytes of all answers together.
const CAPACITY: usize = 2 << 20;
/// What an entry costs beside its bytes and its name's, about.
const OVERHEAD: usize = 300;
/// Longest time that anything is kept: whoever has made a mistake in a TTL is heard again after it.
const LONGEST: u32 = 3600;
/// Longest time that it is kept that there is nothing, as in the configuration that kubeadm gives CoreDNS.
const LONGEST_NOTHING: u32 = 30;

/// What was asked. The name is in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) name: Name,
    pub(crate) kind: RecordType,
    pub(crate) flags: Flags,
}

/// The kept answers.
#[derive(Debug)]
pub(crate) struct Cache {
    entries: HashMap<Key, Entry>,
    /// By the moment of their last use.
    order: BTreeMap<u64, Key>,
    uses: u64,
    bytes: usize,
    capacity: usize,
}

#[derive(Debug)]
struct Entry {
    message: Box<[u8]>,
    since: Instant,
    until: Instant,
    used: u64,
}

impl Default for Cache {
    fn default() -> Self {
        Self::with_capacity(CAPACITY)
    }
}

impl Cache {
    fn with_capacity(capacity: usize) -> Self {
        Self { entries: HashMap::new(), order: BTreeMap::new(), uses: 0, bytes: 0, capacity }
    }

    /// A kept answer with the TTLs that it has now.
    pub(crate) fn get(&mut self, key: &Key, now: Instant) -> Option<Message> {
        let entry = self.entries.get_mut(key)?;
        if now >= entry.until {
            self.remove(key);
            return None;
        }
        self.uses += 1;
        if let Some(key) = self.order.remove(&entry.used) {
            self.order.insert(self.uses, key);
        }
        entry.used = self.uses;
        let age = u32::try_from((now - entry.since).as_secs()).unwrap_or(u32::MAX);
        let mut message = Message::from_vec(&entry.message).ok()?;
        records(&mut message).for_each(|record| record.ttl = record.ttl.saturating_sub(age));
        Some(message)
    }

    /// Keeps an answer, if it may be kept and is not too large.
    pub(crate) fn put(&mut self, key: Key, message: &Message, now: Instant) {
        self.remove(&key);
        let Some(lifetime) = lifetime(message, key.kind) else { return };
        let Ok(bytes) = message.to_vec() else { return };
        let cost = cost(&key, bytes.len());
        if cost > self.capacity / 8 {
            return;
        }
        self.bytes += cost;
        self.uses += 1;
        self.order.insert(self.uses, key.clone());
        let entry = Entry { message: bytes.into(), since: now, until: now + lifetime, used: self.uses };
        self.entries.insert(key, entry);
        while self.bytes > self.capacity {
            let Some((_, oldest)) = self.order.first_key_value() else { return };
            let oldest = oldest.clone();
            self.remove(&oldest);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::with_capacity(self.capacity);
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.used);
            self.bytes -= cost(key, entry.message.len());
        }
    }
}

fn cost(key: &Key, bytes: usize) -> usize {
    // The key is kept twice.
    OVERHEAD + bytes + 2 * key.name.len()
}

fn records(message: &mut Message) -> impl Iterator<Item = &mut Record> {
    message.answers.iter_mut().chain(&mut message.authorities).chain(&mut message.additionals)
}

/// How long an answer may be kept: RFC 1035 §3.2.1 for what there is, RFC 2308 §5 for what there is not. Failures and
/// what was cut are not kept.
fn lifetime(message: &Message, asked: RecordType) -> Option<Duration> {
    let metadata = &message.metadata;
    if metadata.truncation || !matches!(metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain) {
        return None;
    }
    let is_asked = |record: &Record| asked == RecordType::ANY || record.record_type() == asked;
    let is_there = metadata.response_code == ResponseCode::NoError && message.answers.iter().any(is_asked);
    // RFC 2181 §8: one with the highest bit is none.
    let sensible = |ttl: u32| if ttl > i32::MAX.unsigned_abs() { 0 } else { ttl };
    let shortest = message.answers.iter().chain(&message.authorities).map(|record| sensible(record.ttl)).min();
    let seconds = if is_there {
        shortest?.min(LONGEST)
    } else {
        let said = message.authorities.iter().find_map(|record| match &record.data {
            RData::SOA(soa) => Some(sensible(soa.minimum)),
            _ => None,
        });
        shortest?.min(said?).min(LONGEST_NOTHING)
    };
    (seconds > 0).then(|| Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests;
