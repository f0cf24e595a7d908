//! Everything random, from one seed.

use std::time::Duration;

use apiserver::Entropy;

/// A seeded source of choices.
pub(crate) struct Random(Entropy);

impl Random {
    /// The same choices for the same seed and purpose.
    pub(crate) fn new(seed: u64, purpose: u64) -> Self {
        Self(Entropy::seeded(seed.wrapping_mul(1_000_003).wrapping_add(purpose)))
    }

    /// A number below `end`.
    pub(crate) fn below(&self, end: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes) % end.max(1)
    }

    /// True so many times in a hundred.
    pub(crate) fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of these.
    pub(crate) fn pick<'a, T>(&self, all: &'a [T]) -> Option<&'a T> {
        let length = u64::try_from(all.len()).ok()?;
        all.get(usize::try_from(self.below(length)).ok()?)
    }

    /// A time below `end` milliseconds.
    pub(crate) fn millis(&self, end: u64) -> Duration {
        Duration::from_millis(self.below(end))
    }
}
