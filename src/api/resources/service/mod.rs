//! Services.
//!
//! A Service gets its addresses and ports from [`assign`], which the server calls under a lock with all other Services at
//! hand; the rest is as for any kind.

pub mod assign;
mod check;
mod default;
mod idle;
pub mod ranges;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cell::{self, column};
use super::path::{items, number, present, text};
use super::{BLANK, NameRule, Resource, proxy_of, selector, status_of};

/// `services`.
pub(super) const ROW: Resource = Resource {
    kind: "Service",
    list_kind: "ServiceList",
    plural: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    subresources: &[proxy_of("ServiceProxyOptions"), status_of("", "v1", "Service")],
    name_rule: NameRule::Label1035,
    default: default::default,
    prepare: default::prepare,
    prepare_update: default::prepare_update,
    validate: check::validate,
    validate_update: check::validate_update,
    validate_status: check::validate_status,
    has_status: true,
    new_status: || json!({ "loadBalancer": {} }),
    columns: &[
        cell::NAME,
        column("Type", "string", "", "Who can reach it.", 0),
        column("Cluster-IP", "string", "", "Its address within the cluster.", 0),
        column("External-IP", "string", "", "Its addresses outside the cluster.", 0),
        column("Port(s)", "string", "", "Its ports.", 0),
        cell::AGE,
        column("Selector", "string", "", "Labels of the pods behind it.", 1),
    ],
    cells,
    selectable: &[
        ("spec.clusterIP", |service| text(&service["spec"], "clusterIP").to_owned()),
        ("spec.type", |service| text(&service["spec"], "type").to_owned()),
    ],
    warn: idle::warn,
    returns_deleted: true,
    ..BLANK
};

fn cells(service: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &service["spec"];
    let ports = items(spec, "ports").iter().map(|port| match (number(port, "port"), number(port, "nodePort")) {
        (own, 0) => format!("{own}/{}", text(port, "protocol")),
        (own, node) => format!("{own}:{node}/{}", text(port, "protocol")),
    });
    vec![
        cell::name(service),
        text(spec, "type").into(),
        cell::or(spec["clusterIPs"][0].as_str().unwrap_or_default(), "<none>"),
        outside(service).into(),
        cell::or(&Vec::from_iter(ports).join(","), "<none>"),
        cell::age(service, now),
        selector::map_cell(&spec["selector"]),
    ]
}

/// Upstream cuts the addresses of a load balancer off at 16 characters unless the table is wide; a table here is always
/// whole, so they are cut off never.
fn outside(service: &Value) -> String {
    let spec = &service["spec"];
    let own = items(spec, "externalIPs").iter().filter_map(Value::as_str);
    let mut balanced: Vec<&str> = items(&service["status"]["loadBalancer"], "ingress")
        .iter()
        .map(|ingress| if present(ingress, "ip") { text(ingress, "ip") } else { text(ingress, "hostname") })
        .filter(|address| !address.is_empty())
        .collect();
    balanced.sort_unstable();
    balanced.dedup();
    let (all, instead) = match text(spec, "type") {
        "ClusterIP" | "NodePort" => (Vec::from_iter(own), "<none>"),
        "LoadBalancer" => (balanced.into_iter().chain(own).collect(), "<pending>"),
        "ExternalName" => (vec![text(spec, "externalName")], ""),
        _ => (Vec::new(), "<unknown>"),
    };
    if all.is_empty() { instead.to_owned() } else { all.join(",") }
}

/// Whether a Service has no address of its own.
fn is_headless(service: &Value) -> bool {
    service["spec"]["clusterIPs"] == serde_json::json!(["None"]) || service["spec"]["clusterIP"] == "None"
}

fn is_external_name(service: &Value) -> bool {
    service["spec"]["type"] == "ExternalName"
}

/// Whether it can be reached from outside (`service.ExternallyAccessible`).
fn is_reachable_from_outside(service: &Value) -> bool {
    match text(&service["spec"], "type") {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !items(&service["spec"], "externalIPs").is_empty(),
        _ => false,
    }
}

/// Whether it has ports on the nodes.
fn needs_node_ports(service: &Value) -> bool {
    let spec = &service["spec"];
    match text(spec, "type") {
        "NodePort" => true,
        "LoadBalancer" => spec["allocateLoadBalancerNodePorts"] != false,
        _ => false,
    }
}

/// Whether a load balancer asks the nodes which of them have pods of it.
fn needs_health_port(service: &Value) -> bool {
    service["spec"]["type"] == "LoadBalancer" && service["spec"]["externalTrafficPolicy"] == "Local"
}
