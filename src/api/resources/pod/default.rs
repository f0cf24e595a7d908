//! What is filled in when a pod leaves it out (`pkg/apis/core/v1/defaults.go`), and what create forces.

use serde_json::{Value, json};

use super::{label_keys, requests};
use crate::resources::path::{
    default_number, default_text, default_to, ensure_object, items_mut, object_mut, present, put, text,
};

/// Permissions of files in volumes made from objects: 0644.
const FILE_MODE: i64 = 0o644;

/// Fills in a pod.
pub(super) fn default(pod: &mut Value) {
    let spec = ensure_object(pod, "spec");
    default_to(spec, "enableServiceLinks", true);
    default_spec(spec);
    for list in ["containers", "initContainers"] {
        items_mut(spec, list).for_each(default_requests);
    }
    requests::default_pod_level(spec);
    if spec["hostNetwork"] == true {
        for list in ["containers", "initContainers"] {
            for container in items_mut(spec, list) {
                items_mut(container, "ports").for_each(default_host_port);
            }
        }
    }
}

/// Fills in what a spec has in a pod and would have in a template.
pub(super) fn default_spec(spec: &mut Value) {
    default_text(spec, "restartPolicy", "Always");
    default_text(spec, "dnsPolicy", "ClusterFirst");
    default_text(spec, "schedulerName", "default-scheduler");
    default_to(spec, "securityContext", json!({}));
    default_to(spec, "terminationGracePeriodSeconds", 30);
    default_service_account(spec);
    items_mut(spec, "volumes").for_each(default_volume);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        items_mut(spec, list).for_each(default_container);
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; both say the same.
fn default_service_account(spec: &mut Value) {
    let name = text(spec, "serviceAccountName").to_owned();
    let name = if name.is_empty() { text(spec, "serviceAccount").to_owned() } else { name };
    if !name.is_empty() {
        spec["serviceAccountName"] = name.clone().into();
        spec["serviceAccount"] = name.into();
    }
}

/// What create forces: the first status, and what selectors mean that look at the pod's own labels.
pub(super) fn prepare(pod: &mut Value) {
    label_keys::merge(pod);
    let class = requests::qos_class(pod);
    pod["status"] = json!({"phase": "Pending", "qosClass": class.word()});
}

/// What update leaves alone without being told: the priority, which clients do not send (`Priority`).
pub(super) fn prepare_update(pod: &mut Value, old: &Value) {
    let spec = ensure_object(pod, "spec");
    for field in ["priority", "preemptionPolicy"] {
        if !present(spec, field) {
            put(spec, field, &old["spec"][field]);
        }
    }
}

fn default_container(container: &mut Value) {
    let image = text(container, "image").to_owned();
    default_text(container, "imagePullPolicy", pull_policy(&image));
    default_text(container, "terminationMessagePath", "/dev/termination-log");
    default_text(container, "terminationMessagePolicy", "File");
    default_to(container, "resources", json!({}));
    items_mut(container, "ports").for_each(|port| default_text(port, "protocol", "TCP"));
    for variable in items_mut(container, "env") {
        if let Some(source) = object_mut(variable, "valueFrom") {
            default_field_ref(source);
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = object_mut(container, probe) {
            default_probe(probe);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(hook) = object_mut(container, "lifecycle").and_then(|lifecycle| object_mut(lifecycle, hook)) {
            default_http(hook);
        }
    }
}

/// Images that move under the same name are looked up at each start.
fn pull_policy(image: &str) -> &'static str {
    let name = image.rsplit('/').next().unwrap_or_default();
    let is_fixed = image.contains('@') || name.rsplit_once(':').is_some_and(|(_, tag)| tag != "latest");
    if is_fixed { "IfNotPresent" } else { "Always" }
}

fn default_probe(probe: &mut Value) {
    default_number(probe, "timeoutSeconds", 1);
    default_number(probe, "periodSeconds", 10);
    default_number(probe, "successThreshold", 1);
    default_number(probe, "failureThreshold", 3);
    default_http(probe);
    if let Some(grpc) = object_mut(probe, "grpc") {
        default_to(grpc, "service", "");
    }
}

fn default_http(handler: &mut Value) {
    if let Some(get) = object_mut(handler, "httpGet") {
        default_text(get, "path", "/");
        default_text(get, "scheme", "HTTP");
    }
}

fn default_host_port(port: &mut Value) {
    if let Some(number) = port["containerPort"].as_i64() {
        default_number(port, "hostPort", number);
    }
}

/// A limit without a request is also the request.
fn default_requests(container: &mut Value) {
    let Some(resources) = object_mut(container, "resources") else { return };
    let Some(limits) = resources["limits"].as_object().filter(|limits| !limits.is_empty()).cloned() else { return };
    let requests = ensure_object(resources, "requests");
    for (name, limit) in limits {
        default_to(requests, &name, limit);
    }
}

fn default_volume(volume: &mut Value) {
    let has_source =
        volume.as_object().is_some_and(|map| map.iter().any(|(key, value)| key != "name" && !value.is_null()));
    if !has_source {
        default_to(volume, "emptyDir", json!({}));
    }
    for source in ["secret", "configMap"] {
        if let Some(source) = object_mut(volume, source) {
            default_to(source, "defaultMode", FILE_MODE);
        }
    }
    if let Some(source) = object_mut(volume, "downwardAPI") {
        default_to(source, "defaultMode", FILE_MODE);
        items_mut(source, "items").for_each(default_field_ref);
    }
    if let Some(source) = object_mut(volume, "projected") {
        default_to(source, "defaultMode", FILE_MODE);
        items_mut(source, "sources").for_each(default_projection);
    }
    if let Some(source) = object_mut(volume, "hostPath") {
        default_to(source, "type", "");
    }
    if let Some(source) = object_mut(volume, "image") {
        let policy = pull_policy(text(source, "reference"));
        default_text(source, "pullPolicy", policy);
    }
    if let Some(claim) = object_mut(volume, "ephemeral").and_then(|source| object_mut(source, "volumeClaimTemplate"))
        && let Some(spec) = object_mut(claim, "spec")
    {
        default_to(spec, "volumeMode", "Filesystem");
    }
}

fn default_projection(source: &mut Value) {
    if let Some(token) = object_mut(source, "serviceAccountToken") {
        default_to(token, "expirationSeconds", 3600);
    }
    if let Some(downward) = object_mut(source, "downwardAPI") {
        items_mut(downward, "items").for_each(default_field_ref);
    }
}

fn default_field_ref(parent: &mut Value) {
    if let Some(reference) = object_mut(parent, "fieldRef") {
        default_text(reference, "apiVersion", "v1");
    }
    if let Some(reference) = object_mut(parent, "resourceFieldRef")
        && !present(reference, "divisor")
    {
        reference["divisor"] = "0".into();
    }
}
