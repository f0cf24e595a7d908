//! What a claim asks for: requests of devices, constraints between them, and configuration.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{MOST, by_name, by_word, configuration, each, fully_qualified, selectors, set, tolerations};
use crate::resources::path::{Path, default_number, default_text, items, items_mut, number, object_mut, present, text};
use crate::resources::rule;
use crate::status::FieldError;

/// Most alternatives of a request.
const MOST_ALTERNATIVES: usize = 8;

/// The requests of a claim by their names, with the names of their alternatives.
pub(super) type Names<'a> = BTreeMap<&'a str, Vec<&'a str>>;

/// Fills in how many devices a request is for (`SetDefaults_ExactDeviceRequest`).
pub(super) fn default(spec: &mut Value) {
    let fill = |request: &mut Value| {
        default_text(request, "allocationMode", "ExactCount");
        if request["allocationMode"] == "ExactCount" {
            default_number(request, "count", 1);
        }
    };
    let Some(devices) = object_mut(spec, "devices") else { return };
    for request in items_mut(devices, "requests") {
        if let Some(exactly) = object_mut(request, "exactly") {
            fill(exactly);
        }
        items_mut(request, "firstAvailable").for_each(fill);
    }
}

/// The names that constraints, configuration and allocations refer to.
pub(super) fn names(spec: &Value) -> Names<'_> {
    let inner = |request| items(request, "firstAvailable").iter().map(|one| text(one, "name")).collect();
    items(&spec["devices"], "requests").iter().map(|request| (text(request, "name"), inner(request))).collect()
}

/// Checks what a claim asks for (`validateDeviceClaim`).
pub(super) fn check(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let (devices, path) = (&spec["devices"], path.child("devices"));
    let known = names(spec);
    set(devices, "requests", MOST, &path, errors, by_name, request);
    each(devices, "constraints", MOST, &path, errors, |constraint, path, errors| {
        references(constraint, &known, path, errors);
        let attributes = ["matchAttribute", "distinctAttribute"].map(|field| (field, constraint[field].as_str()));
        match attributes {
            [(field, Some(name)), (_, None)] | [(_, None), (field, Some(name))] => {
                errors.extend(fully_qualified(&path.child(field), name));
            }
            [(_, None), (_, None)] => {
                let detail = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required";
                errors.push(FieldError::required(path, detail));
            }
            [(_, Some(_)), (_, Some(_))] => {
                let detail = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple \
                              fields are set";
                errors.push(FieldError::invalid(path, &Value::Null, detail));
            }
        }
    });
    each(devices, "config", MOST, &path, errors, |config, path, errors| {
        references(config, &known, path, errors);
        configuration(config, path, errors);
    });
}

/// Which requests something is about.
pub(super) fn references(parent: &Value, known: &Names<'_>, path: &Path, errors: &mut Vec<FieldError>) {
    set(parent, "requests", MOST, path, errors, by_word, |name, path, errors| {
        reference(name.as_str().unwrap_or_default(), known, path, errors);
    });
}

/// The name of a request, or of one of its alternatives after it (`validateRequestNameRef`).
pub(super) fn reference(name: &str, known: &Names<'_>, path: &Path, errors: &mut Vec<FieldError>) {
    let (outer, inner) = name.split_once('/').map_or((name, None), |(outer, inner)| (outer, Some(inner)));
    let has_more = inner.is_some_and(|inner| inner.contains('/'));
    if !has_more {
        errors.extend(name.split('/').flat_map(|part| rule::label(path, part)));
    }
    let is_known = known.get(outer).is_some_and(|own| inner.is_none_or(|inner| own.contains(&inner)));
    if has_more || !is_known {
        let detail = "must be the name of a request in the claim or the name of a request and a subrequest separated by \
                      '/'";
        errors.push(FieldError::invalid(path, &name.into(), detail));
    }
}

fn request(request: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    errors.extend(rule::label(&path.child("name"), text(request, "name")));
    match (present(request, "exactly"), !items(request, "firstAvailable").is_empty()) {
        (false, false) => {
            errors.push(FieldError::required(path, "exactly one of `exactly` or `firstAvailable` is required"));
        }
        (true, true) => {
            let detail = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            errors.push(FieldError::invalid(path, &Value::Null, detail));
        }
        (true, false) => devices(&request["exactly"], &path.child("exactly"), errors),
        (false, true) => {
            set(request, "firstAvailable", MOST_ALTERNATIVES, path, errors, by_name, |one, path, errors| {
                errors.extend(rule::label(&path.child("name"), text(one, "name")));
                devices(one, path, errors);
            });
        }
    }
}

/// Which devices, and how many (`validateExactDeviceRequest`).
fn devices(request: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let (class, class_path) = (text(request, "deviceClassName"), path.child("deviceClassName"));
    match class {
        "" => errors.push(FieldError::required(class_path, "")),
        class => errors.extend(rule::subdomain(&class_path, class)),
    }
    selectors(request, path, errors);
    let (count, count_path) = (number(request, "count"), path.child("count"));
    match text(request, "allocationMode") {
        "All" if count != 0 => {
            let detail = "must not be specified when allocationMode is 'All'";
            errors.push(FieldError::invalid(count_path, &count.into(), detail));
        }
        "ExactCount" if count <= 0 => {
            errors.push(FieldError::invalid(count_path, &count.into(), "must be greater than zero"));
        }
        mode => errors.extend(rule::one_of(&path.child("allocationMode"), mode, &["All", "ExactCount"])),
    }
    tolerations(request, path, errors);
}
