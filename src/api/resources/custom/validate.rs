//! Checks objects against schemas, with the sentences of `k8s.io/kube-openapi/pkg/validation` as
//! `pkg/apiserver/validation` of apiextensions shows them.
//!
//! What an update leaves as it was is not checked again (KEP-4008), so that a schema can become narrower without all
//! objects becoming unwritable.

use serde_json::{Number, Value};

use super::format;
use super::schema::{Additional, List, Schema, Type};
use crate::status::FieldError;

/// No more is told of one object.
const MAX_ERRORS: usize = 100;

/// What is wrong with a value; `old` is what it replaces, `path` where it stands.
pub(super) fn check(schema: &Schema, value: &Value, old: Option<&Value>, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    node(schema, value, old, path, &mut errors);
    errors.truncate(MAX_ERRORS);
    errors
}

fn child(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The field of an error about a path.
fn field(path: &str) -> String {
    if path.is_empty() { "<nil>".to_owned() } else { path.to_owned() }
}

fn wrong(path: &str, value: &Value, rule: &str) -> FieldError {
    FieldError::invalid(field(path), value, &format!("{path} in body {rule}"))
}

/// The error of a value that is of another type or format.
pub(super) fn mistyped(path: &str, shown: &str, wanted: &str) -> FieldError {
    let detail = format!("{path} in body must be of type {wanted}: {shown:?}");
    FieldError::type_invalid(field(path), &shown.into(), &detail)
}

fn node(schema: &Schema, value: &Value, old: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    if old == Some(value) || (value.is_null() && schema.nullable) || errors.len() >= MAX_ERRORS {
        return;
    }
    if let Some(error) = type_error(schema, value, path) {
        errors.push(error);
    }
    combined(schema, value, old, path, errors);
    match value {
        Value::String(text) => string(schema, text, value, path, errors),
        Value::Number(number) => numeric(schema, number, value, path, errors),
        Value::Array(items) => array(schema, items, old, path, errors),
        Value::Object(_) => object(schema, value, old, path, errors),
        Value::Null | Value::Bool(_) => {}
    }
    if !schema.values.is_empty() && !schema.values.iter().any(|allowed| equal(allowed, value)) {
        let words: Vec<String> =
            schema.values.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        errors.push(FieldError::not_supported(field(path), value, &words));
    }
}

/// Equality of JSON, where a number equals another of the same value.
pub(super) fn equal(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(x), Some(y)) if a.as_i64().is_none() || b.as_i64().is_none() => x.total_cmp(&y).is_eq(),
        _ => a == b,
    }
}

/// The name of a value's type, as upstream's reader sees it.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_whole(number: &Number) -> bool {
    !number.is_f64() || number.as_f64().is_some_and(|number| number.fract() == 0.0)
}

fn type_error(schema: &Schema, value: &Value, path: &str) -> Option<FieldError> {
    let found = type_of(value);
    if schema.int_or_string {
        let fits = matches!(value, Value::String(_)) || value.as_number().is_some_and(is_whole);
        return (!fits).then(|| mistyped(path, found, "integer,string"));
    }
    let fits = match (schema.ty?, value) {
        (Type::Integer, Value::Number(number)) => is_whole(number),
        (Type::Number, Value::Number(_)) => true,
        (ty, _) => ty.word() == found,
    };
    let wanted = schema.ty?.word();
    (!fits).then(|| mistyped(path, found, wanted))
}

/// `allOf`, `anyOf`, `oneOf` and `not`.
fn combined(schema: &Schema, value: &Value, old: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    let failures = |schemas: &[Schema]| -> Vec<Vec<FieldError>> {
        schemas.iter().map(|schema| check(schema, value, old, path)).collect()
    };
    let composite = |text: &str| FieldError::invalid("<nil>", &"".into(), &format!("{path:?} {text}"));
    let best = |failures: Vec<Vec<FieldError>>| failures.into_iter().min_by_key(Vec::len).unwrap_or_default();
    if !schema.any_of.is_empty() {
        let failures = failures(&schema.any_of);
        if failures.iter().all(|errors| !errors.is_empty()) {
            errors.push(composite("must validate at least one schema (anyOf)"));
            errors.extend(best(failures));
        }
    }
    if !schema.one_of.is_empty() {
        let failures = failures(&schema.one_of);
        match failures.iter().filter(|errors| errors.is_empty()).count() {
            1 => {}
            0 => {
                errors.push(composite("must validate one and only one schema (oneOf). Found none valid"));
                errors.extend(best(failures));
            }
            several => {
                let text = format!("must validate one and only one schema (oneOf). Found {several} valid alternatives");
                errors.push(composite(&text));
            }
        }
    }
    if !schema.all_of.is_empty() {
        let failures = failures(&schema.all_of);
        let valid = failures.iter().filter(|errors| errors.is_empty()).count();
        if valid < failures.len() {
            errors.extend(failures.into_iter().flatten());
            let none = if valid == 0 { ". None validated" } else { "" };
            errors.push(composite(&format!("must validate all the schemas (allOf){none}")));
        }
    }
    if let Some(not) = &schema.not
        && check(not, value, old, path).is_empty()
    {
        errors.push(composite("must not validate the schema (not)"));
    }
}

fn string(schema: &Schema, text: &str, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let length = text.chars().count() as u64;
    if let Some(most) = schema.bounds.max_length.filter(|most| length > *most) {
        errors.push(FieldError::too_long(field(path), usize::try_from(most).unwrap_or(usize::MAX)));
    }
    if let Some(least) = schema.bounds.min_length.filter(|least| length < *least) {
        errors.push(wrong(path, value, &format!("should be at least {least} chars long")));
    }
    if let Some(pattern) = schema.pattern.as_ref().filter(|pattern| !pattern.regex.is_match(text)) {
        errors.push(wrong(path, value, &format!("should match '{}'", pattern.text)));
    }
    // The format of something that may be a number as well is that of the number.
    if !schema.int_or_string && !format::is_valid(&schema.format, text) {
        errors.push(mistyped(path, text, &schema.format));
    }
}

fn numeric(schema: &Schema, number: &Number, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let bounds = &schema.bounds;
    if let Some(step) = &bounds.multiple_of
        && !is_multiple(number, step)
    {
        errors.push(wrong(path, value, &format!("should be a multiple of {}", shown(step))));
    }
    if let Some(most) = &bounds.maximum {
        match compare(number, most) {
            std::cmp::Ordering::Greater if !bounds.exclusive_maximum => {
                errors.push(wrong(path, value, &format!("should be less than or equal to {}", shown(most))));
            }
            std::cmp::Ordering::Greater | std::cmp::Ordering::Equal if bounds.exclusive_maximum => {
                errors.push(wrong(path, value, &format!("should be less than {}", shown(most))));
            }
            _ => {}
        }
    }
    if let Some(least) = &bounds.minimum {
        match compare(number, least) {
            std::cmp::Ordering::Less if !bounds.exclusive_minimum => {
                errors.push(wrong(path, value, &format!("should be greater than or equal to {}", shown(least))));
            }
            std::cmp::Ordering::Less | std::cmp::Ordering::Equal if bounds.exclusive_minimum => {
                errors.push(wrong(path, value, &format!("should be greater than {}", shown(least))));
            }
            _ => {}
        }
    }
    if let Some(range) = format::range(&schema.format)
        && !number.as_i64().is_some_and(|number| range.contains(&number))
        && !number.is_f64()
    {
        errors.push(mistyped(path, &number.to_string(), &schema.format));
    }
}

pub(super) fn compare(a: &Number, b: &Number) -> std::cmp::Ordering {
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => a.as_f64().unwrap_or(f64::NAN).total_cmp(&b.as_f64().unwrap_or(f64::NAN)),
    }
}

fn is_multiple(number: &Number, step: &Number) -> bool {
    match (number.as_i64(), step.as_i64()) {
        (_, Some(0)) => true,
        (Some(number), Some(step)) => number.checked_rem(step).is_none_or(|rest| rest == 0),
        _ => {
            let ratio = number.as_f64().unwrap_or(0.0) / step.as_f64().unwrap_or(1.0);
            (ratio - ratio.round()).abs() < 1e-9 * ratio.abs().max(1.0)
        }
    }
}

/// A number as Go's `%v` prints a float: whole ones without a point.
fn shown(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 1e21 => format!("{float:.0}"),
        _ => number.to_string(),
    }
}

fn array(schema: &Schema, items: &[Value], old: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    let count = items.len() as u64;
    if let Some(least) = schema.bounds.min_items.filter(|least| count < *least) {
        errors.push(wrong(path, &count.into(), &format!("should have at least {least} items")));
    }
    if let Some(most) = schema.bounds.max_items.filter(|most| count > *most) {
        errors.push(FieldError::too_many(field(path), items.len(), usize::try_from(most).unwrap_or(usize::MAX)));
    }
    let Some(own) = schema.items.as_deref() else { return };
    let before = old.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    for (index, item) in items.iter().enumerate() {
        let old = correlated(&schema.list, item, before);
        node(own, item, old, &format!("{path}[{index}]"), errors);
    }
}

/// The element of the old list that an element is the next state of: known by its keys only.
pub(super) fn correlated<'a>(list: &List, item: &Value, before: &'a [Value]) -> Option<&'a Value> {
    let List::Map(keys) = list else { return None };
    before.iter().find(|old| keys.iter().all(|key| old.get(key) == item.get(key)))
}

fn object(schema: &Schema, value: &Value, old: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    let Some(fields) = value.as_object() else { return };
    let count = fields.len() as u64;
    if let Some(least) = schema.bounds.min_properties.filter(|least| count < *least) {
        errors.push(wrong(path, &count.into(), &format!("should have at least {least} properties")));
    }
    if let Some(most) = schema.bounds.max_properties.filter(|most| count > *most) {
        errors.push(FieldError::too_many(field(path), fields.len(), usize::try_from(most).unwrap_or(usize::MAX)));
    }
    for name in schema.required.iter().filter(|name| !fields.contains_key(*name)) {
        errors.push(FieldError::required(child(path, name), ""));
    }
    for (name, value) in fields {
        let old = old.and_then(|old| old.get(name));
        if let Some(own) = schema.field(name) {
            node(own, value, old, &child(path, name), errors);
        } else if matches!(schema.additional, Additional::Allowed(false)) {
            let text = format!("{}.{name} in body is a forbidden property", path);
            errors.push(FieldError::invalid(field(path), &"".into(), &text));
        }
    }
}
