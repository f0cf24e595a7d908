//! Checks of requests and limits (`validateResourceRequirements`, `validatePodResources`).

use serde_json::Value;

use super::requests::{self, amounts};
use crate::names;
use crate::quantity::Quantity;
use crate::resources::path::{Path, entries, items, present};
use crate::resources::rule;
use crate::status::FieldError;

/// Names without a domain that mean something somewhere, if not for a container.
const STANDARD: [&str; 20] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];
/// Names without a domain that a container may ask for.
const CONTAINER: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// Figures that are counts.
const COUNTS: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

fn is_huge(name: &str) -> bool {
    name.starts_with("hugepages-")
}

pub(in crate::resources) fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether a name is that of a resource which no node has by itself (`IsExtendedResourceName`).
pub fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// Checks one amount of a resource: not negative, and whole if it is a count.
pub(in crate::resources) fn check_quantity(path: &Path, name: &str, value: &Value, errors: &mut Vec<FieldError>) {
    match Quantity::from_value(value) {
        Err(error) => errors.push(FieldError::invalid(path, value, &error.to_string())),
        Ok(amount) => {
            let shown = Value::from(amount.to_string());
            if amount.is_negative() {
                errors.push(FieldError::invalid(path, &shown, rule::NEGATIVE));
            }
            if (COUNTS.contains(&name) || is_extended(name)) && !amount.is_whole() {
                errors.push(FieldError::invalid(path, &shown, "must be an integer"));
            }
        }
    }
}

/// Checks names and amounts of a map field of a container or of the pod's overhead; `path` is the map's.
pub(super) fn check_amounts(parent: &Value, field: &str, path: &Path, errors: &mut Vec<FieldError>) {
    for (name, value) in entries(parent, field) {
        let path = path.key(name);
        check_container_name(&path, name, errors);
        check_quantity(&path, name, value, errors);
        if is_huge(name) {
            errors.extend(check_pages(&path, name, value));
        }
    }
}

/// Checks the name of a resource that may stand anywhere (`validateResourceName`).
pub(in crate::resources) fn check_standard(path: &Path, name: &str, errors: &mut Vec<FieldError>) {
    errors.extend(rule::qualified(path, name));
    let is_standard = STANDARD.contains(&name) || is_huge(name) || name.starts_with("requests.hugepages-");
    if names::qualified_name(name).is_empty() && !name.contains('/') && !is_standard {
        let detail = "must be a standard resource type or fully qualified";
        errors.push(FieldError::invalid(path, &name.into(), detail));
    }
}

/// Whether more of a resource may be promised than there is (`IsOvercommitAllowed`).
pub(in crate::resources) fn is_overcommitted(name: &str) -> bool {
    is_native(name) && !is_huge(name)
}

/// Checks the name of a resource that a container may have.
pub(in crate::resources) fn check_container_name(path: &Path, name: &str, errors: &mut Vec<FieldError>) {
    check_standard(path, name, errors);
    let is_plain = !name.contains('/');
    let mut invalid = |detail: &str| errors.push(FieldError::invalid(path, &name.into(), detail));
    if is_plain && !CONTAINER.contains(&name) && !is_huge(name) {
        invalid("must be a standard resource for containers");
    } else if !is_native(name) && !is_extended(name) {
        invalid("doesn't follow extended resource name standard");
    }
}

fn check_pages(path: &Path, name: &str, value: &Value) -> Option<FieldError> {
    let amount = Quantity::from_value(value).ok()?;
    let page = Quantity::parse(name.strip_prefix("hugepages-")?).map_or(0, Quantity::value);
    let fits = page > 0 && amount.value() % page == 0;
    let detail = format!("{amount} is not positive integer multiple of {name}");
    (!fits).then(|| FieldError::invalid(path, &amount.to_string().into(), &detail))
}

/// Checks the resources of a container.
pub(in crate::resources) fn check_container(resources: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    check_amounts(resources, "limits", &path.child("limits"), errors);
    let request_path = path.child("requests");
    let limits = amounts(resources, "limits");
    let requests = amounts(resources, "requests");
    check_amounts(resources, "requests", &request_path, errors);
    for (name, request) in &requests {
        let can_overcommit = is_overcommitted(name);
        let shown = Value::from(request.to_string());
        match limits.get(name) {
            Some(limit) if request != limit && !can_overcommit => {
                let detail = format!("must be equal to {name} limit of {limit}");
                errors.push(FieldError::invalid(&request_path, &shown, &detail));
            }
            Some(limit) if request > limit => {
                let detail = format!("must be less than or equal to {name} limit of {limit}");
                errors.push(FieldError::invalid(&request_path, &shown, &detail));
            }
            None if !can_overcommit => {
                let detail = "Limit must be set for non overcommitable resources";
                errors.push(FieldError::required(path.child("limits"), detail));
            }
            _ => (),
        }
    }
    let mut names = limits.keys().chain(requests.keys());
    let has_pages = names.clone().any(|name| is_huge(name));
    if has_pages && !names.any(|name| name == "cpu" || name == "memory") {
        errors.push(FieldError::forbidden(path, "HugePages require cpu or memory"));
    }
    check_claims(resources, &path.child("claims"), errors);
}

/// Claims name entries of the pod's `resourceClaims`, of which there can be none here.
fn check_claims(resources: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    for (index, claim) in items(resources, "claims").iter().enumerate() {
        let mut error = FieldError::not_found(path.index(index), &claim["name"]);
        error.text.push_str(": must be one of the names in pod.spec.resourceClaims which is empty");
        errors.push(error);
    }
}

/// Checks the resources of the pod as a whole.
pub(super) fn check_pod_level(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let own = &spec["resources"];
    if own.is_null() {
        return;
    }
    if present(own, "claims") {
        let detail = "claims cannot be set for Resources at pod-level";
        errors.push(FieldError::forbidden(path.child("claims"), detail));
    }
    check_container(own, path, errors);
    for field in ["limits", "requests"] {
        for (name, _) in entries(own, field) {
            if name != "cpu" && name != "memory" && !is_huge(name) {
                errors.push(FieldError::not_supported(
                    path.child(field).key(name),
                    &name.as_str().into(),
                    &["cpu", "hugepages-", "memory"],
                ));
            }
        }
    }
    let requests = amounts(own, "requests");
    for (name, sum) in requests::containers_requests(spec) {
        let request = requests.get(&name).copied().unwrap_or(Quantity::ZERO);
        if sum > request {
            let path = path.child("requests").key(&name);
            let detail = format!("must be greater than or equal to aggregate container requests of {sum}");
            errors.push(FieldError::invalid(path, &request.to_string().into(), &detail));
        }
    }
    let limits = amounts(own, "limits");
    for (index, container) in items(spec, "containers").iter().enumerate() {
        for (name, limit) in amounts(&container["resources"], "limits") {
            if let Some(most) = limits.get(&name).filter(|most| limit > **most) {
                let path = path.child("containers").index(index).key(&name).child("limits");
                let detail = format!("must be less than or equal to pod limits of {most}");
                errors.push(FieldError::invalid(path, &limit.to_string().into(), &detail));
            }
        }
    }
}
