//! Checks of `metadata`, the same for all kinds (`k8s.io/apimachinery/pkg/api/validation/objectmeta.go`).

use serde_json::Value;

use super::NameRule;
use super::path::{Path, text};
use crate::status::FieldError;

/// Checks the metadata of a new object.
pub(super) fn check(object: &Value, namespaced: bool, _rule: NameRule) -> Vec<FieldError> {
    let (meta, path) = (&object["metadata"], Path::new("metadata"));
    let mut errors = Vec::new();
    if text(meta, "name").is_empty() {
        errors.push(FieldError::required(path.child("name"), "name or generateName is required"));
    }
    if namespaced && text(meta, "namespace").is_empty() {
        errors.push(FieldError::required(path.child("namespace"), ""));
    }
    errors
}

/// Checks that an update leaves alone what is fixed.
pub(super) fn check_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let path = Path::new("metadata");
    let (new, old) = (&new["metadata"], &old["metadata"]);
    ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
        .into_iter()
        .filter(|field| new[field] != old[field])
        .map(|field| FieldError::invalid(path.child(field), &new[field], "field is immutable"))
        .collect()
}
