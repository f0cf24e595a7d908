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
