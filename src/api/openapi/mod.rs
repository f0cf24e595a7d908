//! OpenAPI documents as kubectl needs them, derived from the schema table and the served kinds.
//!
//! Pure; the API server caches and serves what is returned here.

use serde_json::Value;

use crate::status::ApiError;

/// A served kind.
#[derive(Debug, Clone, PartialEq, Eq)]
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
}

/// `GET /openapi/v3`: the documents there are, with a hash of their contents in each address.
pub fn v3_index(_kinds: &[KindInfo]) -> Result<Value, ApiError> {
    Err(ApiError::internal("OpenAPI v3 is not rendered yet"))
}

/// `GET /openapi/v3/<path>` where path is `api/v1` or `apis/<group>/<version>`; none if no kind is served there.
pub fn v3_document(_path: &str, _kinds: &[KindInfo]) -> Option<Value> {
    None
}

/// `GET /openapi/v2`: a gnostic `openapi.v2.Document` in protobuf.
pub fn v2_protobuf(_kinds: &[KindInfo]) -> Vec<u8> {
    Vec::new()
}
