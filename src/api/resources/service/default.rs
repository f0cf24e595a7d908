//! What a Service is given where it says nothing (`SetDefaults_Service`), and what a change keeps or drops
//! (`pkg/registry/core/service/strategy.go`, `patchAllocatedValues`, `dropTypeDependentFields`).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{is_external_name, is_reachable_from_outside, needs_health_port, needs_node_ports};
use crate::resources::path::{
    default_number, default_text, default_to, ensure_object, items, items_mut, number, object_mut, present, put,
    remove, text,
};

/// Three hours.
const AFFINITY_SECONDS: i64 = 10_800;

/// Fills in what was left out.
pub(super) fn default(service: &mut Value) {
    let spec = ensure_object(service, "spec");
    default_text(spec, "sessionAffinity", "None");
    if spec["sessionAffinity"] == "None" {
        remove(spec, "sessionAffinityConfig");
    }
    if spec["sessionAffinity"] == "ClientIP" {
        let client = ensure_object(ensure_object(spec, "sessionAffinityConfig"), "clientIP");
        default_to(client, "timeoutSeconds", AFFINITY_SECONDS);
    }
    default_text(spec, "type", "ClusterIP");
    for port in items_mut(spec, "ports") {
        default_text(port, "protocol", "TCP");
        let own = number(port, "port");
        if port["targetPort"] == "" {
            remove(port, "targetPort");
        }
        default_number(port, "targetPort", own);
    }
    if matches!(text(spec, "type"), "NodePort" | "LoadBalancer" | "ClusterIP") {
        default_to(spec, "internalTrafficPolicy", "Cluster");
    }
    if spec["type"] == "LoadBalancer" {
        default_to(spec, "allocateLoadBalancerNodePorts", true);
    }
    if is_reachable_from_outside(service) {
        default_text(ensure_object(service, "spec"), "externalTrafficPolicy", "Cluster");
    }
    if service["spec"]["type"] == "LoadBalancer"
        && let Some(balancer) = object_mut(service, "status").and_then(|status| object_mut(status, "loadBalancer"))
    {
        for ingress in items_mut(balancer, "ingress").filter(|ingress| !text(ingress, "ip").is_empty()) {
            default_to(ingress, "ipMode", "VIP");
        }
    }
}

/// The first address is said twice.
pub(super) fn prepare(service: &mut Value) {
    let spec = ensure_object(service, "spec");
    let own = spec["clusterIP"].clone();
    if !text(spec, "clusterIP").is_empty() && items(spec, "clusterIPs").is_empty() {
        spec["clusterIPs"] = json!([own]);
    }
    put(service, "status", &json!({"loadBalancer": {}}));
}

/// What a change need not repeat stays, and what its new type cannot have goes, unless it says otherwise.
pub(super) fn prepare_update(new: &mut Value, old: &Value) {
    drop_what_does_not_fit(new, old);
    keep_what_was_given(new, old);
    same_first_address(new, old);
}

fn keep_what_was_given(new: &mut Value, old: &Value) {
    if !is_external_name(new) && !is_external_name(old) {
        let spec = ensure_object(new, "spec");
        if text(spec, "clusterIP").is_empty() && items(spec, "clusterIPs").is_empty() {
            put(spec, "clusterIP", &old["spec"]["clusterIP"]);
        }
        if items(spec, "clusterIPs").is_empty() && spec["clusterIP"] == old["spec"]["clusterIP"] {
            put(spec, "clusterIPs", &old["spec"]["clusterIPs"]);
        }
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if !present(spec, field) {
                put(spec, field, &old["spec"][field]);
            }
        }
    }
    if needs_node_ports(new) && needs_node_ports(old) {
        keep_node_ports(new, old);
    }
    if needs_health_port(new) && needs_health_port(old) {
        let port = number(&old["spec"], "healthCheckNodePort");
        default_number(ensure_object(new, "spec"), "healthCheckNodePort", port);
    }
}

/// A port is known by its name.
fn keep_node_ports(new: &mut Value, old: &Value) {
    let used = |service: &Value| -> BTreeSet<i64> {
        items(&service["spec"], "ports").iter().map(|port| number(port, "nodePort")).filter(|port| *port != 0).collect()
    };
    let taken: BTreeSet<i64> = used(old).intersection(&used(new)).copied().collect();
    for port in items_mut(ensure_object(new, "spec"), "ports") {
        let before = items(&old["spec"], "ports").iter().find(|before| text(before, "name") == text(port, "name"));
        let before = before.map_or(0, |before| number(before, "nodePort"));
        if before != 0 && !taken.contains(&before) {
            default_number(port, "nodePort", before);
        }
    }
}

fn drop_what_does_not_fit(new: &mut Value, old: &Value) {
    let same = |new: &Value, field: &str| new["spec"][field] == old["spec"][field];
    let mut gone = Vec::new();
    if is_external_name(new) && !is_external_name(old) {
        if same(new, "clusterIP") && same(new, "clusterIPs") {
            gone.extend(["clusterIP", "clusterIPs"]);
        }
        gone.extend(["ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"].into_iter().filter(|f| same(new, f)));
    }
    if new["spec"]["type"] != "LoadBalancer" {
        let fields = ["allocateLoadBalancerNodePorts", "loadBalancerClass"];
        gone.extend(fields.into_iter().filter(|field| same(new, field)));
    }
    if !needs_health_port(new) && same(new, "healthCheckNodePort") {
        gone.push("healthCheckNodePort");
    }
    if !is_reachable_from_outside(new) && same(new, "externalTrafficPolicy") {
        gone.push("externalTrafficPolicy");
    }
    let keeps_ports = needs_node_ports(new) || !needs_node_ports(old) || !same_node_ports(new, old);
    let spec = ensure_object(new, "spec");
    gone.into_iter().for_each(|field| remove(spec, field));
    if !keeps_ports {
        items_mut(spec, "ports").for_each(|port| remove(port, "nodePort"));
    }
}

fn same_node_ports(new: &Value, old: &Value) -> bool {
    let ports = |service: &Value| -> BTreeSet<i64> {
        items(&service["spec"], "ports").iter().map(|port| number(port, "nodePort")).collect()
    };
    ports(new).is_subset(&ports(old))
}

/// Clients that know one address only change that; the list follows.
fn same_first_address(new: &mut Value, old: &Value) {
    let spec = ensure_object(new, "spec");
    let own = text(spec, "clusterIP").to_owned();
    let list_changed = spec["clusterIPs"] != old["spec"]["clusterIPs"];
    if spec["clusterIP"] == old["spec"]["clusterIP"] {
        return;
    }
    match (own.as_str(), list_changed) {
        ("", false) => remove(spec, "clusterIPs"),
        (_, false) | (_, true) if !own.is_empty() && items(spec, "clusterIPs").is_empty() => {
            spec["clusterIPs"] = json!([own]);
        }
        (_, false) => spec["clusterIPs"][0] = own.into(),
        (_, true) => (),
    }
}
