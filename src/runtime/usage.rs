//! What runs has used.

use std::collections::BTreeMap;

pub use oci::cgroup::{DeviceIo, Pressure, Pressures, Stalls, Stats};

use crate::{ContainerId, SandboxId};

/// How much is to be found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// CPU time alone, which costs little.
    Cpu,
    /// All of it.
    All,
}

/// What the host and everything on it has used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usage {
    /// The whole host.
    pub host: Stats,
    /// Sandboxes that live.
    pub sandboxes: BTreeMap<SandboxId, SandboxUsage>,
}

/// What a sandbox has used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SandboxUsage {
    /// As a whole, its shim included.
    pub whole: Stats,
    /// Containers that run.
    pub containers: BTreeMap<ContainerId, Stats>,
}
