//! Printer columns (`pkg/registry/customresource/tableconvertor` of apiextensions).

use jiff::Timestamp;
use serde_json::{Value, json};

use super::jsonpath::JsonPath;
use crate::resources::cell;
use crate::resources::path::{items, number, text};

const NAME: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources \
    may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for \
    creation idempotence and configuration definition. Cannot be updated. More info: \
    https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";
const CREATED: &str = "CreationTimestamp is a timestamp representing the server time when this object was created.";

/// One column.
#[derive(Debug)]
pub(super) struct PrinterColumn {
    definition: Value,
    kind: String,
    path: JsonPath,
}

/// The columns that a version declares, or its age.
pub(super) fn read(declared: &Value) -> Vec<PrinterColumn> {
    let declared = items(declared, "additionalPrinterColumns");
    if declared.is_empty() {
        let age =
            json!({"name": "Age", "type": "date", "description": CREATED, "jsonPath": ".metadata.creationTimestamp"});
        return column(&age).into_iter().collect();
    }
    declared.iter().filter_map(column).collect()
}

fn column(declared: &Value) -> Option<PrinterColumn> {
    let definition = json!({
        "name": text(declared, "name"), "type": text(declared, "type"), "format": text(declared, "format"),
        "description": match text(declared, "description") {
            "" => format!("Custom resource definition column (in JSONPath format): {}", text(declared, "jsonPath")),
            description => description.to_owned(),
        },
        "priority": number(declared, "priority"),
    });
    let path = JsonPath::parse(text(declared, "jsonPath")).ok()?;
    Some(PrinterColumn { definition, kind: text(declared, "type").to_owned(), path })
}

/// The columns as a table describes them.
pub(super) fn definitions(columns: &[PrinterColumn]) -> Vec<Value> {
    let name = json!({"name": "Name", "type": "string", "format": "name", "description": NAME, "priority": 0});
    std::iter::once(name).chain(columns.iter().map(|column| column.definition.clone())).collect()
}

/// The cells of an object; nothing where there is nothing.
pub(super) fn cells(columns: &[PrinterColumn], object: &Value, now: Timestamp) -> Vec<Value> {
    let own = columns.iter().map(|column| {
        let found = column.path.find(object);
        let Some(first) = found.first() else { return Value::Null };
        match (column.kind.as_str(), first) {
            ("string", _) => found.iter().map(|value| shown(value)).collect::<Vec<_>>().join(" ").into(),
            ("integer", Value::Number(number)) => whole(number),
            ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => (*first).clone(),
            ("date", Value::String(stamp)) => match stamp.parse::<Timestamp>() {
                Ok(_) => cell::since(stamp, now).into(),
                Err(_) => "<invalid>".into(),
            },
            _ => Value::Null,
        }
    });
    std::iter::once(cell::name(object)).chain(own).collect()
}

fn whole(number: &serde_json::Number) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "upstream cuts off what is behind the point as well")]
    let cut = || number.as_f64().map(|float| float as i64);
    number.as_i64().or_else(cut).map_or(Value::Null, Value::from)
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<nil>".to_owned(),
        other => other.to_string(),
    }
}
