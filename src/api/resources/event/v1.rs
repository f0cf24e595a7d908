//! Events as newer clients write and read them (`events.k8s.io/v1`): other words for the same fields, and stricter rules.
//!
//! Follows `pkg/apis/events/v1/conversion.go` and `pkg/apis/core/validation/events.go` of upstream.

use serde_json::{Map, Value};

use super::check;
use crate::resources::path::{Path, present, text};
use crate::resources::{Conversion, Field, Resource, rule};
use crate::status::FieldError;

/// Fields under both names: here, and as they are stored.
const NAMES: [(&str, &str); 7] = [
    ("deprecatedCount", "count"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedSource", "source"),
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("reportingController", "reportingComponent"),
];

/// `events.events.k8s.io`; cells are those of the stored form.
pub(in crate::resources) const ROW: Resource = Resource {
    group: "events.k8s.io",
    conversion: Some(Conversion {
        stored: &super::ROW,
        to_stored: |event| rename(event, |(own, stored)| (own, stored)),
        from_stored: |event| rename(event, |(own, stored)| (stored, own)),
    }),
    validate,
    validate_update,
    cells: |event, now| (super::ROW.cells)(&stored(event), now),
    selectable: SELECTABLE,
    ..super::ROW
};

const SELECTABLE: &[(&str, Field)] = &[
    ("regarding.kind", |event| text(&event["regarding"], "kind").to_owned()),
    ("regarding.namespace", |event| text(&event["regarding"], "namespace").to_owned()),
    ("regarding.name", |event| text(&event["regarding"], "name").to_owned()),
    ("regarding.uid", |event| text(&event["regarding"], "uid").to_owned()),
    ("regarding.apiVersion", |event| text(&event["regarding"], "apiVersion").to_owned()),
    ("regarding.resourceVersion", |event| text(&event["regarding"], "resourceVersion").to_owned()),
    ("regarding.fieldPath", |event| text(&event["regarding"], "fieldPath").to_owned()),
    ("reason", |event| text(event, "reason").to_owned()),
    ("reportingController", |event| text(event, "reportingController").to_owned()),
    ("type", |event| text(event, "type").to_owned()),
];

/// Gives fields their other names and leaves the rest alone.
fn rename(event: &mut Value, direction: fn((&'static str, &'static str)) -> (&'static str, &'static str)) {
    let Some(map) = event.as_object_mut() else { return };
    let names = NAMES.map(direction);
    let renamed = std::mem::take(map).into_iter().map(|(key, value)| {
        let other = names.iter().find(|(from, _)| *from == key).map(|(_, to)| (*to).to_owned());
        (other.unwrap_or(key), value)
    });
    *map = renamed.collect::<Map<String, Value>>();
}

fn stored(event: &Value) -> Value {
    let mut event = event.clone();
    rename(&mut event, |(own, stored)| (own, stored));
    event
}

fn validate(event: &Value) -> Vec<FieldError> {
    let event = stored(event);
    let mut errors = check(&event, "reportingController");
    if !present(&event, "eventTime") {
        errors.push(FieldError::required("eventTime", ""));
    }
    let kind = text(&event, "type");
    if !matches!(kind, "Normal" | "Warning") {
        let detail = format!("has invalid value: {kind}");
        errors.push(FieldError::invalid("type", &"".into(), &detail));
    }
    for field in ["firstTimestamp", "lastTimestamp", "count", "source"] {
        let is_set = match &event[field] {
            Value::Null => false,
            Value::Number(number) => number.as_i64() != Some(0),
            Value::Object(fields) => !fields.is_empty(),
            _ => true,
        };
        if is_set {
            errors.push(FieldError::invalid(field, &"".into(), "needs to be unset"));
        }
    }
    errors
}

/// Nothing may change but how often it has happened since.
fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let (new, old) = (stored(new), stored(old));
    let mut errors = check(&new, "reportingController");
    let series = &new["series"];
    if *series != old["series"] && !series.is_null() {
        if series["count"].as_i64().unwrap_or(0) < 2 {
            errors.push(FieldError::invalid("series.count", &"".into(), "should be at least 2"));
        }
        errors.extend(rule::not_empty(&Path::new("series.lastObservedTime"), text(series, "lastObservedTime")));
    }
    let fixed = [
        ("involvedObject", "involvedObject"),
        ("reason", "reason"),
        ("message", "message"),
        ("source", "source"),
        ("firstTimestamp", "firstTimestamp"),
        ("lastTimestamp", "lastTimestamp"),
        ("count", "count"),
        ("type", "type"),
        ("eventTime", "eventTime"),
        ("action", "action"),
        ("related", "related"),
        ("reportingComponent", "reportingController"),
        ("reportingInstance", "reportingInstance"),
    ];
    errors.extend(fixed.into_iter().flat_map(|(field, shown)| rule::immutable(shown, &new[field], &old[field])));
    errors
}
