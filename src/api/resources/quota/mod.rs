//! ResourceQuotas: how much the objects of a namespace may ask for together.
//!
//! Follows `ValidateResourceQuota` of upstream.

pub mod usage;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cell::{self, column};
use super::path::{Path, entries, items, text};
use super::pod::resources::{check_quantity, check_standard};
use super::{BLANK, Resource, status_of};
use crate::quantity::Quantity;
use crate::status::FieldError;

/// Resources without a domain that can be bounded.
const RESOURCES: [&str; 19] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];
/// Which of them pods have, beside being counted.
const OF_PODS: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];
/// Scopes in which nothing can be.
const CONFLICTS: [[&str; 2]; 2] = [["BestEffort", "NotBestEffort"], ["NotTerminating", "Terminating"]];

/// `resourcequotas`.
pub(super) const ROW: Resource = Resource {
    kind: "ResourceQuota",
    list_kind: "ResourceQuotaList",
    plural: "resourcequotas",
    singular: "resourcequota",
    short_names: &["quota"],
    subresources: &[status_of("", "v1", "ResourceQuota")],
    validate: |quota| validate(&quota["spec"]),
    validate_update,
    validate_status: |new, _| validate_status(&new["status"]),
    has_status: true,
    new_status: || json!({}),
    columns: &[
        cell::NAME,
        column("Request", "string", "", "What is asked for at most, and what is asked for now.", 0),
        column("Limit", "string", "", "What is used at most, and what may be used now.", 0),
        cell::AGE,
    ],
    cells,
    returns_deleted: true,
    ..BLANK
};

fn cells(quota: &Value, now: Timestamp) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    let status = &quota["status"];
    let mut hard: Vec<_> = entries(status, "hard").collect();
    hard.sort_by_key(|(name, _)| *name);
    for (name, most) in hard {
        let shown = |amount: &Value| Quantity::from_value(amount).unwrap_or(Quantity::ZERO);
        let list = if name.starts_with("limits.") { &mut limits } else { &mut requests };
        list.push(format!("{name}: {}/{}", shown(&status["used"][name]), shown(most)));
    }
    vec![cell::name(quota), requests.join(", ").into(), limits.join(", ").into(), cell::age(quota, now)]
}

fn is_pages(name: &str) -> bool {
    name.starts_with("hugepages-") || name.starts_with("requests.hugepages-")
}

fn is_standard(name: &str) -> bool {
    RESOURCES.contains(&name) || is_pages(name)
}

fn amounts(parent: &Value, field: &str, path: &Path, errors: &mut Vec<FieldError>) {
    for (name, amount) in entries(parent, field) {
        let path = path.child(field).key(name);
        check_standard(&path, name, errors);
        if !name.contains('/') && !is_standard(name) {
            errors.push(FieldError::invalid(&path, &name.as_str().into(), "must be a standard resource for quota"));
        }
        check_quantity(&path, name, amount, errors);
    }
}

fn validate(spec: &Value) -> Vec<FieldError> {
    let path = Path::new("spec");
    let mut errors = Vec::new();
    amounts(spec, "hard", &path, &mut errors);
    scopes(spec, &path.child("scopes"), &mut errors);
    selector(spec, &path.child("scopeSelector").child("matchExpressions"), &mut errors);
    errors
}

/// Whether a resource is something that objects in a scope have.
fn fits(scope: &str, resource: &str) -> bool {
    match scope {
        "BestEffort" => resource == "pods",
        "Terminating" | "NotTerminating" | "NotBestEffort" | "PriorityClass" | "CrossNamespacePodAffinity" => {
            resource == "pods" || OF_PODS.contains(&resource)
        }
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ => true,
    }
}

/// How many of the bounded resources nothing in a scope has.
fn misfits(spec: &Value, scope: &str) -> usize {
    entries(spec, "hard").filter(|(name, _)| is_standard(name) && !fits(scope, name)).count()
}

fn scopes(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let value = &spec["scopes"];
    let named: Vec<&str> = items(spec, "scopes").iter().filter_map(Value::as_str).collect();
    for scope in &named {
        if !SCOPES.contains(scope) {
            errors.push(FieldError::invalid(path, value, "unsupported scope"));
        }
        for _ in 0..misfits(spec, scope) {
            errors.push(FieldError::invalid(path, value, "unsupported scope applied to resource"));
        }
    }
    conflicts(&named, value, path, errors);
}

fn conflicts(named: &[&str], value: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    for pair in CONFLICTS {
        if pair.iter().all(|scope| named.contains(scope)) {
            errors.push(FieldError::invalid(path, value, "conflicting scopes"));
        }
    }
}

fn selector(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let expressions = items(&spec["scopeSelector"], "matchExpressions");
    let named: Vec<&str> = expressions.iter().map(|expression| text(expression, "scopeName")).collect();
    for expression in expressions {
        let (scope, operator) = (text(expression, "scopeName"), text(expression, "operator"));
        if !SCOPES.contains(&scope) {
            errors.push(FieldError::invalid(path.child("scopeName"), &scope.into(), "unsupported scope"));
        }
        for _ in 0..misfits(spec, scope) {
            let detail = "unsupported scope applied to resource";
            errors.push(FieldError::invalid(path, &spec["scopeSelector"], detail));
        }
        if !matches!(scope, "PriorityClass" | "VolumeAttributesClass")
            && SCOPES.contains(&scope)
            && operator != "Exists"
        {
            let detail = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, \
                          ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, \
                          ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.push(FieldError::invalid(path.child("operator"), &operator.into(), detail));
        }
        let values = items(expression, "values");
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.push(FieldError::required(path.child("values"), detail));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.push(FieldError::invalid(path.child("values"), &expression["values"], detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => (),
            operator => {
                let detail = "not a valid selector operator";
                errors.push(FieldError::invalid(path.child("operator"), &operator.into(), detail));
            }
        }
    }
    conflicts(&named, &spec["scopes"], path, errors);
}

fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = validate(&new["spec"]);
    let set = |quota: &Value| {
        let mut scopes = items(&quota["spec"], "scopes").iter().map(Value::to_string).collect::<Vec<_>>();
        scopes.sort();
        scopes.dedup();
        scopes
    };
    if set(new) != set(old) {
        errors.push(FieldError::invalid("spec.scopes", &new["spec"]["scopes"], "field is immutable"));
    }
    errors
}

fn validate_status(status: &Value) -> Vec<FieldError> {
    let path = Path::new("status");
    let mut errors = Vec::new();
    for field in ["hard", "used"] {
        amounts(status, field, &path, &mut errors);
    }
    errors
}
