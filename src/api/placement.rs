//! Whether a node is what a pod asks for, and whether a pod bears with what a node is.
//!
//! Asked by the scheduler when it places a pod and by the kubelet when a pod comes to it. Pure; resources are not looked at.

mod affinity;
mod taints;

pub use affinity::{admits, preference, selects};
pub use taints::{UNSCHEDULABLE, is_tolerated, tolerates, untolerated};
