//! Fields of a definition that nobody knows, within its schemas: the table of types keeps those as they are.

use serde_json::Value;

use crate::resources::path::items;

/// No more are named, as for other types.
const MAX_NAMED: usize = 100;
/// Fields of `JSONSchemaProps` that hold no schemas.
const PLAIN: [&str; 33] = [
    "$ref",
    "$schema",
    "default",
    "description",
    "enum",
    "example",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "externalDocs",
    "format",
    "id",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "nullable",
    "pattern",
    "required",
    "title",
    "type",
    "uniqueItems",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
];
const ONE: [&str; 4] = ["additionalItems", "additionalProperties", "items", "not"];
const LISTS: [&str; 3] = ["allOf", "anyOf", "oneOf"];
const MAPS: [&str; 4] = ["definitions", "dependencies", "patternProperties", "properties"];
const RULE: [&str; 6] = ["fieldPath", "message", "messageExpression", "optionalOldSelf", "reason", "rule"];

/// Removes unknown fields from the schemas of a definition; returns the sentences about them.
pub fn unknown_fields(definition: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    let versions = definition["spec"]["versions"].as_array_mut().map(Vec::as_mut_slice).unwrap_or_default();
    for (index, version) in versions.iter_mut().enumerate() {
        if let Some(schema) = version.pointer_mut("/schema/openAPIV3Schema") {
            node(schema, &format!("spec.versions[{index}].schema.openAPIV3Schema"), &mut unknown);
        }
    }
    unknown.iter().map(|path| format!("unknown field {path:?}")).collect()
}

fn node(schema: &mut Value, path: &str, unknown: &mut Vec<String>) {
    let Some(fields) = schema.as_object_mut() else { return };
    fields.retain(|name, value| {
        let word = name.as_str();
        let below = format!("{path}.{name}");
        // A null says what silence says.
        if value.is_null() && word != "default" && word != "example" {
            return false;
        }
        if ONE.contains(&word) {
            node(value, &below, unknown);
        } else if LISTS.contains(&word) {
            let list = value.as_array_mut().into_iter().flatten().enumerate();
            list.for_each(|(index, schema)| node(schema, &format!("{below}[{index}]"), unknown));
        } else if MAPS.contains(&word) {
            let map = value.as_object_mut().into_iter().flatten();
            map.for_each(|(name, schema)| node(schema, &format!("{below}.{name}"), unknown));
        } else if word == "x-kubernetes-validations" {
            rules(value, &below, unknown);
        } else if !PLAIN.contains(&word) {
            name_it(below, unknown);
            return false;
        }
        true
    });
}

fn rules(rules: &mut Value, path: &str, unknown: &mut Vec<String>) {
    for (index, rule) in rules.as_array_mut().into_iter().flatten().enumerate() {
        let Some(fields) = rule.as_object_mut() else { continue };
        fields.retain(|name, _| {
            let known = RULE.contains(&name.as_str());
            if !known {
                name_it(format!("{path}[{index}].{name}"), unknown);
            }
            known
        });
    }
}

fn name_it(path: String, unknown: &mut Vec<String>) {
    if unknown.len() < MAX_NAMED {
        unknown.push(path);
    }
}

/// Whether every field of every schema holds what it must; the error is a sentence of the first that does not.
pub(super) fn mistyped(definition: &Value) -> Option<String> {
    let versions = items(&definition["spec"], "versions").iter().enumerate();
    let schemas = versions.map(|(index, version)| {
        (format!("spec.versions[{index}].schema.openAPIV3Schema"), &version["schema"]["openAPIV3Schema"])
    });
    schemas.filter(|(_, schema)| !schema.is_null()).find_map(|(path, schema)| mistyped_node(schema, &path))
}

fn mistyped_node(schema: &Value, path: &str) -> Option<String> {
    let Some(fields) = schema.as_object() else { return Some(format!("{path} must be an object")) };
    let mut found = None;
    for (name, value) in fields {
        let below = format!("{path}.{name}");
        let wanted = |is: bool, what: &str| (!is).then(|| format!("{below} must be {what}"));
        let whole = value.is_u64() || value.is_i64();
        let texts = || value.as_array().is_some_and(|list| list.iter().all(Value::is_string));
        found = match name.as_str() {
            "additionalItems" | "additionalProperties" if value.is_boolean() => None,
            "items" if value.is_array() => None,
            "additionalItems" | "additionalProperties" | "items" | "not" => mistyped_node(value, &below),
            "allOf" | "anyOf" | "oneOf" => match value.as_array() {
                None => Some(format!("{below} must be a list")),
                Some(list) => {
                    let mut list = list.iter().enumerate();
                    list.find_map(|(index, schema)| mistyped_node(schema, &format!("{below}[{index}]")))
                }
            },
            "definitions" | "patternProperties" | "properties" => match value.as_object() {
                None => Some(format!("{below} must be an object")),
                Some(map) => map.iter().find_map(|(name, schema)| mistyped_node(schema, &format!("{below}.{name}"))),
            },
            "description"
            | "format"
            | "pattern"
            | "title"
            | "type"
            | "id"
            | "$ref"
            | "$schema"
            | "x-kubernetes-list-type"
            | "x-kubernetes-map-type" => wanted(value.is_string(), "a text"),
            "exclusiveMaximum"
            | "exclusiveMinimum"
            | "nullable"
            | "uniqueItems"
            | "x-kubernetes-embedded-resource"
            | "x-kubernetes-int-or-string"
            | "x-kubernetes-preserve-unknown-fields" => wanted(value.is_boolean(), "true or false"),
            "maximum" | "minimum" | "multipleOf" => wanted(value.is_number(), "a number"),
            "maxItems" | "minItems" | "maxLength" | "minLength" | "maxProperties" | "minProperties" => {
                wanted(whole, "a whole number")
            }
            "required" | "x-kubernetes-list-map-keys" => wanted(texts(), "a list of texts"),
            "enum" | "x-kubernetes-validations" => wanted(value.is_array(), "a list"),
            _ => None,
        };
        if found.is_some() {
            break;
        }
    }
    found
}
