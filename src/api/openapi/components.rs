//! The types of a document: `components.schemas`, from the schema table.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::KindInfo;
use crate::schema::{self, Base, Described, Descriptions, Field, ListType, Shape, TypeRef};

const PREFIX: &str = "#/components/schemas/";
const MACHINERY: &str = "io.k8s.apimachinery.pkg";

/// All types that the kinds and their lists consist of.
pub(super) fn schemas(kinds: &[&KindInfo]) -> Map<String, Value> {
    let mut queue: Vec<TypeRef> = Vec::new();
    for kind in kinds {
        queue.extend(schema::lookup(&kind.group, &kind.version, &kind.kind));
        queue.extend(schema::lookup(&kind.group, &kind.version, &format!("{}List", kind.kind)));
        queue.extend(schema::lookup(&kind.group, &kind.version, "DeleteOptions"));
        queue.extend(schema::lookup(&kind.group, &kind.version, "Status"));
        // What every object has, for kinds that are in no table.
        queue.extend(kind.custom.iter().flat_map(|_| ["ConfigMap", "ConfigMapList"]).flat_map(metadata_of));
    }
    let descriptions = Descriptions::unpack();
    let described = descriptions.index();
    let mut seen = BTreeSet::new();
    let mut schemas = specials();
    schemas.extend(kinds.iter().filter_map(|kind| kind.custom.as_ref()?.0.published()).flatten());
    while let Some(ty) = queue.pop() {
        if !seen.insert(ty) {
            continue;
        }
        queue.extend(ty.fields().iter().filter_map(|field| match field.base {
            Base::Type(inner) => Some(inner),
            _ => None,
        }));
        schemas.insert(name(ty), object(ty, &described));
    }
    for (group, version, kind, ty) in schema::kinds() {
        if let Some(schema) = schemas.get_mut(&name(ty)) {
            schema["x-kubernetes-group-version-kind"] = json!([{"group": group, "version": version, "kind": kind}]);
        }
    }
    schemas
}

/// The type of the metadata of a kind.
fn metadata_of(kind: &str) -> Option<TypeRef> {
    match schema::lookup("", "v1", kind)?.field("metadata")?.base {
        Base::Type(ty) => Some(ty),
        _ => None,
    }
}

/// The schema of the objects of a kind.
pub(super) fn of_kind(kind: &KindInfo) -> Option<Value> {
    if let Some(custom) = &kind.custom {
        return custom.0.published_name().map(|name| refer(&name));
    }
    schema::lookup(&kind.group, &kind.version, &kind.kind).map(reference)
}

/// A reference in the form upstream gives it, which leaves room for further attributes.
pub(super) fn reference(ty: TypeRef) -> Value {
    refer(&name(ty))
}

fn refer(name: &str) -> Value {
    json!({"allOf": [{"$ref": format!("{PREFIX}{name}")}]})
}

fn name(ty: TypeRef) -> String {
    let dotted = ty.name().replace('/', ".");
    match dotted.split('.').next() {
        Some("meta") => format!("{MACHINERY}.apis.{dotted}"),
        Some("apiregistration") => format!("io.k8s.kube-aggregator.pkg.apis.{dotted}"),
        Some("apiextensions") => format!("io.k8s.apiextensions-apiserver.pkg.apis.{dotted}"),
        _ => format!("io.k8s.api.{dotted}"),
    }
}

fn specials() -> Map<String, Value> {
    let mut schemas = Map::new();
    let mut add = |name: &str, schema: Value| schemas.insert(format!("{MACHINERY}.{name}"), schema);
    add("api.resource.Quantity", json!({"type": "string"}));
    add("apis.meta.v1.Time", json!({"type": "string", "format": "date-time"}));
    add("apis.meta.v1.MicroTime", json!({"type": "string", "format": "date-time"}));
    add("apis.meta.v1.Duration", json!({"type": "string"}));
    add("apis.meta.v1.FieldsV1", json!({"type": "object"}));
    add("runtime.RawExtension", json!({"type": "object"}));
    let int_or_string = json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]});
    add("util.intstr.IntOrString", int_or_string);
    schemas
}

fn base(base: Base) -> Value {
    match base {
        Base::String => json!({"type": "string"}),
        Base::Bool => json!({"type": "boolean"}),
        Base::Int32 => json!({"type": "integer", "format": "int32"}),
        Base::Int64 => json!({"type": "integer", "format": "int64"}),
        Base::Double => json!({"type": "number", "format": "double"}),
        Base::Bytes => json!({"type": "string", "format": "byte"}),
        Base::Quantity => refer(&format!("{MACHINERY}.api.resource.Quantity")),
        Base::Time => refer(&format!("{MACHINERY}.apis.meta.v1.Time")),
        Base::MicroTime => refer(&format!("{MACHINERY}.apis.meta.v1.MicroTime")),
        Base::Duration => refer(&format!("{MACHINERY}.apis.meta.v1.Duration")),
        Base::IntOrString => refer(&format!("{MACHINERY}.util.intstr.IntOrString")),
        Base::Raw => refer(&format!("{MACHINERY}.runtime.RawExtension")),
        Base::FieldsV1 => refer(&format!("{MACHINERY}.apis.meta.v1.FieldsV1")),
        Base::Type(ty) => reference(ty),
    }
}

fn object(ty: TypeRef, described: &Described<'_>) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in ty.fields() {
        let mut schema = property(field);
        if let Some(about) = described.of_field(ty, field.name) {
            schema["description"] = about.into();
        }
        properties.insert(field.name.to_owned(), schema);
        if field.required {
            required.push(field.name);
        }
    }
    let mut schema = json!({"type": "object"});
    if let Some(about) = described.of(ty) {
        schema["description"] = about.into();
    }
    if !properties.is_empty() {
        schema["properties"] = Value::Object(properties);
    }
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    if ty.is_atomic() {
        schema["x-kubernetes-map-type"] = json!("atomic");
    }
    schema
}

fn property(field: &Field) -> Value {
    let mut schema = match field.shape {
        Shape::One => base(field.base),
        Shape::List => json!({"type": "array", "items": base(field.base)}),
        Shape::Map => json!({"type": "object", "additionalProperties": base(field.base)}),
        Shape::MapOfLists => {
            json!({"type": "object", "additionalProperties": {"type": "array", "items": base(field.base)}})
        }
    };
    match (field.list_type, field.shape) {
        (ListType::Unset, _) => {}
        (ListType::Atomic, Shape::List) => schema["x-kubernetes-list-type"] = json!("atomic"),
        (ListType::Atomic, _) => schema["x-kubernetes-map-type"] = json!("atomic"),
        (ListType::Set, _) => schema["x-kubernetes-list-type"] = json!("set"),
        (ListType::Map, _) => {
            schema["x-kubernetes-list-type"] = json!("map");
            schema["x-kubernetes-list-map-keys"] = field.map_keys().collect();
        }
    }
    if !field.patch_strategy.is_empty() {
        schema["x-kubernetes-patch-strategy"] = json!(field.patch_strategy);
    }
    if !field.merge_key.is_empty() {
        schema["x-kubernetes-patch-merge-key"] = json!(field.merge_key);
    }
    schema
}
