//! Request bodies to `Value`: strict JSON and YAML with duplicate keys reported.
//!
//! The API server calls it for every body. It knows no types: what a field may hold is the schema's business. Duplicate
//! keys are no error here but reported, because `fieldValidation` decides what they are; the last value wins, as in Go.
//! Depth is limited, by the parsers while they read and more narrowly here, so no body can exhaust the stack and what
//! was accepted can be read again.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::status::ApiError;

/// Deepest nesting of an object. The parser that reads stored objects and lists of them stops at 128.
pub const MAX_DEPTH: usize = 100;
/// No more duplicate keys are reported, as upstream's reader (`sigs.k8s.io/json`) reports no more errors than that.
const MAX_DUPLICATES: usize = 100;
/// No more of a key is shown in reports: a long one would be repeated in each.
const SHOWN_KEY: usize = 256;

/// Values that YAML's aliases may repeat: three hundred bytes of aliases of aliases could stand for a million.
const MAX_REPLAYED: usize = 20_000;

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
    check_depth(&node.value)?;
    Ok(node.into())
}

/// Parses one YAML document (or JSON, which is YAML); 400 if it is none.
pub fn parse_yaml(body: &[u8]) -> Result<Parsed, ApiError> {
    // Octal numbers as YAML 1.1 writes them (file modes), because upstream's reader knows them.
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::LastWins,
        legacy_octal_numbers: true,
        with_snippet: false,
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_REPLAYED,
        },
    };
    let node: Node = serde_saphyr::from_slice_with_options(body, options)
        .map_err(|error| ApiError::bad_request(format!("yaml parse error: {error}")))?;
    check_depth(&node.value)?;
    Ok(node.into())
}

/// A value as a YAML document.
pub fn to_yaml(value: &Value) -> Result<String, ApiError> {
    serde_saphyr::to_string(value).map_err(ApiError::internal)
}

/// What upstream's YAML reader says of a document with duplicate keys, of which the first is shown; none if it has none.
pub fn duplicate_key(body: &[u8], duplicates: &[String]) -> Option<String> {
    let first = duplicates.first()?;
    let path = first.trim_start_matches("duplicate field ").trim_matches('"');
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::Error,
        legacy_octal_numbers: true,
        with_snippet: false,
    };
    let found = serde_saphyr::from_slice_with_options::<Node>(body, options).err()?;
    let line = found.location().map_or(0, |location| location.line());
    let key = path.rsplit('.').next().unwrap_or(path);
    Some(format!(
        "error converting YAML to JSON: yaml: unmarshal errors:\n  line {line}: key {key:?} already set in map"
    ))
}

/// 400 if a value is nested deeper than an object may be.
pub(crate) fn check_depth(value: &Value) -> Result<(), ApiError> {
    if depth(value) <= MAX_DEPTH {
        return Ok(());
    }
    Err(ApiError::bad_request(format!("the object is nested too deep: more than {MAX_DEPTH} levels")))
}

/// How deep a value is nested; 0 if it holds no others. It takes no stack.
pub(crate) fn depth(value: &Value) -> usize {
    let mut deepest = 0;
    let mut open = vec![(value, 0)];
    while let Some((value, depth)) = open.pop() {
        deepest = deepest.max(depth);
        match value {
            Value::Array(items) => open.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(fields) => open.extend(fields.values().map(|field| (field, depth + 1))),
            _ => {}
        }
    }
    deepest
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

/// Puts a step before the paths of duplicates that were found below it.
fn report_below(step: &str, found: Vec<String>, duplicates: &mut Vec<String>) {
    for path in found.into_iter().take(MAX_DUPLICATES - duplicates.len().min(MAX_DUPLICATES)) {
        let dot = if path.starts_with('[') { "" } else { "." };
        duplicates.push(format!("{step}{dot}{path}"));
    }
}

/// A key as reports show it.
fn shown(key: &str) -> String {
    match key.char_indices().nth(SHOWN_KEY) {
        Some((end, _)) => format!("{}…", &key[..end]),
        None => key.to_owned(),
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
            report_below(&format!("[{}]", list.len()), node.duplicates, &mut duplicates);
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
            report_below(&shown(&key), node.duplicates, &mut duplicates);
            if map.contains_key(&key) && duplicates.len() < MAX_DUPLICATES {
                // A key that stands there a third time is no other problem.
                let path = shown(&key);
                if !duplicates.contains(&path) {
                    duplicates.push(path);
                }
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
    fn yaml_reads_back_as_what_it_was() {
        let texts = [
            "",
            "yes",
            "n",
            "true",
            "null",
            "~",
            "1",
            "0o7",
            "0777",
            "1e3",
            "a: b",
            "- x",
            "#c",
            " s ",
            "a\nb\n",
            "\t",
            "ü",
            "{}",
            "'",
            "\"",
            "2026-01-02",
            "0x1f",
            ".inf",
            "1:30",
            "=",
            "<<",
            "\r\n",
            "x\n ",
            "\u{85}",
            "---",
            "%a",
            "@b",
        ];
        let names: Map<String, Value> = texts.iter().map(|text| ((*text).to_owned(), Value::Null)).collect();
        let value = serde_json::json!({
            "texts": texts, "names": names, "truth": [true, false], "empty": [{}, [], ""],
            "numbers": [0, -1, 1.5, 9_007_199_254_740_993_i64],
        });
        let text = to_yaml(&value).unwrap();
        assert_eq!(parse_yaml(text.as_bytes()).unwrap().value, value, "{text}");
    }

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

    #[test]
    fn duplicates_are_told_once_and_a_hundred_at_most_with_their_keys_shortened() {
        assert_eq!(parse(br#"{"a": 1, "a": 2, "a": 3}"#).unwrap().duplicates, [r#"duplicate field "a""#]);
        let pairs: Vec<String> = (0..1000).map(|number| format!(r#""{number}":1,"{number}":2"#)).collect();
        let body = format!(r#"{{"{}":[{{{}}}]}}"#, "k".repeat(100_000), pairs.join(","));
        let duplicates = parse(body.as_bytes()).unwrap().duplicates;
        assert_eq!(duplicates.len(), MAX_DUPLICATES);
        assert!(duplicates[99].ends_with("k…[0].99\"") && duplicates[99].len() < 300, "{}", duplicates[99]);
    }

    #[test]
    fn aliases_do_not_make_much_of_little() {
        let text = "x".repeat(100_000);
        let aliases = "*a,".repeat(2000);
        assert_eq!(parse_yaml(format!("a: &a {text}\nb: [{aliases}]\n").as_bytes()).unwrap_err().code, 400);
        let few = parse_yaml(b"a: &a {x: [1, 2]}\nb: *a\nc: [*a, *a]\n").unwrap().value;
        assert_eq!((&few["b"], &few["c"][1]), (&few["a"], &few["a"]));
    }

    #[test]
    fn what_could_not_be_read_from_the_store_again_is_refused() {
        let nested = |depth: usize| format!("{}1{}", r#"{"a":["#.repeat(depth / 2), "]}".repeat(depth / 2));
        assert_eq!(parse(nested(MAX_DEPTH).as_bytes()).map(drop), Ok(()));
        // The parser of YAML has a lower limit of its own.
        assert_eq!(parse_yaml(nested(60).as_bytes()).map(drop), Ok(()));
        assert_eq!(parse(nested(MAX_DEPTH + 2).as_bytes()).unwrap_err().code, 400);
        for depth in [MAX_DEPTH + 2, 200, 1000, 10_000] {
            assert_eq!(parse_yaml(nested(depth).as_bytes()).unwrap_err().code, 400);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&body);
            let _ = parse_yaml(&body);
        }
    }
}
