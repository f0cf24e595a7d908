//! Managed fields and applied configurations.
//!
//! The input is a JSON object with `apiVersion`, `kind`, `live`, `configuration` and `fields`, which is one `FieldsV1`.

use api::managed::{ApplyError, RowKind, Set, Writer, apply, update};
use api::resources;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::memory::{Bound, bounded};

pub(crate) const WORDS: &[&str] = &[
    "\"f:spec\":{",
    "\"f:metadata\":{\"f:labels\":{\".\":{},",
    "\"k:{\\\"name\\\":\\\"c\\\"}\":{\".\":{},",
    "\"v:\\\"a\\\"\":{}",
    "\"v:1\":{}",
    "\"i:0\":{}",
    "\".\":{}",
    "\"x:?\":{}",
    "\"managedFields\":[",
    "{\"manager\":\"m\",\"operation\":\"Apply\",\"apiVersion\":\"v1\",\"fieldsType\":\"FieldsV1\",\"fieldsV1\":{",
    "\"operation\":\"Update\"",
    "\"subresource\":\"status\"",
    "\"containers\":[",
    "\"containerPort\":80",
    "\"protocol\":\"UDP\"",
    "\"name\":\"c\"",
    "\"finalizers\":[\"a/b\",",
    "\"data\":{",
    "\"uid\":\"1\"",
    "null",
    "1.5e3",
];

const BOUND: Bound = Bound { base: 4 << 20, held: 2048, ever: 64 << 10 };

pub(crate) fn check(data: &[u8]) {
    let Ok(case) = api::json::parse(data) else { return };
    let case = case.value;
    if let Ok(set) = bounded(data.len(), BOUND, || Set::from_fields(&case["fields"])) {
        let fields = set.to_fields();
        let again = Set::from_fields(&fields).expect("what was written can be read");
        // Numbers with a fraction lose digits when they are read.
        assert!(again == set || fields.to_string().contains(['.', 'e']), "another set when read again: {fields}");
        assert!(set.clone().difference(&set).is_empty() && set.intersection(&set) == set, "{fields}");
    }
    let (version, kind) = (case["apiVersion"].as_str().unwrap_or("v1"), case["kind"].as_str().unwrap_or("Pod"));
    let (group, short) = version.rsplit_once('/').unwrap_or(("", version));
    let Some(row) = resources::find_kind(group, short, kind) else { return };
    let (live, kind) = (&case["live"], RowKind::new(row, ""));
    // What is stored was decoded.
    let mut live = if live.is_object() { live.clone() } else { json!({}) };
    if let Some(ty) = api::schema::lookup(group, short, row.kind)
        && api::schema::decode(ty, &mut live).is_err()
    {
        return;
    }
    let writer = Writer { name: "fuzz", subresource: "", now: Timestamp::UNIX_EPOCH };
    let applied = bounded(data.len(), BOUND, || apply(&kind, &live, &case["configuration"], &writer, true));
    match applied {
        Ok(object) => settles(&kind, &object, &case["configuration"], &writer),
        Err(ApplyError::Malformed(text)) => assert!(!text.is_empty(), "a reason is told"),
        Err(ApplyError::Conflicts(error)) => panic!("with force there are no conflicts: {error}"),
    }
    let mut new = live.clone();
    bounded(data.len(), BOUND, || update(&kind, &live, &mut new, &writer));
    let entries = new["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let updates = entries.iter().filter(|entry| entry["operation"] == "Update").count();
    assert!(updates <= 11, "{updates} managers by update");
}

/// Applying the same again needs no force and takes nothing from anybody.
fn settles(kind: &RowKind, object: &Value, configuration: &Value, writer: &Writer<'_>) {
    let Ok(again) = apply(kind, object, configuration, writer, false) else {
        panic!("what was applied cannot be applied again: {object}");
    };
    let twice = apply(kind, &again, configuration, writer, false);
    assert!(twice.is_ok_and(|twice| twice == again), "an object that does not settle: {again}");
}
