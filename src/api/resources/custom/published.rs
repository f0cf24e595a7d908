//! The schemas of custom resources as OpenAPI publishes them (`pkg/controller/openapi/builder` of apiextensions).

use serde_json::{Map, Value, json};

use super::Custom;
use crate::resources::Resource;

const META: &str = "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1";

impl Resource {
    /// What the schemas of a custom resource are made of.
    pub(crate) fn published_source(&self) -> Option<&str> {
        Some(&self.custom.as_ref()?.version().source)
    }

    /// The name of the kind's schema: `com.example.v1.CronTab` for a custom resource, none for others.
    pub fn published_name(&self) -> Option<String> {
        self.custom.as_ref()?;
        let reversed: Vec<&str> = self.group.rsplit('.').collect();
        Some(format!("{}.{}.{}", reversed.join("."), self.version, self.kind))
    }

    /// The schemas of a custom resource and of lists of it, by their names; none for other kinds.
    pub fn published(&self) -> Option<Vec<(String, Value)>> {
        let (custom, name) = (self.custom.as_ref()?, self.published_name()?);
        let kind = |kind: &str| json!([{"group": self.group, "version": self.version, "kind": kind}]);
        let mut own = object(custom);
        own["x-kubernetes-group-version-kind"] = kind(self.kind);
        let items = json!({"type": "array", "items": {"allOf": [{"$ref": format!("#/components/schemas/{name}")}]},
            "description": format!("List of {}. More info: \
                https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md", self.plural)});
        let mut properties = words();
        properties.insert("metadata".to_owned(), reference("ListMeta"));
        properties.insert("items".to_owned(), items);
        let list = json!({
            "type": "object", "description": format!("{} is a list of {}", self.list_kind, self.kind),
            "required": ["items"], "properties": properties, "x-kubernetes-group-version-kind": kind(self.list_kind),
        });
        let list_name = name.strip_suffix(self.kind).map(|prefix| format!("{prefix}{}", self.list_kind));
        Some(vec![(name.clone(), own), (list_name.unwrap_or_default(), list)])
    }
}

/// The schema of whole objects: what the definition says, and what every object has.
fn object(custom: &Custom) -> Value {
    let mut schema = custom.source();
    if !schema.is_object() {
        schema = json!({});
    }
    clean(&mut schema);
    if schema["x-kubernetes-preserve-unknown-fields"] == true && schema["properties"].is_null() {
        schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true,
            "description": schema["description"].as_str().unwrap_or_default()});
    }
    let mut properties = schema["properties"].as_object().cloned().unwrap_or_default();
    properties.extend(words());
    properties.insert("metadata".to_owned(), reference("ObjectMeta"));
    schema["properties"] = Value::Object(properties);
    schema["type"] = "object".into();
    schema
}

/// Leaves out what OpenAPI knows nothing of.
fn clean(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.retain(|name, value| !value.is_null() || name == "default");
            fields.values_mut().for_each(clean);
        }
        Value::Array(items) => items.iter_mut().for_each(clean),
        _ => {}
    }
}

fn words() -> Map<String, Value> {
    let version = "APIVersion defines the versioned schema of this representation of an object. Servers should convert \
        recognized schemas to the latest internal value, and may reject unrecognized values. More info: \
        https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
    let kind = "Kind is a string value representing the REST resource this object represents. Servers may infer this from \
        the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: \
        https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
    let text = |description: &str| json!({"type": "string", "description": description});
    Map::from_iter([("apiVersion".to_owned(), text(version)), ("kind".to_owned(), text(kind))])
}

fn reference(name: &str) -> Value {
    json!({"allOf": [{"$ref": format!("{META}.{name}")}],
        "description": "Standard object's metadata. More info: \
            https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"})
}
