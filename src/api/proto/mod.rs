//! Protobuf bodies to JSON objects and back.
//!
//! kubectl from 1.32 on sends `create` bodies as protobuf. Bytes are transcoded by the schema table into the JSON that
//! upstream's types would emit, so that everything behind the decoder knows JSON only. Answers are JSON; for the few
//! clients that take protobuf only they are encoded ([`encode`], [`encode_event`]). Total: any bytes give a value or a
//! 400, in bounded depth. Fields whose numbers the table does not know are skipped in both directions, as protobuf
//! readers do.

use serde_json::{Value, json};

use crate::schema;
use crate::status::ApiError;

mod message;
mod special;
mod wire;
mod write;

use wire::{Problem, Reader};
pub use write::{encode, encode_event};

/// What starts every Kubernetes protobuf body.
const MAGIC: &[u8] = b"k8s\0";

/// Decodes a body of media type `application/vnd.kubernetes.protobuf`: the `k8s\0` envelope and the object in it.
pub fn decode(body: &[u8]) -> Result<Value, ApiError> {
    let envelope = body.strip_prefix(MAGIC).ok_or_else(|| {
        ApiError::bad_request("provided data does not appear to be a protobuf message, expected prefix \"k8s\\0\"")
    })?;
    let unknown = Envelope::read(envelope).map_err(|problem| bad_request("runtime.Unknown", problem))?;
    if !unknown.encoding.is_empty() {
        return Err(ApiError::bad_request(format!("unsupported content encoding {:?}", unknown.encoding)));
    }
    if unknown.content_type == "application/json" {
        return Ok(crate::json::parse(unknown.raw)?.value);
    }
    let (group, version) = unknown.api_version.rsplit_once('/').unwrap_or(("", unknown.api_version));
    let ty = schema::lookup(group, version, unknown.kind).ok_or_else(|| {
        let text = format!("no kind {:?} is registered for version {:?}", unknown.kind, unknown.api_version);
        ApiError::bad_request(text)
    })?;
    let mut object = message::decode(ty, unknown.raw).map_err(|problem| bad_request(unknown.kind, problem))?;
    object.insert("apiVersion".to_owned(), json!(unknown.api_version));
    object.insert("kind".to_owned(), json!(unknown.kind));
    let object = Value::Object(object);
    crate::json::check_depth(&object)?;
    Ok(object)
}

fn bad_request(what: &str, problem: Problem) -> ApiError {
    ApiError::bad_request(format!("the protobuf body of {what} cannot be read: {problem}"))
}

/// `k8s.io/apimachinery/pkg/runtime.Unknown`.
#[derive(Default)]
struct Envelope<'a> {
    api_version: &'a str,
    kind: &'a str,
    raw: &'a [u8],
    encoding: &'a str,
    content_type: &'a str,
}

impl<'a> Envelope<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Problem> {
        let mut envelope = Self::default();
        let mut reader = Reader::new(bytes);
        while let Some((number, value)) = reader.next()? {
            match number {
                1 => {
                    let mut meta = Reader::new(value.bytes()?);
                    while let Some((number, value)) = meta.next()? {
                        match number {
                            1 => envelope.api_version = value.text()?,
                            2 => envelope.kind = value.text()?,
                            _ => {}
                        }
                    }
                }
                2 => envelope.raw = value.bytes()?,
                3 => envelope.encoding = value.text()?,
                4 => envelope.content_type = value.text()?,
                _ => {}
            }
        }
        Ok(envelope)
    }
}

#[cfg(test)]
mod tests;
