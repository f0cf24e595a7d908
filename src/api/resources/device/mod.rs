//! Devices that pods claim (`resource.k8s.io/v1`): classes and pools of them, claims, and templates of claims.
//!
//! Follows `pkg/apis/resource` of upstream (KEP-4381) in defaults, checks and tables. Nobody here allocates devices: the
//! objects are kept for drivers and schedulers that come with them, and their writers are told so. A moment that drivers
//! leave out of taints of devices stays out, as rows read no clock.

mod claim;
mod class;
mod request;
mod slice;
mod template;

pub(super) use claim::ROW as CLAIM;
pub(super) use class::ROW as CLASS;
pub(super) use slice::ROW as SLICE;
pub(super) use template::ROW as TEMPLATE;

use std::collections::BTreeSet;

use serde_json::Value;

use super::path::{Path, items, object_len, present, text};
use super::{rule, storage};
use crate::cel::{Program, Scope};
use crate::names;
use crate::status::FieldError;

/// The API group.
const GROUP: &str = "resource.k8s.io";

/// What the writer of a claim or of devices is told.
const IDLE: &str = "no device is allocated to claims by this server's scheduler";

/// Most selectors, configurations, requests and constraints of one object, each.
const MOST: usize = 32;
/// Most bytes of an expression that selects devices, and of what a driver keeps with them.
const MOST_BYTES: usize = 10 * 1024;
/// Most tolerations of a request.
const MOST_TOLERATIONS: usize = 16;

/// A list with a limit, whose elements are not looked at when there are more (`validateSlice`).
fn each(
    parent: &Value,
    field: &str,
    most: usize,
    path: &Path,
    errors: &mut Vec<FieldError>,
    mut check: impl FnMut(&Value, &Path, &mut Vec<FieldError>),
) {
    let (list, path) = (items(parent, field), path.child(field));
    if list.len() > most {
        errors.push(FieldError::too_many(&path, list.len(), most));
        return;
    }
    for (index, item) in list.iter().enumerate() {
        check(item, &path.index(index), errors);
    }
}

/// A list as [`each`], of which no two elements have the same key (`validateSet`).
fn set(
    parent: &Value,
    field: &str,
    most: usize,
    path: &Path,
    errors: &mut Vec<FieldError>,
    key: impl Fn(&Value) -> String,
    check: impl FnMut(&Value, &Path, &mut Vec<FieldError>),
) {
    each(parent, field, most, path, errors, check);
    let mut seen = BTreeSet::new();
    for (index, item) in items(parent, field).iter().enumerate().take(most) {
        let key = key(item);
        if !seen.insert(key.clone()) {
            errors.push(FieldError::duplicate(path.child(field).index(index), &key.into()));
        }
    }
}

/// The key of elements that have a name.
fn by_name(item: &Value) -> String {
    text(item, "name").to_owned()
}

/// The key of elements that are words.
fn by_word(item: &Value) -> String {
    item.as_str().unwrap_or_default().to_owned()
}

/// What selects devices (`validateSelector`).
fn selectors(parent: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    each(parent, "selectors", MOST, path, errors, |selector, path, errors| {
        let path = path.child("cel");
        if !present(selector, "cel") {
            errors.push(FieldError::required(path, ""));
            return;
        }
        let (expression, path) = (text(&selector["cel"], "expression"), path.child("expression"));
        if expression.len() > MOST_BYTES {
            errors.push(FieldError::too_long(path, MOST_BYTES));
        } else if let Err(sentence) =
            Program::compile(expression, &Scope { variables: vec![("device", None)], ..Scope::default() })
        {
            let detail = format!("compilation failed: {sentence}");
            errors.push(FieldError::invalid(path, &expression.into(), &detail));
        }
    });
}

/// What a driver is told of devices (`validateDeviceConfiguration`).
fn configuration(config: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let (opaque, path) = (&config["opaque"], path.child("opaque"));
    if opaque.is_null() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    errors.extend(storage::check_driver(&path.child("driver"), text(opaque, "driver")));
    raw(&opaque["parameters"], &path.child("parameters"), errors);
}

/// An object of somebody else's (`validateRawExtension`).
fn raw(value: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    if value.is_null() {
        errors.push(FieldError::required(path, ""));
    } else if value.to_string().len() > MOST_BYTES {
        errors.push(FieldError::too_long(path, MOST_BYTES));
    } else if !value.is_object() {
        errors.push(FieldError::invalid(path, &"<value omitted>".into(), "must be a valid JSON object"));
    }
}

/// The name of a pool: subdomains with slashes between them (`validatePoolName`).
fn pool_name(path: &Path, name: &str) -> Vec<FieldError> {
    const LONGEST: usize = 253;
    if name.is_empty() {
        return vec![FieldError::required(path, "")];
    }
    let mut errors = Vec::new();
    if name.len() > LONGEST {
        errors.push(FieldError::too_long(path, LONGEST));
    }
    errors.extend(name.split('/').flat_map(|part| rule::subdomain(path, part)));
    errors
}

/// The name of an attribute or capacity, with the domain of whom it belongs to or without (`validateQualifiedName`).
fn qualified(path: &Path, name: &str) -> Vec<FieldError> {
    match name.split_once('/') {
        None => identifier(path, name),
        Some((_, rest)) if rest.contains('/') => {
            vec![FieldError::invalid(path, &name.into(), "must not contain more than one slash")]
        }
        Some((domain, rest)) => {
            let mut errors = match domain {
                "" => vec![FieldError::invalid(path, &"".into(), "the domain must not be empty")],
                domain => storage::check_driver(path, domain),
            };
            match rest {
                "" => errors.push(FieldError::invalid(path, &"".into(), "the name must not be empty")),
                rest => errors.extend(identifier(path, rest)),
            }
            errors
        }
    }
}

/// As [`qualified`], with a domain.
fn fully_qualified(path: &Path, name: &str) -> Vec<FieldError> {
    let mut errors = qualified(path, name);
    if !name.contains('/') {
        let detail = "a fully qualified name must be a domain and a name separated by a slash";
        errors.push(FieldError::invalid(path, &name.into(), detail));
    }
    errors
}

fn identifier(path: &Path, word: &str) -> Vec<FieldError> {
    const LONGEST: usize = 32;
    let mut errors = Vec::new();
    if word.len() > LONGEST {
        errors.push(FieldError::too_long(path, LONGEST));
    }
    let is_first = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    let is_fine = word.as_bytes().first().is_some_and(is_first)
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !is_fine {
        let detail = "a valid C identifier must start with alphabetic character or '_', followed by a string of \
                      alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for \
                      validation is '[A-Za-z_][A-Za-z0-9_]*')";
        errors.push(FieldError::invalid(path, &word.into(), detail));
    }
    errors
}

const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];

/// What keeps claims away from a device (`validateDeviceTaint`).
fn taint(taint: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    errors.extend(rule::label_name(&path.child("key"), text(taint, "key")));
    label_value(&path.child("value"), text(taint, "value"), errors);
    errors.extend(rule::required_one_of(&path.child("effect"), text(taint, "effect"), &EFFECTS));
}

/// What a request puts up with (`validateDeviceToleration`).
fn tolerations(parent: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    each(parent, "tolerations", MOST_TOLERATIONS, path, errors, |toleration, path, errors| {
        let [key, operator, value, effect] =
            ["key", "operator", "value", "effect"].map(|field| text(toleration, field));
        if !key.is_empty() {
            errors.extend(rule::label_name(&path.child("key"), key));
        }
        match operator {
            "Exists" if !value.is_empty() => {
                let detail = "must be empty for operator `Exists`";
                errors.push(FieldError::invalid(path.child("value"), &value.into(), detail));
            }
            "Equal" => label_value(&path.child("value"), value, errors),
            _ => errors.extend(rule::required_one_of(&path.child("operator"), operator, &["Equal", "Exists"])),
        }
        if !effect.is_empty() {
            errors.extend(rule::one_of(&path.child("effect"), effect, &EFFECTS));
        }
    });
}

fn label_value(path: &Path, value: &str, errors: &mut Vec<FieldError>) {
    errors.extend(rule::each(path, value, names::label_value(value)));
}

/// Conditions that must be true, or must not, before a pod is bound to a node (`validateDeviceBindingParameters`).
fn binding(parent: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    const MOST_CONDITIONS: usize = 4;
    const FIELDS: [&str; 2] = ["bindingConditions", "bindingFailureConditions"];
    for field in FIELDS {
        set(parent, field, MOST_CONDITIONS, path, errors, by_word, |word, path, errors| {
            errors.extend(rule::label_name(path, word.as_str().unwrap_or_default()));
        });
    }
    let [good, bad] = FIELDS.map(|field| items(parent, field));
    for (index, both) in bad.iter().enumerate().filter(|(_, word)| good.contains(word)) {
        let detail = "bindingFailureConditions must not overlap with bindingConditions";
        errors.push(FieldError::invalid(path.child(FIELDS[1]).index(index), both, detail));
    }
    for (own, other) in [(0, 1), (1, 0)] {
        if items(parent, FIELDS[own]).is_empty() && !items(parent, FIELDS[other]).is_empty() {
            let detail = format!("{} are required to use {}", FIELDS[own], FIELDS[other]);
            errors.push(FieldError::invalid(path.child(FIELDS[own]), &Value::Null, &detail));
        }
    }
}

/// Counters by their names (`validateMap` of counters).
fn counters(parent: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let (map, path) = (&parent["counters"], path.child("counters"));
    match object_len(parent, "counters") {
        0 => errors.push(FieldError::required(path, "")),
        count if count > MOST => errors.push(FieldError::too_many(path, count, MOST)),
        _ => errors.extend(map.as_object().into_iter().flatten().flat_map(|(name, _)| rule::label(&path, name))),
    }
}

/// A label that must be said.
fn required_label(path: &Path, name: &str) -> Vec<FieldError> {
    if name.is_empty() { vec![FieldError::required(path, "")] } else { rule::label(path, name) }
}
