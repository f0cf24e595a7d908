//! Objects in their stored form: JSON without `resourceVersion`, which is the entry's revision and is put in when serving.
//!
//! Invariant: a stored object starts with `apiVersion`, `kind` and `metadata`, in this order, so that the place of the
//! resourceVersion is found without parsing and most answers are copies of stored bytes.

use api::status::ApiError;
use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use store::{Entry, Revision};

const METADATA: &[u8] = b"\"metadata\":{";

/// The stored form of an object.
pub(crate) fn encode(object: &Value) -> Result<Bytes, ApiError> {
    let mut text = Vec::with_capacity(512);
    text.push(b'{');
    for field in ["apiVersion", "kind", "metadata"] {
        if text.len() > 1 {
            text.push(b',');
        }
        write(&mut text, &Value::String(field.to_owned()))?;
        text.push(b':');
        if field == "metadata" {
            let mut metadata = object[field].as_object().cloned().unwrap_or_default();
            metadata.remove("resourceVersion");
            write(&mut text, &Value::Object(metadata))?;
        } else {
            write(&mut text, &object[field])?;
        }
    }
    for (field, value) in object.as_object().into_iter().flatten() {
        if !matches!(field.as_str(), "apiVersion" | "kind" | "metadata") {
            text.push(b',');
            write(&mut text, &Value::String(field.clone()))?;
            text.push(b':');
            write(&mut text, value)?;
        }
    }
    text.push(b'}');
    Ok(text.into())
}

fn write(text: &mut Vec<u8>, value: &Value) -> Result<(), ApiError> {
    serde_json::to_writer(text, value).map_err(ApiError::internal)
}

/// The object of a stored value, with its resourceVersion.
pub(crate) fn decode(value: &[u8], revision: Revision) -> Result<Value, ApiError> {
    let mut object: Value = serde_json::from_slice(value).map_err(ApiError::internal)?;
    stamp(&mut object, revision);
    Ok(object)
}

/// The object of an entry.
pub(crate) fn of_entry(entry: &Entry) -> Result<Value, ApiError> {
    decode(&entry.value, entry.revision)
}

/// Sets the resourceVersion.
pub(crate) fn stamp(object: &mut Value, revision: Revision) {
    metadata_mut(object).insert("resourceVersion".to_owned(), revision.to_string().into());
}

/// Appends a stored value with its resourceVersion in it.
pub(crate) fn splice(value: &[u8], revision: Revision, out: &mut Vec<u8>) {
    let place = value.windows(METADATA.len()).position(|window| window == METADATA).map(|start| start + METADATA.len());
    let (head, tail) = value.split_at(place.unwrap_or(0));
    out.extend_from_slice(head);
    if place.is_some() {
        out.extend_from_slice(format!("\"resourceVersion\":\"{revision}\"").as_bytes());
        if tail.first() != Some(&b'}') {
            out.push(b',');
        }
    }
    out.extend_from_slice(tail);
}

/// Appends the `PartialObjectMetadata` of a stored value.
pub(crate) fn splice_partial(value: &[u8], revision: Revision, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\",");
    splice(head(value), revision, out);
    out.push(b'}');
}

/// What a stored value has of metadata, with the field's name.
fn head(value: &[u8]) -> &[u8] {
    let place = value.windows(METADATA.len()).position(|window| window == METADATA);
    let tail = place.map_or(&b"\"metadata\":{}"[..], |start| &value[start..]);
    let name = METADATA.len() - 1;
    // Reads one value and nothing of what follows it.
    let mut values = serde_json::Deserializer::from_slice(&tail[name..]).into_iter::<IgnoredAny>();
    match values.next() {
        Some(Ok(_)) => &tail[..name + values.byte_offset()],
        _ => b"\"metadata\":{}",
    }
}

/// `metadata`, made if it is absent.
pub(crate) fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let metadata = &mut object["metadata"];
    if !metadata.is_object() {
        *metadata = Value::Object(Map::new());
    }
    metadata.as_object_mut().expect("it was made an object above")
}

/// A string field of metadata, empty if absent.
pub(crate) fn meta<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// Whether the object is marked for deletion.
pub(crate) fn is_terminating(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

/// Whether finalizers hold the object.
pub(crate) fn has_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_spliced_is_what_would_be_parsed() {
        let tricky = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "data": { "a": "\"metadata\":{", "metadata": "x" },
            "alpha": { "metadata": { "x": 1 } },
            "metadata": { "name": "c", "resourceVersion": "7", "labels": { "l": "v" } },
        });
        for object in [tricky, json!({ "apiVersion": "v1", "kind": "X" })] {
            let stored = encode(&object).unwrap();
            let mut spliced = Vec::new();
            splice(&stored, Revision(12), &mut spliced);
            let served: Value = serde_json::from_slice(&spliced).unwrap();
            assert_eq!(served, decode(&stored, Revision(12)).unwrap());
            assert_eq!(meta(&served, "resourceVersion"), "12");
        }
    }

    #[test]
    fn the_partial_of_a_stored_value_is_that_of_the_object() {
        let labels = json!({ "name": "c", "labels": { "a": "}\"{" }, "managedFields": [{ "manager": "m" }] });
        for metadata in [labels, json!({}), Value::Null] {
            let stored = encode(&json!({ "apiVersion": "v1", "kind": "X", "metadata": metadata, "spec": {} })).unwrap();
            let mut spliced = Vec::new();
            splice_partial(&stored, Revision(12), &mut spliced);
            let served: Value = serde_json::from_slice(&spliced).unwrap();
            assert_eq!(served, api::table::partial(&decode(&stored, Revision(12)).unwrap()));
        }
    }

    #[test]
    fn the_stored_form_has_no_resource_version() {
        let stored =
            encode(&json!({ "apiVersion": "v1", "kind": "X", "metadata": { "resourceVersion": "7" } })).unwrap();
        assert_eq!(&stored[..], br#"{"apiVersion":"v1","kind":"X","metadata":{}}"#);
    }
}
