//! Ways into the cluster and within it (`networking.k8s.io/v1`).
//!
//! Follows `pkg/apis/networking` of upstream.

pub(super) mod ingress;
pub(super) mod ingressclass;
pub(super) mod ipaddress;
pub(super) mod networkpolicy;
pub(super) mod servicecidr;

use serde_json::Value;

use super::path::{Path, present, text};
use super::rule;
use crate::names;
use crate::status::FieldError;

/// The API group.
const GROUP: &str = "networking.k8s.io";

/// Kind and name of something that another object refers to, and its group.
fn reference(reference: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    if present(reference, "apiGroup") {
        errors.extend(rule::subdomain(&path.child("apiGroup"), text(reference, "apiGroup")));
    }
    segments(reference, &["kind", "name"], path, errors);
}

/// Fields that must be said and can stand in a path.
fn segments(parent: &Value, fields: &[&str], path: &Path, errors: &mut Vec<FieldError>) {
    for field in fields {
        let (path, word) = (path.child(field), text(parent, field));
        errors.extend(rule::not_empty(&path, word));
        errors.extend(rule::each(&path, word, names::path_segment(word)));
    }
}
