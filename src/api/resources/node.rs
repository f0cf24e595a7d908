//! Nodes.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cell::{self, column};
use super::path::{Path, entries, items, items_mut, object_mut, present, text};
use super::pod::resources::check_quantity;
use super::{BLANK, Resource, WriteBehind, proxy_of, rule, status_of};
use crate::status::FieldError;

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE: &str = "kubernetes.io/role";

/// `nodes`.
pub(super) const ROW: Resource = Resource {
    kind: "Node",
    list_kind: "NodeList",
    plural: "nodes",
    singular: "node",
    short_names: &["no"],
    namespaced: false,
    subresources: &[proxy_of("NodeProxyOptions"), status_of("", "v1", "Node")],
    default,
    validate,
    validate_update,
    validate_status: |new, old| validate_update(new, old),
    // A kubelet registers with its first status, so create keeps it (`pkg/registry/core/node/strategy.go`).
    has_status: true,
    status_on_create: true,
    write_behind: WriteBehind::Heartbeats,
    columns: &[
        cell::NAME,
        column("Status", "string", "", "Whether pods can run on it.", 0),
        column("Roles", "string", "", "Its roles, from its labels.", 0),
        cell::AGE,
        column("Version", "string", "", "Version of its kubelet.", 0),
        column("Internal-IP", "string", "", "Its first internal address.", 1),
        column("External-IP", "string", "", "Its first external address.", 1),
        column("OS-Image", "string", "", "Its operating system.", 1),
        column("Kernel-Version", "string", "", "Its kernel.", 1),
        column("Container-Runtime", "string", "", "Its container runtime and the version of it.", 1),
    ],
    cells,
    selectable: &[("spec.unschedulable", |node| (node["spec"]["unschedulable"] == true).to_string())],
    ..BLANK
};

fn cells(node: &Value, now: Timestamp) -> Vec<Value> {
    let status = &node["status"];
    let info = &status["nodeInfo"];
    let or_unknown = |field: &str| cell::or(text(info, field), "<unknown>");
    vec![
        cell::name(node),
        readiness(node).into(),
        roles(&node["metadata"]).into(),
        cell::age(node, now),
        text(info, "kubeletVersion").into(),
        address(status, "InternalIP").into(),
        address(status, "ExternalIP").into(),
        or_unknown("osImage"),
        or_unknown("kernelVersion"),
        or_unknown("containerRuntimeVersion"),
    ]
}

fn readiness(node: &Value) -> String {
    let ready = items(&node["status"], "conditions").iter().rfind(|condition| condition["type"] == "Ready");
    let mut words = match ready {
        Some(condition) if condition["status"] == "True" => vec!["Ready"],
        Some(_) => vec!["NotReady"],
        None => vec!["Unknown"],
    };
    if node["spec"]["unschedulable"] == true {
        words.push("SchedulingDisabled");
    }
    words.join(",")
}

fn roles(metadata: &Value) -> String {
    let role = |(key, value): (&String, &Value)| match key.strip_prefix(ROLE_PREFIX) {
        Some(role) => Some(role.to_owned()),
        None if key == ROLE => value.as_str().map(str::to_owned),
        None => None,
    };
    let roles: BTreeSet<String> =
        entries(metadata, "labels").filter_map(role).filter(|role| !role.is_empty()).collect();
    if roles.is_empty() { "<none>".to_owned() } else { Vec::from_iter(roles).join(",") }
}

fn address<'a>(status: &'a Value, kind: &str) -> &'a str {
    let found = items(status, "addresses").iter().find(|address| address["type"] == kind);
    found.map_or("<none>", |address| text(address, "address"))
}

/// `allocatable` is `capacity` unless said; `podCIDR` and the first of `podCIDRs` are the same.
fn default(node: &mut Value) {
    if let Some(status) = object_mut(node, "status")
        && !present(status, "allocatable")
        && present(status, "capacity")
    {
        status["allocatable"] = status["capacity"].clone();
    }
    if let Some(spec) = object_mut(node, "spec") {
        let first = spec["podCIDRs"][0].clone();
        if first.is_null() && !text(spec, "podCIDR").is_empty() {
            spec["podCIDRs"] = json!([spec["podCIDR"]]);
        } else if !first.is_null() && text(spec, "podCIDR").is_empty() {
            spec["podCIDR"] = first;
        } else if !first.is_null() && first != spec["podCIDR"] {
            // As upstream's conversion has it; a change of it is found as one of the list.
            spec["podCIDRs"] = json!([spec["podCIDR"]]);
        }
        // Taints are compared with their effect and key only; an absent value is an empty one.
        items_mut(spec, "taints").for_each(|taint| {
            if taint["value"] == ""
                && let Some(taint) = taint.as_object_mut()
            {
                taint.remove("value");
            }
        });
    }
}

fn validate(node: &Value) -> Vec<FieldError> {
    let mut errors = validate_taints(node);
    errors.extend(validate_quantities(node));
    let path = Path::new("spec").child("podCIDRs");
    for (index, cidr) in items(&node["spec"], "podCIDRs").iter().enumerate() {
        errors.extend(rule::cidr(&path.index(index), cidr.as_str().unwrap_or_default()));
    }
    errors
}

fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = validate_quantities(new);
    let addresses = items(&new["status"], "addresses");
    let path = Path::new("status").child("addresses");
    for (index, address) in addresses.iter().enumerate() {
        if addresses[..index].contains(address) {
            errors.push(FieldError::duplicate(path.index(index), address));
        }
    }
    let (spec, old) = (&new["spec"], &old["spec"]);
    let path = Path::new("spec");
    for (field, shown) in [("podCIDRs", "podCIDR"), ("providerID", "providerID")] {
        let was_set = !items(old, field).is_empty() || !text(old, field).is_empty();
        if was_set && spec[field] != old[field] {
            let detail = format!("node updates may not change {shown} except from \"\" to valid");
            errors.push(FieldError::forbidden(path.child(field), &detail));
        }
    }
    errors.extend(validate_taints(new));
    errors
}

fn validate_quantities(node: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for field in ["capacity", "allocatable"] {
        let path = Path::new("status").child(field);
        for (name, quantity) in entries(&node["status"], field) {
            check_quantity(&path.child(name), name, quantity, &mut errors);
        }
    }
    errors
}

/// Upstream says `metadata.taints` although taints are in `spec`.
fn validate_taints(node: &Value) -> Vec<FieldError> {
    let path = Path::new("metadata").child("taints");
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, taint) in items(&node["spec"], "taints").iter().enumerate() {
        let path = path.index(index);
        let (key, value, effect) = (text(taint, "key"), text(taint, "value"), text(taint, "effect"));
        errors.extend(rule::label_name(&path.child("key"), key));
        errors.extend(rule::label_value_joined(&path.child("value"), value));
        errors.extend(rule::taint_effect(&path.child("effect"), effect));
        if !seen.insert((key, effect)) {
            let mut error = FieldError::duplicate(&path, taint);
            error.text.push_str(": taints must be unique by key and effect pair");
            errors.push(error);
        }
    }
    errors
}
