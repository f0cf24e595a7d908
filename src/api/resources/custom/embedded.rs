//! Whole objects within objects (`x-kubernetes-embedded-resource`): their metadata has the form of any object's
//! (`pkg/apiserver/schema/objectmeta` of upstream).

use serde_json::Value;

use super::schema::{Additional, Schema};
use crate::names;
use crate::resources::path::{Path, text};
use crate::resources::{NameRule, metadata};
use crate::schema::{self, Base, TypeRef};
use crate::status::{ApiError, FieldError};

/// The type of `metadata`.
fn object_meta() -> Option<TypeRef> {
    match schema::lookup("", "v1", "ConfigMap")?.field("metadata")?.base {
        Base::Type(ty) => Some(ty),
        _ => None,
    }
}

/// Brings the metadata of an object, and of every object within it, into form; returns fields that it does not have.
pub(super) fn conform(schema: &Schema, object: &mut Value) -> Result<Vec<String>, ApiError> {
    let mut unknown = Vec::new();
    metadata_of(object, "", &mut unknown)?;
    below(schema, object, "", &mut unknown)?;
    Ok(unknown)
}

fn metadata_of(object: &mut Value, path: &str, unknown: &mut Vec<String>) -> Result<(), ApiError> {
    let (Some(ty), Some(metadata)) = (object_meta(), object.get_mut("metadata")) else { return Ok(()) };
    if metadata.is_null() {
        *metadata = Value::Object(serde_json::Map::new());
    }
    let problems = schema::decode(ty, metadata)?;
    unknown.extend(problems.iter().map(|problem| format!("{path}metadata.{}", problem.path)));
    Ok(())
}

fn below(schema: &Schema, value: &mut Value, path: &str, unknown: &mut Vec<String>) -> Result<(), ApiError> {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let Some(own) = schema.field(name) else { continue };
                let path = format!("{path}{name}.");
                if own.embedded {
                    metadata_of(value, &path, unknown)?;
                }
                below(own, value, &path, unknown)?;
            }
        }
        Value::Array(items) => {
            let Some(own) = schema.items.as_deref() else { return Ok(()) };
            for (index, item) in items.iter_mut().enumerate() {
                let path = format!("{}[{index}].", path.trim_end_matches('.'));
                if own.embedded {
                    metadata_of(item, &path, unknown)?;
                }
                below(own, item, &path, unknown)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Checks the objects within an object.
pub(super) fn check(schema: &Schema, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    node(schema, object, &Path::new(""), &mut errors);
    errors
}

fn node(schema: &Schema, value: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let (own, path) = match (schema.properties.get(name), &schema.additional) {
                    (Some(own), _) => (own, path.child(name)),
                    (None, Additional::Of(own)) => (&**own, path.key(name)),
                    (None, _) => continue,
                };
                if own.embedded && value.is_object() {
                    whole(value, &path, errors);
                }
                node(own, value, &path, errors);
            }
        }
        Value::Array(items) => {
            let Some(own) = schema.items.as_deref() else { return };
            for (index, item) in items.iter().enumerate() {
                let path = path.index(index);
                if own.embedded && item.is_object() {
                    whole(item, &path, errors);
                }
                node(own, item, &path, errors);
            }
        }
        _ => {}
    }
}

fn whole(object: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let version = text(object, "apiVersion");
    if version.is_empty() {
        errors.push(FieldError::required(path.child("apiVersion"), "must not be empty"));
    } else if version.matches('/').count() > 1 {
        let detail = format!("unexpected GroupVersion string: {version}");
        errors.push(FieldError::invalid(path.child("apiVersion"), &version.into(), &detail));
    }
    let kind = text(object, "kind");
    if kind.is_empty() {
        errors.push(FieldError::required(path.child("kind"), "must not be empty"));
    }
    for sentence in names::dns1035_label(&kind.to_lowercase()).into_iter().filter(|_| !kind.is_empty()) {
        let detail = format!("may have mixed case, but should otherwise match: {sentence}");
        errors.push(FieldError::invalid(path.child("kind"), &kind.into(), &detail));
    }
    // A name and a namespace may be left out: nobody says yet where the object will be.
    let mut named = object.clone();
    if named["metadata"].is_object() {
        let metadata = &mut named["metadata"];
        for (field, any) in [("name", "any"), ("namespace", "any")] {
            if text(metadata, field).is_empty() {
                metadata[field] = any.into();
            }
        }
        for mut error in metadata::check(&named, true, NameRule::PathSegment) {
            error.field = path.child(&error.field).into();
            errors.push(error);
        }
    }
}
