//! Label selectors in objects: their checks, and the text that tables and scales show.

use serde_json::Value;

use super::path::{Path, entries, items, object_len, text};
use super::rule;
use crate::names;
use crate::selector::LabelSelector;
use crate::status::FieldError;

/// `k8s.io/apimachinery/pkg/apis/meta/v1/validation.ValidateLabelSelector`.
pub(super) fn check(selector: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    errors.extend(rule::labels(&path.child("matchLabels"), selector, "matchLabels"));
    for (index, expression) in items(selector, "matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(index);
        let values = items(expression, "values");
        let values_path = path.child("values");
        match text(expression, "operator") {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(&values_path, detail));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(&values_path, detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => (),
            operator => errors.push(bad_operator(operator, &path)),
        }
        errors.extend(rule::label_name(&path.child("key"), text(expression, "key")));
        label_values(values, &values_path, errors);
    }
}

/// The error of an operator that does not exist.
pub(super) fn bad_operator(operator: &str, path: &Path) -> FieldError {
    FieldError::invalid(path.child("operator"), &operator.into(), "not a valid selector operator")
}

/// Values of labels in a list.
pub(super) fn label_values(values: &[Value], path: &Path, errors: &mut Vec<FieldError>) {
    for (index, value) in values.iter().enumerate() {
        let value = value.as_str().unwrap_or_default();
        errors.extend(rule::each(&path.index(index), value, names::label_value(value)));
    }
}

/// Checks a selector that must be there and select something; `kind` is the word of the message.
pub(super) fn check_own(spec: &Value, path: &Path, kind: &str, errors: &mut Vec<FieldError>) {
    let selector = &spec["selector"];
    if selector.is_null() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    check(selector, path, errors);
    if is_empty(selector) {
        let detail = format!("empty selector is invalid for {kind}");
        errors.push(FieldError::invalid(path, selector, &detail));
    }
}

/// Whether a selector names no condition.
pub(super) fn is_empty(selector: &Value) -> bool {
    object_len(selector, "matchLabels") + items(selector, "matchExpressions").len() == 0
}

/// Whether a `LabelSelector` selects labels; none if it is malformed.
pub(super) fn selects(selector: &Value, labels: &Value) -> Option<bool> {
    LabelSelector::from_object(selector).ok().map(|selector| selector.matches(labels.as_object()))
}

/// A `LabelSelector` as a query would say it, conditions in the order of their keys (`labels.Selector.String`).
pub(super) fn query(selector: &Value) -> String {
    let labels = entries(selector, "matchLabels");
    let mut parts: Vec<(&str, String)> =
        labels.map(|(key, value)| (key.as_str(), pair(key, value.as_str().unwrap_or_default()))).collect();
    for expression in items(selector, "matchExpressions") {
        let key = text(expression, "key");
        let mut values: Vec<&str> = items(expression, "values").iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        let part = match text(expression, "operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        };
        parts.push((key, part));
    }
    parts.sort_by_key(|(key, _)| *key);
    Vec::from_iter(parts.into_iter().map(|(_, part)| part)).join(",")
}

/// A map of labels as a query would say it, sorted.
pub(super) fn map_query(labels: &Value) -> String {
    let mut pairs: Vec<(&String, &Value)> = labels.as_object().into_iter().flatten().collect();
    pairs.sort_by_key(|(key, _)| *key);
    let pairs = pairs.into_iter().map(|(key, value)| pair(key, value.as_str().unwrap_or_default()));
    Vec::from_iter(pairs).join(",")
}

fn pair(key: &str, value: &str) -> String {
    format!("{key}={value}")
}

/// The cell of a selector (`metav1.FormatLabelSelector`).
pub(super) fn cell(selector: &Value) -> Value {
    super::cell::or(&query(selector), "<none>")
}

/// The cell of a map of labels (`labels.FormatLabels`).
pub(super) fn map_cell(labels: &Value) -> Value {
    super::cell::or(&map_query(labels), "<none>")
}
