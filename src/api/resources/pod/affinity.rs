//! Checks of affinity and of topology spread constraints (`validateAffinity`, `validateTopologySpreadConstraints`).

use serde_json::Value;

use crate::resources::path::{Path, items, present, text};
use crate::resources::{rule, selector};
use crate::status::FieldError;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Checks `spec.affinity`.
pub(super) fn check(affinity: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    node_affinity(&affinity["nodeAffinity"], &path.child("nodeAffinity"), errors);
    for field in ["podAffinity", "podAntiAffinity"] {
        pod_affinity(&affinity[field], &path.child(field), errors);
    }
}

fn node_affinity(affinity: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    if present(affinity, REQUIRED) {
        check_node_selector(&affinity[REQUIRED], &path.child(REQUIRED), errors);
    }
    for (index, preferred) in items(affinity, PREFERRED).iter().enumerate() {
        let path = path.child(PREFERRED).index(index);
        errors.extend(weight(preferred, &path));
        node_term(&preferred["preference"], false, &path.child("preference"), errors);
    }
}

/// Checks a `NodeSelector` (`ValidateNodeSelector`).
pub(in crate::resources) fn check_node_selector(selector: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let path = path.child("nodeSelectorTerms");
    let terms = items(selector, "nodeSelectorTerms");
    if terms.is_empty() {
        errors.push(FieldError::required(&path, "must have at least one node selector term"));
    }
    for (index, term) in terms.iter().enumerate() {
        node_term(term, true, &path.index(index), errors);
    }
}

fn weight(term: &Value, path: &Path) -> Option<FieldError> {
    let weight = term["weight"].as_i64().unwrap_or(0);
    (!(1..=100).contains(&weight))
        .then(|| FieldError::invalid(path.child("weight"), &weight.into(), "must be in the range 1-100"))
}

/// A preferred term may have values that no label can have: it only never matches.
fn node_term(term: &Value, check_values: bool, path: &Path, errors: &mut Vec<FieldError>) {
    for (index, expression) in items(term, "matchExpressions").iter().enumerate() {
        node_expression(expression, check_values, &path.child("matchExpressions").index(index), errors);
    }
    for (index, expression) in items(term, "matchFields").iter().enumerate() {
        node_field(expression, &path.child("matchFields").index(index), errors);
    }
}

fn node_expression(expression: &Value, check_values: bool, path: &Path, errors: &mut Vec<FieldError>) {
    let values = items(expression, "values");
    let values_path = path.child("values");
    match text(expression, "operator") {
        "In" | "NotIn" if values.is_empty() => {
            errors.push(FieldError::required(&values_path, "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(FieldError::forbidden(&values_path, detail));
        }
        "Gt" | "Lt" if values.len() != 1 => {
            let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.push(FieldError::required(&values_path, detail));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => (),
        operator => errors.push(selector::bad_operator(operator, path)),
    }
    errors.extend(rule::label_name(&path.child("key"), text(expression, "key")));
    if check_values {
        selector::label_values(values, &values_path, errors);
    }
}

/// The only field of a node that can be selected by is its name.
fn node_field(expression: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let values = items(expression, "values");
    match text(expression, "operator") {
        "In" | "NotIn" => {
            if values.len() != 1 {
                let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                errors.push(FieldError::required(path.child("values"), detail));
            }
        }
        operator => errors.push(selector::bad_operator(operator, path)),
    }
    if text(expression, "key") != "metadata.name" {
        let detail = "not a valid field selector key";
        errors.push(FieldError::invalid(path.child("key"), &expression["key"], detail));
        return;
    }
    for (index, value) in values.iter().enumerate() {
        errors.extend(rule::subdomain(&path.child("values").index(index), value.as_str().unwrap_or_default()));
    }
}

fn pod_affinity(affinity: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    for (index, term) in items(affinity, REQUIRED).iter().enumerate() {
        pod_term(term, &path.child(REQUIRED).index(index), errors);
    }
    for (index, preferred) in items(affinity, PREFERRED).iter().enumerate() {
        let path = path.child(PREFERRED).index(index);
        errors.extend(weight(preferred, &path));
        pod_term(&preferred["podAffinityTerm"], &path.child("podAffinityTerm"), errors);
    }
}

fn pod_term(term: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    for field in ["labelSelector", "namespaceSelector"] {
        selector::check(&term[field], &path.child(field), errors);
    }
    for name in items(term, "namespaces") {
        errors.extend(rule::label(&path.child("namespace"), name.as_str().unwrap_or_default()));
    }
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        label_keys(term, field, &path.child(field), errors);
    }
    let key = text(term, "topologyKey");
    if key.is_empty() {
        errors.push(FieldError::required(path.child("topologyKey"), "can not be empty"));
    }
    errors.extend(rule::label_name(&path.child("topologyKey"), key));
}

fn label_keys(term: &Value, field: &str, path: &Path, errors: &mut Vec<FieldError>) {
    let keys = items(term, field);
    if !keys.is_empty() && !present(term, "labelSelector") {
        errors.push(FieldError::forbidden(path, "must not be specified when labelSelector is not set"));
    }
    for (index, key) in keys.iter().enumerate() {
        errors.extend(rule::label_name(&path.index(index), key.as_str().unwrap_or_default()));
    }
}

/// Checks `spec.topologySpreadConstraints`.
pub(super) fn check_spread(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let constraints = items(spec, "topologySpreadConstraints");
    for (index, constraint) in constraints.iter().enumerate() {
        let path = path.index(index);
        let skew = constraint["maxSkew"].as_i64().unwrap_or(0);
        if skew <= 0 {
            errors.push(FieldError::invalid(path.child("maxSkew"), &skew.into(), "must be greater than zero"));
        }
        let (key, action) = (text(constraint, "topologyKey"), text(constraint, "whenUnsatisfiable"));
        if key.is_empty() {
            errors.push(FieldError::required(path.child("topologyKey"), "can not be empty"));
        }
        let actions = ["DoNotSchedule", "ScheduleAnyway"];
        errors.extend(rule::one_of(&path.child("whenUnsatisfiable"), action, &actions));
        let is_same = |later: &Value| text(later, "topologyKey") == key && text(later, "whenUnsatisfiable") == action;
        if constraints[index + 1..].iter().any(is_same) {
            let pair = Value::from(format!("{{{key}, {action}}}"));
            errors.push(FieldError::duplicate(path.child("{topologyKey, whenUnsatisfiable}"), &pair));
        }
        if let Some(least) = constraint["minDomains"].as_i64() {
            let path = path.child("minDomains");
            if least <= 0 {
                errors.push(FieldError::invalid(&path, &least.into(), "must be greater than zero"));
            }
            if action != "DoNotSchedule" {
                let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                errors.push(FieldError::invalid(&path, &least.into(), &detail));
            }
        }
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if present(constraint, field) {
                errors.extend(rule::one_of(&path.child(field), text(constraint, field), &["Honor", "Ignore"]));
            }
        }
        label_keys(constraint, "matchLabelKeys", &path.child("matchLabelKeys"), errors);
        selector::check(&constraint["labelSelector"], &path.child("labelSelector"), errors);
    }
}
