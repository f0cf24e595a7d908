//! CSINodes: which drivers of the container storage interface a node has.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::{GROUP, check_driver};
use crate::resources::cell::{self, column};
use crate::resources::path::{Path, items, put, text};
use crate::resources::{BLANK, Resource, rule};
use crate::status::FieldError;

/// Longest name that a driver gives to a node.
const LONGEST_ID: usize = 256;

/// `csinodes`.
pub(in crate::resources) const ROW: Resource = Resource {
    group: GROUP,
    kind: "CSINode",
    list_kind: "CSINodeList",
    plural: "csinodes",
    singular: "csinode",
    namespaced: false,
    validate: |node| validate(&node["spec"]),
    validate_update,
    columns: &[cell::NAME, column("Drivers", "integer", "", "How many drivers it has.", 0), cell::AGE],
    cells: |node, now: Timestamp| {
        vec![cell::name(node), items(&node["spec"], "drivers").len().into(), cell::age(node, now)]
    },
    returns_deleted: true,
    ..BLANK
};

fn validate(spec: &Value) -> Vec<FieldError> {
    let path = Path::new("spec").child("drivers");
    let mut errors = Vec::new();
    let mut names = BTreeSet::new();
    for (index, driver) in items(spec, "drivers").iter().enumerate() {
        let path = path.index(index);
        let (name, id) = (text(driver, "name"), text(driver, "nodeID"));
        errors.extend(check_driver(&path.child("name"), name));
        errors.extend(rule::not_empty(&path.child("nodeID"), id));
        if id.len() > LONGEST_ID {
            let detail = format!("must be {LONGEST_ID} characters or less");
            errors.push(FieldError::invalid(path.child("nodeID"), &id.into(), &detail));
        }
        let count = path.child("allocatable").child("count");
        errors.extend(rule::not_negative(&count, &driver["allocatable"]["count"]));
        if !names.insert(name) {
            errors.push(FieldError::duplicate(path.child("name"), &name.into()));
        }
        let keys = items(driver, "topologyKeys");
        for (at, key) in keys.iter().enumerate() {
            let word = key.as_str().unwrap_or_default();
            errors.extend(rule::not_empty(&path, word));
            if keys[..at].contains(key) {
                errors.push(FieldError::duplicate(&path, key));
            }
            errors.extend(rule::qualified(&path, word));
        }
    }
    errors
}

/// A driver that stays may change nothing but how many volumes it can have.
fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = validate(&new["spec"]);
    for before in items(&old["spec"], "drivers") {
        for after in items(&new["spec"], "drivers").iter().filter(|driver| driver["name"] == before["name"]) {
            let mut after = after.clone();
            put(&mut after, "allocatable", &before["allocatable"]);
            errors.extend(rule::immutable("spec.drivers", &after, before));
        }
    }
    errors
}
