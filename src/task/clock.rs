//! The clock: wall time for what users see, and nothing else.
//!
//! Waiting and timeouts use `tokio::time`, which tests pause; [`SimulatedClock`] follows it, so that a simulation has
//! one time only.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// Source of wall-clock time.
pub trait Clock: Send + Sync + 'static {
    /// The present moment, UTC.
    fn now(&self) -> Timestamp;
}

/// A clock that is handed down the composition.
pub type SharedClock = Arc<dyn Clock>;

/// The host's real-time clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the host's clock")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// Starts at a fixed moment and advances with tokio's (usually paused) time.
#[derive(Debug, Clone, Copy)]
pub struct SimulatedClock {
    start: Timestamp,
    origin: Instant,
}

impl SimulatedClock {
    /// A clock that shows `start` now. Call it inside a tokio runtime.
    pub fn starting_at(start: Timestamp) -> Self {
        Self { start, origin: Instant::now() }
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        let elapsed: Duration = self.origin.elapsed();
        self.start + elapsed
    }
}
