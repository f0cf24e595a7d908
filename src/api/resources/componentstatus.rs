//! ComponentStatuses: how the parts of the control plane are, told by the server and stored by nobody.
//!
//! Follows `pkg/registry/core/componentstatus` and `printComponentStatus` of upstream, where the kind is deprecated for
//! want of a way to reach components that run elsewhere.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cell::{self, column};
use super::path::{items, text};
use super::{BLANK, Resource, Verb};

/// `componentstatuses`.
pub(super) const ROW: Resource = Resource {
    kind: "ComponentStatus",
    list_kind: "ComponentStatusList",
    plural: "componentstatuses",
    singular: "componentstatus",
    short_names: &["cs"],
    namespaced: false,
    verbs: &[Verb::Get, Verb::List],
    deprecation: "v1 ComponentStatus is deprecated in v1.19+",
    columns: &[
        cell::NAME,
        column("Status", "string", "", "Whether it works.", 0),
        column("Message", "string", "", "What it says of itself.", 0),
        column("Error", "string", "", "Why it cannot be asked or does not work.", 0),
    ],
    cells,
    ..BLANK
};

fn cells(object: &Value, _: Timestamp) -> Vec<Value> {
    let condition = items(object, "conditions").iter().find(|condition| text(condition, "type") == "Healthy");
    let field = |name: &str| condition.map_or("", |condition| text(condition, name));
    let status = match condition.map(|condition| text(condition, "status")) {
        None => "Unknown",
        Some("True") => "Healthy",
        Some(_) => "Unhealthy",
    };
    vec![cell::name(object), status.into(), field("message").into(), field("error").into()]
}

/// The status of a component; the error is why it does not work.
pub fn status(name: &str, result: Result<(), String>) -> Value {
    let condition = match result {
        Ok(()) => json!({ "type": "Healthy", "status": "True", "message": "ok" }),
        Err(error) => json!({ "type": "Healthy", "status": "False", "error": error }),
    };
    json!({
        "kind": "ComponentStatus", "apiVersion": "v1", "metadata": { "name": name, "creationTimestamp": null },
        "conditions": [condition],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_is_known() {
        let row = |object: Value| Value::from(cells(&object, Timestamp::UNIX_EPOCH));
        assert_eq!(row(status("scheduler", Ok(()))), json!(["scheduler", "Healthy", "ok", ""]));
        assert_eq!(row(status("etcd-0", Err("x".to_owned()))), json!(["etcd-0", "Unhealthy", "", "x"]));
        assert_eq!(row(json!({ "metadata": { "name": "y" } })), json!(["y", "Unknown", "", ""]));
    }
}
