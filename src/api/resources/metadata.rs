//! Checks of `metadata`, the same for all kinds (`k8s.io/apimachinery/pkg/api/validation/objectmeta.go`).

use serde_json::Value;

use super::NameRule;
use super::path::{Path, entries, items, present, text};
use super::rule;
use crate::names;
use crate::status::FieldError;

/// Most bytes that all annotations of an object may have together.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// Checks the metadata of a new object.
pub(super) fn check(object: &Value, namespaced: bool, name_rule: NameRule) -> Vec<FieldError> {
    let (meta, path) = (&object["metadata"], Path::new("metadata"));
    let mut errors = Vec::new();
    let name_path = path.child("name");
    match text(meta, "name") {
        "" => errors.push(FieldError::required(&name_path, "name or generateName is required")),
        name => errors.extend(rule::each(&name_path, name, name_errors(name, name_rule))),
    }
    let namespace_path = path.child("namespace");
    match text(meta, "namespace") {
        "" if namespaced => errors.push(FieldError::required(&namespace_path, "")),
        "" => (),
        namespace if namespaced => errors.extend(rule::label(&namespace_path, namespace)),
        _ => errors.push(FieldError::forbidden(&namespace_path, "not allowed on this type")),
    }
    errors.extend(check_common(meta, &path));
    errors
}

fn name_errors(name: &str, name_rule: NameRule) -> Vec<String> {
    match name_rule {
        NameRule::Label => names::dns1123_label(name),
        NameRule::Subdomain => names::dns1123_subdomain(name),
        NameRule::Label1035 => names::dns1035_label(name),
        NameRule::PathSegment => names::path_segment(name),
        NameRule::Address => names::ip_address(name),
    }
}

/// Checks that an update leaves alone what is fixed.
pub(super) fn check_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let path = Path::new("metadata");
    let (new, old) = (&new["metadata"], &old["metadata"]);
    let fixed = ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"];
    let mut errors: Vec<FieldError> =
        fixed.iter().flat_map(|field| rule::immutable(path.child(field), &new[field], &old[field])).collect();
    if present(old, "deletionTimestamp") {
        let known = items(old, "finalizers");
        let added: Vec<String> =
            items(new, "finalizers").iter().filter(|name| !known.contains(name)).map(Value::to_string).collect();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            errors.push(FieldError::forbidden(path.child("finalizers"), &detail));
        }
    }
    errors.extend(check_common(new, &path));
    errors
}

fn check_common(meta: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> =
        rule::not_negative(&path.child("generation"), &meta["generation"]).into_iter().collect();
    errors.extend(rule::labels(&path.child("labels"), meta, "labels"));
    errors.extend(check_annotations(meta, &path.child("annotations")));
    errors.extend(check_owners(meta, &path.child("ownerReferences")));
    errors.extend(check_finalizers(meta, &path.child("finalizers")));
    errors
}

/// Checks annotations; `meta` is what has them.
pub(super) fn check_annotations(meta: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut size = 0;
    for (key, value) in entries(meta, "annotations") {
        // Keys are compared without regard to case, for the sake of old objects.
        errors.extend(rule::each(path, key, names::qualified_name(&key.to_lowercase())));
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > MAX_ANNOTATIONS {
        errors.push(FieldError::too_long(path, MAX_ANNOTATIONS));
    }
    errors
}

fn check_owners(meta: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut controllers = Vec::new();
    for (index, owner) in items(meta, "ownerReferences").iter().enumerate() {
        let path = path.index(index);
        let words = ["apiVersion", "kind", "name", "uid"].into_iter().filter(|field| text(owner, field).is_empty());
        errors.extend(words.map(|field| FieldError::invalid(path.child(field), &"".into(), "must not be empty")));
        if text(owner, "apiVersion") == "v1" && text(owner, "kind") == "Event" {
            errors.push(FieldError::invalid(&path, owner, "/v1, Kind=Event is disallowed from being an owner"));
        }
        if owner["controller"] == true {
            controllers.push(text(owner, "kind"));
        }
    }
    if let [first, second, ..] = controllers.as_slice() {
        let detail = format!(
            "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {second}"
        );
        errors.push(FieldError::invalid(path, &meta["ownerReferences"], &detail));
    }
    errors
}

fn check_finalizers(meta: &Value, path: &Path) -> Vec<FieldError> {
    let names = items(meta, "finalizers");
    let mut errors: Vec<FieldError> = names
        .iter()
        .enumerate()
        .flat_map(|(index, name)| rule::finalizer(&path.index(index), name.as_str().unwrap_or_default()))
        .collect();
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    if has("orphan") && has("foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(FieldError::invalid(path, &meta["finalizers"], detail));
    }
    errors
}
