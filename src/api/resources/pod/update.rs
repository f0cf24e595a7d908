//! Checks of changes of pods: next to nothing of a spec may change (`ValidatePodUpdate`, `ValidatePodStatusUpdate`), and
//! of bindings.

use serde_json::Value;

use super::spec::{tolerations, validate_any};
use super::{container, is_restartable};
use crate::resources::path::{Path, items, present, put, text};
use crate::resources::rule;
use crate::status::FieldError;

pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";
const FIXED: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
                     `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
                     `spec.tolerations` (only additions to existing tolerations),\
                     `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Checks a change through the main resource.
pub(super) fn validate(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = validate_any(new);
    errors.extend(mirror_annotation(new, old));
    let path = Path::new("spec");
    let (spec, old_spec) = (&new["spec"], &old["spec"]);
    for list in ["containers", "initContainers"] {
        let (own, before) = (items(spec, list), items(old_spec, list));
        if own.len() != before.len() {
            let detail = "pod updates may not add or remove containers";
            errors.push(FieldError::forbidden(path.child(list), detail));
            return errors;
        }
        for (index, changed) in own.iter().enumerate() {
            let path = path.child(list).index(index);
            errors.extend(rule::not_empty(&path.child("image"), text(changed, "image")));
            errors.extend(container::padded_image(&path, changed));
        }
    }
    if !deadline(spec, old_spec, &path.child("activeDeadlineSeconds"), &mut errors) {
        return errors;
    }
    added_tolerations(spec, old_spec, &path.child("tolerations"), &mut errors);
    removed_gates(spec, old_spec, &path.child("schedulingGates"), &mut errors);
    errors.extend(fixed(spec, old_spec, &path));
    errors
}

pub(super) fn mirror_annotation(new: &Value, old: &Value) -> Option<FieldError> {
    let annotation = |pod: &Value| pod["metadata"]["annotations"][MIRROR].clone();
    let path = Path::new("metadata").child("annotations").key(MIRROR);
    match (annotation(new), annotation(old)) {
        (new, old) if new == old => None,
        (_, Value::Null) => Some(FieldError::forbidden(path, "may not add mirror pod annotation")),
        _ => Some(FieldError::forbidden(path, "may not remove or update mirror pod annotation")),
    }
}

/// The deadline may be set or come closer; returns whether the other checks make sense.
fn deadline(spec: &Value, old: &Value, path: &Path, errors: &mut Vec<FieldError>) -> bool {
    let detail = match (spec["activeDeadlineSeconds"].as_i64(), old["activeDeadlineSeconds"].as_i64()) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => "must be between 0 and 2147483647, inclusive",
        (Some(new), Some(old)) if old < new => "must be less than or equal to previous value",
        (None, Some(_)) => {
            let detail = "must not update from a positive integer to nil value";
            errors.push(FieldError::invalid(path, &Value::Null, detail));
            return true;
        }
        _ => return true,
    };
    errors.push(FieldError::invalid(path, &spec["activeDeadlineSeconds"], detail));
    false
}

fn added_tolerations(spec: &Value, old: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let without_seconds = |toleration: &Value| {
        let mut toleration = toleration.clone();
        put(&mut toleration, "tolerationSeconds", &Value::Null);
        toleration
    };
    let kept: Vec<Value> = items(spec, "tolerations").iter().map(without_seconds).collect();
    if items(old, "tolerations").iter().any(|toleration| !kept.contains(&without_seconds(toleration))) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden(path, detail));
        return;
    }
    tolerations(spec, path, errors);
}

fn removed_gates(spec: &Value, old: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    for (index, gate) in items(spec, "schedulingGates").iter().enumerate() {
        if items(old, "schedulingGates").iter().all(|known| known["name"] != gate["name"]) {
            let name = text(gate, "name");
            let detail = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            errors.push(FieldError::forbidden(path.index(index).child("name"), &detail));
        }
    }
}

/// Everything else stays as it is. The message names the fields that differ.
fn fixed(spec: &Value, old: &Value, path: &Path) -> Option<FieldError> {
    let mut spec = spec.clone();
    for list in ["containers", "initContainers"] {
        for (index, before) in items(old, list).iter().enumerate() {
            put(&mut spec[list][index], "image", &before["image"]);
        }
    }
    for field in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        put(&mut spec, field, &old[field]);
    }
    let grace = "terminationGracePeriodSeconds";
    if old[grace].as_i64().is_some_and(|seconds| seconds < 0) && spec[grace] == 1 {
        put(&mut spec, grace, &old[grace]);
    }
    let mut changed = Vec::new();
    differences(&spec, old, "spec", &mut changed);
    if changed.is_empty() {
        return None;
    }
    Some(FieldError::forbidden(path, &format!("{FIXED}\nchanged: {}", changed.join(", "))))
}

/// The deepest fields that differ; an absent field is an empty one.
pub(super) fn differences(a: &Value, b: &Value, path: &str, found: &mut Vec<String>) {
    match (a, b) {
        (Value::Object(left), Value::Object(right)) => {
            let added = right.keys().filter(|key| !left.contains_key(*key));
            for key in left.keys().chain(added) {
                differences(&a[key], &b[key], &format!("{path}.{key}"), found);
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for index in 0..left.len() {
                differences(&a[index], &b[index], &format!("{path}[{index}]"), found);
            }
        }
        _ if a == b || (is_empty(a) && is_empty(b)) => (),
        _ => found.push(path.to_owned()),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(_) => *value == 0,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// Checks a change through `status`.
pub(super) fn validate_status(new: &Value, old: &Value) -> Vec<FieldError> {
    let path = Path::new("status");
    let (status, old_status) = (&new["status"], &old["status"]);
    let mut errors: Vec<FieldError> = mirror_annotation(new, old).into_iter().collect();
    let conditions = Path::new("metadata").child("conditions");
    for (index, condition) in items(status, "conditions").iter().enumerate() {
        let kind = text(condition, "type");
        if !["PodScheduled", "Ready", "Initialized"].contains(&kind) {
            errors.extend(rule::qualified(&conditions.index(index).child("Type"), kind));
        }
    }
    let nominated = text(status, "nominatedNodeName");
    if !nominated.is_empty() && nominated != text(old_status, "nominatedNodeName") {
        errors.extend(rule::subdomain(&path.child("nominatedNodeName"), nominated));
    }
    errors.extend(rule::immutable(path.child("qosClass"), &status["qosClass"], &old_status["qosClass"]));
    for list in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        ended_stay_ended(new, old, list, &path.child(list), &mut errors);
    }
    addresses(status, &path, &mut errors);
    errors
}

/// A container that will not be restarted cannot come back.
fn ended_stay_ended(new: &Value, old: &Value, list: &str, path: &Path, errors: &mut Vec<FieldError>) {
    let policy = if list == "ephemeralContainerStatuses" { "Never" } else { text(&old["spec"], "restartPolicy") };
    if policy == "Always" {
        return;
    }
    let is_sidecar = |name: &Value| {
        list == "initContainerStatuses"
            && items(&old["spec"], "initContainers").iter().any(|c| c["name"] == *name && is_restartable(c))
    };
    for (index, before) in items(&old["status"], list).iter().enumerate() {
        let ended = &before["state"]["terminated"];
        let may_retry = policy == "OnFailure" && ended["exitCode"].as_i64().unwrap_or(0) != 0;
        if ended.is_null() || may_retry || is_sidecar(&before["name"]) {
            continue;
        }
        let came_back = |now: &Value| now["name"] == before["name"] && !present(&now["state"], "terminated");
        if items(&new["status"], list).iter().any(came_back) {
            let detail = "may not be transitioned to non-terminated state";
            errors.push(FieldError::forbidden(path.index(index).child("state"), detail));
        }
    }
}

fn addresses(status: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let hosts = items(status, "hostIPs");
    if let Some(first) = hosts.first()
        && text(first, "ip") != text(status, "hostIP")
    {
        let path = path.child("hostIPs").index(0).child("ip");
        errors.push(FieldError::invalid(path, &first["ip"], "must be equal to `hostIP`"));
    }
    for list in ["podIPs", "hostIPs"] {
        let path = path.child(list);
        let addresses = items(status, list);
        for (index, address) in addresses.iter().enumerate() {
            errors.extend(rule::ip(&path.index(index), text(address, "ip")));
        }
        let is_v6 = |address: &Value| text(address, "ip").contains(':');
        let is_dual = matches!(addresses, [first, second] if is_v6(first) != is_v6(second));
        if addresses.len() > 1 && !is_dual {
            let detail = "may specify no more than one IP for each IP family";
            errors.push(FieldError::invalid(&path, &status[list], detail));
        }
    }
}

/// Checks a Binding (`ValidatePodBinding`).
pub(super) fn validate_binding(binding: &Value) -> Vec<FieldError> {
    let path = Path::new("target");
    let target = &binding["target"];
    let kind = text(target, "kind");
    let mut errors = Vec::new();
    if !kind.is_empty() {
        errors.extend(rule::one_of(&path.child("kind"), kind, &["Node", "<empty>"]));
    }
    errors.extend(rule::not_empty(&path.child("name"), text(target, "name")));
    errors
}
