//! Request bodies to `Value`: strict JSON and YAML with duplicate keys reported.
//!
//! The API server calls it for every body. It knows no types: what a field may hold is the schema's business. Duplicate
//! keys are no error here but reported, because `fieldValidation` decides what they are; the last value wins, as in Go.
//! Depth is limited, so no body can exhaust the stack.

use serde_json::Value;

use crate::status::ApiError;

/// A body, parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The value; of duplicate keys the last one.
    pub value: Value,
    /// Sentences `duplicate field "spec.x"`, as fieldValidation reports them.
    pub duplicates: Vec<String>,
}

/// Parses JSON; 400 if it is none.
pub fn parse(_body: &[u8]) -> Result<Parsed, ApiError> {
    Err(ApiError::internal("JSON bodies are not read yet"))
}

/// Parses one YAML document (or JSON, which is YAML); 400 if it is none.
pub fn parse_yaml(_body: &[u8]) -> Result<Parsed, ApiError> {
    Err(ApiError::internal("YAML bodies are not read yet"))
}
