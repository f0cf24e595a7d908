//! StorageClasses.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{GROUP, check_parameters, check_provisioner, fixed};
use crate::resources::cell::{self, column};
use crate::resources::path::{Path, default_to, items, present, text};
use crate::resources::{BLANK, Resource, rule};
use crate::status::FieldError;

/// Which class is that of claims which name none; the second is its old name.
const DEFAULT_ANNOTATIONS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

/// `storageclasses`.
pub(in crate::resources) const ROW: Resource = Resource {
    group: GROUP,
    kind: "StorageClass",
    list_kind: "StorageClassList",
    plural: "storageclasses",
    singular: "storageclass",
    short_names: &["sc"],
    namespaced: false,
    default: |class| {
        default_to(class, "reclaimPolicy", "Delete");
        default_to(class, "volumeBindingMode", "Immediate");
    },
    validate,
    validate_update,
    columns: &[
        cell::NAME,
        column("Provisioner", "string", "", "Who makes its volumes.", 0),
        column("ReclaimPolicy", "string", "", "What becomes of its volumes when their claims are gone.", 0),
        column("VolumeBindingMode", "string", "", "When claims are given their volumes.", 0),
        column("AllowVolumeExpansion", "string", "", "Whether its volumes may grow.", 0),
        cell::AGE,
    ],
    cells,
    returns_deleted: true,
    ..BLANK
};

/// Whether a class is that of claims which name none.
pub(in crate::resources) fn is_default(class: &Value) -> bool {
    let annotations = &class["metadata"]["annotations"];
    DEFAULT_ANNOTATIONS.into_iter().any(|key| annotations[key] == "true")
}

fn cells(class: &Value, now: Timestamp) -> Vec<Value> {
    let name = text(&class["metadata"], "name");
    let name = if is_default(class) { format!("{name} (default)") } else { name.to_owned() };
    vec![
        name.into(),
        text(class, "provisioner").into(),
        class["reclaimPolicy"].as_str().unwrap_or("Delete").into(),
        class["volumeBindingMode"].as_str().unwrap_or("Immediate").into(),
        (class["allowVolumeExpansion"] == true).into(),
        cell::age(class, now),
    ]
}

fn validate(class: &Value) -> Vec<FieldError> {
    let mut errors = check_provisioner(class, "provisioner");
    errors.extend(check_parameters(class));
    let policy = text(class, "reclaimPolicy");
    if !policy.is_empty() {
        errors.extend(rule::one_of(&Path::new("reclaimPolicy"), policy, &["Delete", "Retain"]));
    }
    let (mode, path) = (text(class, "volumeBindingMode"), Path::new("volumeBindingMode"));
    if present(class, "volumeBindingMode") {
        errors.extend(rule::one_of(&path, mode, &["Immediate", "WaitForFirstConsumer"]));
    } else {
        errors.push(FieldError::required(path, ""));
    }
    topologies(class, &Path::new("allowedTopologies"), &mut errors);
    errors
}

/// `ValidateTopologySelectorTerm`.
fn topologies(class: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let mut known: Vec<Map<String, Value>> = Vec::new();
    for (index, term) in items(class, "allowedTopologies").iter().enumerate() {
        let path = path.index(index).child("matchLabelExpressions");
        let mut keys = Map::new();
        for (index, expression) in items(term, "matchLabelExpressions").iter().enumerate() {
            let path = path.index(index);
            let (key, values) = (text(expression, "key"), items(expression, "values"));
            if values.is_empty() {
                errors.push(FieldError::required(path.child("values"), ""));
            }
            for (at, value) in values.iter().enumerate().filter(|(at, value)| values[..*at].contains(value)) {
                errors.push(FieldError::duplicate(path.child("values").index(at), value));
            }
            errors.extend(rule::label_name(&path.child("key"), key));
            if keys.insert(key.to_owned(), values.into()).is_some() {
                errors.push(FieldError::duplicate(path.child("key"), &key.into()));
            }
        }
        if known.contains(&keys) {
            errors.push(FieldError::duplicate(path, &"".into()));
        }
        known.push(keys);
    }
}

fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> =
        ["parameters", "provisioner", "reclaimPolicy"].into_iter().filter_map(|field| fixed(new, old, field)).collect();
    let field = "volumeBindingMode";
    errors.extend(rule::immutable(field, &new[field], &old[field]));
    errors
}
