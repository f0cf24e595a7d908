//! The OpenAPI v2 document in protobuf (gnostic `openapi.v2.Document`), which older kubectl asks for.
//!
//! Its paths say per kind whether the server validates fields and knows dry run, which is what kubectl looks for there; its
//! definitions are those of version 3. Numbers are those of gnostic's `OpenAPIv2.proto`.

use serde_json::{Map, Value};

use super::{KindInfo, PATCH_PARAMETERS, components};

mod number {
    pub(super) const DOCUMENT_SWAGGER: u8 = 1;
    pub(super) const DOCUMENT_INFO: u8 = 2;
    pub(super) const DOCUMENT_PATHS: u8 = 8;
    pub(super) const DOCUMENT_DEFINITIONS: u8 = 9;
    pub(super) const DEFINITIONS_ENTRY: u8 = 1;
    pub(super) const SCHEMA_REF: u8 = 1;
    pub(super) const SCHEMA_FORMAT: u8 = 2;
    pub(super) const SCHEMA_DESCRIPTION: u8 = 4;
    pub(super) const SCHEMA_REQUIRED: u8 = 19;
    pub(super) const SCHEMA_ADDITIONAL_PROPERTIES: u8 = 21;
    pub(super) const SCHEMA_TYPE: u8 = 22;
    pub(super) const SCHEMA_ITEMS: u8 = 23;
    pub(super) const SCHEMA_PROPERTIES: u8 = 25;
    pub(super) const SCHEMA_EXTENSION: u8 = 31;
    pub(super) const ADDITIONAL_PROPERTIES_SCHEMA: u8 = 1;
    pub(super) const TYPE_VALUE: u8 = 1;
    pub(super) const ITEMS_SCHEMA: u8 = 1;
    pub(super) const PROPERTIES_ENTRY: u8 = 1;
    pub(super) const INFO_TITLE: u8 = 1;
    pub(super) const INFO_VERSION: u8 = 2;
    pub(super) const PATHS_PATH: u8 = 2;
    pub(super) const NAMED_NAME: u8 = 1;
    pub(super) const NAMED_VALUE: u8 = 2;
    pub(super) const PATH_ITEM_PATCH: u8 = 8;
    pub(super) const OPERATION_PARAMETERS: u8 = 8;
    pub(super) const OPERATION_EXTENSION: u8 = 13;
    pub(super) const ITEM_PARAMETER: u8 = 1;
    pub(super) const PARAMETER_NON_BODY: u8 = 2;
    pub(super) const NON_BODY_QUERY: u8 = 3;
    pub(super) const QUERY_IN: u8 = 2;
    pub(super) const QUERY_NAME: u8 = 4;
    pub(super) const QUERY_TYPE: u8 = 6;
    pub(super) const ANY_YAML: u8 = 2;
}

/// `GET /openapi/v2`: a gnostic `openapi.v2.Document` in protobuf.
pub fn v2_protobuf(kinds: &[KindInfo]) -> Vec<u8> {
    let info = Message::default().text(number::INFO_TITLE, "Kubernetes").text(number::INFO_VERSION, "unversioned");
    let mut paths = Message::default();
    for kind in kinds.iter().filter(|kind| kind.has("patch")) {
        let item = Message::default().message(number::PATH_ITEM_PATCH, &patch(kind));
        paths = paths.named(number::PATHS_PATH, &format!("{}/{{name}}", kind.collection()), &item);
    }
    let mut definitions = Message::default();
    for (name, definition) in components::schemas(&Vec::from_iter(kinds)) {
        definitions = definitions.named(number::DEFINITIONS_ENTRY, &name, &schema(&definition));
    }
    Message::default()
        .text(number::DOCUMENT_SWAGGER, "2.0")
        .message(number::DOCUMENT_INFO, &info)
        .message(number::DOCUMENT_PATHS, &paths)
        .message(number::DOCUMENT_DEFINITIONS, &definitions)
        .0
}

fn patch(kind: &KindInfo) -> Message {
    let mut operation = Message::default();
    for (name, of) in PATCH_PARAMETERS {
        let query = Message::default()
            .text(number::QUERY_IN, "query")
            .text(number::QUERY_NAME, name)
            .text(number::QUERY_TYPE, of);
        let non_body = Message::default().message(number::NON_BODY_QUERY, &query);
        let parameter = Message::default().message(number::PARAMETER_NON_BODY, &non_body);
        let item = Message::default().message(number::ITEM_PARAMETER, &parameter);
        operation = operation.message(number::OPERATION_PARAMETERS, &item);
    }
    operation.extension(number::OPERATION_EXTENSION, "x-kubernetes-group-version-kind", &kind.group_version_kind())
}

/// A schema of version 3 as one of version 2. What version 2 has no word for, and what only limits values, is left out:
/// clients that read this leave the checking of values to the server.
fn schema(of: &Value) -> Message {
    let text = |field: &str| of[field].as_str().unwrap_or_default();
    let mut message = Message::default();
    let reference = text("$ref").rsplit('/').next().filter(|name| !name.is_empty());
    let wrapped = of["allOf"][0]["$ref"].as_str().and_then(|path| path.rsplit('/').next());
    if let Some(name) = reference.or(wrapped) {
        message = message.text(number::SCHEMA_REF, &format!("#/definitions/{name}"));
    }
    if !text("format").is_empty() {
        message = message.text(number::SCHEMA_FORMAT, text("format"));
    }
    if !text("description").is_empty() {
        message = message.text(number::SCHEMA_DESCRIPTION, text("description"));
    }
    for name in of["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        message = message.text(number::SCHEMA_REQUIRED, name);
    }
    if of["additionalProperties"].is_object() {
        let inner = schema(&of["additionalProperties"]);
        let item = Message::default().message(number::ADDITIONAL_PROPERTIES_SCHEMA, &inner);
        message = message.message(number::SCHEMA_ADDITIONAL_PROPERTIES, &item);
    }
    // Numbers or text: upstream says text here.
    let kind = if text("format") == "int-or-string" { "string" } else { text("type") };
    if !kind.is_empty() {
        message = message.message(number::SCHEMA_TYPE, &Message::default().text(number::TYPE_VALUE, kind));
    }
    if of["items"].is_object() {
        let items = Message::default().message(number::ITEMS_SCHEMA, &schema(&of["items"]));
        message = message.message(number::SCHEMA_ITEMS, &items);
    }
    if let Some(fields) = of["properties"].as_object() {
        message = message.message(number::SCHEMA_PROPERTIES, &properties(fields));
    }
    let extensions = of.as_object().into_iter().flatten().filter(|(key, _)| key.starts_with("x-"));
    extensions.fold(message, |message, (key, value)| message.extension(number::SCHEMA_EXTENSION, key, value))
}

fn properties(fields: &Map<String, Value>) -> Message {
    fields.iter().fold(Message::default(), |message, (name, field)| {
        message.named(number::PROPERTIES_ENTRY, name, &schema(field))
    })
}

/// A message being written: length-delimited fields only.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn text(self, number: u8, text: &str) -> Self {
        self.bytes(number, text.as_bytes())
    }

    fn message(self, number: u8, message: &Self) -> Self {
        self.bytes(number, &message.0)
    }

    fn named(self, number: u8, name: &str, value: &Self) -> Self {
        let named = Self::default().text(number::NAMED_NAME, name).message(number::NAMED_VALUE, value);
        self.message(number, &named)
    }

    fn extension(self, number: u8, name: &str, value: &Value) -> Self {
        // JSON is YAML.
        self.named(number, name, &Self::default().text(number::ANY_YAML, &value.to_string()))
    }

    fn bytes(mut self, number: u8, bytes: &[u8]) -> Self {
        self.varint(usize::from(number) << 3 | 2);
        self.varint(bytes.len());
        self.0.extend_from_slice(bytes);
        self
    }

    fn varint(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.0.push((value & 0x7f).to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }
}
