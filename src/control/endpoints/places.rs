//! Where endpoints are, and from where they are best reached: zones and hints.
//!
//! After `staging/src/k8s.io/endpointslice/trafficdist` (KEP-4444, KEP-3015): a Service that prefers what is close says at
//! each endpoint that is ready for whom it is; those who lead connections decide by that alone. Deliberately not here:
//! zones weighed by their processors, which the annotation `service.kubernetes.io/topology-mode` asks for.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::{EndpointHints, ForNode, ForZone};

/// Says where a node is.
const ZONE: &str = "topology.kubernetes.io/zone";

/// The nodes that are there, each with its zone if it has one.
pub(super) type Zones = BTreeMap<String, Option<String>>;

pub(super) fn zones(nodes: &[Arc<Node>]) -> Zones {
    nodes.iter().filter_map(|node| Some((node.metadata.name.clone()?, zone(node)))).collect()
}

/// The zone of a node.
pub(super) fn zone(node: &Node) -> Option<String> {
    node.metadata.labels.as_ref()?.get(ZONE).filter(|zone| !zone.is_empty()).cloned()
}

/// For whom a ready endpoint is before others. One that is for its node is for its zone as well, so that those whose node
/// has none stay in the zone.
pub(super) fn hints(service: &Service, node: Option<&str>, zone: Option<&str>) -> Option<EndpointHints> {
    let prefers = service.spec.as_ref()?.traffic_distribution.as_deref()?;
    let is_known = matches!(prefers, "PreferClose" | "PreferSameZone" | "PreferSameNode");
    let for_zones = zone.filter(|_| is_known).map(|zone| vec![ForZone { name: zone.to_owned() }]);
    let node = node.filter(|_| prefers == "PreferSameNode");
    let for_nodes = node.map(|node| vec![ForNode { name: node.to_owned() }]);
    (for_zones.is_some() || for_nodes.is_some()).then_some(EndpointHints { for_nodes, for_zones })
}
