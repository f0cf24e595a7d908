//! APIServices: who serves the versions of API groups, this server or another.
//!
//! Follows `pkg/apis/apiregistration` and `pkg/registry/apiservice` of kube-aggregator. [`local`] makes those of this
//! server's own groups; who asks the others is the API server.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cell::{self, column};
use super::path::{Path, default_number, items, number, object_mut, present, put, text};
use super::{BLANK, Generation, NameRule, Resource, rule, status_of};
use crate::names;
use crate::status::FieldError;

/// The API group.
/// The group that is never anybody else's.
pub const GROUP: &str = "apiregistration.k8s.io";
const KIND: &str = "APIService";
/// By which those are known that the server makes itself, and whether they stay as they are while it runs.
pub const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// Of groups that come by definitions of custom resources.
const CUSTOM_PRIORITY: (i64, i64) = (1000, 100);

/// `apiservices.apiregistration.k8s.io`.
pub(super) const ROW: Resource = Resource {
    group: GROUP,
    kind: KIND,
    list_kind: "APIServiceList",
    plural: "apiservices",
    singular: "apiservice",
    categories: &["api-extensions"],
    namespaced: false,
    subresources: &[status_of(GROUP, "v1", KIND)],
    name_rule: NameRule::PathSegment,
    default: |service| {
        if let Some(service) = object_mut(service, "spec").and_then(|spec| object_mut(spec, "service")) {
            default_number(service, "port", 443);
        }
    },
    prepare: |service| {
        if is_local(service) {
            let made = service["metadata"]["creationTimestamp"].clone();
            put(service, "status", &json!({ "conditions": [local_condition(&made)] }));
        }
    },
    validate,
    validate_update: |new, _| validate(new),
    has_status: true,
    generation: Generation::None,
    unconditional_update: false,
    columns: &[
        cell::NAME,
        column("Service", "string", "", "Who serves it.", 0),
        column("Available", "string", "", "Whether it answers.", 0),
        cell::AGE,
    ],
    cells,
    ..BLANK
};

/// Whether this server serves it.
pub fn is_local(service: &Value) -> bool {
    !service["spec"]["service"].is_object()
}

/// The condition that says whether it answers.
pub fn available(service: &Value) -> Option<&Value> {
    items(&service["status"], "conditions").iter().find(|condition| condition["type"] == "Available")
}

/// The condition of those that this server serves.
pub fn local_condition(now: &Value) -> Value {
    json!({
        "type": "Available", "status": "True", "reason": "Local",
        "message": "Local APIServices are always available", "lastTransitionTime": now,
    })
}

fn cells(service: &Value, now: Timestamp) -> Vec<Value> {
    let place = &service["spec"]["service"];
    let by = match is_local(service) {
        true => "Local".to_owned(),
        false => format!("{}/{}", text(place, "namespace"), text(place, "name")),
    };
    let available = match available(service) {
        None => "Unknown".to_owned(),
        Some(condition) if condition["status"] == "True" => "True".to_owned(),
        Some(condition) => format!("{} ({})", text(condition, "status"), text(condition, "reason")),
    };
    vec![cell::name(service), by.into(), available.into(), cell::age(service, now)]
}

/// `ValidateAPIService`.
fn validate(service: &Value) -> Vec<FieldError> {
    let (spec, path) = (&service["spec"], Path::new("spec"));
    let (name, group, version) = (text(&service["metadata"], "name"), text(spec, "group"), text(spec, "version"));
    let mut errors = Vec::new();
    let wanted = format!("{version}.{group}");
    if name != wanted {
        let detail = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
        errors.push(FieldError::invalid("metadata.name", &name.into(), &detail));
    }
    if group.is_empty() && version != "v1" {
        let detail = "only v1 may have an empty group and it better be legacy kube";
        errors.push(FieldError::required(path.child("group"), detail));
    }
    if !group.is_empty() {
        errors.extend(rule::each(&path.child("group"), group, names::dns1123_subdomain(group)));
    }
    errors.extend(rule::each(&path.child("version"), version, names::dns1035_label(version)));
    for (field, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let value = number(spec, field);
        if !(1..=most).contains(&value) {
            let detail = format!("must be positive and less than {most}");
            errors.push(FieldError::invalid(path.child(field), &value.into(), &detail));
        }
    }
    check_place(spec, &path, &mut errors);
    errors
}

fn check_place(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let (place, at) = (&spec["service"], path.child("service"));
    let (authorities, trusts_anybody) = (text(spec, "caBundle"), spec["insecureSkipTLSVerify"] == true);
    let insecure = path.child("insecureSkipTLSVerify");
    if !present(spec, "service") {
        if !authorities.is_empty() {
            let detail = "local APIServices may not have a caBundle";
            let shown = format!("{} bytes", authorities.len() / 4 * 3);
            errors.push(FieldError::invalid(path.child("caBundle"), &shown.into(), detail));
        }
        if trusts_anybody {
            let detail = "local APIServices may not have insecureSkipTLSVerify";
            errors.push(FieldError::invalid(insecure, &true.into(), detail));
        }
        return;
    }
    for field in ["namespace", "name"] {
        if text(place, field).is_empty() {
            errors.push(FieldError::required(at.child(field), ""));
        }
    }
    let port = number(place, "port");
    let wrong = names::port_number(port);
    if !wrong.is_empty() {
        let detail = format!("port is not valid: {}", wrong.join(", "));
        errors.push(FieldError::invalid(at.child("port"), &port.into(), &detail));
    }
    if trusts_anybody && !authorities.is_empty() {
        errors.push(FieldError::invalid(insecure, &true.into(), "may not be true if caBundle is present"));
    }
}

/// Which groups go first, and which of their versions (`apiVersionPriorities` of `cmd/kube-apiserver`).
fn priorities(group: &str, version: &str) -> (i64, i64) {
    let group = match group {
        "" => return (18_000, 1),
        "apps" => 17_800,
        "events.k8s.io" => 17_750,
        "authentication.k8s.io" => 17_700,
        "authorization.k8s.io" => 17_600,
        "autoscaling" if version == "v2" => return (17_500, 30),
        "autoscaling" => 17_500,
        "batch" => 17_400,
        "certificates.k8s.io" => 17_300,
        "networking.k8s.io" => 17_200,
        "policy" => 17_100,
        "rbac.authorization.k8s.io" => 17_000,
        "storage.k8s.io" => 16_800,
        "apiextensions.k8s.io" | "admissionregistration.k8s.io" => 16_700,
        "scheduling.k8s.io" => 16_600,
        "coordination.k8s.io" => 16_500,
        "node.k8s.io" => 16_300,
        "discovery.k8s.io" => 16_200,
        "flowcontrol.apiserver.k8s.io" => return (16_100, 21),
        "resource.k8s.io" => return (15_900, 21),
        // What metrics-server says of itself.
        _ => return (100, 100),
    };
    (group, 15)
}

/// The APIService of a version of a group that a row belongs to; none for the group that describes the others. One that
/// people replace by a server of their own (metrics) is left alone once it is there.
pub fn local(row: &Resource) -> Option<Value> {
    let is_custom = row.custom.is_some();
    let (minimum, priority) = if is_custom { CUSTOM_PRIORITY } else { priorities(row.group, row.version) };
    if row.group == GROUP {
        return None;
    }
    let mut metadata = json!({ "name": format!("{}.{}", row.version, row.group) });
    if is_custom || minimum > CUSTOM_PRIORITY.0 {
        metadata["labels"] = json!({ MANAGED: if is_custom { "true" } else { "onstart" } });
    }
    let mut spec = json!({ "version": row.version, "groupPriorityMinimum": minimum, "versionPriority": priority });
    if !row.group.is_empty() {
        spec["group"] = row.group.into();
    }
    Some(json!({ "apiVersion": "apiregistration.k8s.io/v1", "kind": KIND, "metadata": metadata, "spec": spec }))
}
