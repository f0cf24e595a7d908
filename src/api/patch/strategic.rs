//! Strategic merge patch, as `k8s.io/apimachinery/pkg/util/strategicpatch` applies it.
//!
//! Maps merge, lists are replaced unless the schema says that their items merge by a key (or, for scalars, as a set).
//! Directives in the patch: `$patch: replace|delete` in maps and list items, `$retainKeys`, `$setElementOrder/field`,
//! `$deleteFromPrimitiveList/field`; null deletes a field. Lists are merged in time proportional to their length,
//! where upstream compares all items with each other: a request may hold hundreds of thousands.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::{order, unprocessable};
use crate::schema::{Base, Field, Shape, TypeRef};
use crate::status::ApiError;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

type Object = Map<String, Value>;

/// What the schema says of a JSON object.
#[derive(Clone, Copy)]
enum Schema {
    Struct(TypeRef),
    MapOf(Base),
    Unknown,
}

impl Schema {
    fn of(base: Base) -> Self {
        if let Base::Type(ty) = base { Self::Struct(ty) } else { Self::Unknown }
    }

    fn field(self, name: &str) -> Option<&'static Field> {
        if let Self::Struct(ty) = self { ty.field(name) } else { None }
    }

    /// The schema of an object under a name.
    fn below(self, name: &str) -> Self {
        match self {
            Self::Struct(ty) => match ty.field(name) {
                Some(field) if field.shape == Shape::One => Self::of(field.base),
                Some(field) if field.shape == Shape::Map => Self::MapOf(field.base),
                _ => Self::Unknown,
            },
            Self::MapOf(base) => Self::of(base),
            Self::Unknown => Self::Unknown,
        }
    }
}

/// Applies a patch to an object of a type.
pub(super) fn apply(ty: TypeRef, original: &Value, patch: Value) -> Result<Value, ApiError> {
    let (Value::Object(original), Value::Object(patch)) = (original, patch) else {
        return Err(ApiError::bad_request("Invalid JSON document"));
    };
    Ok(Value::Object(merge_map(original.clone(), patch, Schema::Struct(ty))?))
}

fn merge_map(mut original: Object, mut patch: Object, schema: Schema) -> Result<Object, ApiError> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Object::new()),
            _ => Err(unprocessable(&format!("unknown patch type: {directive} in map"))),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    set_element_orders(&mut original, &mut patch, schema)?;
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix(DELETE_FROM) {
            delete_from(&mut original, field, &value)?;
            continue;
        }
        if value.is_null() {
            original.remove(&key);
            continue;
        }
        let merged = match (original.remove(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                let replaced = schema.field(&key).is_some_and(|field| field.has_strategy("replace"));
                if replaced { Value::Object(new) } else { Value::Object(merge_map(old, new, schema.below(&key))?) }
            }
            (Some(Value::Array(old)), Value::Array(new)) => {
                Value::Array(merge_list(old, new, schema.field(&key), &key)?)
            }
            (_, new) => match without_directives(new) {
                Some(value) => value,
                None => continue,
            },
        };
        original.insert(key, merged);
    }
    Ok(original)
}

fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), ApiError> {
    let Some(retained) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let malformed = || ApiError::bad_request("invalid patch format of retainKeys");
    let retained = retained.as_array().ok_or_else(malformed)?;
    let retained: HashSet<&str> = retained.iter().filter_map(Value::as_str).collect();
    let is_retained = |key: &str| retained.contains(key);
    for (key, value) in patch.iter() {
        let directive = key.starts_with(DELETE_FROM) || key.starts_with(SET_ORDER);
        if !value.is_null() && !directive && !is_retained(key) {
            return Err(malformed());
        }
    }
    original.retain(|key, _| is_retained(key));
    Ok(())
}

/// Handles each `$setElementOrder/field` together with the field's own list, which then is done.
fn set_element_orders(original: &mut Object, patch: &mut Object, schema: Schema) -> Result<(), ApiError> {
    let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(SET_ORDER)).cloned().collect();
    for directive in directives {
        let key = &directive[SET_ORDER.len()..];
        let Some(Value::Array(wanted)) = patch.remove(&directive) else {
            return Err(ApiError::bad_request("invalid patch format of setElementOrder list"));
        };
        if patch.get(key).is_some_and(Value::is_null) {
            continue;
        }
        let field = schema.field(key);
        let merge_key = field.map_or("", |field| field.merge_key);
        let new = patch.remove(key).map(into_list).transpose()?;
        let old = original.get(key).cloned().map(into_list).transpose()?;
        if let Some(new) = &new
            && !order::agrees(new, &wanted, merge_key)
        {
            let text = format!(
                "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                Value::Array(new.clone()),
                Value::Array(wanted)
            );
            return Err(ApiError::bad_request(text));
        }
        let merged = match (old.clone(), new) {
            (Some(old), None) => old,
            (None, Some(new)) => without_directive_items(new),
            (Some(old), Some(new)) => merge_list(old, new, field, key)?,
            (None, None) => continue,
        };
        let merged = order::normalize(merged, &wanted, &old.unwrap_or_default(), merge_key);
        original.insert(key.to_owned(), Value::Array(merged));
    }
    Ok(())
}

fn into_list(value: Value) -> Result<Vec<Value>, ApiError> {
    match value {
        Value::Array(items) => Ok(items),
        _ => Err(ApiError::bad_request("invalid patch format of setElementOrder list")),
    }
}

fn delete_from(original: &mut Object, field: &str, gone: &Value) -> Result<(), ApiError> {
    let Value::Array(gone) = gone else {
        return Err(ApiError::bad_request("invalid patch format of primitive list"));
    };
    let gone: HashSet<&Value> = gone.iter().collect();
    if let Some(Value::Array(items)) = original.get_mut(field) {
        items.retain(|item| !gone.contains(item));
    }
    Ok(())
}

fn merge_list(
    original: Vec<Value>,
    patch: Vec<Value>,
    field: Option<&'static Field>,
    name: &str,
) -> Result<Vec<Value>, ApiError> {
    let Some(field) = field.filter(|field| field.has_strategy("merge")) else { return Ok(patch) };
    let merge_key = field.merge_key;
    let is_object = |item: &Value| item.is_object();
    let (server_order, merged, patch) = if merge_key.is_empty() {
        if original.iter().chain(&patch).any(|item| item.is_object() || item.is_array()) {
            return Err(unprocessable(&format!("cannot merge lists without merge key for {name}")));
        }
        let mut known: HashSet<&Value> = original.iter().collect();
        let new = patch.iter().filter(|item| known.insert(*item));
        let added: Vec<Value> = new.cloned().collect();
        let merged = [original.clone(), added].concat();
        (original, merged, patch)
    } else if original.iter().chain(&patch).all(is_object) {
        let (original, patch) = apply_item_directives(original, patch, merge_key)?;
        let merged = merge_items(original.clone(), &patch, merge_key, Schema::of(field.base))?;
        (original, merged, patch)
    } else {
        return Err(unprocessable(&format!("items of {name} must be objects")));
    };
    Ok(order::normalize(merged, &patch, &server_order, merge_key))
}

/// Takes the items with `$patch` out of the patch and does what they say.
fn apply_item_directives(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    merge_key: &str,
) -> Result<(Vec<Value>, Vec<Value>), ApiError> {
    let mut plain = Vec::new();
    let mut deleted = HashSet::new();
    let mut replace = false;
    for item in patch {
        let Some(directive) = item.get(DIRECTIVE) else {
            plain.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                let key = item.get(merge_key).ok_or_else(|| no_merge_key(&item, merge_key))?;
                deleted.insert(key.clone());
            }
            Some("replace") => replace = true,
            Some("merge") => return Err(unprocessable("merging lists cannot yet be specified in the patch")),
            _ => return Err(unprocessable(&format!("unknown patch type: {directive} in list"))),
        }
    }
    original.retain(|old| old.get(merge_key).is_none_or(|key| !deleted.contains(key)));
    Ok(if replace { (plain, Vec::new()) } else { (original, plain) })
}

fn merge_items(
    mut original: Vec<Value>,
    patch: &[Value],
    merge_key: &str,
    schema: Schema,
) -> Result<Vec<Value>, ApiError> {
    let mut places: HashMap<Value, usize> = HashMap::with_capacity(original.len());
    for (place, old) in original.iter().enumerate() {
        if let Some(key) = old.get(merge_key) {
            places.entry(key.clone()).or_insert(place);
        }
    }
    for item in patch {
        let key = item.get(merge_key).ok_or_else(|| no_merge_key(item, merge_key))?;
        let found = places.get(key).and_then(|&place| original.get_mut(place));
        match (found, item) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                *old = merge_map(std::mem::take(old), new.clone(), schema)?;
            }
            _ => {
                let Some(new) = without_directives(item.clone()) else { continue };
                if let Some(key) = new.get(merge_key) {
                    places.entry(key.clone()).or_insert(original.len());
                }
                original.push(new);
            }
        }
    }
    Ok(original)
}

fn no_merge_key(item: &Value, merge_key: &str) -> ApiError {
    unprocessable(&format!("map: {item} does not contain declared merge key: {merge_key}"))
}

/// A value that is new to the object: directives have nothing to act on, nulls nothing to delete.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(mut fields) => {
            if fields.remove(DIRECTIVE).is_some_and(|directive| directive != "replace") {
                return None;
            }
            fields.retain(|key, value| !key.starts_with('$') && !value.is_null());
            let fields = fields.into_iter().filter_map(|(key, value)| Some((key, without_directives(value)?)));
            Some(Value::Object(fields.collect()))
        }
        Value::Array(items) => Some(Value::Array(without_directive_items(items))),
        value => Some(value),
    }
}

/// The same for a list, in which an item that is nothing but a directive is none.
fn without_directive_items(items: Vec<Value>) -> Vec<Value> {
    let is_bare = |item: &Value| item.as_object().is_some_and(|item| item.len() == 1 && item.contains_key(DIRECTIVE));
    items.into_iter().filter(|item| !is_bare(item)).filter_map(without_directives).collect()
}
