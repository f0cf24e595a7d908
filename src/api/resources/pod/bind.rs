//! Binding a pod to a node (`assignPod` in `pkg/registry/core/pod/storage/storage.go`).

use serde_json::{Value, json};

use crate::resources::path::{ensure_object, entries, items, present, text};
use crate::status::ApiError;

/// Applies a checked Binding to its pod; `now` is the time in RFC 3339. The caller stores the result, not bypassing the
/// revision it has read.
pub fn bind(pod: &mut Value, binding: &Value, now: &str) -> Result<(), ApiError> {
    let name = text(&pod["metadata"], "name").to_owned();
    let conflict = |message: &str| Err(ApiError::conflict("", "pods/binding", &name, message));
    let uid = text(&binding["metadata"], "uid");
    if !uid.is_empty() && uid != text(&pod["metadata"], "uid") {
        let own = text(&pod["metadata"], "uid");
        return conflict(&format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {own}"));
    }
    if present(&pod["metadata"], "deletionTimestamp") {
        return conflict(&format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let node = text(&pod["spec"], "nodeName");
    if !node.is_empty() {
        return conflict(&format!("pod {name} is already assigned to node {node:?}"));
    }
    if !items(&pod["spec"], "schedulingGates").is_empty() {
        return conflict(&format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    pod["spec"]["nodeName"] = text(&binding["target"], "name").into();
    for (key, value) in entries(&binding["metadata"], "annotations") {
        ensure_object(ensure_object(pod, "metadata"), "annotations")[key] = value.clone();
    }
    let condition = json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now,
        "observedGeneration": pod["metadata"]["generation"],
    });
    set_condition(ensure_object(pod, "status"), condition);
    Ok(())
}

fn set_condition(status: &mut Value, condition: Value) {
    let list = &mut status["conditions"];
    match list.as_array_mut() {
        Some(conditions) => {
            conditions.retain(|own| own["type"] != condition["type"]);
            conditions.push(condition);
        }
        None => *list = json!([condition]),
    }
}
