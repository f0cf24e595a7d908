//! How fast pods are driven from nodes that have fallen silent: the more of them, the less it is the nodes' fault.
//!
//! After `handleDisruption` and `ComputeZoneState` of `pkg/controller/nodelifecycle`, with upstream's defaults.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;

use super::decide::is_ready;

/// Between two nodes of a zone, `--node-eviction-rate` of one in ten seconds.
const USUAL: Duration = Duration::from_secs(10);
/// The same in a large zone of which much is down, `--secondary-node-eviction-rate`.
const SLOW: Duration = Duration::from_secs(100);
/// More nodes than this make a zone large.
const LARGE: usize = 50;
/// Nodes do not count with this label.
const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";
const REGION: [&str; 2] = ["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"];
const ZONE: [&str; 2] = ["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"];

/// What all nodes together allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Weather {
    /// No node is ready: it is the control plane that is alone, and nothing is held against nodes.
    Storm,
    /// How long to wait between two nodes of each zone; none where it stops.
    Zones(BTreeMap<String, Option<Duration>>),
}

impl Weather {
    /// Looks at all nodes.
    pub(super) fn of<'a>(nodes: impl Iterator<Item = &'a Node>) -> Self {
        let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for node in nodes.filter(|node| label(node, EXCLUDED).is_none()) {
            let (ready, silent) = counts.entry(zone(node)).or_default();
            *(if is_ready(node) { ready } else { silent }) += 1;
        }
        if !counts.is_empty() && counts.values().all(|(ready, _)| *ready == 0) {
            return Self::Storm;
        }
        Self::Zones(counts.into_iter().map(|(zone, (ready, silent))| (zone, pace(ready, silent))).collect())
    }
}

fn pace(ready: usize, silent: usize) -> Option<Duration> {
    let all = ready + silent;
    // A zone that is down as a whole may well be down.
    let is_partly_down = ready > 0 && silent > 2 && silent * 100 >= all * 55;
    match is_partly_down {
        false => Some(USUAL),
        true if all > LARGE => Some(SLOW),
        true => None,
    }
}

fn label<'a>(node: &'a Node, name: &str) -> Option<&'a str> {
    node.metadata.labels.as_ref()?.get(name).map(String::as_str)
}

/// The zone of a node, within its region.
pub(super) fn zone(node: &Node) -> String {
    let first = |names: [&str; 2]| names.into_iter().find_map(|name| label(node, name)).unwrap_or_default();
    format!("{}:{}", first(REGION), first(ZONE))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn nodes(zone: &str, ready: usize, silent: usize) -> Vec<Node> {
        let node = |status: &str| {
            serde_json::from_value(json!({
                "metadata": {"labels": {"topology.kubernetes.io/zone": zone}},
                "status": {"conditions": [{"type": "Ready", "status": status}]},
            }))
            .unwrap()
        };
        let ready = std::iter::repeat_with(|| node("True")).take(ready);
        ready.chain(std::iter::repeat_with(|| node("Unknown")).take(silent)).collect()
    }

    fn pace_of(nodes: &[Node], zone: &str) -> Option<u64> {
        match Weather::of(nodes.iter()) {
            Weather::Storm => panic!("no node is ready"),
            Weather::Zones(zones) => zones[&format!(":{zone}")].map(|pace| pace.as_secs()),
        }
    }

    #[test]
    fn few_nodes_are_let_down_one_after_another() {
        assert_eq!(pace_of(&nodes("a", 1, 1), "a"), Some(10));
        assert_eq!(pace_of(&nodes("a", 1, 2), "a"), Some(10));
    }

    #[test]
    fn a_zone_that_is_partly_down_is_not_emptied_unless_it_is_large() {
        assert_eq!(pace_of(&nodes("a", 2, 3), "a"), None);
        assert_eq!(pace_of(&nodes("a", 3, 3), "a"), Some(10));
        assert_eq!(pace_of(&nodes("a", 20, 31), "a"), Some(100));
    }

    #[test]
    fn a_zone_that_is_down_as_a_whole_is_emptied_while_another_is_up() {
        let both = [nodes("a", 0, 5), nodes("b", 1, 0)].concat();
        assert_eq!((pace_of(&both, "a"), pace_of(&both, "b")), (Some(10), Some(10)));
    }

    #[test]
    fn nothing_is_held_against_nodes_when_none_is_ready() {
        assert_eq!(Weather::of(nodes("a", 0, 1).iter()), Weather::Storm);
        assert_eq!(Weather::of([nodes("a", 0, 2), nodes("b", 0, 1)].concat().iter()), Weather::Storm);
        assert_eq!(Weather::of(std::iter::empty()), Weather::Zones(BTreeMap::new()));
    }
}
