//! Gives every node addresses for its pods, out of those of all pods.
//!
//! After `pkg/controller/nodeipam` with its RangeAllocator: a node's `spec.podCIDR` is written once and never changes. A
//! range that was given up is not given again before those after it have been, as packets for its former pods may still be
//! about. [`Ranges::next`] is pure. Nodes that say their range when they register keep it. Routes between nodes are not
//! made here: each node makes its own.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use client::events::{EventType, Recorder, Source, reference};
use client::reconcile::{self, Outcome, Queue};
use client::{Client, ClientError, Informer, Key, Patch, unless_overtaken};
use k8s_openapi::api::core::v1::Node;
use serde_json::json;
use task::{SharedClock, Tasks};

/// How many bits the addresses of one node have in common: upstream's `--node-cidr-mask-size`.
pub const NODE_PREFIX: u8 = 24;

/// A range of IPv4 addresses, of which each node gets a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranges {
    first: u32,
    prefix: u8,
    node_prefix: u8,
}

/// The text names no such range.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is no IPv4 range of at most {NODE_PREFIX} bits like 10.42.0.0/16")]
pub struct RangesError {
    text: String,
}

impl FromStr for Ranges {
    type Err = RangesError;

    fn from_str(text: &str) -> Result<Self, RangesError> {
        let whole = parse(text).filter(|whole| (1..=NODE_PREFIX).contains(&whole.1));
        let (first, prefix) = whole.ok_or_else(|| RangesError { text: text.to_owned() })?;
        Ok(Self { first, prefix, node_prefix: NODE_PREFIX })
    }
}

impl Ranges {
    /// The range for one more node, if these are taken: the first free one after the last that is taken, or the first free
    /// one at all. None if all are.
    pub fn next<'a>(&self, taken: impl Iterator<Item = &'a str>) -> Option<String> {
        let taken: Vec<(u32, u8)> = taken.filter_map(parse).collect();
        let size = 1_u64 << (32 - self.node_prefix);
        let count = 1_u64 << (self.node_prefix - self.prefix);
        let place = |(first, _): &(u32, u8)| {
            let place = u64::from(first.checked_sub(self.first)?) / size;
            (place < count).then_some(place)
        };
        let after = taken.iter().filter_map(place).max().map_or(0, |last| last + 1);
        (after..count).chain(0..after.min(count)).find_map(|number| {
            let first = u32::try_from(u64::from(self.first) + number * size).ok()?;
            let is_free = !taken.iter().any(|other| overlaps(*other, (first, self.node_prefix)));
            is_free.then(|| format!("{}/{}", Ipv4Addr::from(first), self.node_prefix))
        })
    }
}

/// The first address and the prefix of a range.
fn parse(text: &str) -> Option<(u32, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let (address, prefix): (Ipv4Addr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
    (1..=32).contains(&prefix).then(|| (u32::from(address) & mask(prefix), prefix))
}

fn mask(prefix: u8) -> u32 {
    u32::MAX << (32 - u32::from(prefix))
}

fn overlaps(one: (u32, u8), other: (u32, u8)) -> bool {
    let mask = mask(one.1.min(other.1));
    one.0 & mask == other.0 & mask
}

struct Shell {
    client: Client,
    recorder: Recorder,
    nodes: Informer<Node>,
    ranges: Ranges,
    /// What was given to nodes that do not show it yet.
    given: Mutex<BTreeMap<String, String>>,
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
    if range_of(&node).is_some() {
        return Ok(Outcome::Done);
    }
    let Some(range) = shell.choose(&key.name) else {
        let message = format!("Node {} status is now: CIDRNotAvailable", key.name);
        shell.recorder.event(&reference(&*node), EventType::Normal, "CIDRNotAvailable", &message);
        return Err(SyncError::Exhausted);
    };
    tracing::info!(node = key.name, range, "the pods of a node have their addresses");
    let patch = json!({ "metadata": { "uid": node.metadata.uid }, "spec": { "podCIDR": range, "podCIDRs": [range] } });
    // It stays given whatever the answer, which may be the only thing that was lost: nobody else may get it before the node
    // is seen to have it, or another, or to be gone.
    Ok(unless_overtaken(shell.client.patch::<Node>(&key, &Patch::Merge(patch)).await).map(|_| Outcome::Done)?)
}

impl Shell {
    /// Takes a range for a node, and remembers it until the node shows it.
    fn choose(&self, name: &str) -> Option<String> {
        let nodes = self.nodes.snapshot();
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.retain(|name, _| {
            let node = nodes.iter().find(|node| node.metadata.name.as_deref() == Some(name));
            node.is_some_and(|node| range_of(node).is_none())
        });
        if let Some(known) = given.get(name) {
            return Some(known.clone());
        }
        let shown = nodes.iter().filter_map(|node| range_of(node));
        let range = self.ranges.next(shown.chain(given.values().map(String::as_str)))?;
        given.insert(name.to_owned(), range.clone());
        Some(range)
    }
}

fn range_of(node: &Node) -> Option<&str> {
    node.spec.as_ref()?.pod_cidr.as_deref().filter(|range| !range.is_empty())
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
        all.parse::<Ranges>().unwrap().next(taken.iter().copied())
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
    fn only_ranges_of_which_nodes_can_get_something_are_taken() {
        for wrong in ["10.42.0.0/25", "10.42.0.0", "fd00::/48", "10.42.0.0/0", "x/16"] {
            assert!(wrong.parse::<Ranges>().is_err(), "{wrong}");
        }
    }
}
