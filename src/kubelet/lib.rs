//! The node agent: runs the pods that are bound to this node and says how they fare.
//!
//! Only the composition root uses it. It knows the API server as a client, and sandboxes, images and the network through
//! their seams; it starts no process and touches no cgroup itself. Invariants: a pod's next steps come from the pure
//! function [`pod::plan`] alone; one worker per pod UID acts on them; everything can be rebuilt from the runtime, the
//! disk and the API object, so that the agent may die at any moment.

mod admission;
mod agent;
mod allocation;
mod config;
pub mod container;
mod directory;
mod eviction;
mod groups;
mod logs;
mod metrics;
mod node;
pub mod pod;
mod pods;
pub mod probe;
mod references;
mod serve;
mod server;
mod shared;
#[cfg(test)]
mod simulation;
mod sources;
mod stream;
mod volumes;

pub use agent::{Kubelet, StartError};
pub use config::{KubeletConfig, Seams};
pub use eviction::{EvictionTexts, Signal, Threshold, ThresholdError};
pub use logs::links::remove_log_links;
pub use node::FactError;
pub use server::Door;
#[cfg(feature = "fuzz")]
pub use stream::fuzz;
pub use volumes::release_all;
