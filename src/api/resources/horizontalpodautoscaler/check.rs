//! Checks, in the order and words of `pkg/apis/autoscaling/validation/validation.go`.

use serde_json::Value;

use crate::names;
use crate::quantity::Quantity;
use crate::resources::path::{Path, items, number, present, text};
use crate::resources::{rule, workload};
use crate::status::FieldError;

const LONGEST_PERIOD: i64 = 1800;
const LONGEST_WINDOW: i64 = 3600;
const KINDS: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
/// In the order in which upstream looks at them.
const SOURCES: [&str; 5] = ["object", "external", "pods", "resource", "containerResource"];

/// Checks a spec; `least` is the lowest number of replicas that may be asked for.
pub(super) fn validate(spec: &Value, least: i64) -> Vec<FieldError> {
    let path = Path::new("spec");
    let mut errors = Vec::new();
    let (min, max) = (spec["minReplicas"].as_i64(), number(spec, "maxReplicas"));
    let mut invalid = |field: &str, value: i64, detail: &str| {
        errors.push(FieldError::invalid(path.child(field), &value.into(), detail));
    };
    if let Some(min) = min.filter(|min| *min < least) {
        invalid("minReplicas", min, &format!("must be greater than or equal to {least}"));
    }
    if max < 1 {
        invalid("maxReplicas", max, "must be greater than 0");
    }
    if min.is_some_and(|min| max < min) {
        invalid("maxReplicas", max, "must be greater than or equal to `minReplicas`");
    }
    reference(&spec["scaleTargetRef"], &path.child("scaleTargetRef"), &mut errors);
    let metrics = items(spec, "metrics");
    for (index, metric) in metrics.iter().enumerate() {
        check_metric(metric, &path.child("metrics").index(index), &mut errors);
    }
    if min == Some(0) && !metrics.iter().any(|metric| metric["type"] == "Object" || metric["type"] == "External") {
        let detail = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.push(FieldError::forbidden(path.child("metrics"), detail));
    }
    for direction in ["scaleUp", "scaleDown"] {
        rules(&spec["behavior"][direction], &path.child("behavior").child(direction), &mut errors);
    }
    errors
}

/// Checks a change; who was allowed no replicas before is now.
pub(super) fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let least = if old["spec"]["minReplicas"] == 0 { 0 } else { 1 };
    validate(&new["spec"], least)
}

/// Checks a status.
pub(super) fn validate_status(status: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    workload::not_negative(status, &["currentReplicas", "desiredReplicas"], &Path::new("status"), &mut errors);
    errors
}

/// A name that can be a part of a path, which must be said.
fn segment(path: &Path, value: &str, missing: &str, errors: &mut Vec<FieldError>) {
    if value.is_empty() {
        errors.push(FieldError::required(path, missing));
    } else {
        errors.extend(rule::each(path, value, names::path_segment(value)));
    }
}

fn reference(target: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    for field in ["kind", "name"] {
        segment(&path.child(field), text(target, field), "", errors);
    }
}

fn check_metric(metric: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let kind = text(metric, "type");
    if kind.is_empty() {
        errors.push(FieldError::required(path.child("type"), "must specify a metric source type"));
    }
    errors.extend(rule::one_of(&path.child("type"), kind, &KINDS));
    let given: Vec<&str> = SOURCES.into_iter().filter(|source| present(metric, source)).collect();
    if let Some(first) = given.first() {
        check_source(first, &metric[first], &path.child(first), errors);
    }
    let expected = SOURCES.into_iter().find(|source| source.eq_ignore_ascii_case(kind));
    if let Some(expected) = expected.filter(|expected| !given.contains(expected)) {
        let detail = "must populate information for the given metric source";
        errors.push(FieldError::required(path.child(expected), detail));
    }
    if given.len() != 1 {
        let others = given.iter().filter(|source| Some(**source) != expected);
        let detail = "must populate the given metric source only";
        errors.extend(others.map(|source| FieldError::forbidden(path.child(source), detail)));
    }
}

fn check_source(kind: &str, source: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    if kind == "object" {
        reference(&source["describedObject"], &path.child("describedObject"), errors);
    }
    if matches!(kind, "object" | "external" | "pods") {
        let name = path.child("metric").child("name");
        segment(&name, text(&source["metric"], "name"), "must specify a metric name", errors);
    } else if text(source, "name").is_empty() {
        errors.push(FieldError::required(path.child("name"), "must specify a resource name"));
    }
    if kind == "containerResource" {
        match text(source, "container") {
            "" => errors.push(FieldError::required(path.child("container"), "must specify a container")),
            name => errors.extend(rule::label(&path.child("container"), name)),
        }
    }
    let (target, path) = (&source["target"], path.child("target"));
    check_target(target, &path, errors);
    let has = |field: &str| present(target, field);
    let missing = match kind {
        "object" if !has("value") && !has("averageValue") => {
            ("averageValue", "must set either a target value or averageValue")
        }
        "external" if !has("value") && !has("averageValue") => {
            ("averageValue", "must set either a target value for metric or a per-pod target")
        }
        "pods" if !has("averageValue") => ("averageValue", "must specify a positive target averageValue"),
        "resource" | "containerResource" if !has("averageUtilization") && !has("averageValue") => {
            ("averageUtilization", "must set either a target raw value or a target utilization")
        }
        _ => ("", ""),
    };
    if !missing.0.is_empty() {
        errors.push(FieldError::required(path.child(missing.0), missing.1));
    }
    let both = match kind {
        "external" if has("value") && has("averageValue") => {
            ("value", "may not set both a target value for metric and a per-pod target")
        }
        "resource" | "containerResource" if has("averageUtilization") && has("averageValue") => {
            ("averageValue", "may not set both a target raw value and a target utilization")
        }
        _ => return,
    };
    errors.push(FieldError::forbidden(path.child(both.0), both.1));
}

fn check_target(target: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let kind = text(target, "type");
    if kind.is_empty() {
        errors.push(FieldError::required(path.child("type"), "must specify a metric target type"));
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        let detail = "must be either Utilization, Value, or AverageValue";
        errors.push(FieldError::invalid(path.child("type"), &kind.into(), detail));
    }
    for field in ["value", "averageValue"] {
        let amount = Quantity::from_value(&target[field]).ok();
        if amount.is_some_and(|amount| amount <= Quantity::ZERO) && present(target, field) {
            errors.push(FieldError::invalid(path.child(field), &target[field], "must be positive"));
        }
    }
    let percent = &target["averageUtilization"];
    if percent.as_i64().is_some_and(|percent| percent < 1) {
        errors.push(FieldError::invalid(path.child("averageUtilization"), percent, "must be greater than 0"));
    }
}

fn rules(rules: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    if rules.is_null() {
        return;
    }
    let window = &rules["stabilizationWindowSeconds"];
    let window_path = path.child("stabilizationWindowSeconds");
    match window.as_i64() {
        Some(..0) => errors.push(FieldError::invalid(window_path, window, "must be greater than or equal to zero")),
        Some(seconds) if seconds > LONGEST_WINDOW => {
            let detail = format!("must be less than or equal to {LONGEST_WINDOW}");
            errors.push(FieldError::invalid(window_path, window, &detail));
        }
        _ => (),
    }
    if present(rules, "selectPolicy") {
        let known = ["Disabled", "Max", "Min"];
        errors.extend(rule::one_of(&path.child("selectPolicy"), text(rules, "selectPolicy"), &known));
    }
    let (policies, path) = (items(rules, "policies"), path.child("policies"));
    if policies.is_empty() {
        errors.push(FieldError::required(&path, "must specify at least one Policy"));
    }
    for (index, policy) in policies.iter().enumerate() {
        let path = path.index(index);
        errors.extend(rule::one_of(&path.child("type"), text(policy, "type"), &["Percent", "Pods"]));
        for field in ["value", "periodSeconds"] {
            let value = number(policy, field);
            if value <= 0 {
                errors.push(FieldError::invalid(path.child(field), &value.into(), "must be greater than zero"));
            }
        }
        let period = number(policy, "periodSeconds");
        if period > LONGEST_PERIOD {
            let detail = format!("must be less than or equal to {LONGEST_PERIOD}");
            errors.push(FieldError::invalid(path.child("periodSeconds"), &period.into(), &detail));
        }
    }
}
