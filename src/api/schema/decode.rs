//! Brings objects into the form of their type, as decoding into upstream's Go structs and encoding again does.

use std::fmt;

use serde_json::{Map, Value, json};

use super::canonical;
use super::table::{Base, Field, Shape, TypeRef};
use crate::status::ApiError;

/// No more unknown fields are told, as upstream's reader tells no more errors than that.
const MAX_UNKNOWN: usize = 100;

/// A field that the type does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldProblem {
    /// Path of the field, e.g. `spec.containers[0].imagee`.
    pub path: String,
}

impl fmt::Display for FieldProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown field {:?}", self.path)
    }
}

/// Brings an object into the form of its type: wrong types are a 400; unknown fields are removed and the
/// first hundred returned; nulls
/// and empty optional fields are dropped; quantities, times and base64 become canonical.
pub fn decode(ty: TypeRef, object: &mut Value) -> Result<Vec<FieldProblem>, ApiError> {
    walk(ty, object, false)
}

/// As [`decode`], but all that is there stays, also what is null or empty: an applied configuration may mean it.
pub fn conform(ty: TypeRef, object: &mut Value) -> Result<(), ApiError> {
    walk(ty, object, true).map(drop)
}

fn walk(ty: TypeRef, object: &mut Value, keeps_all: bool) -> Result<Vec<FieldProblem>, ApiError> {
    let mut walk = Walk { keeps_all, path: Vec::new(), unknown: Vec::new() };
    match walk.message(ty, object) {
        Ok(()) => Ok(walk.unknown),
        Err(text) => {
            let version = object["apiVersion"].as_str().unwrap_or_else(|| ty.name().split('/').nth(1).unwrap_or("v1"));
            let (version, kind) = (version.rsplit('/').next().unwrap_or(version), ty.short_name());
            let text = format!("{kind} in version {version:?} cannot be handled as a {kind}: {text}");
            Err(ApiError::bad_request(text))
        }
    }
}

enum Step {
    Name(String),
    /// Of a map: Go does not say which.
    Key(String),
    Index(usize),
}

struct Walk {
    /// Whether nothing is dropped.
    keeps_all: bool,
    path: Vec<Step>,
    unknown: Vec<FieldProblem>,
}

impl Walk {
    fn message(&mut self, ty: TypeRef, value: &mut Value) -> Result<(), String> {
        let Value::Object(fields) = value else {
            return Err(self.mismatch(ty, value, ty.short_name()));
        };
        let names: Vec<String> = fields.keys().cloned().collect();
        for name in names {
            let Some(field) = ty.field(&name) else {
                if self.keeps_all {
                    continue;
                }
                fields.remove(&name);
                if self.unknown.len() < MAX_UNKNOWN {
                    self.path.push(Step::Name(name));
                    self.unknown.push(FieldProblem { path: self.indexed_path() });
                    self.path.pop();
                }
                continue;
            };
            let Some(value) = fields.get_mut(&name) else { continue };
            if !value.is_null() {
                self.path.push(Step::Name(name.clone()));
                self.field(ty, field, value)?;
                self.path.pop();
            }
            if !self.keeps_all && (value.is_null() || (!field.pointer && !field.always && is_empty(field, value))) {
                fields.remove(&name);
            }
        }
        Ok(())
    }

    fn field(&mut self, ty: TypeRef, field: &Field, value: &mut Value) -> Result<(), String> {
        match field.shape {
            Shape::One => self.single(ty, field.base, value),
            Shape::List => self.list(ty, field.base, value),
            Shape::Map => {
                let entries = self.entries(ty, field, value)?;
                for (key, value) in entries {
                    self.path.push(Step::Key(key.clone()));
                    self.single(ty, field.base, value)?;
                    self.path.pop();
                }
                Ok(())
            }
            Shape::MapOfLists => {
                let entries = self.entries(ty, field, value)?;
                for (key, value) in entries {
                    self.path.push(Step::Key(key.clone()));
                    self.list(ty, field.base, value)?;
                    self.path.pop();
                }
                Ok(())
            }
        }
    }

    fn entries<'v>(
        &self,
        ty: TypeRef,
        field: &Field,
        value: &'v mut Value,
    ) -> Result<&'v mut Map<String, Value>, String> {
        if !value.is_object() {
            return Err(self.mismatch(ty, value, &format!("map[string]{}", go_name(field.base))));
        }
        value.as_object_mut().ok_or_else(String::new)
    }

    fn list(&mut self, ty: TypeRef, base: Base, value: &mut Value) -> Result<(), String> {
        let Value::Array(items) = value else {
            return Err(self.mismatch(ty, value, &format!("[]{}", go_name(base))));
        };
        for (index, item) in items.iter_mut().enumerate() {
            self.path.push(Step::Index(index));
            self.single(ty, base, item)?;
            self.path.pop();
        }
        Ok(())
    }

    /// One value; a null where it cannot be left out becomes the type's zero.
    fn single(&mut self, ty: TypeRef, base: Base, value: &mut Value) -> Result<(), String> {
        if value.is_null() {
            if !self.keeps_all {
                *value = zero(base);
            }
            return Ok(());
        }
        let replacement = match (base, &mut *value) {
            (Base::Type(inner), _) => return self.message(inner, value),
            (Base::Raw | Base::FieldsV1, Value::Object(_))
            | (Base::String | Base::Duration, Value::String(_))
            | (Base::Bool, Value::Bool(_))
            | (Base::Double, Value::Number(_))
            | (Base::IntOrString, Value::String(_)) => return Ok(()),
            (Base::Int64, Value::Number(number)) if number.is_i64() => return Ok(()),
            (Base::Int32 | Base::IntOrString, Value::Number(number)) if fits_int32(number) => return Ok(()),
            (Base::Bytes, Value::String(text)) => canonical::base64(text),
            (Base::Quantity, Value::String(text)) => canonical::quantity(text),
            (Base::Quantity, Value::Number(number)) => canonical::quantity(&number.to_string()),
            (Base::Time, Value::String(text)) => canonical::parse_time(text).map(canonical::time),
            (Base::MicroTime, Value::String(text)) => canonical::parse_time(text).map(canonical::micro_time),
            _ => return Err(self.mismatch(ty, value, go_name(base))),
        };
        match replacement {
            Ok(text) => *value = Value::String(text),
            Err(text) => return Err(format!("{}: {text}", self.indexed_path())),
        }
        Ok(())
    }

    /// Go's sentence for a value of the wrong JSON type.
    fn mismatch(&self, ty: TypeRef, value: &Value, wanted: &str) -> String {
        let found = match value {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::Number(number) if matches!(wanted, "int32" | "int64" | "intstr.IntOrString") => {
                format!("number {number}")
            }
            Value::Number(_) => "number".to_owned(),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
        };
        let names: Vec<&str> = self
            .path
            .iter()
            .filter_map(|step| if let Step::Name(name) = step { Some(name.as_str()) } else { None })
            .collect();
        let path = names.join(".");
        let subject =
            if path.is_empty() { "Go value".to_owned() } else { format!("Go struct field {}.{path}", ty.short_name()) };
        format!("json: cannot unmarshal {found} into {subject} of type {wanted}")
    }

    fn indexed_path(&self) -> String {
        let mut text = String::new();
        for step in &self.path {
            match step {
                Step::Name(name) | Step::Key(name) if text.is_empty() => text.push_str(name),
                Step::Name(name) | Step::Key(name) => text.extend([".", name]),
                Step::Index(index) => text.push_str(&format!("[{index}]")),
            }
        }
        text
    }
}

fn fits_int32(number: &serde_json::Number) -> bool {
    number.as_i64().is_some_and(|n| i32::try_from(n).is_ok())
}

fn is_empty(field: &Field, value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => field.shape != Shape::One && entries.is_empty(),
        Value::String(text) => {
            text.is_empty() && matches!(field.base, Base::String | Base::Bytes) && field.shape == Shape::One
        }
        Value::Bool(truth) => !truth,
        Value::Number(number) => {
            number.as_i64() == Some(0) && matches!(field.base, Base::Int32 | Base::Int64 | Base::Double)
        }
        Value::Null => true,
    }
}

fn zero(base: Base) -> Value {
    match base {
        Base::String | Base::Bytes | Base::Duration => json!(""),
        Base::Bool => json!(false),
        Base::Int32 | Base::Int64 | Base::Double | Base::IntOrString => json!(0),
        Base::Quantity => json!("0"),
        Base::Time | Base::MicroTime => Value::Null,
        Base::Raw | Base::FieldsV1 | Base::Type(_) => json!({}),
    }
}

fn go_name(base: Base) -> &'static str {
    match base {
        Base::String => "string",
        Base::Bool => "bool",
        Base::Int32 => "int32",
        Base::Int64 => "int64",
        Base::Double => "float64",
        Base::Bytes => "[]uint8",
        Base::Quantity => "resource.Quantity",
        Base::Time => "v1.Time",
        Base::MicroTime => "v1.MicroTime",
        Base::Duration => "v1.Duration",
        Base::IntOrString => "intstr.IntOrString",
        Base::Raw => "runtime.RawExtension",
        Base::FieldsV1 => "v1.FieldsV1",
        Base::Type(ty) => ty.short_name(),
    }
}
