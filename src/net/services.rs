//! What the service proxy wants of the network: which addresses and ports lead to which endpoints.
//!
//! Knows no Kubernetes: a frontend leads to a pool, a pool has endpoints. Who answers where is worked out by the caller.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use crate::Protocol;
use crate::range::Range;

/// All frontends and pools, with addresses of one family.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Services {
    /// Where connections go to, and to whom they lead.
    pub frontends: BTreeMap<Frontend, String>,
    /// Who answers, by name.
    pub pools: BTreeMap<String, Pool>,
    /// Who alone may connect to a frontend of an address; what others send there vanishes.
    pub admitted: BTreeMap<Frontend, BTreeSet<Range>>,
    /// Where addresses of Services are beside the range of the table.
    pub further: BTreeSet<Range>,
}

/// What a client connects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// Address; none for all addresses of the host but its loopback.
    pub address: Option<IpAddr>,
    /// Whose port.
    pub protocol: Protocol,
    /// Port.
    pub port: u16,
    /// Who connects.
    pub senders: Senders,
}

/// Whom a frontend is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Senders {
    /// All, but those for whom there is another.
    #[default]
    All,
    /// Pods of this node and the host itself, if it leads to anybody.
    Near,
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pool {
    /// Each is as likely as any other.
    pub endpoints: BTreeSet<SocketAddr>,
    /// Who keeps the connections of before, also if no new ones come; endpoints do in any case.
    pub serving: BTreeSet<SocketAddr>,
    /// For how many seconds a client returns to the endpoint that it had last.
    pub sticky: Option<u32>,
    /// Whether packets vanish if there is no endpoint, because others elsewhere answer; else they are refused.
    pub is_silent: bool,
}
