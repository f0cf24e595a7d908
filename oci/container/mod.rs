//! Containers: compile, script, interpreter.
//!
//! [`compile`] turns an OCI runtime configuration and facts about the host into a [`Script`] and the list of
//! descriptors that it needs (feature `compile`, pure, runs in the agent). [`rootfs`] makes those descriptors in the
//! host's namespaces. [`start`] and [`exec`] run a script in a new child (no feature, runs in the per-pod program).
//!
//! It deliberately knows nothing of pods, images, logs and of what becomes of a process once it runs.

mod channel;
mod child;
#[cfg(feature = "compile")]
pub mod compile;
mod ending;
mod identity;
mod mounts;
mod program;
pub mod rootfs;
mod run;
mod script;
pub mod sealed;
mod target;
pub mod users;

pub use ending::{ending_children, reap_later};
pub use run::*;
pub use script::*;
