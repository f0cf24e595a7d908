//! What a schema must be like for its objects to be pruned and filled in: structural, in upstream's word
//! (`pkg/apiserver/schema/validation.go` and `complete.go`), and within what OpenAPI v3 is allowed here
//! (`pkg/apis/apiextensions/validation`).

use serde_json::Value;

use super::pattern;
use super::schema::{Additional, Schema};
use super::{default, embedded, prune, rules, validate};
use crate::resources::path::{Path, entries, items, present, text};
use crate::status::FieldError;

/// Where a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// No more is told of one schema.
const MAX_ERRORS: usize = 100;

/// What is wrong with a schema.
pub(super) fn check(schema: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    document(schema, path, true, &mut errors);
    structural(schema, Level::Root, path, &mut errors);
    complete(schema, schema, path, &mut errors);
    if errors.is_empty() {
        let read = Schema::root(schema);
        defaults(schema, &read, path, &mut errors);
        errors.extend(rules::problems(schema, &read, path));
    }
    errors.sort_by(|a, b| (&a.field, &a.text).cmp(&(&b.field, &b.text)));
    errors.dedup();
    errors.truncate(MAX_ERRORS);
    errors
}

/// Every schema directly within one, with its path.
fn inner<'a>(schema: &'a Value, path: &Path) -> Vec<(&'a Value, Path)> {
    let mut found = Vec::new();
    for field in ["properties", "patternProperties", "definitions"] {
        found.extend(entries(schema, field).map(|(name, schema)| (schema, path.child(field).key(name))));
    }
    for field in ["additionalProperties", "additionalItems", "items", "not"] {
        found.extend(schema.get(field).filter(|schema| schema.is_object()).map(|schema| (schema, path.child(field))));
    }
    for field in ["allOf", "anyOf", "oneOf"] {
        let list = items(schema, field).iter().enumerate();
        found.extend(list.map(|(index, schema)| (schema, path.child(field).index(index))));
    }
    found
}

/// What OpenAPI v3 allows and apiextensions does not, and what its extensions ask.
fn document(schema: &Value, path: &Path, is_root: bool, errors: &mut Vec<FieldError>) {
    let forbidden = |field: &str, detail: &str| FieldError::forbidden(path.child(field), detail);
    for field in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        if present(schema, field) {
            errors.push(forbidden(field, &format!("{field} is not supported")));
        }
    }
    if schema["uniqueItems"] == true {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(forbidden("uniqueItems", detail));
    }
    if present(schema, "additionalProperties")
        && !entries(schema, "properties").collect::<Vec<_>>().is_empty()
        && schema["additionalProperties"] != true
    {
        errors.push(forbidden("additionalProperties", "additionalProperties and properties are mutual exclusive"));
    }
    if schema["items"].is_array() {
        errors.push(forbidden("items", "items must be a schema object and not an array"));
    }
    match text(schema, "type") {
        "null" => {
            let detail = "type cannot be set to null, use nullable as an alternative";
            errors.push(forbidden("type", detail));
        }
        "" | "object" | "array" | "string" | "integer" | "number" | "boolean" => {}
        other => {
            let known = ["array", "boolean", "integer", "number", "object", "string"];
            errors.push(FieldError::not_supported(path.child("type"), &other.into(), &known));
        }
    }
    if is_root && schema["nullable"] == true {
        errors.push(forbidden("nullable", "nullable cannot be true at the root"));
    }
    extensions(schema, path, errors);
    for (schema, path) in inner(schema, path) {
        document(schema, &path, false, errors);
    }
}

fn extensions(schema: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    if schema["x-kubernetes-preserve-unknown-fields"] == false {
        let field = path.child("x-kubernetes-preserve-unknown-fields");
        errors.push(FieldError::invalid(field, &false.into(), "must be true or undefined"));
    }
    for (field, ty, known) in [
        ("x-kubernetes-map-type", "object", &["atomic", "granular"][..]),
        ("x-kubernetes-list-type", "array", &["atomic", "map", "set"][..]),
    ] {
        let Some(word) = schema[field].as_str() else { continue };
        let detail = format!("must be {ty} if {field} is specified");
        match text(schema, "type") {
            "" => errors.push(FieldError::required(path.child("type"), &detail)),
            own if own != ty => errors.push(FieldError::invalid(path.child("type"), &own.into(), &detail)),
            _ => {}
        }
        if !known.contains(&word) {
            errors.push(FieldError::not_supported(path.child(field), &word.into(), known));
        }
    }
    let keys = items(schema, "x-kubernetes-list-map-keys");
    let list_type = text(schema, "x-kubernetes-list-type");
    if !keys.is_empty() && list_type != "map" {
        let (field, detail) =
            (path.child("x-kubernetes-list-type"), "must be map if x-kubernetes-list-map-keys is non-empty");
        errors.push(match list_type {
            "" => FieldError::required(field, detail),
            other => FieldError::invalid(field, &other.into(), detail),
        });
    }
    match list_type {
        "map" => map_keys(schema, keys, path, errors),
        "set" => set_items(schema, path, errors),
        _ => {}
    }
}

fn map_keys(schema: &Value, keys: &[Value], path: &Path, errors: &mut Vec<FieldError>) {
    let keys_path = path.child("x-kubernetes-list-map-keys");
    if keys.is_empty() {
        errors.push(FieldError::required(&keys_path, "must not be empty if x-kubernetes-list-type is map"));
    }
    let (own, own_path) = (&schema["items"], path.child("items"));
    if own.is_null() {
        errors.push(FieldError::required(&own_path, "must have a schema if x-kubernetes-list-type is map"));
        return;
    }
    if own["type"] != "object" {
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        errors.push(FieldError::invalid(own_path.child("type"), &text(own, "type").into(), detail));
    }
    if own["nullable"] == true {
        let detail = "cannot be nullable when x-kubernetes-list-type is map";
        errors.push(FieldError::forbidden(own_path.child("nullable"), detail));
    }
    for (index, key) in keys.iter().enumerate() {
        let name = key.as_str().unwrap_or_default();
        if keys[..index].contains(key) {
            errors.push(FieldError::duplicate(keys_path.index(index), key));
        }
        let Some(property) = own["properties"].get(name) else {
            errors.push(FieldError::invalid(
                keys_path.index(index),
                key,
                "entries must all be names of item properties",
            ));
            continue;
        };
        let property_path = own_path.child("properties").key(name);
        if matches!(text(property, "type"), "array" | "object") {
            let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            errors.push(FieldError::invalid(property_path.child("type"), &property["type"], detail));
        }
        if !present(property, "default") && !items(own, "required").contains(key) {
            let detail =
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.push(FieldError::required(property_path.child("default"), detail));
        }
    }
}

fn set_items(schema: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let (own, own_path) = (&schema["items"], path.child("items"));
    if own.is_null() {
        errors.push(FieldError::required(&own_path, "must have a schema if x-kubernetes-list-type is set"));
        return;
    }
    if own["nullable"] == true {
        let detail = "cannot be nullable when x-kubernetes-list-type is set";
        errors.push(FieldError::forbidden(own_path.child("nullable"), detail));
    }
    let field = match text(own, "type") {
        "object" => "x-kubernetes-map-type",
        "array" => "x-kubernetes-list-type",
        _ => return,
    };
    // A list is atomic if nothing is said.
    let said = field == "x-kubernetes-map-type" || present(own, field);
    if said && own[field] != "atomic" {
        let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
        errors.push(match text(own, field) {
            "" => FieldError::required(own_path.child(field), detail),
            other => FieldError::invalid(own_path.child(field), &other.into(), detail),
        });
    }
}

/// The invariants of a structural schema.
fn structural(schema: &Value, level: Level, path: &Path, errors: &mut Vec<FieldError>) {
    let flag = |name: &str| schema[name] == true;
    let is_embedded = flag("x-kubernetes-embedded-resource");
    let preserves = flag("x-kubernetes-preserve-unknown-fields");
    let is_either = flag("x-kubernetes-int-or-string");
    let ty = text(schema, "type");
    if ty == "array" && !schema["items"].is_object() {
        errors.push(FieldError::required(path.child("items"), "must be specified"));
    }
    if schema["items"].is_object() {
        structural(&schema["items"], Level::Item, &path.child("items"), errors);
    }
    for (name, schema) in entries(schema, "properties") {
        structural(schema, Level::Field, &path.child("properties").key(name), errors);
    }
    if present(schema, "additionalProperties") {
        let path = path.child("additionalProperties");
        if level == Level::Root {
            errors.push(FieldError::forbidden(&path, "must not be used at the root"));
        }
        if is_embedded {
            errors.push(FieldError::forbidden(&path, "must not be used if x-kubernetes-embedded-resource is set"));
        }
        if schema["additionalProperties"].is_object() {
            structural(&schema["additionalProperties"], Level::Field, &path, errors);
        }
    }
    for (set, field) in
        [(preserves, "x-kubernetes-preserve-unknown-fields"), (is_embedded, "x-kubernetes-embedded-resource")]
    {
        if is_either && set {
            let detail = "must be false if x-kubernetes-int-or-string is true";
            errors.push(FieldError::invalid(path.child(field), &true.into(), detail));
        }
    }
    types(ty, level, path, (is_embedded, is_either || preserves), errors);
    if is_embedded && !preserves && entries(schema, "properties").next().is_none() {
        let detail = "must not be empty if x-kubernetes-embedded-resource is true without \
            x-kubernetes-preserve-unknown-fields";
        errors.push(FieldError::required(path.child("properties"), detail));
    }
    if level == Level::Root || is_embedded {
        object_fields(schema, level, path, errors);
    }
    junctors(schema, path, is_either, errors);
}

/// A type must be said where nothing else says what may stand there.
fn types(ty: &str, level: Level, path: &Path, (embedded, untyped): (bool, bool), errors: &mut Vec<FieldError>) {
    let path = path.child("type");
    let must_be = "must be object if x-kubernetes-embedded-resource is true";
    let empty = match level {
        Level::Root => "must not be empty at the root",
        Level::Item => "must not be empty for specified array items",
        Level::Field => "must not be empty for specified object fields",
    };
    match ty {
        "" if embedded => errors.push(FieldError::required(&path, must_be)),
        "" if !untyped => errors.push(FieldError::required(&path, empty)),
        "" | "object" => {}
        ty if embedded => errors.push(FieldError::invalid(&path, &ty.into(), must_be)),
        ty if level == Level::Root => {
            errors.push(FieldError::invalid(&path, &ty.into(), "must be object at the root"));
        }
        _ => {}
    }
}

/// `apiVersion`, `kind` and `metadata` of whole objects.
fn object_fields(schema: &Value, level: Level, path: &Path, errors: &mut Vec<FieldError>) {
    let properties = path.child("properties");
    for (name, ty) in [("apiVersion", "string"), ("kind", "string"), ("metadata", "object")] {
        let Some(property) = schema["properties"].get(name) else { continue };
        if property["type"] != ty {
            let detail = format!("must be {ty}");
            let path = properties.key(name).child("type");
            errors.push(FieldError::invalid(path, &text(property, "type").into(), &detail));
        }
    }
    let Some(metadata) = schema["properties"].get("metadata").filter(|_| level == Level::Root) else { return };
    let said = metadata.as_object().into_iter().flatten().filter(|(name, value)| match name.as_str() {
        "type" | "description" => false,
        "properties" => !value.as_object().is_some_and(|names| {
            !names.is_empty() && names.keys().all(|name| name == "name" || name == "generateName")
        }),
        _ => true,
    });
    if said.count() > 0 {
        let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        errors.push(FieldError::forbidden(properties.key("metadata"), detail));
    }
}

/// Whether it is `[{type: integer}, {type: string}]`, which says what `x-kubernetes-int-or-string` says.
fn is_either(list: &Value) -> bool {
    *list == serde_json::json!([{"type": "integer"}, {"type": "string"}])
}

/// The parts of a schema that only check.
fn junctors(schema: &Value, path: &Path, int_or_string: bool, errors: &mut Vec<FieldError>) {
    let text = text(schema, "pattern");
    if let Some(error) = (!text.is_empty()).then(|| pattern::compile(text).err()).flatten() {
        let detail = format!("must be a valid regular expression, but isn't: {error}");
        errors.push(FieldError::invalid(path.child("pattern"), &text.into(), &detail));
    }
    for field in ["anyOf", "allOf", "oneOf"] {
        if field == "anyOf" && int_or_string && is_either(&schema["anyOf"]) {
            continue;
        }
        for (index, inner) in items(schema, field).iter().enumerate() {
            let skip = field == "allOf" && int_or_string && index == 0 && is_either(&inner["anyOf"]);
            nested(inner, &path.child(field).index(index), skip, errors);
        }
    }
    if schema["not"].is_object() {
        nested(&schema["not"], &path.child("not"), false, errors);
    }
}

/// A schema that only checks may say nothing of how values look.
fn nested(schema: &Value, path: &Path, skip_any_of: bool, errors: &mut Vec<FieldError>) {
    let words = [
        ("type", "must be empty to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        ("externalDocs", "must be undefined to be structural"),
        ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
        ("x-kubernetes-embedded-resource", "must be false to be structural"),
        ("x-kubernetes-int-or-string", "must be false to be structural"),
        ("x-kubernetes-list-map-keys", "must be empty to be structural"),
        ("x-kubernetes-list-type", "must be undefined to be structural"),
        ("x-kubernetes-map-type", "must be undefined to be structural"),
        ("x-kubernetes-validations", "must be empty to be structural"),
    ];
    let said = |field: &str| {
        let value = &schema[field];
        !(value.is_null() || *value == false || *value == "" || value.as_array().is_some_and(Vec::is_empty))
    };
    let found =
        words.iter().filter(|(field, _)| said(field) || (*field == "additionalProperties" && present(schema, field)));
    errors.extend(found.map(|(field, detail)| FieldError::forbidden(path.child(field), detail)));
    if schema["properties"].get("metadata").is_some() {
        let detail = "must not be specified in a nested context";
        errors.push(FieldError::forbidden(path.child("properties").key("metadata"), detail));
    }
    if schema["items"].is_object() {
        nested(&schema["items"], &path.child("items"), false, errors);
    }
    for (name, inner) in entries(schema, "properties") {
        nested(inner, &path.child("properties").key(name), false, errors);
    }
    junctors(schema, path, skip_any_of, errors);
}

/// Whatever is checked must be specified outside of the checks.
fn complete(schema: &Value, outside: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    for (name, inner) in entries(schema, "properties") {
        complete(inner, &outside["properties"][name], &path.child("properties").key(name), errors);
    }
    for field in ["items", "additionalProperties"] {
        if schema[field].is_object() {
            complete(&schema[field], &outside[field], &path.child(field), errors);
        }
    }
    for field in ["allOf", "anyOf", "oneOf"] {
        for inner in items(schema, field) {
            covered(inner, outside, path, errors);
        }
    }
    covered(&schema["not"], outside, path, errors);
}

fn covered(inner: &Value, outside: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    if inner["items"].is_object() {
        let path = path.child("items");
        if outside["items"].is_object() {
            covered(&inner["items"], &outside["items"], &path, errors);
        } else {
            errors.push(FieldError::required(&path, "because it is defined in a nested context"));
        }
    }
    for (name, schema) in entries(inner, "properties") {
        let path = path.child("properties").key(name);
        match outside["properties"].get(name) {
            Some(outside) => covered(schema, outside, &path, errors),
            None => errors.push(FieldError::required(&path, "because it is defined in a nested context")),
        }
    }
    for field in ["allOf", "anyOf", "oneOf"] {
        items(inner, field).iter().for_each(|inner| covered(inner, outside, path, errors));
    }
    if inner["not"].is_object() {
        covered(&inner["not"], outside, path, errors);
    }
}

/// Defaults must be what the schema itself would let stand.
fn defaults(json: &Value, schema: &Schema, path: &Path, errors: &mut Vec<FieldError>) {
    if let Some(default) = &schema.default {
        let path = path.child("default");
        let mut pruned = default.clone();
        prune::prune_value(schema, &mut pruned);
        if pruned != *default {
            errors.push(FieldError::invalid(&path, default, "must not have unknown fields"));
        }
        let mut filled = default.clone();
        default::fill(schema, &mut filled);
        errors.extend(validate::check(schema, &filled, None, &String::from(&path)));
        errors.extend(embedded::check(schema, &filled).into_iter().map(|mut error| {
            error.field = path.child(&error.field).into();
            error
        }));
    }
    for (name, inner) in &schema.properties {
        defaults(&json["properties"][name], inner, &path.child("properties").key(name), errors);
    }
    if let Some(inner) = &schema.items {
        defaults(&json["items"], inner, &path.child("items"), errors);
    }
    if let Additional::Of(inner) = &schema.additional {
        defaults(&json["additionalProperties"], inner, &path.child("additionalProperties"), errors);
    }
}
