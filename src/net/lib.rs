//! The pod network of one node.
//!
//! The [`Network`] seam is used by the kubelet (attach, detach), [`ServiceTable`] and [`PolicyTable`]
//! by the service proxy. The native
//! implementation speaks rtnetlink and nfnetlink over its own sockets; it has no bridge, no CNI plugin and no helper
//! program. Invariants: nothing but our own table is ever touched in nftables; an address is never handed out while
//! the link of its former owner exists; names of links derive from the sandbox, never from the address.

mod dial;
pub mod native;
pub mod policies;
mod pool;
mod range;
pub mod services;
mod simulated;

pub use dial::{DialError, dial};
pub use native::{Forward, MissingRoute, NativeNetwork, NativeNetworkConfig, NodeRoutes, PolicyTable, ServiceTable};
pub use range::{Family, Range, RangeError, Ranges, RangesError};
pub use simulated::SimulatedNetwork;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use async_trait::async_trait;
use oci::sys::NetNs;
use serde::{Deserialize, Serialize};

/// A sandbox to be connected.
#[derive(Debug, Clone)]
pub struct Attach {
    /// The sandbox's identity: pod UID and attempt. Attaching the same sandbox again is a no-op with the same result.
    pub sandbox: String,
    /// Its network namespace.
    pub namespace: NetNs,
    /// Ports of the host that lead to it.
    pub ports: Vec<PortMapping>,
}

/// A protocol that has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

impl Protocol {
    /// Its number in the IP header.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// A port of the host that leads to one of a sandbox, for everybody who reaches the host: from outside, from other
/// sandboxes, from the sandbox itself, and from the host, also by 127.0.0.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortMapping {
    /// Whose ports these are.
    pub protocol: Protocol,
    /// The address of the host; none for all.
    pub host_ip: Option<IpAddr>,
    /// The port of the host.
    pub host_port: u16,
    /// The port of the sandbox.
    pub container_port: u16,
}

impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        write!(f, "{}/{}", self.protocol, SocketAddr::new(address, self.host_port))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
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
    /// A port of the host is another sandbox's.
    #[error("host port {port} is taken by sandbox {by}")]
    PortTaken { port: PortMapping, by: String },
    /// The kernel refused a step.
    #[error("{step} failed")]
    Kernel {
        step: &'static str,
        #[source]
        source: std::io::Error,
    },
    /// There is no IPv6 on this host.
    #[error("this host has no IPv6, which the addresses {range} of its pods need")]
    NoIpv6 { range: Range },
    /// The host would lose its default route of IPv6.
    #[error(
        "the default route of IPv6 by {link} comes from a router that this host stops listening to once it forwards, as \
         pods with IPv6 need; set net.ipv6.conf.{link}.accept_ra to 2 to keep it, and start again"
    )]
    WayOutLost { link: String },
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
    /// Connects a sandbox: loopback up, an address, a default route, reachable from the node and other pods and by its
    /// ports of the host.
    async fn attach(&self, request: Attach) -> Result<Attachment, NetworkError>;

    /// Gives a sandbox's addresses and ports of the host back; its namespace may be gone already. Unknown sandboxes are fine.
    async fn detach(&self, sandbox: &str) -> Result<(), NetworkError>;

    /// Tells which sandboxes still exist after a restart of the agent; everything else is given back.
    async fn retain(&self, live: &[String]) -> Result<(), NetworkError>;

    /// The attachment of a sandbox, if it has one.
    fn attachment(&self, sandbox: &str) -> Option<Attachment>;

    /// Name of the host's link of an attached sandbox. What the sandbox sends, the host receives there.
    fn link(&self, sandbox: &str) -> Option<String>;
}
