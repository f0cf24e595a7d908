//! The pod network of one node.
//!
//! The [`Network`] seam is used by the kubelet (attach, detach) and later by the service proxy (rules). The native
//! implementation speaks rtnetlink and nfnetlink over its own sockets; it has no bridge, no CNI plugin and no helper
//! program. Invariants: nothing but our own table is ever touched in nftables; an address is never handed out while
//! the link of its former owner exists; names of links derive from the sandbox, never from the address.

pub mod native;
mod pool;
mod range;
mod simulated;

pub use native::{Forward, NativeNetwork, NativeNetworkConfig};
pub use range::{Range, RangeError};
pub use simulated::SimulatedNetwork;

use std::net::IpAddr;

use async_trait::async_trait;
use oci::sys::NetNs;

/// A sandbox to be connected.
#[derive(Debug, Clone)]
pub struct Attach {
    /// The sandbox's identity: pod UID and attempt. Attaching the same sandbox again is a no-op with the same result.
    pub sandbox: String,
    /// Its network namespace.
    pub namespace: NetNs,
}

/// A connected sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The sandbox's addresses, the primary one first.
    pub addresses: Vec<IpAddr>,
}

/// Why the network could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// All addresses of the pod range are in use or resting.
    #[error("no free address in {range}")]
    Exhausted { range: String },
    /// The kernel refused a step.
    #[error("{step} failed")]
    Kernel {
        step: &'static str,
        #[source]
        source: std::io::Error,
    },
    /// The record of addresses could not be read or written.
    #[error("address record {path} failed")]
    Record {
        path: String,
        #[source]
        source: std::io::Error,
    },
}

/// Connects sandboxes.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// Connects a sandbox: loopback up, an address, a default route, reachable from the node and other pods.
    async fn attach(&self, request: Attach) -> Result<Attachment, NetworkError>;

    /// Gives a sandbox's addresses back; its namespace may be gone already. Unknown sandboxes are fine.
    async fn detach(&self, sandbox: &str) -> Result<(), NetworkError>;

    /// Tells which sandboxes still exist after a restart of the agent; everything else is given back.
    async fn retain(&self, live: &[String]) -> Result<(), NetworkError>;

    /// The attachment of a sandbox, if it has one.
    fn attachment(&self, sandbox: &str) -> Option<Attachment>;
}
