//! Routes to the pods of other nodes: what Node objects say becomes what the node's network does.
//!
//! Started by the composition with the node's identity. [`wanted`] is pure. A node's pods are reached by its first internal
//! address of their family, if that is on a network of this host. Deliberately not here: tunnels to nodes elsewhere; that one is not
//! reached is told in an event of that node and in the log.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use client::Informer;
use client::events::{EventType, Recorder, node_reference};
use k8s_openapi::api::core::v1::Node;
use net::{Family, NodeRoutes, Range, Ranges};
use task::Tasks;

/// How soon a route is made again that the kernel has dropped, as it does when a link goes down.
const LOOK: Duration = Duration::from_secs(10);

/// The routes that a node needs. No node draws to itself what is not the cluster's, or what an elder has.
pub fn wanted(nodes: &[Arc<Node>], own: &str, cluster: &Ranges) -> BTreeMap<Range, IpAddr> {
    let is_own = |node: &Node| node.metadata.name.as_deref() == Some(own);
    let mut by_age: Vec<&Arc<Node>> = nodes.iter().collect();
    by_age.sort_by_key(|node| {
        (!is_own(node), node.metadata.creation_timestamp.clone().map(|time| time.0), node.metadata.name.clone())
    });
    let (mut taken, mut routes) = (Vec::<Range>::new(), BTreeMap::new());
    for node in by_age {
        for range in ranges_of(node) {
            let is_ours = cluster.of(range.family()).is_some_and(|all| range.is_within(&all));
            if !is_ours || taken.iter().any(|other| range.is_within(other) || other.is_within(&range)) {
                continue;
            }
            taken.push(range);
            if let Some(address) = address_of(node, range.family()).filter(|_| !is_own(node)) {
                routes.insert(range, address);
            }
        }
    }
    routes
}

fn ranges_of(node: &Node) -> BTreeSet<Range> {
    let all = node.spec.iter().flat_map(|spec| spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr));
    all.filter_map(|text| text.parse().ok()).collect()
}

fn address_of(node: &Node, family: Family) -> Option<IpAddr> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    let internal = addresses.iter().filter(|address| address.type_ == "InternalIP");
    internal.filter_map(|address| address.address.parse().ok()).find(|address| Family::of(*address) == family)
}

/// Keeps the routes until the task group ends.
pub fn spawn(
    nodes: &Informer<Node>,
    tasks: &Tasks,
    (node, cluster): (&str, Ranges),
    recorder: Recorder,
    routes: NodeRoutes,
) {
    let nodes = nodes.clone();
    let own = node.to_owned();
    tasks.spawn("node-routes", async move {
        let mut dirty = nodes.subscribe();
        nodes.synced().await;
        let mut told = BTreeSet::new();
        loop {
            while dirty.try_next().is_some() {}
            let wanted = wanted(&nodes.snapshot(), &own, &cluster);
            let has_others = !wanted.is_empty();
            match routes.apply(wanted).await {
                Ok(missing) => told = tell(&recorder, &own, &missing, &told),
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "pods of other nodes are not reached as they should be");
                }
            }
            // A node that is alone waits for others only.
            if has_others {
                let _ = tokio::time::timeout(LOOK, dirty.next()).await;
            } else {
                dirty.next().await;
            }
        }
    });
}

/// Tells once about each route that is missing; all that have been told of.
fn tell(
    recorder: &Recorder,
    own: &str,
    missing: &[net::MissingRoute],
    told: &BTreeSet<(Range, IpAddr)>,
) -> BTreeSet<(Range, IpAddr)> {
    for missing in missing.iter().filter(|missing| !told.contains(&(missing.pods, missing.via))) {
        let message = format!("{missing}; add a route to {} on both, or put them on one network", missing.pods);
        tracing::warn!(message, "no route to the pods of another node");
        recorder.event(&node_reference(own), EventType::Warning, "NoRouteToNode", &message);
    }
    missing.iter().map(|missing| (missing.pods, missing.via)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn every_other_node_with_pods_and_an_address_gets_a_route() {
        let node = |name: &str, range: Value, addresses: Value| -> Arc<Node> {
            let addresses: Vec<Value> = addresses
                .as_array()
                .unwrap()
                .iter()
                .map(|pair| json!({ "type": pair[0], "address": pair[1] }))
                .collect();
            let first = range.as_str().and_then(|ranges| ranges.split(',').next());
            let all: Option<Vec<&str>> = range.as_str().map(|ranges| ranges.split(',').collect());
            let node = json!({
                "metadata": { "name": name },
                "spec": { "podCIDR": first, "podCIDRs": all },
                "status": { "addresses": addresses },
            });
            Arc::new(serde_json::from_value(node).unwrap())
        };
        let addresses = json!([["Hostname", "b"], ["InternalIP", "fd00::2"], ["InternalIP", "192.0.2.2"]]);
        let nodes = [
            node("own", json!("10.42.0.0/24,fd00:42::/64"), json!([["InternalIP", "192.0.2.1"]])),
            node("b", json!("10.42.1.0/24,fd00:42:0:1::/64"), addresses),
            node("no-pods-yet", Value::Null, json!([["InternalIP", "192.0.2.3"]])),
            node("nowhere", json!("10.42.2.0/24"), json!([])),
            node("greedy", json!("10.42.1.128/25"), json!([["InternalIP", "192.0.2.6"]])),
            node("without-ipv6", json!("10.42.3.0/24,fd00:42:0:3::/64"), json!([["InternalIP", "192.0.2.7"]])),
            node("of-own", json!("10.42.0.128/25,fd00:42::/65"), json!([["InternalIP", "192.0.2.6"]])),
            node("of-all", json!("0.0.0.0/1"), json!([["InternalIP", "192.0.2.6"]])),
        ];
        let route = |pods: &str, via: &str| (pods.parse().unwrap(), via.parse().unwrap());
        let v4 = [route("10.42.1.0/24", "192.0.2.2"), route("10.42.3.0/24", "192.0.2.7")];
        let v6 = [route("fd00:42:0:1::/64", "fd00::2")];
        assert_eq!(wanted(&nodes, "own", &"10.42.0.0/16".parse().unwrap()), v4.into());
        let both = v4.into_iter().chain(v6).collect();
        assert_eq!(wanted(&nodes, "own", &"10.42.0.0/16,fd00:42::/56".parse().unwrap()), both);
    }
}
