//! Admission: what a write must have or must not be, beyond what its kind's row says.
//!
//! [`create`] and [`update`] are called after decoding and may change objects; [`ask`] and [`check`] are called when their
//! final form has been validated. Follows the plugins NamespaceLifecycle, LimitRanger, ServiceAccount, Priority,
//! DefaultTolerationSeconds, RuntimeClass, DefaultStorageClass, DefaultIngressClass, PersistentVolumeClaimResize,
//! StorageObjectInUseProtection, NodeRestriction, PodSecurity and ResourceQuota of upstream, in [`certificates`] those for
//! signing requests, in [`policies`] ValidatingAdmissionPolicy, in [`mutations`] MutatingAdmissionPolicy, and in [`hooks`]
//! both kinds of webhooks.

mod attempt;
pub(crate) mod certificates;
pub(crate) mod devices;
mod hooks;
mod limits;
mod mutations;
mod others;
mod podsecurity;
mod policies;
mod registered;
mod rights;

use std::time::Duration;

use api::names::generate_name;
use api::resources::admission::{
    apply_service_account, default_ingress_class, default_service_account, default_storage_class,
    default_toleration_seconds, global_default, lacks_ingress_class, lacks_storage_class, may_grow, mount_token,
    priority, runtime_class,
};
use api::resources::tokenrequest;
use api::status::{ApiError, Cause};
use api::user::MASTERS;
use serde_json::Value;
use tokio::sync::MutexGuard;

use crate::authz::{escalation, relations};
use crate::call::Call;
use crate::object::{is_terminating, meta};
use crate::storage;
pub(crate) use attempt::Subject;
pub(crate) use others::{ask, beside, end};
pub(crate) use registered::RegisteredCache;

/// Namespaces without which a cluster does not work.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];
/// How long a pod waits for the `default` account of its namespace, which a controller makes.
const PATIENCE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(20);
const RESTRICTED: &str = "node-restriction.kubernetes.io";
const MIRROR: &str = "kubernetes.io/config.mirror";
/// What stays until nobody uses it, and the finalizers that a controller takes away then.
const PROTECTED: [(&str, &str); 2] =
    [("persistentvolumeclaims", "kubernetes.io/pvc-protection"), ("persistentvolumes", "kubernetes.io/pv-protection")];

/// A new object, its namespace set; changes it and may refuse it.
pub(crate) async fn create(call: &Call, object: &mut Value, dry: bool) -> Result<(), ApiError> {
    // As upstream's decoder does: whoever decides here sees what is meant, under whatever name it was said.
    call.row.fill_defaults(object);
    if call.row.namespaced {
        live_namespace(call, meta(object, "namespace"), meta(object, "name")).await?;
    }
    if let Some(node) = restricted_node(call) {
        restrict_create(call, node, object)?;
    }
    escalation::check(call, object, None).await?;
    certificates::create(call, object)?;
    complete(call, object).await?;
    let again = others::mutate(call, object, None, dry).await?;
    if again.changed {
        call.row.fill_defaults(object);
        complete(call, object).await?;
        again.again(call, object, None, dry).await?;
        escalation::check(call, object, None).await?;
        certificates::create(call, object)?;
    }
    Ok(())
}

/// What the server itself adds to a new object; nothing that it finds there already.
async fn complete(call: &Call, object: &mut Value) -> Result<(), ApiError> {
    if is_core(call, "pods") {
        limits::default_pod(call, object).await?;
        if let Some(account) = default_service_account(object) {
            let account = service_account(call, object, &account).await?;
            apply_service_account(object, &account);
            let mut random = [0; 5];
            call.server.config.entropy.fill(&mut random);
            mount_token(object, &account, &generate_name("", random));
        } else {
            mirror(object)?;
        }
        let class = priority_class(call, object).await?;
        priority(object, class.as_ref())?;
        default_toleration_seconds(object);
        let class = class_of(call, object).await?;
        let name = meta(object, "name").to_owned();
        runtime_class(object, class.as_ref()).map_err(|text| ApiError::forbidden("", "pods", &name, &text))?;
    }
    if is_core(call, "persistentvolumeclaims") && lacks_storage_class(object) {
        default_storage_class(object, &all(call, "storage.k8s.io", "storageclasses").await?);
    }
    // From the first: a controller that did it later would be in the way of the scheduler's first write.
    for (plural, finalizer) in PROTECTED {
        if is_core(call, plural) {
            protect(object, finalizer);
        }
    }
    if call.row.group == "networking.k8s.io" && call.row.plural == "ingresses" && lacks_ingress_class(object) {
        default_ingress_class(object, &all(call, "networking.k8s.io", "ingressclasses").await?);
    }
    Ok(())
}

/// Looks at the final form of a new object, or of the next state of one, and may refuse it. The guard must live until the
/// object is stored.
pub(crate) async fn check<'a>(
    call: &'a Call,
    new: &Value,
    old: Option<&Value>,
) -> Result<Option<MutexGuard<'a, ()>>, ApiError> {
    let subresource = call.request.subresource.as_str();
    // What changes the rest of a pod under another name is looked at like the pod itself.
    if !matches!(subresource, "" | "ephemeralcontainers" | "resize") {
        return Ok(None);
    }
    if call.row.group == "scheduling.k8s.io" && call.row.plural == "priorityclasses" && new["globalDefault"] == true {
        only_default(call, new).await?;
    }
    podsecurity::check(call, new, old).await?;
    limits::check(call, new, old).await?;
    if let Some(old) = old
        && is_core(call, "persistentvolumeclaims")
    {
        let classes = all(call, "storage.k8s.io", "storageclasses").await?;
        may_grow(new, old, &classes)
            .map_err(|text| ApiError::forbidden("", call.row.plural, meta(new, "name"), text))?;
    }
    if call.row.namespaced { limits::charge(call, new, old).await } else { Ok(None) }
}

fn protect(object: &mut Value, finalizer: &str) {
    let Some(metadata) = object["metadata"].as_object_mut() else { return };
    match metadata.get_mut("finalizers").and_then(Value::as_array_mut) {
        Some(list) if list.iter().any(|one| one == finalizer) => {}
        Some(list) => list.push(finalizer.into()),
        None => drop(metadata.insert("finalizers".to_owned(), vec![finalizer].into())),
    }
}

/// The RuntimeClass that a pod names.
async fn class_of(call: &Call, pod: &Value) -> Result<Option<Value>, ApiError> {
    let Some(name) = pod["spec"]["runtimeClassName"].as_str() else { return Ok(None) };
    let row = api::resources::find("node.k8s.io", "v1", "runtimeclasses");
    let row = row.ok_or_else(|| ApiError::internal("no runtimeclasses"))?;
    match call.server.read(row, "", name).await {
        Ok((class, _)) => Ok(Some(class)),
        Err(error) if error.code == 404 => {
            let text = format!("pod rejected: RuntimeClass \"{name}\" not found");
            Err(ApiError::forbidden("", "pods", meta(pod, "name"), &text))
        }
        Err(error) => Err(error),
    }
}

/// All objects of a kind that has no namespaces.
async fn all(call: &Call, group: &str, plural: &str) -> Result<Vec<Value>, ApiError> {
    let row = api::resources::find(group, "v1", plural);
    let row = row.ok_or_else(|| ApiError::internal(format!("no {plural}")))?;
    let range = store::Range { prefix: storage::prefix(row, ""), after: None, limit: None, at: None };
    let page = call.server.config.store.list(range).await.map_err(storage::failed)?;
    page.entries.iter().map(crate::object::of_entry).collect()
}

/// The next state of an object; changes it and may refuse it.
pub(crate) async fn update(call: &Call, new: &mut Value, old: &Value, dry: bool) -> Result<(), ApiError> {
    complete_update(call, new, old)?;
    let again = others::mutate(call, new, Some(old), dry).await?;
    if again.changed {
        call.row.fill_defaults(new);
        complete_update(call, new, old)?;
        again.again(call, new, Some(old), dry).await?;
    }
    Ok(())
}

fn complete_update(call: &Call, new: &mut Value, old: &Value) -> Result<(), ApiError> {
    if is_core(call, "pods") && call.request.subresource.is_empty() {
        default_toleration_seconds(new);
    }
    let Some(node) = restricted_node(call) else { return Ok(()) };
    let refuse = |text: String| Err(ApiError::forbidden("", call.row.plural, meta(new, "name"), &text));
    let is_status = call.request.subresource == "status";
    if is_core(call, "nodes") && !is_status && new["spec"]["taints"] != old["spec"]["taints"] {
        return refuse(format!("node {node:?} is not allowed to modify taints"));
    }
    if is_core(call, "nodes") && restricted_labels(new) != restricted_labels(old) {
        return refuse(format!("node {node:?} is not allowed to modify labels with the prefix {RESTRICTED:?}"));
    }
    if is_core(call, "pods") && new["metadata"]["labels"] != old["metadata"]["labels"] {
        return refuse(format!("node {node:?} cannot update labels through pod status"));
    }
    Ok(())
}

/// Labels by which an administrator keeps pods away from nodes that may have been taken over.
fn restricted_labels(node: &Value) -> Vec<(&String, &Value)> {
    let labels = node["metadata"]["labels"].as_object().into_iter().flatten();
    labels.filter(|(name, _)| name.split('/').next().is_some_and(|prefix| prefix.ends_with(RESTRICTED))).collect()
}

/// The end of an object.
pub(crate) fn delete(call: &Call, name: &str) -> Result<(), ApiError> {
    if is_core(call, "namespaces") && IMMORTAL.contains(&name) {
        return Err(ApiError::forbidden("", "namespaces", name, "this namespace may not be deleted"));
    }
    Ok(())
}

fn is_core(call: &Call, plural: &str) -> bool {
    call.row.group.is_empty() && call.row.plural == plural
}

/// The name of the node that makes the request, unless it may do anything anyway.
fn restricted_node(call: &Call) -> Option<&str> {
    if call.user.is_in(MASTERS) { None } else { call.user.node_name() }
}

async fn live_namespace(call: &Call, namespace: &str, name: &str) -> Result<(), ApiError> {
    let row = api::resources::find("", "v1", "namespaces").ok_or_else(|| ApiError::internal("no namespaces"))?;
    let entry = call.server.config.store.get(&storage::key(row, "", namespace)).await.map_err(storage::failed)?;
    let Some(entry) = entry else { return Err(ApiError::not_found("", "namespaces", namespace)) };
    let found = crate::object::of_entry(&entry)?;
    if !is_terminating(&found) && found["status"]["phase"] != "Terminating" {
        return Ok(());
    }
    let text = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let mut error = ApiError::forbidden(call.row.group, call.row.plural, name, &text);
    if let Some(details) = &mut error.details {
        details.causes = vec![Cause {
            reason: "NamespaceTerminating".to_owned(),
            message: format!("namespace {namespace} is being terminated"),
            field: "metadata.namespace".to_owned(),
        }];
    }
    Err(error)
}

/// The account that a pod runs as; a new namespace has its `default` one a moment later.
async fn service_account(call: &Call, pod: &Value, name: &str) -> Result<Value, ApiError> {
    let row = api::resources::find("", "v1", "serviceaccounts");
    let row = row.ok_or_else(|| ApiError::internal("no serviceaccounts"))?;
    let namespace = meta(pod, "namespace");
    let find = async || match call.server.read(row, namespace, name).await {
        Ok((account, _)) => Ok(Some(account)),
        Err(error) if error.code == 404 => Ok(None),
        Err(error) => Err(error),
    };
    let mut found = find().await?;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while found.is_none() && name == "default" && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(POLL).await;
        found = find().await?;
    }
    found.ok_or_else(|| {
        let text = format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
        ApiError::forbidden("", "pods", meta(pod, "name"), &text)
    })
}

/// What a mirror of a static pod may not have, as it runs as no account and before there is an API server (`ServiceAccount`,
/// `Validate`).
fn mirror(pod: &Value) -> Result<(), ApiError> {
    let refuse = |text: &str| Err(ApiError::forbidden("", "pods", meta(pod, "name"), text));
    if !pod["spec"]["serviceAccountName"].as_str().unwrap_or_default().is_empty() {
        return refuse("a mirror pod may not reference service accounts");
    }
    if !tokenrequest::audiences_of_pod(pod).is_empty() {
        return refuse("a mirror pod may not use ServiceAccountToken volume projections");
    }
    Ok(())
}

/// That pods without a class have one meaning (`validatePriorityClass`).
async fn only_default(call: &Call, class: &Value) -> Result<(), ApiError> {
    let (classes, name) = (all(call, call.row.group, call.row.plural).await?, meta(class, "name"));
    match global_default(&classes).map(|known| meta(known, "name")).filter(|known| *known != name) {
        Some(known) => {
            let text = format!("PriorityClass {known} is already marked as default. Only one default can exist");
            Err(ApiError::forbidden(call.row.group, call.row.plural, name, &text))
        }
        None => Ok(()),
    }
}

/// The class that a pod's priority follows from.
async fn priority_class(call: &Call, pod: &Value) -> Result<Option<Value>, ApiError> {
    let row = api::resources::find("scheduling.k8s.io", "v1", "priorityclasses");
    let row = row.ok_or_else(|| ApiError::internal("no priorityclasses"))?;
    let name = pod["spec"]["priorityClassName"].as_str().unwrap_or_default();
    if name.is_empty() {
        return Ok(global_default(&all(call, row.group, row.plural).await?).cloned());
    }
    match call.server.read(row, "", name).await {
        Ok((class, _)) => Ok(Some(class)),
        Err(error) if error.code == 404 => {
            let text = format!("no PriorityClass with name {name} was found");
            Err(ApiError::forbidden("", "pods", meta(pod, "name"), &text))
        }
        Err(error) => Err(error),
    }
}

/// A node may create itself and mirrors of its own static pods, and its own lease.
fn restrict_create(call: &Call, node: &str, object: &Value) -> Result<(), ApiError> {
    let refuse = |text: String| Err(ApiError::forbidden(call.row.group, call.row.plural, meta(object, "name"), &text));
    match (call.row.group, call.row.plural) {
        ("", "nodes") | ("coordination.k8s.io", "leases") if meta(object, "name") != node => {
            refuse(format!("node {node:?} is not allowed to modify {} {:?}", call.row.singular, meta(object, "name")))
        }
        ("", "nodes") if !restricted_labels(object).is_empty() => {
            refuse(format!("node {node:?} is not allowed to set labels with the prefix {RESTRICTED:?}"))
        }
        ("", "pods") if object["metadata"]["annotations"][MIRROR].as_str().is_none_or(str::is_empty) => {
            refuse(format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"))
        }
        ("", "pods") if object["spec"]["nodeName"] != node => {
            refuse(format!("node {node:?} can only create pods with spec.nodeName set to itself"))
        }
        ("", "pods") if !object["spec"]["serviceAccountName"].as_str().unwrap_or_default().is_empty() => {
            refuse(format!("node {node:?} can not create pods that reference a service account"))
        }
        ("", "pods") if names_secrets(object) => {
            refuse(format!("node {node:?} can not create pods that reference secrets or configmaps"))
        }
        _ => Ok(()),
    }
}

/// A request for a token: a node gets those of its own pods only (`admitServiceAccount` of NodeRestriction).
pub(crate) async fn token(call: &Call, request: &Value) -> Result<(), ApiError> {
    let Some(node) = restricted_node(call) else { return Ok(()) };
    let refuse = |text: &str| Err(ApiError::forbidden("", "serviceaccounts", call.name(), text));
    let reference = &request["spec"]["boundObjectRef"];
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    if text("apiVersion") != "v1" || text("kind") != "Pod" || text("name").is_empty() {
        return refuse("node requested token not bound to a pod");
    }
    if text("uid").is_empty() {
        return refuse("node requested token with a pod binding without a uid");
    }
    let row = api::resources::find("", "v1", "pods").ok_or_else(|| ApiError::internal("no pods"))?;
    let (pod, _) = call.server.read(row, call.namespace(), text("name")).await?;
    if text("uid") != meta(&pod, "uid") {
        let uid = text("uid");
        return refuse(&format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been \
             deleted and then recreated"
        ));
    }
    if !relations::is_bound(&pod, node) {
        return refuse("node requested token bound to a pod scheduled on a different node");
    }
    let asked: Vec<&str> = match request["spec"]["audiences"].as_array() {
        Some(list) if !list.is_empty() => list.iter().filter_map(Value::as_str).collect(),
        _ => vec![""],
    };
    let [audience] = asked.as_slice() else { return refuse("node may only request 0 or 1 audiences") };
    if !tokenrequest::audiences_of_pod(&pod).contains(audience) {
        return refuse(&format!("audience {audience:?} not found in pod spec volume"));
    }
    Ok(())
}

/// Whether a pod would give its node access to further objects.
fn names_secrets(pod: &Value) -> bool {
    let spec = &pod["spec"];
    let any = |list: &Value, check: &dyn Fn(&Value) -> bool| list.as_array().into_iter().flatten().any(check);
    let has = |value: &Value, field: &str| !value[field].is_null();
    let volume = |volume: &Value| {
        ["secret", "configMap", "projected", "persistentVolumeClaim", "csi"].into_iter().any(|kind| has(volume, kind))
    };
    let container = |container: &Value| {
        any(&container["env"], &|env| {
            has(&env["valueFrom"], "secretKeyRef") || has(&env["valueFrom"], "configMapKeyRef")
        }) || any(&container["envFrom"], &|_| true)
    };
    has(spec, "imagePullSecrets")
        || any(&spec["volumes"], &volume)
        || ["containers", "initContainers"].into_iter().any(|list| any(&spec[list], &container))
}
