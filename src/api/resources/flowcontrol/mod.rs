//! Who may have how much of the API server at once (`flowcontrol.apiserver.k8s.io/v1`, KEP-1040).
//!
//! A FlowSchema sorts requests into a level, a PriorityLevelConfiguration says how many of a level are worked on and how
//! many wait. [`bootstrap`] lists those that every cluster has. The API server acts on them; nothing here does. Follows
//! `pkg/apis/flowcontrol` of upstream.

pub mod bootstrap;
mod flowschema;
mod prioritylevel;

pub(super) use flowschema::ROW as FLOW_SCHEMA;
pub(super) use prioritylevel::ROW as PRIORITY_LEVEL;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::path::{Path, items, text};
use super::{BLANK, Generation, Resource};
use crate::status::FieldError;

/// The API group.
pub const GROUP: &str = "flowcontrol.apiserver.k8s.io";
/// The level whose requests never wait, and the schema of those that may do anything.
pub const EXEMPT: &str = "exempt";
/// The level and the schema of what nothing else is about.
pub const CATCH_ALL: &str = "catch-all";

const BASE: Resource = Resource {
    group: GROUP,
    namespaced: false,
    has_status: true,
    new_status: || json!({}),
    generation: Generation::SPEC,
    status_keeps: &["labels", "annotations", "finalizers", "ownerReferences"],
    ..BLANK
};

/// Conditions have types, and no two the same.
fn check_conditions(status: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let mut known = BTreeSet::new();
    for (index, condition) in items(status, "conditions").iter().enumerate() {
        let (path, kind) = (path.child("conditions").index(index).child("type"), text(condition, "type"));
        if !known.insert(kind) {
            errors.push(FieldError::duplicate(&path, &kind.into()));
        }
        if kind.is_empty() {
            errors.push(FieldError::required(path, "must not be empty"));
        }
    }
}
