//! `POST` of a Binding: the scheduler gives a pod to a node (`pkg/registry/core/pod/storage`, BindingREST).

use api::resources::{self, Resource};
use api::status::ApiError;
use bytes::Bytes;
use serde_json::{Value, json};
use store::{Expect, StoreError};

use super::ATTEMPTS;
use crate::admission::{self, Subject};
use crate::body::{self, FieldValidation, Kind};
use crate::call::{Call, Outcome};
use crate::managed::check_options;
use crate::object::{self, is_terminating, meta};
use crate::storage;

const KIND: Kind<'static> = Kind { group: "", version: "v1", kind: "Binding", custom: None };

pub(super) async fn bind(call: &Call, bytes: &Bytes) -> Result<Outcome, ApiError> {
    check_options(&call.query, "CreateOptions", false)?;
    let validation = FieldValidation::from_query(&call.query, "CreateOptions")?;
    let dry = body::dry_run(call.query.all("dryRun"), "CreateOptions")?;
    let decoded = body::decode(bytes, &call.headers, KIND, validation)?;
    let mut binding = decoded.object;
    let name = pod_name(call, &binding)?;
    admission::beside(call, Subject { operation: "CREATE", kind: KIND }, &mut binding, dry).await?;
    check_target(&binding, &name)?;
    let pods = resources::find("", "v1", "pods").ok_or_else(|| ApiError::internal("no pods"))?;
    for _ in 0..ATTEMPTS {
        let (old, entry) = call.server.read(pods, &call.request.namespace, &name).await?;
        let new = bound(call, pods, &old, &binding)?;
        let (value, durability) = (object::encode(&new)?, storage::durability(pods, &new, Some(&old)));
        if !dry {
            match call.server.config.store.put(&entry.key, value, Expect::At(entry.revision), durability).await {
                Ok(_) => {}
                Err(StoreError::Conflict { .. }) => continue,
                Err(error) => return Err(storage::failed(error)),
            }
        }
        let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 });
        return Ok(Outcome { code: 201, object: status, warnings: decoded.warnings });
    }
    Err(ApiError::modified("", "pods", &name))
}

/// The pod: named by the path, or by the binding in a `POST` to `bindings`.
fn pod_name(call: &Call, binding: &Value) -> Result<String, ApiError> {
    let given = meta(binding, "name");
    let namespace = meta(binding, "namespace");
    if !namespace.is_empty() && namespace != call.request.namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    match (call.request.name.as_str(), given) {
        ("", "") => Err(ApiError::bad_request("name must be provided")),
        ("", given) => Ok(given.to_owned()),
        (path, "") => Ok(path.to_owned()),
        (path, given) if path == given => Ok(path.to_owned()),
        _ => Err(ApiError::bad_request("name in URL does not match name in Binding object")),
    }
}

fn check_target(binding: &Value, name: &str) -> Result<(), ApiError> {
    let row = resources::find("", "v1", "bindings").ok_or_else(|| ApiError::internal("no bindings"))?;
    let wrong = (row.validate)(binding);
    if wrong.is_empty() { Ok(()) } else { Err(ApiError::invalid("", "Binding", name, &wrong)) }
}

/// The pod with its node, or why it cannot have it.
fn bound(call: &Call, pods: &Resource, pod: &Value, binding: &Value) -> Result<Value, ApiError> {
    let name = meta(pod, "name");
    let conflict = |text: &str| Err(ApiError::conflict(pods.group, "pods/binding", name, text));
    let uid = meta(binding, "uid");
    if !uid.is_empty() && uid != meta(pod, "uid") {
        let current = meta(pod, "uid");
        let text = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {current}");
        return Err(ApiError::conflict(pods.group, "pods", name, &text));
    }
    let version = meta(binding, "resourceVersion");
    if !version.is_empty() && version != meta(pod, "resourceVersion") {
        return Err(ApiError::modified(pods.group, "pods", name));
    }
    if is_terminating(pod) {
        return conflict(&format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    match pod["spec"]["nodeName"].as_str().unwrap_or_default() {
        "" => {}
        node => return conflict(&format!("pod {name} is already assigned to node {node:?}")),
    }
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        return conflict(&format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut new = pod.clone();
    new["spec"]["nodeName"] = binding["target"]["name"].clone();
    for (field, value) in binding["metadata"]["annotations"].as_object().into_iter().flatten() {
        new["metadata"]["annotations"][field] = value.clone();
    }
    // Where room was kept for it no longer matters (KEP-5278).
    if let Some(status) = new["status"].as_object_mut() {
        status.remove("nominatedNodeName");
    }
    let now = call.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    scheduled(&mut new, &now);
    Ok(new)
}

/// Sets the condition `PodScheduled`.
fn scheduled(pod: &mut Value, now: &str) {
    let condition = json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now,
        "observedGeneration": pod["metadata"]["generation"],
    });
    let conditions = &mut pod["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    if let Some(list) = conditions.as_array_mut() {
        list.retain(|old| old["type"] != "PodScheduled");
        list.push(condition);
    }
}
