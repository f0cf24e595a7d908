//! The queue: ready keys, delayed keys, keys being worked on, and how often each has failed.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// How long a key rests after failures: `first`, doubled with each, up to `longest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure.
    pub first: Duration,
    /// At most.
    pub longest: Duration,
}

impl Default for Backoff {
    /// 5 ms to 1000 s, as client-go's `DefaultTypedControllerRateLimiter`.
    fn default() -> Self {
        Self { first: Duration::from_millis(5), longest: Duration::from_secs(1000) }
    }
}

impl Backoff {
    fn after(&self, failures: u32) -> Duration {
        self.first.saturating_mul(1 << failures.saturating_sub(1).min(30)).min(self.longest)
    }
}

/// A queue of distinct keys; clones share it.
#[derive(Debug)]
pub struct Queue<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

#[derive(Debug)]
struct Shared<T> {
    backoff: Backoff,
    inner: Mutex<Inner<T>>,
    wake: Notify,
}

#[derive(Debug)]
struct Inner<T> {
    /// Keys to be worked on, in order; each is in `queued` too.
    ready: VecDeque<T>,
    queued: HashSet<T>,
    /// Keys being worked on; true if marked meanwhile.
    working: HashMap<T, bool>,
    /// Keys that become ready later, by moment and a number that keeps equal moments apart.
    delayed: BTreeMap<(Instant, u64), T>,
    due: HashMap<T, (Instant, u64)>,
    failures: HashMap<T, u32>,
    count: u64,
}

impl<T: Clone + Eq + Hash> Inner<T> {
    fn add(&mut self, key: T) {
        if let Some(slot) = self.due.remove(&key) {
            self.delayed.remove(&slot);
        }
        if let Some(again) = self.working.get_mut(&key) {
            *again = true;
        } else if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    /// The earlier of two delays of the same key holds.
    fn add_at(&mut self, key: T, moment: Instant) {
        if let Some(slot) = self.due.get(&key) {
            if slot.0 <= moment {
                return;
            }
            self.delayed.remove(slot);
        }
        self.count += 1;
        let slot = (moment, self.count);
        self.due.insert(key.clone(), slot);
        self.delayed.insert(slot, key);
    }

    /// Makes due keys ready and says when the next one will be.
    fn ripen(&mut self, now: Instant) -> Option<Instant> {
        while let Some((&slot, _)) = self.delayed.first_key_value() {
            if slot.0 > now {
                return Some(slot.0);
            }
            if let Some(key) = self.delayed.remove(&slot) {
                self.due.remove(&key);
                self.add(key);
            }
        }
        None
    }

    fn take(&mut self) -> Option<T> {
        let key = self.ready.pop_front()?;
        self.queued.remove(&key);
        self.working.insert(key.clone(), false);
        Some(key)
    }
}

impl<T: Clone + Eq + Hash> Default for Queue<T> {
    fn default() -> Self {
        Self::new(Backoff::default())
    }
}

impl<T: Clone + Eq + Hash> Queue<T> {
    /// An empty queue.
    pub fn new(backoff: Backoff) -> Self {
        let inner = Inner {
            ready: VecDeque::new(),
            queued: HashSet::new(),
            working: HashMap::new(),
            delayed: BTreeMap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            count: 0,
        };
        Self { shared: Arc::new(Shared { backoff, inner: Mutex::new(inner), wake: Notify::new() }) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner<T>> {
        self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a key, unless it is queued already; one that was to come later comes now.
    pub fn add(&self, key: T) {
        self.inner().add(key);
        self.shared.wake.notify_one();
    }

    /// Queues a key after some time.
    pub fn add_after(&self, key: T, delay: Duration) {
        self.inner().add_at(key, Instant::now() + delay);
        self.shared.wake.notify_one();
    }

    /// Queues a key after its back-off, which grows with each call until [`Queue::forget`]; returns the back-off.
    pub fn retry(&self, key: T) -> Duration {
        let mut inner = self.inner();
        let failures = inner.failures.entry(key.clone()).or_insert(0);
        *failures = failures.saturating_add(1);
        let delay = self.shared.backoff.after(*failures);
        inner.add_at(key, Instant::now() + delay);
        drop(inner);
        self.shared.wake.notify_one();
        delay
    }

    /// Forgets the failures of a key.
    pub fn forget(&self, key: &T) {
        self.inner().failures.remove(key);
    }

    /// The next key to work on; call [`Queue::done`] with it afterwards. Waits for one. Cancel safe.
    pub async fn next(&self) -> T {
        loop {
            let next = {
                let mut inner = self.inner();
                let next = inner.ripen(Instant::now());
                if let Some(key) = inner.take() {
                    let more = !inner.ready.is_empty() || next.is_some();
                    drop(inner);
                    if more {
                        self.shared.wake.notify_one();
                    }
                    return key;
                }
                next
            };
            let woken = self.shared.wake.notified();
            match next {
                Some(moment) => {
                    let _ = tokio::time::timeout_at(moment, woken).await;
                }
                None => woken.await,
            }
        }
    }

    /// Ends the work on a key; if it was added meanwhile, it is queued again.
    pub fn done(&self, key: &T) {
        let mut inner = self.inner();
        if inner.working.remove(key) == Some(true) {
            inner.add(key.clone());
            drop(inner);
            self.shared.wake.notify_one();
        }
    }

    /// How many keys are ready, delayed or being worked on.
    pub fn len(&self) -> usize {
        let inner = self.inner();
        inner.ready.len() + inner.delayed.len() + inner.working.len()
    }

    /// Whether there is nothing to do, now or later.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
