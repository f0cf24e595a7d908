//! Counting what is held, by who holds it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// How much of something each holder has.
#[derive(Debug)]
pub(crate) struct Tally<K> {
    held: Mutex<HashMap<K, u32>>,
}

/// Some that are counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Counted<K: Hash + Eq + Clone> {
    tally: Arc<Tally<K>>,
    holder: K,
    amount: u32,
}

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self { held: Mutex::new(HashMap::new()) }
    }
}

impl<K: Hash + Eq + Clone> Tally<K> {
    /// Counts one more of a holder, unless it has its share.
    pub(crate) fn count(self: &Arc<Self>, holder: K, limit: u32) -> Option<Counted<K>> {
        self.add(holder, 1, limit)
    }

    /// Counts so many more of a holder, unless that is more than its share.
    pub(crate) fn add(self: &Arc<Self>, holder: K, amount: u32, limit: u32) -> Option<Counted<K>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.get(&holder).copied().unwrap_or_default();
        let count = count.checked_add(amount).filter(|count| *count <= limit)?;
        held.insert(holder.clone(), count);
        drop(held);
        Some(Counted { tally: Arc::clone(self), holder, amount })
    }
}

impl<K: Hash + Eq + Clone> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut held = self.tally.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = held.entry(self.holder.clone()) {
            *count.get_mut() -= self.amount;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}
