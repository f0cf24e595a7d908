//! Checks of a new pod, in the order and words of `ValidatePodCreate` and `ValidatePodSpec`
//! (`pkg/apis/core/validation/validation.go`).
//!
//! Windows-only fields are not looked into: no node here runs Windows. Dynamic resource allocation is refused, because
//! nothing would ever allocate.

use serde_json::Value;

use super::container::{self, Context};
use super::{affinity, resources, security, volume};
use crate::resources::path::{Path, items, present, text};
use crate::resources::rule;
use crate::status::FieldError;

const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Checks a new pod.
pub(super) fn validate(pod: &Value) -> Vec<FieldError> {
    let mut errors = validate_any(pod);
    let (spec, path) = (&pod["spec"], Path::new("spec"));
    if !items(spec, "ephemeralContainers").is_empty() {
        errors.push(FieldError::forbidden(path.child("ephemeralContainers"), "cannot be set on create"));
    }
    if !text(spec, "nodeName").is_empty() && !items(spec, "schedulingGates").is_empty() {
        let detail = "cannot be set until all schedulingGates have been cleared";
        errors.push(FieldError::forbidden(path.child("nodeName"), detail));
    }
    errors
}

/// What holds for new and changed pods alike (`validatePodMetadataAndSpec`).
pub(super) fn validate_any(pod: &Value) -> Vec<FieldError> {
    let (spec, path) = (&pod["spec"], Path::new("spec"));
    let annotations = &pod["metadata"]["annotations"];
    let mut errors = pod_annotations(annotations, spec, &Path::new("metadata").child("annotations"));
    validate_spec(spec, &path, &mut errors);
    if text(spec, "serviceAccountName").is_empty() {
        validate_no_tokens(spec, &path.child("volumes"), &mut errors);
    }
    for list in ["containers", "initContainers"] {
        for (index, container) in items(spec, list).iter().enumerate() {
            errors.extend(container::padded_image(&path.child(list).index(index), container));
        }
    }
    errors
}

/// Checks the annotations that mean something to pods (`ValidatePodSpecificAnnotations`).
pub(super) fn pod_annotations(annotations: &Value, spec: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if present(annotations, MIRROR) && text(spec, "nodeName").is_empty() {
        let detail = "must set spec.nodeName if mirror pod annotation is set";
        errors.push(FieldError::invalid(path.key(MIRROR), &annotations[MIRROR], detail));
    }
    if present(annotations, DELETION_COST) && text(annotations, DELETION_COST).parse::<i32>().is_err() {
        let value = &annotations[DELETION_COST];
        errors.push(FieldError::invalid(path.key(DELETION_COST), value, "must be a 32bit integer"));
    }
    errors
}

/// Checks a spec, of a pod or of a template (`ValidatePodSpec`).
pub(super) fn validate_spec(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    if !present(spec, "terminationGracePeriodSeconds") {
        errors.push(FieldError::required(path.child("terminationGracePeriodSeconds"), ""));
    }
    let volumes = volume::validate_all(spec, &path.child("volumes"), errors);
    if !items(spec, "resourceClaims").is_empty() {
        let detail = "dynamic resource allocation is not supported by this server";
        errors.push(FieldError::forbidden(path.child("resourceClaims"), detail));
    }
    let context = Context { spec, volumes };
    context.containers(&path.child("containers"), errors);
    context.init_containers(&path.child("initContainers"), errors);
    context.ephemeral_containers(&path.child("ephemeralContainers"), errors);
    resources::check_pod_level(spec, &path.child("resources"), errors);
    host_network_ports(spec, &path.child("containers"), errors);
    errors.extend(rule::required_one_of(
        &path.child("restartPolicy"),
        text(spec, "restartPolicy"),
        &["Always", "OnFailure", "Never"],
    ));
    errors.extend(rule::required_one_of(
        &path.child("dnsPolicy"),
        text(spec, "dnsPolicy"),
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    ));
    errors.extend(rule::labels(&path.child("nodeSelector"), spec, "nodeSelector"));
    security::check_pod(spec, &path.child("securityContext"), errors);
    affinity::check(&spec["affinity"], &path.child("affinity"), errors);
    dns_config(spec, &path.child("dnsConfig"), errors);
    gates(spec, path, errors);
    affinity::check_spread(spec, &path.child("topologySpreadConstraints"), errors);
    host_users(spec, path, errors);
    names_and_limits(spec, path, errors);
    tolerations(spec, &path.child("tolerations"), errors);
    host_aliases(spec, &path.child("hostAliases"), errors);
    rest(spec, path, errors);
}

/// A token is of an account.
fn validate_no_tokens(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    for (index, volume) in items(spec, "volumes").iter().enumerate() {
        let path = path.index(index).child("projected").child("sources");
        for (index, source) in items(&volume["projected"], "sources").iter().enumerate() {
            if present(source, "serviceAccountToken") {
                let path = path.index(index).child("serviceAccountToken");
                let detail = "must not be specified when serviceAccountName is not set";
                errors.push(FieldError::forbidden(path, detail));
            }
        }
    }
}

fn host_network_ports(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    if spec["hostNetwork"] != true {
        return;
    }
    for (index, container) in items(spec, "containers").iter().enumerate() {
        let path = path.index(index).child("ports");
        for (index, port) in items(container, "ports").iter().enumerate() {
            let host = port["hostPort"].as_i64().unwrap_or(0);
            if host != port["containerPort"].as_i64().unwrap_or(0) {
                let detail = "must match `containerPort` when `hostNetwork` is true";
                errors.push(FieldError::invalid(path.index(index).child("hostPort"), &host.into(), detail));
            }
        }
    }
}

/// Limits of the C library's resolver.
fn dns_config(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let config = &spec["dnsConfig"];
    let (servers, searches) = (items(config, "nameservers"), items(config, "searches"));
    if text(spec, "dnsPolicy") == "None" {
        if config.is_null() {
            errors.push(FieldError::required(path, "must provide `dnsConfig` when `dnsPolicy` is None"));
            return;
        }
        if servers.is_empty() {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.push(FieldError::required(path.child("nameservers"), detail));
            return;
        }
    }
    if servers.len() > 3 {
        let detail = "must not have more than 3 nameservers";
        errors.push(FieldError::invalid(path.child("nameservers"), &config["nameservers"], detail));
    }
    for (index, server) in servers.iter().enumerate() {
        errors.extend(rule::ip(&path.child("nameservers").index(index), server.as_str().unwrap_or_default()));
    }
    let search_path = path.child("searches");
    if searches.len() > 32 {
        let detail = "must not have more than 32 search paths";
        errors.push(FieldError::invalid(&search_path, &config["searches"], detail));
    }
    let words: Vec<&str> = searches.iter().filter_map(Value::as_str).collect();
    if words.join(" ").len() > 2048 {
        let detail = "must not have more than 2048 characters (including spaces) in the search list";
        errors.push(FieldError::invalid(&search_path, &config["searches"], detail));
    }
    for (index, word) in words.iter().enumerate().filter(|(_, word)| **word != ".") {
        // Underscores occur in the names of services that are no hosts.
        let plain = word.strip_suffix('.').unwrap_or(word).replace('_', "x");
        errors.extend(rule::each(&search_path.index(index), word, crate::names::dns1123_subdomain(&plain)));
    }
    for (index, option) in items(config, "options").iter().enumerate() {
        if text(option, "name").is_empty() {
            errors.push(FieldError::required(path.child("options").index(index), "must not be empty"));
        }
    }
}

fn gates(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    for (index, gate) in items(spec, "readinessGates").iter().enumerate() {
        let path = path.child("readinessGates").index(index).child("conditionType");
        errors.extend(rule::qualified(&path, text(gate, "conditionType")));
    }
    let gates = items(spec, "schedulingGates");
    for (index, gate) in gates.iter().enumerate() {
        let path = path.child("schedulingGates").index(index);
        errors.extend(rule::qualified(&path, text(gate, "name")));
        if gates[..index].iter().any(|earlier| earlier["name"] == gate["name"]) {
            errors.push(FieldError::duplicate(&path, &gate["name"]));
        }
    }
}

/// A user namespace cannot be combined with the host's other namespaces, of which upstream spells two fields so, nor with
/// raw devices.
fn host_users(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    if spec["hostUsers"] != false {
        return;
    }
    for (field, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec[field] == true {
            errors.push(FieldError::forbidden(path.child(shown), "when `pod.Spec.HostUsers` is false"));
        }
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for (index, container) in items(spec, list).iter().enumerate() {
            if !items(container, "volumeDevices").is_empty() {
                let path = path.child(list).index(index).child("volumeDevices");
                errors.push(FieldError::forbidden(path, "when `pod.Spec.HostUsers` is false"));
            }
        }
    }
}

fn names_and_limits(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    for field in ["serviceAccountName", "nodeName"] {
        if !text(spec, field).is_empty() {
            errors.extend(rule::subdomain(&path.child(field), text(spec, field)));
        }
    }
    if let Some(seconds) = spec["activeDeadlineSeconds"].as_i64()
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        let detail = "must be between 1 and 2147483647, inclusive";
        errors.push(FieldError::invalid(path.child("activeDeadlineSeconds"), &seconds.into(), detail));
    }
    hostname_override(spec, &path.child("hostnameOverride"), errors);
    for field in ["hostname", "subdomain"] {
        if !text(spec, field).is_empty() {
            errors.extend(rule::label(&path.child(field), text(spec, field)));
        }
    }
}

/// What takes the place of the host name (KEP-4762) has to fit into the kernel, and nothing else may make one.
fn hostname_override(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let Some(name) = spec["hostnameOverride"].as_str() else { return };
    errors.extend(rule::subdomain(path, name));
    if name.len() > 64 {
        errors.push(FieldError::too_long(path, 64));
    }
    for other in ["setHostnameAsFQDN", "hostNetwork"] {
        if spec[other] == true {
            errors.push(FieldError::forbidden(path, &format!("may not be set when {other} is true")));
        }
    }
}

/// Checks tolerations.
pub(in crate::resources) fn tolerations(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    for (index, toleration) in items(spec, "tolerations").iter().enumerate() {
        let path = path.index(index);
        let (key, operator) = (text(toleration, "key"), text(toleration, "operator"));
        let (value, effect) = (text(toleration, "value"), text(toleration, "effect"));
        let operator_path = path.child("operator");
        if !key.is_empty() {
            errors.extend(rule::label_name(&path.child("key"), key));
        } else if operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(&operator_path, &operator.into(), detail));
        }
        if present(toleration, "tolerationSeconds") && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(path.child("effect"), &effect.into(), detail));
        }
        match operator {
            "Equal" | "" => errors.extend(rule::label_value_joined(&operator_path, value)),
            "Exists" if !value.is_empty() => {
                let detail = "value must be empty when `operator` is 'Exists'";
                errors.push(FieldError::invalid(&operator_path, &value.into(), detail));
            }
            "Exists" => (),
            _ => errors.extend(rule::one_of(&operator_path, operator, &["Equal", "Exists"])),
        }
        if !effect.is_empty() {
            errors.extend(rule::taint_effect(&path.child("effect"), effect));
        }
    }
}

fn host_aliases(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    for (index, alias) in items(spec, "hostAliases").iter().enumerate() {
        let path = path.index(index);
        errors.extend(rule::ip(&path.child("ip"), text(alias, "ip")));
        for (index, name) in items(alias, "hostnames").iter().enumerate() {
            let path = path.child("hostnames").index(index);
            errors.extend(rule::subdomain(&path, name.as_str().unwrap_or_default()));
        }
    }
}

fn rest(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    if !text(spec, "priorityClassName").is_empty() {
        errors.extend(rule::subdomain(&path.child("priorityClassName"), text(spec, "priorityClassName")));
    }
    if present(spec, "runtimeClassName") {
        errors.extend(rule::subdomain(&path.child("runtimeClassName"), text(spec, "runtimeClassName")));
    }
    if present(spec, "preemptionPolicy") {
        errors.extend(rule::required_one_of(
            &path.child("preemptionPolicy"),
            text(spec, "preemptionPolicy"),
            &["PreemptLowerPriority", "Never"],
        ));
    }
    resources::check_amounts(spec, "overhead", &path.child("overhead").child("limits"), errors);
    if present(spec, "os") {
        match text(&spec["os"], "name") {
            "" => errors.push(FieldError::required(path.child("os").child("name"), "cannot be empty")),
            name => errors.extend(rule::one_of(&path.child("os"), name, &["linux", "windows"])),
        }
    }
}
