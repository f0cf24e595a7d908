//! The simulator of both seams: sandboxes, containers and images that exist in memory only.
//!
//! For tests of everything above the seams. A test says per container what its [`Program`] does (exits after a while,
//! ignores SIGTERM, fails to start) and per image what a pull does; all waiting is `tokio::time`, so that a paused clock
//! makes every run the same. It deliberately simulates neither the kernel nor a registry: what a container does inside is
//! no concern of the seam. Invariant: the state machine of a container is the native one's (started once, deadlines of a
//! stop only move earlier, an exit never changes), so that a caller cannot tell the two apart by it.
//!
//! A handle can be cloned and outlives its user: a restarted agent is a new user of a clone of the same handle.

mod images;
mod program;
mod runtime;
mod state;
#[cfg(test)]
mod tests;

pub use images::{PullOutcome, SimulatedImages};
pub use program::{Ending, ExecOutcome, OnStop, Program, StartFailure};
pub use runtime::{Call, SimulatedRuntime};
