//! Volumes that outlive pods: claims, volumes and classes of them, and what drivers of the container storage interface
//! tell of themselves (`storage.k8s.io/v1`).
//!
//! Follows `pkg/apis/core`, `pkg/apis/storage` and their registries of upstream. Kinds of volume sources that no node
//! here mounts are kept, and checked for their number only.

pub(super) mod attributesclass;
pub(super) mod capacity;
pub(super) mod claim;
pub(super) mod class;
pub(super) mod csidriver;
pub(super) mod csinode;
pub(super) mod volume;
pub(super) mod volumeattachment;

use serde_json::Value;

use super::path::{Path, entries, items, present, text};
use super::rule;
use crate::names;
use crate::quantity::Quantity;
use crate::status::FieldError;

/// The API group.
const GROUP: &str = "storage.k8s.io";

/// Where older clients say the class.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// What a volume may be used for, with the short word of tables.
const ACCESS_MODES: [(&str, &str); 4] =
    [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];

/// Volume modes.
const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];

/// Most parameters of a class, and most bytes of them.
const MOST_PARAMETERS: usize = 512;
const MOST_PARAMETER_BYTES: usize = 256 * 1024;

/// The class of a claim or volume.
pub(super) fn class_of(object: &Value) -> &str {
    let annotation = object["metadata"]["annotations"][CLASS_ANNOTATION].as_str();
    annotation.unwrap_or_else(|| text(&object["spec"], "storageClassName"))
}

/// Whether a claim says its class, even if only that it has none.
pub(super) fn has_class(claim: &Value) -> bool {
    present(&claim["spec"], "storageClassName") || present(&claim["metadata"]["annotations"], CLASS_ANNOTATION)
}

/// The cell of access modes (`GetAccessModesAsString`).
fn modes_cell(parent: &Value) -> Value {
    let modes = items(parent, "accessModes");
    let shown = ACCESS_MODES.into_iter().filter(|(mode, _)| modes.iter().any(|own| own == mode));
    Vec::from_iter(shown.map(|(_, short)| short)).join(",").into()
}

/// The cell of a field that is nothing if it is not said.
fn unset(parent: &Value, field: &str) -> Value {
    parent[field].as_str().unwrap_or("<unset>").into()
}

/// The cell of a size.
fn size_cell(amounts: &Value) -> Value {
    Quantity::from_value(&amounts["storage"]).map_or_else(|_| "0".into(), |size| size.to_string().into())
}

fn check_modes(spec: &Value, detail: &str, path: &Path, errors: &mut Vec<FieldError>) {
    let (modes, path) = (items(spec, "accessModes"), path.child("accessModes"));
    if modes.is_empty() {
        errors.push(FieldError::required(&path, detail));
    }
    // Upstream lists what is supported in the order of the alphabet.
    let supported = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    let known = |mode: &Value| supported.iter().any(|word| mode == word);
    errors.extend(
        modes.iter().filter(|mode| !known(mode)).map(|mode| FieldError::not_supported(&path, mode, &supported)),
    );
    let alone = |mode: &Value| mode == "ReadWriteOncePod";
    if modes.iter().any(alone) && modes.iter().any(|mode| known(mode) && !alone(mode)) {
        errors.push(FieldError::forbidden(path, "may not use ReadWriteOncePod with other access modes"));
    }
}

/// Checks an amount that must be more than nothing.
fn check_positive(path: &Path, value: &Value) -> Option<FieldError> {
    let amount = Quantity::from_value(value).ok()?;
    let is_positive = !amount.is_negative() && !amount.is_zero();
    (!is_positive).then(|| FieldError::invalid(path, &amount.to_string().into(), "must be greater than zero"))
}

/// The name of a driver (`ValidateCSIDriverName`).
pub(super) fn check_driver(path: &Path, name: &str) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> = rule::not_empty(path, name).into_iter().collect();
    if name.len() > 63 {
        errors.push(FieldError::too_long(path, 63));
    }
    errors.extend(rule::each(path, name, names::dns1123_subdomain(&name.to_lowercase())));
    errors
}

/// The provisioner or driver of a class.
fn check_provisioner(class: &Value, field: &str) -> Vec<FieldError> {
    let (name, path) = (text(class, field), Path::new(field));
    if name.is_empty() { vec![FieldError::required(path, "")] } else { rule::qualified(&path, &name.to_lowercase()) }
}

/// The parameters of a class.
fn check_parameters(class: &Value) -> Vec<FieldError> {
    let path = Path::new("parameters");
    let count = entries(class, "parameters").count();
    if count > MOST_PARAMETERS {
        return vec![FieldError::too_long(path, MOST_PARAMETERS)];
    }
    let empty = entries(class, "parameters").filter(|(key, _)| key.is_empty());
    let mut errors: Vec<FieldError> =
        empty.map(|(key, _)| FieldError::invalid(&path, &key.as_str().into(), "field can not be empty.")).collect();
    let size: usize =
        entries(class, "parameters").map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if size > MOST_PARAMETER_BYTES {
        errors.push(FieldError::too_long(path, MOST_PARAMETER_BYTES));
    }
    errors
}

/// A field of a class that may not change.
fn fixed(new: &Value, old: &Value, field: &str) -> Option<FieldError> {
    let detail = format!("updates to {field} are forbidden.");
    (new[field] != old[field]).then(|| FieldError::forbidden(field, &detail))
}
