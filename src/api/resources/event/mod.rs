//! Events, in both groups: `v1` is stored, `events.k8s.io/v1` made of it.

mod v1;

pub(super) use v1::ROW as V1;

use jiff::Timestamp;
use serde_json::Value;

use super::cell::{self, column};
use super::path::{Path, text};
use super::{BLANK, Dependents, Field, Resource, WriteBehind, rule};
use crate::status::FieldError;

/// `events`.
pub(super) const ROW: Resource = Resource {
    kind: "Event",
    list_kind: "EventList",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    validate,
    validate_update,
    create_on_update: true,
    write_behind: WriteBehind::Always,
    dependents: Dependents::None,
    columns: &[
        column("Last Seen", "string", "", "When it last happened.", 0),
        column("Type", "string", "", "Normal or Warning.", 0),
        column("Reason", "string", "", "Why, in one word.", 0),
        column("Object", "string", "", "What it is about.", 0),
        column("Subobject", "string", "", "The part of the object that it is about.", 1),
        column("Source", "string", "", "Who reported it.", 1),
        column("Message", "string", "", "What happened, for people.", 0),
        column("First Seen", "string", "", "When it first happened.", 1),
        column("Count", "string", "", "How often it has happened.", 1),
        column("Name", "string", "name", "Name of the event itself.", 1),
    ],
    cells,
    selectable: SELECTABLE,
    ..BLANK
};

const SELECTABLE: &[(&str, Field)] = &[
    ("involvedObject.kind", |event| text(&event["involvedObject"], "kind").to_owned()),
    ("involvedObject.namespace", |event| text(&event["involvedObject"], "namespace").to_owned()),
    ("involvedObject.name", |event| text(&event["involvedObject"], "name").to_owned()),
    ("involvedObject.uid", |event| text(&event["involvedObject"], "uid").to_owned()),
    ("involvedObject.apiVersion", |event| text(&event["involvedObject"], "apiVersion").to_owned()),
    ("involvedObject.resourceVersion", |event| text(&event["involvedObject"], "resourceVersion").to_owned()),
    ("involvedObject.fieldPath", |event| text(&event["involvedObject"], "fieldPath").to_owned()),
    ("reason", |event| text(event, "reason").to_owned()),
    ("reportingComponent", |event| text(event, "reportingComponent").to_owned()),
    ("source", |event| either(text(&event["source"], "component"), text(event, "reportingComponent")).to_owned()),
    ("type", |event| text(event, "type").to_owned()),
];

fn either<'a>(first: &'a str, second: &'a str) -> &'a str {
    if first.is_empty() { second } else { first }
}

fn cells(event: &Value, now: Timestamp) -> Vec<Value> {
    let object = &event["involvedObject"];
    let series = &event["series"];
    let first = cell::since(either(text(event, "firstTimestamp"), text(event, "eventTime")), now);
    let (last, count) = if series.is_object() {
        (cell::since(text(series, "lastObservedTime"), now), series["count"].as_i64().unwrap_or(0))
    } else {
        let last = text(event, "lastTimestamp");
        let last = if last.is_empty() { first.clone() } else { cell::since(last, now) };
        (last, event["count"].as_i64().filter(|count| *count != 0).unwrap_or(1))
    };
    let kind = text(object, "kind").to_lowercase();
    let name = text(object, "name");
    let target = if name.is_empty() { kind } else { format!("{kind}/{name}") };
    vec![
        last.into(),
        text(event, "type").into(),
        text(event, "reason").into(),
        target.into(),
        text(object, "fieldPath").into(),
        source(event).into(),
        text(event, "message").trim().into(),
        first.into(),
        count.into(),
        cell::name(event),
    ]
}

fn source(event: &Value) -> String {
    let component = either(text(&event["source"], "component"), text(event, "reportingComponent"));
    let host = either(text(&event["source"], "host"), text(event, "reportingInstance"));
    if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") }
}

/// An event lives in the namespace of its object, or in `default` if that has none. Those with `eventTime` come from
/// newer clients and must say more (`pkg/apis/core/validation/events.go`, `legacyValidateEvent`).
fn validate(event: &Value) -> Vec<FieldError> {
    check(event, "reportingComponent")
}

/// Checks an event in its stored form; `reporter` is the word of its version for who reports.
fn check(event: &Value, reporter: &str) -> Vec<FieldError> {
    let own = text(&event["metadata"], "namespace");
    let object = text(&event["involvedObject"], "namespace");
    let is_new = !text(event, "eventTime").is_empty();
    let fits = if is_new {
        !object.is_empty() || own == "default" || own == "kube-system"
    } else if object.is_empty() {
        own == "default"
    } else {
        own == object
    };
    let mut errors = Vec::new();
    if !fits {
        errors.push(FieldError::invalid("involvedObject.namespace", &object.into(), "does not match event.namespace"));
    }
    if !is_new {
        return errors;
    }
    let component = Path::new(reporter);
    errors.extend(rule::not_empty(&component, text(event, "reportingComponent")));
    errors.extend(rule::qualified(&component, text(event, "reportingComponent")));
    for field in ["reportingInstance", "action", "reason"] {
        let (path, value) = (Path::new(field), text(event, field));
        errors.extend(rule::not_empty(&path, value));
        errors.extend(at_most(&path, value, 128));
    }
    errors.extend(at_most(&Path::new("message"), text(event, "message"), 1024));
    errors
}

fn at_most(path: &Path, value: &str, limit: usize) -> Option<FieldError> {
    let detail = format!("can have at most {limit} characters");
    (value.len() > limit).then(|| FieldError::invalid(path, &"".into(), &detail))
}

fn validate_update(new: &Value, _old: &Value) -> Vec<FieldError> {
    validate(new)
}
