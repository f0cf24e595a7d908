//! What network policies want of the network: who may talk with the pods of this node.
//!
//! Knows no Kubernetes: an address has a fence for what comes and one for what goes, a fence has openings, and openings name
//! groups of addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::Protocol;
use crate::range::Range;

/// All fences of a node's pods, for addresses of one family. What an address has no fence for passes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policies {
    /// What may come to an address.
    pub ingress: BTreeMap<IpAddr, Fence>,
    /// What an address may send.
    pub egress: BTreeMap<IpAddr, Fence>,
    /// Members of groups by their names.
    pub groups: BTreeMap<String, BTreeSet<IpAddr>>,
}

/// What passes; nothing else does.
pub type Fence = BTreeSet<Opening>;

/// One way through a fence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Opening {
    /// With whom.
    pub peers: Peers,
    /// By which port of who is called; none for everything, also of protocols without ports.
    pub port: Option<Ports>,
}

/// The other end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peers {
    /// Anybody.
    All,
    /// A group of [`Policies::groups`].
    Group(String),
    /// Addresses in a range, but for those in some others.
    Block { range: Range, except: Vec<Range> },
}

/// Ports that follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ports {
    /// Whose they are.
    pub protocol: Protocol,
    /// The first and the last; all if there is none.
    pub range: Option<(u16, u16)>,
}
