//! Structural schemas: what a definition says of the objects of one version, read once from its JSON
//! (`apiextensions.k8s.io/v1 JSONSchemaProps`).
//!
//! Reading is total: whatever makes no sense is left out, because [`super::structure`] refuses it before a definition is
//! stored. What is done with a schema stands beside: [`super::prune`], [`super::default`], [`super::validate`].

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Number, Value};

use super::pattern;
use super::rules::{self, Rule};

/// `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Type {
    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// `additionalProperties`.
#[derive(Debug, Default)]
pub(super) enum Additional {
    /// Nothing is said.
    #[default]
    Unsaid,
    /// Whether there may be any.
    Allowed(bool),
    /// What they look like.
    Of(Box<Schema>),
}

/// `x-kubernetes-list-type` with its keys.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum List {
    #[default]
    Atomic,
    Set,
    Map(Vec<String>),
}

/// `pattern`.
#[derive(Debug)]
pub(super) struct Pattern {
    pub(super) text: String,
    pub(super) regex: Regex,
}

/// Bounds of numbers, texts, lists and maps.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    pub(super) minimum: Option<Number>,
    pub(super) maximum: Option<Number>,
    pub(super) exclusive_minimum: bool,
    pub(super) exclusive_maximum: bool,
    pub(super) multiple_of: Option<Number>,
    pub(super) min_length: Option<u64>,
    pub(super) max_length: Option<u64>,
    pub(super) min_items: Option<u64>,
    pub(super) max_items: Option<u64>,
    pub(super) min_properties: Option<u64>,
    pub(super) max_properties: Option<u64>,
}

/// One node of a schema.
#[derive(Debug, Default)]
pub(super) struct Schema {
    pub(super) ty: Option<Type>,
    pub(super) nullable: bool,
    pub(super) default: Option<Value>,
    pub(super) properties: BTreeMap<String, Schema>,
    pub(super) additional: Additional,
    pub(super) items: Option<Box<Schema>>,
    pub(super) preserve: bool,
    pub(super) embedded: bool,
    pub(super) int_or_string: bool,
    pub(super) list: List,
    /// `x-kubernetes-map-type: atomic`.
    pub(super) atomic: bool,
    pub(super) format: String,
    pub(super) pattern: Option<Pattern>,
    pub(super) values: Vec<Value>,
    pub(super) bounds: Bounds,
    pub(super) required: Vec<String>,
    pub(super) all_of: Vec<Schema>,
    pub(super) any_of: Vec<Schema>,
    pub(super) one_of: Vec<Schema>,
    pub(super) not: Option<Box<Schema>>,
    pub(super) rules: Vec<Rule>,
    /// Whether there are rules here or below.
    pub(super) has_rules: bool,
}

impl Schema {
    /// Reads the schema of whole objects.
    pub(super) fn root(json: &Value) -> Self {
        Self::build(json, true)
    }

    /// Reads a schema.
    pub(super) fn read(json: &Value) -> Self {
        Self::build(json, false)
    }

    fn build(json: &Value, is_root: bool) -> Self {
        let mut schema = Self::without_rules(json);
        if is_root || schema.embedded {
            schema.add_object_fields();
        }
        schema.rules = rules::read(&schema, json);
        let additional = if let Additional::Of(inner) = &schema.additional { inner.has_rules } else { false };
        schema.has_rules = !schema.rules.is_empty()
            || additional
            || schema.properties.values().any(|inner| inner.has_rules)
            || schema.items.as_ref().is_some_and(|inner| inner.has_rules);
        schema
    }

    /// What rules may see of every object, also where its schema says nothing of it.
    fn add_object_fields(&mut self) {
        let text = || Self { ty: Some(Type::String), ..Self::default() };
        for name in ["apiVersion", "kind"] {
            self.properties.entry(name.to_owned()).or_insert_with(text);
        }
        let metadata = self.properties.entry("metadata".to_owned()).or_default();
        metadata.ty = Some(Type::Object);
        for name in ["name", "generateName"] {
            metadata.properties.entry(name.to_owned()).or_insert_with(text);
        }
    }

    fn without_rules(json: &Value) -> Self {
        let text = |field: &str| json[field].as_str().unwrap_or_default();
        let flag = |field: &str| json[field] == true;
        let each = |field: &str| json[field].as_array().into_iter().flatten().map(Self::read).collect();
        let properties = json["properties"].as_object().into_iter().flatten();
        Self {
            ty: Type::parse(text("type")),
            nullable: flag("nullable"),
            default: json.get("default").filter(|value| !value.is_null()).cloned(),
            properties: properties.map(|(name, schema)| (name.clone(), Self::read(schema))).collect(),
            additional: read_additional(&json["additionalProperties"]),
            items: json.get("items").filter(|items| items.is_object()).map(|items| Box::new(Self::read(items))),
            preserve: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            list: read_list(json),
            atomic: text("x-kubernetes-map-type") == "atomic",
            format: text("format").to_owned(),
            pattern: read_pattern(text("pattern")),
            values: json["enum"].as_array().cloned().unwrap_or_default(),
            bounds: Bounds::read(json),
            required: words(&json["required"]),
            all_of: each("allOf"),
            any_of: each("anyOf"),
            one_of: each("oneOf"),
            not: json.get("not").filter(|not| not.is_object()).map(|not| Box::new(Self::read(not))),
            rules: Vec::new(),
            has_rules: false,
        }
    }

    /// The schema of a field, whether it is named or one of any.
    pub(super) fn field(&self, name: &str) -> Option<&Self> {
        match (self.properties.get(name), &self.additional) {
            (Some(schema), _) => Some(schema),
            (None, Additional::Of(schema)) => Some(schema),
            (None, _) => None,
        }
    }

    /// Whether a null stands where none may be.
    pub(super) fn forbids_null(&self, value: &Value) -> bool {
        value.is_null() && !self.nullable
    }
}

impl Bounds {
    fn read(json: &Value) -> Self {
        let number = |field: &str| json[field].as_number().cloned();
        let count = |field: &str| json[field].as_u64();
        Self {
            minimum: number("minimum"),
            maximum: number("maximum"),
            exclusive_minimum: json["exclusiveMinimum"] == true,
            exclusive_maximum: json["exclusiveMaximum"] == true,
            multiple_of: number("multipleOf"),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            min_properties: count("minProperties"),
            max_properties: count("maxProperties"),
        }
    }
}

fn read_additional(json: &Value) -> Additional {
    match json {
        Value::Bool(allowed) => Additional::Allowed(*allowed),
        Value::Object(_) => Additional::Of(Box::new(Schema::read(json))),
        _ => Additional::Unsaid,
    }
}

fn read_list(json: &Value) -> List {
    match json["x-kubernetes-list-type"].as_str() {
        Some("set") => List::Set,
        Some("map") => List::Map(words(&json["x-kubernetes-list-map-keys"])),
        _ => List::Atomic,
    }
}

fn read_pattern(text: &str) -> Option<Pattern> {
    if text.is_empty() {
        return None;
    }
    Some(Pattern { text: text.to_owned(), regex: pattern::compile(text).ok()? })
}

/// The texts of a list.
pub(super) fn words(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
