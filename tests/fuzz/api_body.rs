//! Bodies of requests in JSON and YAML, and their decoding by type.

use api::{json, schema};
use serde_json::Value;

use crate::memory::{Bound, bounded};

pub(crate) const WORDS: &[&str] = &[
    "\"apiVersion\":\"v1\"",
    "\"kind\":\"Pod\"",
    "\"metadata\":",
    "\"spec\":",
    "\"containers\":",
    "\"creationTimestamp\":",
    "\"fieldsV1\":",
    "\"managedFields\":[",
    "\"2024-01-02T03:04:05.678901+02:00\"",
    "\"resources\":{\"limits\":{\"cpu\":\"1e-3\"}}",
    "null",
    "0644",
    "1e999",
    "-0",
    "\\ud83d\\ude00",
    "\\u0000",
    "[[[[[[[[",
    "{\"a\":{\"a\":",
    "&a ",
    "*a",
    "<<: *a",
    "!!binary ",
    "---\n",
    "? ",
    "- ",
    "|\n",
    ">-\n",
    ": ",
    "~",
    "yes",
    ".inf",
];

/// A value of two bytes is some forty in memory; the parser of YAML keeps its tokens as well.
const JSON: Bound = Bound { base: 256 << 10, held: 128, ever: 512 };
const YAML: Bound = Bound { base: 4 << 20, held: 1024, ever: 16 << 10 };
/// Most duplicate keys, and most unknown fields, that are told.
const TOLD: usize = 100;

pub(crate) fn check(data: &[u8]) {
    let of_json = bounded(data.len(), JSON, || json::parse(data));
    let of_yaml = bounded(data.len(), YAML, || json::parse_yaml(data));
    for parsed in [of_json, of_yaml] {
        match parsed {
            Ok(parsed) => accepted(parsed),
            Err(error) => assert!(error.code == 400 && !error.message.is_empty(), "{error:?}"),
        }
    }
}

fn accepted(parsed: json::Parsed) {
    let json::Parsed { mut value, duplicates } = parsed;
    assert!(duplicates.len() <= TOLD, "{} duplicate keys are told", duplicates.len());
    assert_eq!(stored(&value), value, "the value is another when read again");
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text("apiVersion"), text("kind"));
    let (group, version) = version.rsplit_once('/').unwrap_or(("", &version));
    let Some(ty) = schema::lookup(group, version, &kind) else { return };
    let length = value.to_string().len();
    match bounded(length, JSON, || schema::decode(ty, &mut value)) {
        Ok(unknown) => {
            assert!(unknown.len() <= TOLD, "{} unknown fields are told", unknown.len());
            let mut again = stored(&value);
            let unknown = schema::decode(ty, &mut again).expect("what was decoded is of its type");
            assert_eq!((unknown, &again), (Vec::new(), &value), "decoding twice is another thing than once");
        }
        Err(error) => assert!(error.code == 400 && !error.message.is_empty(), "{error:?}"),
    }
}

/// The value as the store gives it back, which is JSON within a list.
pub(crate) fn stored(value: &Value) -> Value {
    let text = serde_json::to_string(&[&[value]]).expect("every value can be written");
    let mut read: Value = serde_json::from_str(&text).expect("every value can be read again, also in a list");
    read[0][0].take()
}
