//! Gives every node addresses for its pods, out of those of all pods.
//!
//! After `pkg/controller/nodeipam` with its RangeAllocator: a node's `spec.podCIDRs` are written once and never change. A
//! range that was given up is not given again before those after it have been, as packets for its former pods may still be
//! about. [`Ranges::next`] is pure. Nodes that say their range when they register keep it. Routes between nodes are not
//! made here: each node makes its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use client::events::{EventType, Recorder, Source, reference};
use client::reconcile::{self, Outcome, Queue};
use client::{Client, ClientError, Informer, Key, Patch, unless_overtaken};
use k8s_openapi::api::core::v1::Node;
use serde_json::json;
use task::{SharedClock, Tasks};

/// How many bits the addresses of one node have in common: upstream's `--node-cidr-mask-size-ipv4` and `-ipv6`.
pub const NODE_PREFIX: u8 = 24;
const NODE_PREFIX_6: u8 = 64;
/// The most nodes that a range of IPv6 addresses is divided for, as upstream has it (`maxCIDRs` and `clusterSubnetMaxDiff`).
const MOST_BITS: u8 = 16;

/// Ranges of addresses, of each of which every node gets a part: one of IPv4, and perhaps one of IPv6.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranges {
    all: Vec<Whole>,
    /// Parts that nobody gets.
    kept: Vec<Part>,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Whole {
    range: Part,
    node_prefix: u8,
}

/// The text names no such range.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{text:?} is no IPv4 range of at most {NODE_PREFIX} bits like 10.42.0.0/16, perhaps with one of IPv6 of 48 to \
     {NODE_PREFIX_6} bits like fd00:42::/56 after a comma"
)]
pub struct RangesError {
    text: String,
}

impl FromStr for Ranges {
    type Err = RangesError;

    fn from_str(text: &str) -> Result<Self, RangesError> {
        let error = || RangesError { text: text.to_owned() };
        let all: Vec<Part> = text.split(',').map(|one| parse(one).ok_or_else(error)).collect::<Result<_, _>>()?;
        let whole = |range: Part, node_prefix: u8| Whole { range, node_prefix };
        let is_v6 =
            |range: &Part| range.bits == 128 && (NODE_PREFIX_6 - MOST_BITS..=NODE_PREFIX_6).contains(&range.prefix);
        match all.as_slice() {
            [v4, rest @ ..]
                if v4.bits == 32 && v4.prefix <= NODE_PREFIX && rest.len() < 2 && rest.iter().all(is_v6) =>
            {
                let rest = rest.iter().map(|v6| whole(*v6, NODE_PREFIX_6));
                let all = [whole(*v4, NODE_PREFIX)].into_iter().chain(rest).collect();
                Ok(Self { all, kept: Vec::new() })
            }
            _ => Err(error()),
        }
    }
}

impl Ranges {
    /// Without what somebody has who does not show it: a node that was there before its cluster had IPv6 keeps its
    /// `spec.podCIDRs`, which never change, and uses a range that is not among them.
    #[must_use]
    pub fn without(mut self, ranges: &str) -> Self {
        self.kept.extend(ranges.split(',').filter_map(parse));
        self
    }

    /// The ranges for one more node, if these are taken: of each the first free one after the last that is taken, or the
    /// first free one at all. None if all of any are.
    pub fn next<'a>(&self, taken: impl Iterator<Item = &'a str>) -> Option<Vec<String>> {
        let taken: Vec<Part> = taken.filter_map(parse).chain(self.kept.iter().copied()).collect();
        self.all.iter().map(|whole| whole.next(&taken).map(|part| part.to_string())).collect()
    }
}

impl Whole {
    fn next(&self, taken: &[Part]) -> Option<Part> {
        let Part { first, bits, prefix } = self.range;
        let size = 1_u128 << (bits - self.node_prefix);
        let count = 1_u128 << (self.node_prefix - prefix);
        let place = |part: &Part| {
            let place = part.first.checked_sub(first).filter(|_| part.bits == bits)? / size;
            (place < count).then_some(place)
        };
        let after = taken.iter().filter_map(place).max().map_or(0, |last| last + 1);
        (after..count).chain(0..after.min(count)).find_map(|number| {
            let part = Part { first: first + number * size, bits, prefix: self.node_prefix };
            (!taken.iter().any(|other| other.overlaps(&part))).then_some(part)
        })
    }
}

/// A range, by the number of its first address, how long its addresses are and how many bits they have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    first: u128,
    bits: u8,
    prefix: u8,
}

fn parse(text: &str) -> Option<Part> {
    let (address, prefix) = text.split_once('/')?;
    let (address, prefix): (IpAddr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
    let (number, bits) = match address {
        IpAddr::V4(own) => (u128::from(own.to_bits()), 32),
        IpAddr::V6(own) => (own.to_bits(), 128),
    };
    (1..=bits).contains(&prefix).then(|| Part { first: number & mask(bits, prefix), bits, prefix })
}

fn mask(bits: u8, prefix: u8) -> u128 {
    u128::MAX.checked_shl(u32::from(bits - prefix)).unwrap_or(0)
}

impl Part {
    fn overlaps(&self, other: &Self) -> bool {
        let mask = mask(self.bits, self.prefix.min(other.prefix));
        self.bits == other.bits && self.first & mask == other.first & mask
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let address = match u32::try_from(self.first) {
            Ok(number) if self.bits == 32 => IpAddr::V4(Ipv4Addr::from_bits(number)),
            _ => IpAddr::V6(Ipv6Addr::from_bits(self.first)),
        };
        write!(f, "{address}/{}", self.prefix)
    }
}

struct Shell {
    client: Client,
    recorder: Recorder,
    nodes: Informer<Node>,
    ranges: Ranges,
    /// What was given to nodes that do not show it yet.
    given: Mutex<BTreeMap<String, Vec<String>>>,
}

/// Starts the controller, if there is something to give.
pub fn spawn(client: &Client, clock: &SharedClock, tasks: &Tasks, nodes: &Informer<Node>, ranges: Option<Ranges>) {
    let Some(ranges) = ranges else { return };
    let source = Source { component: "cidrAllocator".to_owned(), host: String::new() };
    let shell = Arc::new(Shell {
        client: client.clone(),
        recorder: Recorder::spawn(client, tasks, Arc::clone(clock), source),
        nodes: nodes.clone(),
        ranges,
        given: Mutex::new(BTreeMap::new()),
    });
    let queue = Queue::default();
    tasks.spawn("nodeipam-feed", reconcile::feed(nodes.subscribe(), queue.clone()));
    tasks.spawn("nodeipam-controller", async move {
        shell.nodes.synced().await;
        // One at a time, so that no range is given twice.
        reconcile::run(queue, 1, |key| sync(Arc::clone(&shell), key)).await;
    });
}

/// No range is left; trying again later may help.
#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("no addresses are left for the pods of one more node")]
    Exhausted,
}

async fn sync(shell: Arc<Shell>, key: Key) -> Result<Outcome, SyncError> {
    let Some(node) = shell.nodes.get(&key) else { return Ok(Outcome::Done) };
    if ranges_of(&node).next().is_some() {
        return Ok(Outcome::Done);
    }
    let Some(ranges) = shell.choose(&key.name) else {
        let message = format!("Node {} status is now: CIDRNotAvailable", key.name);
        shell.recorder.event(&reference(&*node), EventType::Normal, "CIDRNotAvailable", &message);
        return Err(SyncError::Exhausted);
    };
    tracing::info!(node = key.name, ?ranges, "the pods of a node have their addresses");
    let spec = json!({ "podCIDR": ranges.first(), "podCIDRs": ranges });
    let patch = json!({ "metadata": { "uid": node.metadata.uid }, "spec": spec });
    // It stays given whatever the answer, which may be the only thing that was lost: nobody else may get it before the node
    // is seen to have it, or another, or to be gone.
    Ok(unless_overtaken(shell.client.patch::<Node>(&key, &Patch::Merge(patch)).await).map(|_| Outcome::Done)?)
}

impl Shell {
    /// Takes ranges for a node, and remembers them until the node shows them.
    fn choose(&self, name: &str) -> Option<Vec<String>> {
        let nodes = self.nodes.snapshot();
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.retain(|name, _| {
            let node = nodes.iter().find(|node| node.metadata.name.as_deref() == Some(name));
            node.is_some_and(|node| ranges_of(node).next().is_none())
        });
        if let Some(known) = given.get(name) {
            return Some(known.clone());
        }
        let shown = nodes.iter().flat_map(|node| ranges_of(node));
        let taken: BTreeSet<&str> = shown.chain(given.values().flatten().map(String::as_str)).collect();
        let ranges = self.ranges.next(taken.into_iter())?;
        given.insert(name.to_owned(), ranges.clone());
        Some(ranges)
    }
}

fn ranges_of(node: &Node) -> impl Iterator<Item = &str> {
    let all = node.spec.iter().flat_map(|spec| spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr));
    all.map(String::as_str).filter(|range| !range.is_empty())
}

#[cfg(test)]
mod tests {
    use client::scripted::{Answer, Exchange, Scripted, exchange};
    use client::{ListOptions, Scope};
    use task::SystemClock;

    use super::*;

    #[tokio::test]
    async fn a_range_whose_receipt_was_lost_is_given_to_nobody_else() {
        let node = |name: &str| json!({"metadata": {"name": name, "uid": name, "resourceVersion": "1"}});
        let nodes = json!({
            "kind": "NodeList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": [node("a"), node("b")],
        });
        let seen = Scripted::new(vec![
            exchange("GET /api/v1/nodes?", Answer::Json(200, nodes)),
            exchange("GET /api/v1/nodes?watch", Answer::OpenFrames(vec![])),
        ]);
        let patch = |name: &str, range: &str, answer| Exchange {
            body: json!({"metadata": {"uid": name}, "spec": {"podCIDR": range, "podCIDRs": [range]}}),
            ..exchange(&format!("PATCH /api/v1/nodes/{name}"), answer)
        };
        let done = |name: &str| Answer::Json(200, node(name));
        let sent = Scripted::new(vec![
            patch("a", "10.42.0.0/24", Answer::Unreachable),
            patch("b", "10.42.1.0/24", done("b")),
            patch("a", "10.42.0.0/24", done("a")),
        ]);
        let tasks = Tasks::new();
        let client = Client::new(Arc::new(sent.clone()), "test");
        let source = Source { component: "cidrAllocator".to_owned(), host: String::new() };
        let informing = Client::new(Arc::new(seen), "test");
        let shell = Arc::new(Shell {
            recorder: Recorder::spawn(&client, &tasks, Arc::new(SystemClock), source),
            client,
            nodes: Informer::spawn(&informing, &tasks, Scope::Cluster, ListOptions::default()),
            ranges: "10.42.0.0/16".parse().unwrap(),
            given: Mutex::default(),
        });
        shell.nodes.synced().await;
        assert!(sync(Arc::clone(&shell), Key::cluster("a")).await.is_err());
        assert!(sync(Arc::clone(&shell), Key::cluster("b")).await.is_ok());
        assert!(sync(shell, Key::cluster("a")).await.is_ok());
        assert!(sent.is_over());
        tasks.shutdown().await;
    }

    fn next(all: &str, taken: &[&str]) -> Option<String> {
        all.parse::<Ranges>().unwrap().next(taken.iter().copied()).map(|ranges| ranges.join(","))
    }

    #[test]
    fn each_node_gets_addresses_of_its_own_until_there_are_none() {
        let is = |range: &str| Some(range.to_owned());
        assert_eq!(next("10.42.0.0/16", &[]), is("10.42.0.0/24"));
        assert_eq!(next("10.42.0.0/16", &["10.42.0.0/24"]), is("10.42.1.0/24"));
        assert_eq!(next("10.42.0.0/16", &["10.42.0.0/24", "10.42.7.0/24"]), is("10.42.8.0/24"), "not yet again");
        assert_eq!(next("10.42.0.0/16", &["10.42.0.0/24", "10.42.255.0/24"]), is("10.42.1.0/24"), "round and round");
        assert_eq!(next("10.42.0.0/16", &["192.0.2.0/24", "nonsense"]), is("10.42.0.0/24"), "others do not matter");
        assert_eq!(next("10.42.0.0/22", &["10.42.0.0/23"]), is("10.42.2.0/24"), "larger ones count whole");
        assert_eq!(next("10.42.0.0/22", &["10.42.3.128/25"]), is("10.42.0.0/24"));
        assert_eq!(next("10.42.0.0/23", &["10.42.0.0/24", "10.42.1.0/24"]), None);
        assert_eq!(next("10.42.0.0/23", &["10.0.0.0/8"]), None);
        assert_eq!(next("10.42.9.0/24", &[]), is("10.42.9.0/24"));
    }

    #[test]
    fn each_node_gets_a_range_of_each_family() {
        let is = |range: &str| Some(range.to_owned());
        let both = "10.42.0.0/16,fd00:42::/56";
        assert_eq!(next(both, &[]), is("10.42.0.0/24,fd00:42::/64"));
        assert_eq!(next(both, &["10.42.0.0/24", "fd00:42::/64"]), is("10.42.1.0/24,fd00:42:0:1::/64"));
        assert_eq!(next(both, &["10.42.0.0/24"]), is("10.42.1.0/24,fd00:42::/64"), "a node from before has one only");
        assert_eq!(next("10.42.0.0/16,fd00:42::/64", &["fd00:42::/64"]), None);
    }

    #[test]
    fn what_a_node_of_before_has_without_showing_it_is_given_to_nobody() {
        let ranges: Ranges = "10.42.0.0/16,fd00:42::/56".parse().unwrap();
        let ranges = ranges.without("10.42.0.0/24,fd00:42::/64");
        let next = |taken: &[&str]| ranges.next(taken.iter().copied()).unwrap().join(",");
        assert_eq!(next(&["10.42.0.0/24"]), "10.42.1.0/24,fd00:42:0:1::/64");
        assert_eq!(next(&[]), "10.42.1.0/24,fd00:42:0:1::/64", "nor while the node does not show any");
        assert_eq!(next(&["10.42.1.0/24", "fd00:42:0:ff::/64"]), "10.42.2.0/24,fd00:42:0:1::/64", "round and round");
    }

    #[test]
    fn only_ranges_of_which_nodes_can_get_something_are_taken() {
        for wrong in [
            "10.42.0.0/25",
            "10.42.0.0",
            "fd00::/48",
            "10.42.0.0/0",
            "x/16",
            "10.42.0.0/16,fd00::/47",
            "10.0.0.0/16,fd00::/65",
            "10.0.0.0/16,10.1.0.0/16",
        ] {
            assert!(wrong.parse::<Ranges>().is_err(), "{wrong}");
        }
    }
}
