//! The keys that a subscriber has to look at again.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::object::Key;

/// A subscription: a set of keys in the order of their first marking. A key that changes ten times before it is taken is
/// there once. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Dirty {
    set: Arc<DirtySet>,
}

#[derive(Debug, Default)]
pub(super) struct DirtySet {
    keys: Mutex<Keys>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Keys {
    order: VecDeque<Key>,
    marked: HashSet<Key>,
}

impl DirtySet {
    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn mark(&self, key: &Key) {
        let mut keys = self.keys();
        if keys.marked.insert(key.clone()) {
            keys.order.push_back(key.clone());
            drop(keys);
            self.wake.notify_one();
        }
    }
}

impl Dirty {
    pub(super) fn new(set: Arc<DirtySet>) -> Self {
        Self { set }
    }

    /// The key that has been dirty for longest; waits for one. Cancel safe.
    pub async fn next(&mut self) -> Key {
        loop {
            if let Some(key) = self.try_next() {
                return key;
            }
            self.set.wake.notified().await;
        }
    }

    /// The key that has been dirty for longest, if any is.
    pub fn try_next(&mut self) -> Option<Key> {
        let mut keys = self.set.keys();
        let key = keys.order.pop_front()?;
        keys.marked.remove(&key);
        Some(key)
    }

    /// All dirty keys, at least one; waits for it. Cancel safe.
    pub async fn batch(&mut self) -> Vec<Key> {
        let first = self.next().await;
        std::iter::once(first).chain(std::iter::from_fn(|| self.try_next())).collect()
    }
}
