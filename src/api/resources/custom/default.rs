//! Fills in what a schema says (`pkg/apiserver/schema/defaulting` of upstream). Nulls where none may be go first, so that a
//! default takes their place.

use serde_json::Value;

use super::schema::Schema;

/// Drops nulls that may not be, then fills in defaults. Idempotent.
pub(super) fn fill(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| {
                let own = schema.field(name).filter(|own| own.forbids_null(value));
                match own.map(|own| &own.default) {
                    None => true,
                    Some(Some(default)) => {
                        *value = default.clone();
                        true
                    }
                    Some(None) => false,
                }
            });
            for (name, own) in &schema.properties {
                if let (Some(default), false) = (&own.default, fields.contains_key(name)) {
                    fields.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in fields {
                if let Some(own) = schema.field(name) {
                    fill(own, value);
                }
            }
        }
        Value::Array(items) => {
            let Some(own) = schema.items.as_deref() else { return };
            for item in items {
                if let (Some(default), true) = (&own.default, own.forbids_null(item)) {
                    *item = default.clone();
                }
                fill(own, item);
            }
        }
        _ => {}
    }
}
