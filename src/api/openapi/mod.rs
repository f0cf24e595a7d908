//! OpenAPI documents as kubectl needs them, derived from the schema table and the served kinds.
//!
//! Pure; the API server serves what is returned here and keeps it as long as [`fingerprint`] stays the same. Documents carry
//! structure (types, references, list types, patch strategies) and upstream's descriptions.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Map, Value, json};

use crate::resources::Resource;
use crate::schema;
use crate::status::ApiError;

mod components;
mod v2;

pub use v2::v2_protobuf;

/// A served kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KindInfo {
    /// API group, empty for core.
    pub group: String,
    /// Version.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Plural resource name.
    pub plural: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Verbs, e.g. `create`, `patch`.
    pub verbs: Vec<String>,
    /// What a kind that came at run time looks like.
    pub custom: Option<CustomKind>,
}

/// The row of a kind that came at run time; equal to another if both publish the same.
#[derive(Debug, Clone)]
pub struct CustomKind(Resource);

impl CustomKind {
    /// None for built-in kinds.
    pub fn of(row: &Resource) -> Option<Self> {
        row.custom.is_some().then(|| Self(row.clone()))
    }
}

impl PartialEq for CustomKind {
    fn eq(&self, other: &Self) -> bool {
        self.0.published_source() == other.0.published_source()
    }
}

impl Eq for CustomKind {}

impl Hash for CustomKind {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.published_source().hash(state);
    }
}

/// Query parameters of patches; clients look `dryRun` and `fieldValidation` up here before they use them.
const PATCH_PARAMETERS: [(&str, &str); 5] = [
    ("dryRun", "string"),
    ("fieldManager", "string"),
    ("fieldValidation", "string"),
    ("force", "boolean"),
    ("pretty", "string"),
];

/// Media types of patches, and whether they need to know the type that they patch.
const PATCH_TYPES: [(&str, bool); 4] = [
    ("application/apply-patch+yaml", false),
    ("application/json-patch+json", false),
    ("application/merge-patch+json", false),
    ("application/strategic-merge-patch+json", true),
];

impl KindInfo {
    /// `api/v1` or `apis/<group>/<version>`.
    fn document(&self) -> String {
        if self.group.is_empty() {
            format!("api/{}", self.version)
        } else {
            format!("apis/{}/{}", self.group, self.version)
        }
    }

    /// Address of the collection.
    fn collection(&self) -> String {
        let namespace = if self.namespaced { "namespaces/{namespace}/" } else { "" };
        format!("/{}/{namespace}{}", self.document(), self.plural)
    }

    fn has(&self, verb: &str) -> bool {
        self.verbs.iter().any(|own| own == verb)
    }

    fn group_version_kind(&self) -> Value {
        json!({"group": self.group, "version": self.version, "kind": self.kind})
    }
}

/// A number that changes when what documents are made of changes.
pub fn fingerprint<'a>(kinds: impl Iterator<Item = &'a KindInfo>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (env!("CARGO_PKG_VERSION"), schema::fingerprint()).hash(&mut hasher);
    kinds.for_each(|kind| kind.hash(&mut hasher));
    hasher.finish()
}

/// `GET /openapi/v3`: the documents there are, with a hash of what they are made of in each address.
pub fn v3_index(kinds: &[KindInfo]) -> Result<Value, ApiError> {
    let mut paths = Map::new();
    for path in kinds.iter().map(KindInfo::document) {
        if paths.contains_key(&path) {
            continue;
        }
        let hash = fingerprint(kinds.iter().filter(|kind| kind.document() == path));
        let url = format!("/openapi/v3/{path}?hash={hash:016X}");
        paths.insert(path, json!({"serverRelativeURL": url}));
    }
    Ok(json!({"paths": paths}))
}

/// `GET /openapi/v3/<path>` where path is `api/v1` or `apis/<group>/<version>`; none if no kind is served there.
pub fn v3_document(path: &str, kinds: &[KindInfo]) -> Option<Value> {
    let kinds: Vec<&KindInfo> = kinds.iter().filter(|kind| kind.document() == path).collect();
    if kinds.is_empty() {
        return None;
    }
    let mut paths = Map::new();
    for kind in &kinds {
        add_paths(kind, &mut paths);
    }
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "unversioned"},
        "paths": paths,
        "components": {"schemas": components::schemas(&kinds)},
    }))
}

fn add_paths(kind: &KindInfo, paths: &mut Map<String, Value>) {
    let mut item = Map::new();
    for (verb, method) in [("get", "get"), ("update", "put"), ("patch", "patch"), ("delete", "delete")] {
        if kind.has(verb) {
            item.insert(method.to_owned(), operation(kind, verb));
        }
    }
    let mut collection = Map::new();
    for (verb, method) in [("list", "get"), ("create", "post"), ("deletecollection", "delete")] {
        if kind.has(verb) {
            collection.insert(method.to_owned(), operation(kind, verb));
        }
    }
    let parameter = |name: &str| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}});
    let scope = kind.namespaced.then(|| parameter("namespace"));
    let path = kind.collection();
    if !item.is_empty() {
        let parameters: Vec<Value> = [parameter("name")].into_iter().chain(scope.clone()).collect();
        item.insert("parameters".to_owned(), Value::Array(parameters));
        paths.insert(format!("{path}/{{name}}"), Value::Object(item));
    }
    if !collection.is_empty() {
        if let Some(scope) = scope {
            collection.insert("parameters".to_owned(), json!([scope]));
        }
        paths.insert(path, Value::Object(collection));
    }
}

fn operation(kind: &KindInfo, verb: &str) -> Value {
    let action = match verb {
        "create" => "post",
        "update" => "put",
        other => other,
    };
    let query = |(name, of): &(&str, &str)| json!({"name": name, "in": "query", "schema": {"type": of}});
    let parameters: Vec<Value> = match verb {
        "create" | "update" | "patch" => PATCH_PARAMETERS.iter().map(query).collect(),
        "delete" => PATCH_PARAMETERS[..1].iter().map(query).collect(),
        _ => Vec::new(),
    };
    let schema = components::of_kind(kind);
    let content = schema.map_or_else(|| json!({}), |schema| json!({"schema": schema}));
    let mut operation = json!({
        "operationId": format!("{action}{}{}", kind.version, kind.kind),
        "parameters": parameters,
        "responses": {"200": {"description": "OK", "content": {"application/json": content}}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": kind.group_version_kind(),
    });
    if matches!(verb, "create" | "update") {
        operation["requestBody"] = json!({"required": true, "content": {"*/*": content}});
    }
    if verb == "patch" {
        // Where the strategic one is missing, kubectl falls back to another way of making its patch, and says so.
        let is_built_in = kind.custom.is_none();
        let types = PATCH_TYPES.into_iter().filter(|(_, strategic)| is_built_in || !strategic);
        let content: Map<String, Value> = types.map(|(name, _)| (name.to_owned(), patch_schema())).collect();
        operation["requestBody"] = json!({"required": true, "content": content});
    }
    operation
}

/// What patches look like: nothing that a schema could say.
fn patch_schema() -> Value {
    json!({"schema": {"type": "object"}})
}

#[cfg(test)]
mod tests;
