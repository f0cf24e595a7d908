//! VolumeAttributesClasses: how fast and how safe the volumes of a driver are.

use jiff::Timestamp;
use serde_json::Value;

use super::{GROUP, check_parameters, check_provisioner, fixed};
use crate::resources::cell::{self, column};
use crate::resources::path::{object_len, text};
use crate::resources::{BLANK, Resource};
use crate::status::FieldError;

/// `volumeattributesclasses`.
pub(in crate::resources) const ROW: Resource = Resource {
    group: GROUP,
    kind: "VolumeAttributesClass",
    list_kind: "VolumeAttributesClassList",
    plural: "volumeattributesclasses",
    singular: "volumeattributesclass",
    short_names: &["vac"],
    namespaced: false,
    validate,
    validate_update,
    columns: &[cell::NAME, column("DriverName", "string", "", "Whose volumes it is for.", 0), cell::AGE],
    cells,
    returns_deleted: true,
    ..BLANK
};

fn cells(class: &Value, now: Timestamp) -> Vec<Value> {
    vec![cell::name(class), text(class, "driverName").into(), cell::age(class, now)]
}

fn validate(class: &Value) -> Vec<FieldError> {
    let mut errors = check_provisioner(class, "driverName");
    errors.extend(check_parameters(class));
    if object_len(class, "parameters") == 0 {
        errors.push(FieldError::required("parameters", "must contain at least one key/value pair"));
    }
    errors
}

fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let changed = ["driverName", "parameters"].into_iter().filter_map(|field| fixed(new, old, field));
    changed.chain(validate(new)).collect()
}
