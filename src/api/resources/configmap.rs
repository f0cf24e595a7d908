//! ConfigMaps.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

use super::cell::{self, column};
use super::path::{Path, entries};
use super::{BLANK, Resource, rule};
use crate::status::FieldError;

/// Most bytes of data that a ConfigMap or Secret may hold.
pub(super) const MAX_DATA: usize = 1024 * 1024;

/// `configmaps`.
pub(super) const ROW: Resource = Resource {
    kind: "ConfigMap",
    list_kind: "ConfigMapList",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    validate,
    validate_update,
    columns: &[cell::NAME, column("Data", "string", "", "Number of entries.", 0), cell::AGE],
    cells,
    ..BLANK
};

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let count = entries(object, "data").count() + entries(object, "binaryData").count();
    vec![cell::name(object), count.into(), cell::age(object, now)]
}

fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut size = 0;
    let path = Path::new("data");
    for (key, value) in entries(object, "data") {
        errors.extend(rule::config_key(&path.key(key), key));
        if !object["binaryData"][key].is_null() {
            errors.push(FieldError::invalid(
                path.key(key),
                &key.as_str().into(),
                "duplicate of key present in binaryData",
            ));
        }
        size += value.as_str().map_or(0, str::len);
    }
    let path = Path::new("binaryData");
    for (key, value) in entries(object, "binaryData") {
        errors.extend(rule::config_key(&path.key(key), key));
        size += decoded_len(value);
    }
    if size > MAX_DATA {
        errors.push(FieldError::too_long("[]", MAX_DATA));
    }
    errors
}

fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = immutable_data(new, old, &["data", "binaryData"]);
    errors.extend(validate(new));
    errors
}

/// How many bytes a base64 value stands for; 0 if it is not base64, which decoding has refused before.
pub(super) fn decoded_len(value: &Value) -> usize {
    value.as_str().and_then(|text| STANDARD.decode(text).ok()).map_or(0, |bytes| bytes.len())
}

/// What may not change once `immutable` is set.
pub(super) fn immutable_data(new: &Value, old: &Value, fields: &[&str]) -> Vec<FieldError> {
    const DETAIL: &str = "field is immutable when `immutable` is set";
    if old["immutable"] != true {
        return Vec::new();
    }
    let flag = (new["immutable"] != true).then_some("immutable");
    let changed = fields.iter().copied().filter(|field| !same_map(&new[field], &old[field]));
    flag.into_iter().chain(changed).map(|field| FieldError::forbidden(field, DETAIL)).collect()
}

/// Equality in which an absent map is an empty one.
fn same_map(a: &Value, b: &Value) -> bool {
    let is_empty = |map: &Value| map.is_null() || map.as_object().is_some_and(serde_json::Map::is_empty);
    a == b || (is_empty(a) && is_empty(b))
}
