//! Paths of fields in messages, as `k8s.io/apimachinery/pkg/util/validation/field.Path` prints them.

use std::fmt;

use serde_json::Value;

/// A path such as `spec.containers[0].ports[1].name` or `metadata.annotations[kubernetes.io/x]`.
#[derive(Debug, Clone)]
pub(super) struct Path(String);

impl Path {
    /// A path that starts at a field of the object.
    pub(super) fn new(field: &str) -> Self {
        Self(field.to_owned())
    }

    /// A field of this one.
    pub(super) fn child(&self, field: &str) -> Self {
        if self.0.is_empty() { Self(field.to_owned()) } else { Self(format!("{}.{field}", self.0)) }
    }

    /// An element of this list.
    pub(super) fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// A key of this map.
    pub(super) fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<&Path> for String {
    fn from(path: &Path) -> Self {
        path.0.clone()
    }
}

impl From<Path> for String {
    fn from(path: Path) -> Self {
        path.0
    }
}

/// A string field, empty if absent.
pub(super) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// The elements of a list field, none if absent.
pub(super) fn items<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

/// The entries of a map field, none if absent.
pub(super) fn entries<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    value[field].as_object().into_iter().flatten()
}

/// How many entries a map field has, none if absent.
pub(super) fn object_len(value: &Value, field: &str) -> usize {
    value[field].as_object().map_or(0, serde_json::Map::len)
}

/// A whole number, 0 if absent, as Go's zero values are.
pub(super) fn number(value: &Value, field: &str) -> i64 {
    value[field].as_i64().unwrap_or(0)
}

/// Whether a field says anything: null and absent do not.
pub(super) fn present(value: &Value, field: &str) -> bool {
    !value[field].is_null()
}

/// Puts a value where there is none.
pub(super) fn default_to(value: &mut Value, field: &str, default: impl Into<Value>) {
    if let Some(map) = value.as_object_mut()
        && map.get(field).is_none_or(Value::is_null)
    {
        map.insert(field.to_owned(), default.into());
    }
}

/// Puts a string where there is none or an empty one, as Go's zero values are treated.
pub(super) fn default_text(value: &mut Value, field: &str, default: &str) {
    if let Some(map) = value.as_object_mut()
        && map.get(field).is_none_or(|old| old.is_null() || old == "")
    {
        map.insert(field.to_owned(), default.into());
    }
}

/// Puts a number where there is none or 0, as Go's zero values are treated.
pub(super) fn default_number(value: &mut Value, field: &str, default: i64) {
    if let Some(map) = value.as_object_mut()
        && map.get(field).is_none_or(|old| old.is_null() || *old == 0)
    {
        map.insert(field.to_owned(), default.into());
    }
}

/// Sets a field to a value, or removes it if that is null.
pub(super) fn put(object: &mut Value, field: &str, value: &Value) {
    match object.as_object_mut() {
        Some(map) if !value.is_null() => {
            map.insert(field.to_owned(), value.clone());
        }
        Some(map) => {
            map.remove(field);
        }
        None => (),
    }
}

/// Removes a field.
pub(super) fn remove(object: &mut Value, field: &str) {
    if let Some(map) = object.as_object_mut() {
        map.remove(field);
    }
}

/// The elements of a list field, to change them.
pub(super) fn items_mut<'a>(value: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    value.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten()
}

/// An object field, to change it; none if absent.
pub(super) fn object_mut<'a>(value: &'a mut Value, field: &str) -> Option<&'a mut Value> {
    value.get_mut(field).filter(|inner| inner.is_object())
}

/// An object field, to change it; created if absent. The value must be an object.
pub(super) fn ensure_object<'a>(value: &'a mut Value, field: &str) -> &'a mut Value {
    if !value.is_object() {
        *value = Value::Object(serde_json::Map::new());
    }
    let inner = &mut value[field];
    if !inner.is_object() {
        *inner = Value::Object(serde_json::Map::new());
    }
    inner
}
