//! Which events are repeats of earlier ones, and which are too many.
//!
//! After `k8s.io/client-go/tools/record/events_cache.go`: a token bucket per source and object (25 at once, one more in
//! five minutes), then aggregation of more than ten similar events with different messages within ten minutes, then
//! counting of equal ones.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use serde_json::json;

use crate::options::Patch;

/// Entries of each memory; a quarter of client-go's `maxLruCacheEntries`, since ours serve one small node.
const REMEMBERED: usize = 1024;
const SIMILAR_AT_MOST: usize = 10;
const SIMILAR_WITHIN: Duration = Duration::from_secs(600);
const BURST: f64 = 25.0;
const REFILL_PER_SECOND: f64 = 1.0 / 300.0;

/// What to send.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    /// The event as it shall be; its name is the earlier event's if it repeats one.
    pub(super) event: Event,
    /// How to change the earlier event.
    pub(super) patch: Option<Patch>,
    key: EqualKey,
}

/// Remembers what has been sent.
#[derive(Debug, Default)]
pub(super) struct Correlator {
    buckets: Recent<Vec<String>, Bucket>,
    similar: Recent<Vec<String>, Similar>,
    sent: Recent<EqualKey, Sent>,
}

type EqualKey = Vec<String>;

#[derive(Debug, Clone)]
struct Bucket {
    tokens: f64,
    filled: Timestamp,
}

#[derive(Debug, Clone)]
struct Similar {
    messages: HashSet<String>,
    last: Timestamp,
}

#[derive(Debug, Clone)]
struct Sent {
    name: String,
    count: i32,
    first: Option<Timestamp>,
}

impl Correlator {
    /// Decides what to send for an event, if anything.
    pub(super) fn correlate(&mut self, event: Event, now: Timestamp) -> Option<Delivery> {
        if !self.admit(&event, now) {
            return None;
        }
        let (event, key) = self.aggregate(event, now);
        Some(self.count(event, key))
    }

    /// Takes in what the server keeps.
    pub(super) fn stored(&mut self, delivery: &Delivery, stored: &Event) {
        let sent = Sent {
            name: stored.metadata.name.clone().unwrap_or_default(),
            count: stored.count.unwrap_or(1),
            first: stored.first_timestamp.as_ref().map(|time| time.0),
        };
        self.sent.put(delivery.key.clone(), sent);
    }

    fn admit(&mut self, event: &Event, now: Timestamp) -> bool {
        let key = subject_key(event);
        let mut bucket = self.buckets.get(&key).unwrap_or(Bucket { tokens: BURST, filled: now });
        let elapsed = now.duration_since(bucket.filled).as_secs_f64().max(0.0);
        bucket.tokens = (bucket.tokens + elapsed * REFILL_PER_SECOND).min(BURST);
        bucket.filled = now;
        let admitted = bucket.tokens >= 1.0;
        if admitted {
            bucket.tokens -= 1.0;
        }
        self.buckets.put(key, bucket);
        admitted
    }

    fn aggregate(&mut self, mut event: Event, now: Timestamp) -> (Event, EqualKey) {
        let equal = equal_key(&event);
        let aggregate = similar_key(&event);
        let message = event.message.clone().unwrap_or_default();
        let mut similar = self
            .similar
            .get(&aggregate)
            .filter(|similar| now.duration_since(similar.last).unsigned_abs() <= SIMILAR_WITHIN)
            .unwrap_or_else(|| Similar { messages: HashSet::new(), last: now });
        similar.messages.insert(message.clone());
        similar.last = now;
        let many = similar.messages.len() >= SIMILAR_AT_MOST;
        if many && let Some(other) = similar.messages.iter().find(|other| **other != message).cloned() {
            similar.messages.remove(&other);
        }
        self.similar.put(aggregate.clone(), similar);
        if !many {
            return (event, equal);
        }
        event.message = Some(format!("(combined from similar events): {message}"));
        (event, aggregate)
    }

    fn count(&mut self, mut event: Event, key: EqualKey) -> Delivery {
        let Some(sent) = self.sent.get(&key) else {
            // Repeats that come before the server has answered count as well.
            let first = event.first_timestamp.as_ref().map(|time| time.0);
            let name = event.metadata.name.clone().unwrap_or_default();
            self.sent.put(key.clone(), Sent { name, count: 1, first });
            return Delivery { event, patch: None, key };
        };
        let count = sent.count.saturating_add(1);
        event.metadata.name = Some(sent.name.clone());
        event.count = Some(count);
        if let Some(first) = sent.first {
            event.first_timestamp = Some(first.into());
        }
        let patch = json!({"count": count, "lastTimestamp": event.last_timestamp, "message": event.message});
        self.sent.put(key.clone(), Sent { count, ..sent });
        Delivery { event, patch: Some(Patch::Strategic(patch)), key }
    }
}

fn words(words: &[Option<&str>]) -> Vec<String> {
    words.iter().map(|word| word.unwrap_or_default().to_owned()).collect()
}

/// Source and object: the key of the token buckets.
fn subject_key(event: &Event) -> Vec<String> {
    let object = &event.involved_object;
    let source = event.source.as_ref();
    words(&[
        source.and_then(|source| source.component.as_deref()),
        source.and_then(|source| source.host.as_deref()),
        object.kind.as_deref(),
        object.namespace.as_deref(),
        object.name.as_deref(),
        object.uid.as_deref(),
        object.api_version.as_deref(),
    ])
}

/// Everything but the message.
fn similar_key(event: &Event) -> Vec<String> {
    let mut key = subject_key(event);
    key.extend(words(&[
        event.type_.as_deref(),
        event.reason.as_deref(),
        event.reporting_component.as_deref(),
        event.reporting_instance.as_deref(),
    ]));
    key
}

/// Everything that makes two events the same.
fn equal_key(event: &Event) -> EqualKey {
    let mut key = similar_key(event);
    key.extend(words(&[event.involved_object.field_path.as_deref(), event.message.as_deref()]));
    key
}

/// A map that forgets what has not been written for longest.
#[derive(Debug)]
struct Recent<K, V> {
    entries: HashMap<K, (u64, V)>,
    order: VecDeque<(u64, K)>,
    count: u64,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), count: 0 }
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Recent<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        self.entries.get(key).map(|(_, value)| value.clone())
    }

    fn put(&mut self, key: K, value: V) {
        self.count += 1;
        self.order.push_back((self.count, key.clone()));
        self.entries.insert(key, (self.count, value));
        while self.entries.len() > REMEMBERED || self.order.len() > 2 * REMEMBERED {
            let Some((count, key)) = self.order.pop_front() else { return };
            if self.entries.get(&key).is_some_and(|(current, _)| *current == count) {
                self.entries.remove(&key);
            }
        }
    }
}
