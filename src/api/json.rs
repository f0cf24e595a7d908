//! Request bodies to `Value`: strict JSON and YAML with duplicate keys reported.
//!
//! The API server calls it for every body. It knows no types: what a field may hold is the schema's business. Duplicate
//! keys are no error here but reported, because `fieldValidation` decides what they are; the last value wins, as in Go.
//! Depth is limited by the parsers, so no body can exhaust the stack.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

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
pub fn parse(body: &[u8]) -> Result<Parsed, ApiError> {
    let node: Node =
        serde_json::from_slice(body).map_err(|error| ApiError::bad_request(format!("json parse error: {error}")))?;
    Ok(node.into())
}

/// Parses one YAML document (or JSON, which is YAML); 400 if it is none.
pub fn parse_yaml(body: &[u8]) -> Result<Parsed, ApiError> {
    // Octal numbers as YAML 1.1 writes them (file modes), because upstream's reader knows them.
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::LastWins,
        legacy_octal_numbers: true,
        with_snippet: false,
    };
    let node: Node = serde_saphyr::from_slice_with_options(body, options)
        .map_err(|error| ApiError::bad_request(format!("yaml parse error: {error}")))?;
    Ok(node.into())
}

/// A value with the paths of duplicate keys in it, relative to itself.
struct Node {
    value: Value,
    duplicates: Vec<String>,
}

impl From<Node> for Parsed {
    fn from(node: Node) -> Self {
        let duplicates = node.duplicates.iter().map(|path| format!("duplicate field {path:?}")).collect();
        Self { value: node.value, duplicates }
    }
}

impl From<Value> for Node {
    fn from(value: Value) -> Self {
        Self { value, duplicates: Vec::new() }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Value::Null.into())
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Value::Null.into())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Value::Bool(value).into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Value::Number(value.into()).into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Value::Number(value.into()).into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Node, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("a number that JSON does not have"))?;
        Ok(Value::Number(number).into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Value::String(value.to_owned()).into())
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Value::String(value).into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        let mut duplicates = Vec::new();
        while let Some(node) = items.next_element::<Node>()? {
            for path in node.duplicates {
                let dot = if path.starts_with('[') { "" } else { "." };
                duplicates.push(format!("[{}]{dot}{path}", list.len()));
            }
            list.push(node.value);
        }
        Ok(Node { value: Value::Array(list), duplicates })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Map::new();
        let mut duplicates = Vec::new();
        while let Some(key) = entries.next_key::<Node>()? {
            // YAML keys may be numbers or truth values; in JSON they are text, as upstream's converter makes them.
            let key = match key.value {
                Value::String(text) => text,
                Value::Number(number) => number.to_string(),
                Value::Bool(truth) => truth.to_string(),
                _ => return Err(A::Error::custom("an object key must be a string")),
            };
            let node: Node = entries.next_value()?;
            for path in node.duplicates {
                let dot = if path.starts_with('[') { "" } else { "." };
                duplicates.push(format!("{key}{dot}{path}"));
            }
            if map.contains_key(&key) {
                duplicates.push(key.clone());
            }
            map.insert(key, node.value);
        }
        Ok(Node { value: Value::Object(map), duplicates })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn duplicate_keys_are_named_with_their_path_and_the_last_wins() {
        let parsed = parse(br#"{"a": 1, "b": [{"x": {"y": 1, "y": 2}}], "a": 3}"#).unwrap();
        assert_eq!(parsed.value, json!({"a": 3, "b": [{"x": {"y": 2}}]}));
        assert_eq!(parsed.duplicates, [r#"duplicate field "b[0].x.y""#, r#"duplicate field "a""#]);
    }

    #[test]
    fn yaml_reports_duplicates_the_same_way() {
        let parsed = parse_yaml(b"a: 1\nb:\n- x: {z: 1, z: 2}\na: 3\nmode: 0644\nyes: on\n").unwrap();
        assert_eq!(parsed.value["a"], 3);
        assert_eq!(parsed.value["b"], json!([{"x": {"z": 2}}]));
        assert_eq!(parsed.value["mode"], 420);
        assert_eq!(parsed.value["true"], true, "words of YAML 1.1 are truth values, as upstream reads them");
        assert_eq!(parsed.duplicates, [r#"duplicate field "b[0].x.z""#, r#"duplicate field "a""#]);
    }

    #[test]
    fn yaml_reads_json_and_quoted_text_stays_text() {
        let parsed = parse_yaml(br#"{"a": "1", "b": null, "c": [true, 1.5, -3]}"#).unwrap();
        assert_eq!(parsed.value, json!({"a": "1", "b": null, "c": [true, 1.5, -3]}));
    }

    #[test]
    fn what_is_no_json_is_a_bad_request() {
        for body in [&b""[..], b"{", b"{} x", b"\xff", b"nul", &b"[".repeat(100_000)] {
            let error = parse(body).unwrap_err();
            assert_eq!((error.code, error.reason.as_str()), (400, "BadRequest"));
            assert!(error.message.starts_with("json parse error: "), "{}", error.message);
        }
        assert_eq!(parse_yaml(b"a: [").unwrap_err().code, 400);
        assert_eq!(parse_yaml(&b"[".repeat(100_000)).unwrap_err().code, 400);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&body);
            let _ = parse_yaml(&body);
        }
    }
}
