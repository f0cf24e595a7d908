//! How far the pulls of a pod's images are, as its status shows it.
//!
//! Held by the worker, which looks whenever anything happens. Invariant: what is shown of a pull changes once per
//! [`EVERY`] at the most, however often the worker looks, and nothing is shown of one that takes less: each change is a
//! write to the API server.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use runtime::{Fetched, PullProgress};

/// Time between two figures about a pull.
pub(super) const EVERY: Duration = Duration::from_secs(5);

/// The pulls of a pod.
#[derive(Debug, Default)]
pub(super) struct Pulling(BTreeMap<String, One>);

#[derive(Debug)]
struct One {
    progress: PullProgress,
    next: Timestamp,
    shown: Option<Pulled>,
}

/// How far a pull was when it was looked at last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// Where from, how much has come and how much there is.
    pub fetched: Fetched,
    /// Bytes per second since the look before.
    pub rate: u64,
}

impl Pulling {
    /// A pull of a container's image begins, and is to be shown by what is returned.
    pub(super) fn begin(&mut self, container: &str, now: Timestamp) -> PullProgress {
        let progress = PullProgress::default();
        let one = One { progress: progress.clone(), next: now + EVERY, shown: None };
        self.0.insert(container.to_owned(), one);
        progress
    }

    /// It is over.
    pub(super) fn end(&mut self, container: &str) {
        self.0.remove(container);
    }

    /// How far the pulls are, by container.
    pub(super) fn look(&mut self, now: Timestamp) -> BTreeMap<String, Pulled> {
        for one in self.0.values_mut().filter(|one| one.next <= now) {
            one.look(now);
        }
        self.0.iter().filter_map(|(name, one)| Some((name.clone(), one.shown.clone()?))).collect()
    }
}

impl One {
    fn look(&mut self, now: Timestamp) {
        let Some(fetched) = self.progress.fetched() else { return };
        let since = Duration::try_from(now.duration_since(self.next)).unwrap_or_default() + EVERY;
        let before = self.shown.as_ref().map_or(0, |shown| shown.fetched.done);
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = fetched.done.saturating_sub(before).saturating_mul(1000) / millis;
        self.next = now + EVERY;
        self.shown = Some(Pulled { fetched, rate });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn a_pull_is_shown_only_after_some_time_and_changes_only_so_often() {
        let start = Timestamp::UNIX_EPOCH;
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut pulling = Pulling::default();
        let progress = pulling.begin("web", start);
        let taken = Arc::new(AtomicU64::new(1000));
        progress.begin("registry.example");
        progress.part("layer", 10_000, Arc::clone(&taken));
        assert_eq!(pulling.look(at(4)), BTreeMap::new());
        let shown = |pulls: BTreeMap<String, Pulled>| pulls.get("web").map(|one| (one.fetched.done, one.rate));
        assert_eq!(shown(pulling.look(at(5))), Some((1000, 200)));
        taken.store(6000, Ordering::Relaxed);
        assert_eq!(shown(pulling.look(at(9))), Some((1000, 200)));
        assert_eq!(shown(pulling.look(at(10))), Some((6000, 1000)));
        pulling.end("web");
        assert_eq!(shown(pulling.look(at(20))), None);
    }
}
