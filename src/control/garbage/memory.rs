//! A set that forgets what was put in first.

use std::borrow::Borrow;
use std::collections::{HashSet, VecDeque};
use std::hash::Hash;

/// At most so many values; beyond, the oldest make room.
#[derive(Debug)]
pub(super) struct Recent<T> {
    values: HashSet<T>,
    order: VecDeque<T>,
    limit: usize,
}

impl<T: Clone + Eq + Hash> Recent<T> {
    pub(super) fn new(limit: usize) -> Self {
        Self { values: HashSet::new(), order: VecDeque::new(), limit }
    }

    pub(super) fn insert(&mut self, value: T) {
        if !self.values.insert(value.clone()) {
            return;
        }
        self.order.push_back(value);
        if self.order.len() > self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.values.remove(&oldest);
        }
    }

    pub(super) fn contains<Q: Eq + Hash + ?Sized>(&self, value: &Q) -> bool
    where
        T: Borrow<Q>,
    {
        self.values.contains(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room() {
        let mut recent = Recent::new(2);
        for value in [1, 2, 2, 3] {
            recent.insert(value);
        }
        assert!(!recent.contains(&1) && recent.contains(&2) && recent.contains(&3));
    }
}
