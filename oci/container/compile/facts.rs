//! What compiling has to know of the host.

use std::io;

use crate::cgroup::{CgroupError, Hierarchies};

/// Facts about the host and the caller's own privileges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// Where which controllers are.
    pub cgroups: Hierarchies,
    /// Capabilities that the starting process holds, bit n for capability number n.
    pub capabilities: u64,
    /// Whether device nodes can be made; else they are bound from the host.
    pub can_make_devices: bool,
}

/// Why the host could not be examined.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// Its control groups.
    #[error("cannot examine control groups")]
    Cgroups(#[source] CgroupError),
    /// The caller's capabilities.
    #[error("cannot examine own capabilities")]
    Capabilities(#[source] io::Error),
}

impl HostFacts {
    /// Examines this host.
    ///
    /// # Errors
    /// When the kernel's files cannot be read.
    pub fn detect() -> Result<Self, FactsError> {
        let cgroups = Hierarchies::detect().map_err(FactsError::Cgroups)?;
        let own = rustix::thread::capabilities(None).map_err(|errno| FactsError::Capabilities(errno.into()))?;
        let capabilities = own.permitted.bits();
        let can_make_devices = own.effective.contains(rustix::thread::CapabilitySet::MKNOD);
        Ok(Self { cgroups, capabilities, can_make_devices })
    }
}
