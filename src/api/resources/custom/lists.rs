//! What a schema promises of lists beyond their elements: sets hold nothing twice, and no two elements of a map have the
//! same keys (`pkg/apiserver/schema/listtype` of upstream).

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::schema::{Additional, List, Schema};
use crate::resources::path::Path;
use crate::status::FieldError;

/// Elements that occur twice, anywhere in an object.
pub(super) fn check(schema: &Schema, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    node(schema, object, &Path::new(""), &mut errors);
    errors
}

fn node(schema: &Schema, value: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Additional::Of(own) = &schema.additional {
                    node(own, value, &path.key(name), errors);
                }
                if let Some(own) = schema.properties.get(name) {
                    node(own, value, &path.child(name), errors);
                }
            }
        }
        Value::Array(items) => {
            match &schema.list {
                List::Atomic => {}
                List::Set => twice(items, path, errors),
                List::Map(keys) => map(keys, items, path, errors),
            }
            if let Some(own) = &schema.items {
                items.iter().enumerate().for_each(|(index, item)| node(own, item, &path.index(index), errors));
            }
        }
        _ => {}
    }
}

fn twice(items: &[Value], path: &Path, errors: &mut Vec<FieldError>) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (index, item) in items.iter().enumerate() {
        let count = seen.entry(item.to_string()).or_default();
        *count += 1;
        if *count == 2 {
            errors.push(FieldError::duplicate(path.index(index), item));
        }
    }
}

fn map(keys: &[String], items: &[Value], path: &Path, errors: &mut Vec<FieldError>) {
    let stranger = items.iter().position(|item| !item.is_object() && !item.is_null());
    if let Some(index) = stranger {
        let text = "must be an object for an array of list-type map";
        errors.push(FieldError::invalid(path.index(index), &items[index], text));
        return;
    }
    let key = |item: &Value| -> Value {
        let own = keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
        Value::Object(own.collect::<Map<_, _>>())
    };
    twice(&items.iter().map(key).collect::<Vec<_>>(), path, errors);
}
