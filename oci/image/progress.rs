//! How far a pull is.
//!
//! Made by whoever asks for a pull and read by them at any time; written by the pull. A layer that several pulls wait for
//! has one counter that all of them see. Invariant: what is done never exceeds the total, which counts the layers to be
//! fetched only, each as long as its manifest says.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How far a pull is. Clones show the same pull.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Mutex<Parts>>);

#[derive(Debug, Default)]
struct Parts {
    registry: String,
    /// Size and counter of each layer.
    parts: BTreeMap<String, Part>,
}

type Part = (u64, Arc<AtomicU64>);

/// How far a pull was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Where it comes from.
    pub registry: String,
    /// Bytes that have come.
    pub done: u64,
    /// Bytes that there are to fetch.
    pub total: u64,
}

impl Progress {
    /// A pull from `registry` begins, or begins anew.
    pub fn begin(&self, registry: &str) {
        *self.parts() = Parts { registry: registry.to_owned(), parts: BTreeMap::new() };
    }

    /// A part of so many bytes is fetched, which the counter will count; one of that name is forgotten.
    pub fn part(&self, name: &str, size: u64, counter: Arc<AtomicU64>) {
        self.parts().parts.insert(name.to_owned(), (size, counter));
    }

    /// How far it is; none before it is known what there is to fetch.
    pub fn fetched(&self) -> Option<Fetched> {
        let parts = self.parts();
        let sum = |add: &dyn Fn(&Part) -> u64| parts.parts.values().map(add).fold(0, u64::saturating_add);
        let total = sum(&|(size, _)| *size);
        let done = sum(&|(size, counter)| counter.load(Ordering::Relaxed).min(*size));
        (total > 0).then(|| Fetched { registry: parts.registry.clone(), done, total })
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_is_the_sum_of_the_parts_and_never_more_than_there_is() {
        let progress = Progress::default();
        progress.begin("registry.example");
        assert_eq!(progress.fetched(), None);
        let counter = Arc::new(AtomicU64::new(5));
        progress.part("a", 10, Arc::clone(&counter));
        progress.part("b", 30, Arc::new(AtomicU64::new(99)));
        let fetched = |done| Some(Fetched { registry: "registry.example".to_owned(), done, total: 40 });
        assert_eq!(progress.fetched(), fetched(35));
        counter.store(10, Ordering::Relaxed);
        assert_eq!(progress.clone().fetched(), fetched(40));
        progress.begin("other.example");
        assert_eq!(progress.fetched(), None);
    }
}
