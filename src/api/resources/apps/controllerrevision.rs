//! ControllerRevisions: what a DaemonSet or StatefulSet was, for rollbacks.

use jiff::Timestamp;
use serde_json::Value;

use crate::resources::cell::{self, column};
use crate::resources::path::{Path, items, number, present, text};
use crate::resources::{BLANK, Resource, rule};
use crate::status::FieldError;

/// `controllerrevisions.apps`.
pub(in crate::resources) const ROW: Resource = Resource {
    group: "apps",
    kind: "ControllerRevision",
    list_kind: "ControllerRevisionList",
    plural: "controllerrevisions",
    singular: "controllerrevision",
    validate,
    validate_update,
    columns: &[
        cell::NAME,
        column("Controller", "string", "", "What it is a state of.", 0),
        column("Revision", "integer", "", "Its place in the history.", 0),
        cell::AGE,
    ],
    cells,
    ..BLANK
};

/// Upstream finds kind and group of the owner in its scheme; here they are written as the reference says them.
fn cells(revision: &Value, now: Timestamp) -> Vec<Value> {
    let owner = items(&revision["metadata"], "ownerReferences").iter().find(|owner| owner["controller"] == true);
    let controller = owner.map_or_else(
        || "<none>".to_owned(),
        |owner| {
            let kind = text(owner, "kind").to_lowercase();
            match text(owner, "apiVersion").split_once('/') {
                Some((group, _)) => format!("{kind}.{group}/{}", text(owner, "name")),
                None => format!("{kind}/{}", text(owner, "name")),
            }
        },
    );
    vec![cell::name(revision), controller.into(), number(revision, "revision").into(), cell::age(revision, now)]
}

fn validate(revision: &Value) -> Vec<FieldError> {
    let missing = (!present(revision, "data")).then(|| FieldError::required("data", "data is mandatory"));
    let negative = rule::not_negative(&Path::new("revision"), &revision["revision"]);
    missing.into_iter().chain(negative).collect()
}

fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = validate(new);
    errors.extend(rule::immutable("data", &new["data"], &old["data"]));
    errors
}
