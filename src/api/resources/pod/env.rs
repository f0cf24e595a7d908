//! Checks of environment variables and of references to fields of the pod (`ValidateEnv`, `ValidateEnvFrom`).

use serde_json::Value;

use crate::names;
use crate::quantity::Quantity;
use crate::resources::path::{Path, items, present, text};
use crate::resources::rule;
use crate::status::FieldError;

/// Fields that a variable may show.
const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Fields that a file of a downward API volume may show.
pub(super) const VOLUME_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// Fields that references know at all.
const FIELDS: [&str; 15] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
    "spec.host",
];

/// Figures of a container that references know.
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

const BYTE_DIVISORS: [&str; 13] = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// Checks `env` and `envFrom` of a container.
pub(super) fn check(container: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    for (index, variable) in items(container, "env").iter().enumerate() {
        let path = path.child("env").index(index);
        match text(variable, "name") {
            "" => errors.push(FieldError::required(path.child("name"), "")),
            name => errors.extend(rule::each(&path.child("name"), name, names::env_var_name(name))),
        }
        if present(variable, "valueFrom") {
            value_from(variable, &path.child("valueFrom"), errors);
        }
    }
    let list = path.child("envFrom");
    for (index, source) in items(container, "envFrom").iter().enumerate() {
        let path = list.index(index);
        let prefix = text(source, "prefix");
        if !prefix.is_empty() {
            errors.extend(rule::each(&path.child("prefix"), prefix, names::env_var_name(prefix)));
        }
        let kinds = ["configMapRef", "secretRef"];
        for kind in kinds.into_iter().filter(|kind| present(source, kind)) {
            named(&source[kind], &path.child(kind), errors);
        }
        match kinds.into_iter().filter(|kind| present(source, kind)).count() {
            0 => errors.push(nothing(&list, "must specify one of: `configMapRef` or `secretRef`")),
            1 => (),
            _ => errors.push(nothing(&list, "may not have more than one field specified at a time")),
        }
    }
}

fn nothing(path: &Path, detail: &str) -> FieldError {
    FieldError::invalid(path, &"".into(), detail)
}

fn named(source: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    match text(source, "name") {
        "" => errors.push(FieldError::required(path.child("name"), "")),
        name => errors.extend(rule::subdomain(&path.child("name"), name)),
    }
}

fn value_from(variable: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let source = &variable["valueFrom"];
    let mut count = 0;
    if present(source, "fieldRef") {
        count += 1;
        field_ref(&source["fieldRef"], &ENV_FIELDS, &path.child("fieldRef"), errors);
    }
    if present(source, "resourceFieldRef") {
        count += 1;
        resource_ref(&source["resourceFieldRef"], false, &path.child("resourceFieldRef"), errors);
    }
    for kind in ["configMapKeyRef", "secretKeyRef"] {
        if present(source, kind) {
            count += 1;
            let (reference, path) = (&source[kind], path.child(kind));
            errors.extend(rule::subdomain(&path.child("name"), text(reference, "name")));
            match text(reference, "key") {
                "" => errors.push(FieldError::required(path.child("key"), "")),
                key => errors.extend(rule::config_key(&path.child("key"), key)),
            }
        }
    }
    if count == 0 {
        let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`";
        errors.push(nothing(path, detail));
    } else if !text(variable, "value").is_empty() {
        errors.push(nothing(path, "may not be specified when `value` is not empty"));
    } else if count > 1 {
        errors.push(nothing(path, "may not have more than one field specified at a time"));
    }
}

/// Checks a reference to a field of the pod; `allowed` is sorted.
pub(super) fn field_ref(reference: &Value, allowed: &[&str], path: &Path, errors: &mut Vec<FieldError>) {
    for field in ["apiVersion", "fieldPath"] {
        if text(reference, field).is_empty() {
            errors.push(FieldError::required(path.child(field), ""));
            return;
        }
    }
    let field = text(reference, "fieldPath");
    let unknown = |reason: String| {
        let detail = format!("error converting fieldPath: {reason}");
        FieldError::invalid(path.child("fieldPath"), &field.into(), &detail)
    };
    if text(reference, "apiVersion") != "v1" {
        errors.push(unknown(format!("unsupported pod version: {}", text(reference, "apiVersion"))));
        return;
    }
    match subscript(field) {
        Some(("metadata.annotations", key)) => errors.extend(rule::qualified(path, &key.to_lowercase())),
        Some(("metadata.labels", key)) => errors.extend(rule::qualified(path, key)),
        Some(_) => errors.push(unknown(format!("field label does not support subscript: {field}"))),
        None if !FIELDS.contains(&field) => errors.push(unknown(format!("field label not supported: {field}"))),
        None => {
            let current = if field == "spec.host" { "spec.nodeName" } else { field };
            errors.extend(rule::one_of(&path.child("fieldPath"), current, allowed));
        }
    }
}

/// `metadata.labels['x']` as `metadata.labels` and `x`.
fn subscript(field: &str) -> Option<(&str, &str)> {
    field.strip_suffix("']")?.split_once("['").filter(|(path, _)| !path.is_empty())
}

/// Checks a reference to a figure of a container, which a volume has to name.
pub(super) fn resource_ref(reference: &Value, in_volume: bool, path: &Path, errors: &mut Vec<FieldError>) {
    let resource = text(reference, "resource");
    let is_huge = resource.starts_with("requests.hugepages-") || resource.starts_with("limits.hugepages-");
    if in_volume && text(reference, "containerName").is_empty() {
        errors.push(FieldError::required(path.child("containerName"), ""));
    } else if resource.is_empty() {
        errors.push(FieldError::required(path.child("resource"), ""));
    } else if !is_huge {
        errors.extend(rule::one_of(&path.child("resource"), resource, &RESOURCES));
    }
    let divisor = Quantity::from_value(&reference["divisor"]).unwrap_or(Quantity::ZERO);
    if divisor.is_zero() {
        return;
    }
    let (allowed, kind): (&[&str], &str) = match resource.split_once('.').map_or("", |(_, name)| name) {
        "cpu" => (&["1m", "1"], "cpu"),
        "memory" => (&BYTE_DIVISORS, "memory"),
        "ephemeral-storage" => (&BYTE_DIVISORS, "local ephemeral storage"),
        _ if is_huge => (&BYTE_DIVISORS, "hugepages"),
        _ => return,
    };
    if !allowed.contains(&divisor.to_string().as_str()) {
        let list = if kind == "cpu" { "1m and 1".to_owned() } else { allowed.join(", ") };
        let detail = format!("only divisor's values {list} are supported with the {kind} resource");
        errors.push(FieldError::invalid(path.child("divisor"), &resource.into(), &detail));
    }
}
