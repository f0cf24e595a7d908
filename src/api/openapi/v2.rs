//! The OpenAPI v2 document in protobuf (gnostic `openapi.v2.Document`), which older kubectl asks for.
//!
//! It has paths only: kubectl finds there per kind whether the server validates fields and knows dry run. It has no
//! definitions, so kubectl leaves the checking of types to the server. Numbers are those of gnostic's `OpenAPIv2.proto`.

use super::{KindInfo, PATCH_PARAMETERS};

mod number {
    pub(super) const DOCUMENT_SWAGGER: u8 = 1;
    pub(super) const DOCUMENT_INFO: u8 = 2;
    pub(super) const DOCUMENT_PATHS: u8 = 8;
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
        let named = Message::default()
            .text(number::NAMED_NAME, &format!("{}/{{name}}", kind.collection()))
            .message(number::NAMED_VALUE, &item);
        paths = paths.message(number::PATHS_PATH, &named);
    }
    Message::default()
        .text(number::DOCUMENT_SWAGGER, "2.0")
        .message(number::DOCUMENT_INFO, &info)
        .message(number::DOCUMENT_PATHS, &paths)
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
    // JSON is YAML.
    let any = Message::default().text(number::ANY_YAML, &kind.group_version_kind().to_string());
    let extension = Message::default()
        .text(number::NAMED_NAME, "x-kubernetes-group-version-kind")
        .message(number::NAMED_VALUE, &any);
    operation.message(number::OPERATION_EXTENSION, &extension)
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

    fn bytes(mut self, number: u8, bytes: &[u8]) -> Self {
        self.0.push(number << 3 | 2);
        let mut len = bytes.len();
        while len >= 0x80 {
            self.0.push((len & 0x7f).to_le_bytes()[0] | 0x80);
            len >>= 7;
        }
        self.0.push(len.to_le_bytes()[0]);
        self.0.extend_from_slice(bytes);
        self
    }
}
