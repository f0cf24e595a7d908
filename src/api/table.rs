//! Server-side tables (`meta.k8s.io/v1 Table`), which kubectl asks for whenever it prints, and partial metadata objects.
//!
//! Cells come from the resource table. Ages are computed here, by the server's clock, as upstream does.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::resources::Resource;

/// What each row carries besides its cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// A `PartialObjectMetadata`.
    #[default]
    Metadata,
    /// The whole object.
    Object,
}

impl IncludeObject {
    /// The value of the query parameter `includeObject`; none if it is not a known word.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "None" => Some(Self::None),
            "" | "Metadata" => Some(Self::Metadata),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

/// A table of a list, or of one object; `metadata` is that of the list or object (resourceVersion, continue …).
pub fn render(resource: &Resource, items: &[Value], now: Timestamp, include: IncludeObject, metadata: &Value) -> Value {
    let rows = items.iter().map(|item| row(resource, item, now, include)).collect();
    table(definitions(resource), rows, metadata)
}

/// The table of one event of a watch; only the first one of a watch carries the columns.
pub fn render_event(
    resource: &Resource,
    item: &Value,
    now: Timestamp,
    include: IncludeObject,
    is_first: bool,
) -> Value {
    let columns = if is_first { definitions(resource) } else { Value::Null };
    table(columns, vec![row(resource, item, now, include)], &item["metadata"])
}

/// An object's `PartialObjectMetadata`.
pub fn partial(item: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": item["metadata"]})
}

/// The `PartialObjectMetadataList` of a list.
pub fn partial_list(items: &[Value], metadata: &Value) -> Value {
    let items: Vec<Value> = items.iter().map(partial).collect();
    let metadata = list_metadata(metadata);
    json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items})
}

fn table(columns: Value, rows: Vec<Value>, metadata: &Value) -> Value {
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": list_metadata(metadata),
        "columnDefinitions": columns,
        "rows": rows,
    })
}

/// The fields that a `ListMeta` has, also when they come from an object.
fn list_metadata(metadata: &Value) -> Value {
    let fields = ["resourceVersion", "continue", "remainingItemCount"];
    let said = fields.into_iter().filter(|field| !metadata[field].is_null());
    Value::Object(said.map(|field| (field.to_owned(), metadata[field].clone())).collect::<Map<_, _>>())
}

fn definitions(resource: &Resource) -> Value {
    resource.table_columns()
}

fn row(resource: &Resource, item: &Value, now: Timestamp, include: IncludeObject) -> Value {
    let mut row = json!({"cells": resource.table_cells(item, now)});
    if let Some(condition) = (resource.completion)(item) {
        row["conditions"] = json!([condition]);
    }
    match include {
        IncludeObject::None => row["object"] = Value::Null,
        IncludeObject::Metadata => row["object"] = partial(item),
        IncludeObject::Object => row["object"] = item.clone(),
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;
    use crate::resources::find;

    fn pod() -> Value {
        json!({
            "kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": "web", "resourceVersion": "7", "creationTimestamp": "2026-01-02T03:00:00Z"},
            "spec": {"containers": [{"name": "web"}]},
            "status": {"phase": "Succeeded"},
        })
    }

    fn rendered(include: IncludeObject) -> Value {
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        let metadata = json!({"resourceVersion": "9", "continue": "x", "remainingItemCount": 3, "name": "no"});
        render(find("", "v1", "pods").unwrap(), &[pod()], now, include, &metadata)
    }

    #[test]
    fn a_list_has_columns_rows_and_the_list_metadata() {
        golden::check("table/pods.json", &rendered(IncludeObject::Metadata));
    }

    #[test]
    fn rows_carry_as_much_of_the_object_as_was_asked_for() {
        assert_eq!(rendered(IncludeObject::None)["rows"][0]["object"], Value::Null);
        assert_eq!(rendered(IncludeObject::Object)["rows"][0]["object"], pod());
        assert_eq!(IncludeObject::parse(""), Some(IncludeObject::Metadata));
        assert_eq!(IncludeObject::parse("Everything"), None);
    }

    #[test]
    fn only_the_first_event_of_a_watch_has_columns() {
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        let pods = find("", "v1", "pods").unwrap();
        let first = render_event(pods, &pod(), now, IncludeObject::None, true);
        let next = render_event(pods, &pod(), now, IncludeObject::None, false);
        assert_eq!(first["columnDefinitions"].as_array().map(Vec::len), Some(9));
        assert_eq!(next["columnDefinitions"], Value::Null);
        assert_eq!(next["metadata"], json!({"resourceVersion": "7"}));
    }

    #[test]
    fn an_empty_list_still_has_columns() {
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        let table = render(find("", "v1", "nodes").unwrap(), &[], now, IncludeObject::None, &json!({}));
        assert_eq!(table["rows"], json!([]));
        assert_eq!(table["columnDefinitions"][0]["format"], "name");
    }
}
