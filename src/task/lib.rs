//! Owned tasks, shutdown and the clock: what every asynchronous part of Coracle stands on.
//!
//! Every part may use this crate; it knows nothing of Kubernetes. It deliberately has no global state: whoever composes
//! the program owns a [`Tasks`] and a [`Clock`] and hands them down. Invariant: a task spawned through [`Tasks`] has a
//! name, ends when its group is shut down, and a panic in it is logged with that name instead of being lost.

mod clock;
mod tasks;
mod words;

pub use clock::{Clock, SharedClock, SimulatedClock, SystemClock};
pub use tasks::{Tasks, blocking};
pub use words::{chain, errno_text};
