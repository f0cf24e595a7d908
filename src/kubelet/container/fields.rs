//! The downward API: fields of the pod and resources of its containers as text.
//!
//! After `pkg/fieldpath` and `pkg/api/v1/resource.ExtractContainerResourceValue` upstream.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

use super::resources::{amount, quantity};
use super::{ConfigError, Context};

/// The value of a `fieldRef`, for variables as well as for volumes.
pub fn field(pod: &Pod, path: &str, context: &Context) -> Result<String, ConfigError> {
    let metadata = &pod.metadata;
    let spec = pod.spec.as_ref();
    let text = |value: Option<&String>| value.cloned().unwrap_or_default();
    let addresses = |ips: &[std::net::IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => &metadata.labels,
            "metadata.annotations" => &metadata.annotations,
            _ => return Err(ConfigError::FieldPath { path: path.to_owned() }),
        };
        return Ok(text(map.as_ref().and_then(|map| map.get(key))));
    }
    match path {
        "metadata.name" => Ok(text(metadata.name.as_ref())),
        "metadata.namespace" => Ok(text(metadata.namespace.as_ref())),
        "metadata.uid" => Ok(text(metadata.uid.as_ref())),
        "metadata.labels" => Ok(lines(metadata.labels.as_ref())),
        "metadata.annotations" => Ok(lines(metadata.annotations.as_ref())),
        "spec.nodeName" => Ok(text(spec.and_then(|spec| spec.node_name.as_ref()))),
        "spec.serviceAccountName" => Ok(text(spec.and_then(|spec| spec.service_account_name.as_ref()))),
        "status.hostIP" => Ok(context.host_ips.first().map(ToString::to_string).unwrap_or_default()),
        "status.hostIPs" => Ok(addresses(&context.host_ips)),
        "status.podIP" => Ok(context.pod_ips.first().map(ToString::to_string).unwrap_or_default()),
        "status.podIPs" => Ok(addresses(&context.pod_ips)),
        _ => Err(ConfigError::FieldPath { path: path.to_owned() }),
    }
}

/// `metadata.labels['key']`
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, key) = path.split_once('[')?;
    let key = key.strip_suffix(']')?;
    Some((map, key.trim_matches(|quote| quote == '\'' || quote == '"')))
}

/// `key="value"` per line, sorted.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect();
    lines.join("\n")
}

/// The value of a `resourceFieldRef`. A missing limit is what pods may ask for on the node (`MergeContainerResourceLimits`).
pub fn resource_field(
    pod: &Pod,
    own: Option<&Container>,
    selector: &ResourceFieldSelector,
    context: &Context,
) -> Result<String, ConfigError> {
    let container = match selector.container_name.as_deref() {
        Some(name) if !name.is_empty() => find(pod, name)?,
        _ => own.ok_or_else(|| ConfigError::NoContainer { name: String::new() })?,
    };
    let unknown = || ConfigError::Resource { resource: selector.resource.clone() };
    let (list, name) = selector.resource.split_once('.').ok_or_else(unknown)?;
    let resources = container.resources.as_ref();
    let listed = match list {
        "limits" => amount(resources.and_then(|own| own.limits.as_ref()), name),
        "requests" => amount(resources.and_then(|own| own.requests.as_ref()), name),
        _ => return Err(unknown()),
    };
    let allocatable = context.allocatable.get(name).copied().unwrap_or(0);
    let node = match name {
        "cpu" => Quantity::from_milli(allocatable),
        "memory" | "ephemeral-storage" => Quantity::from_bytes(allocatable),
        _ if name.starts_with("hugepages-") => Quantity::from_bytes(allocatable),
        _ => return Err(unknown()),
    };
    let value = listed.unwrap_or(if list == "limits" { node } else { Quantity::from_whole(0) });
    let divisor = selector.divisor.as_ref().and_then(quantity).filter(|divisor| !divisor.is_zero());
    Ok(divide(name, value, divisor).to_string())
}

/// Rounds up, as upstream.
fn divide(name: &str, value: Quantity, divisor: Option<Quantity>) -> i64 {
    let whole = |numerator: i64, denominator: i64| {
        let denominator = denominator.max(1);
        numerator / denominator + i64::from(numerator % denominator > 0)
    };
    let divisor = divisor.unwrap_or_else(|| Quantity::from_whole(1));
    if name == "cpu" {
        whole(value.milli_value(), divisor.milli_value())
    } else {
        whole(value.value(), divisor.value())
    }
}

fn find<'a>(pod: &'a Pod, name: &str) -> Result<&'a Container, ConfigError> {
    let spec = pod.spec.as_ref();
    let all = spec.into_iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    all.into_iter().find(|one| one.name == name).ok_or_else(|| ConfigError::NoContainer { name: name.to_owned() })
}
