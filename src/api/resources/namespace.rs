//! Namespaces.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cell::{self, column};
use super::path::{Path, ensure_object, items, put, text};
use super::{BLANK, NameRule, Resource, STATUS_VERBS, Subresource, Verb, rule};
use crate::status::FieldError;

const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// `namespaces`.
pub(super) const ROW: Resource = Resource {
    kind: "Namespace",
    list_kind: "NamespaceList",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    namespaced: false,
    name_rule: NameRule::Label,
    verbs: &[Verb::Create, Verb::Delete, Verb::Get, Verb::List, Verb::Patch, Verb::Update, Verb::Watch],
    subresources: &[
        Subresource { name: "finalize", group: "", version: "v1", kind: "Namespace", verbs: &[Verb::Update] },
        Subresource { name: "status", group: "", version: "v1", kind: "Namespace", verbs: STATUS_VERBS },
    ],
    default,
    prepare,
    prepare_update: |new, old| put(new, "spec", &old["spec"]),
    validate,
    validate_status,
    has_status: true,
    columns: &[cell::NAME, column("Status", "string", "", "Whether it is in use or being deleted.", 0), cell::AGE],
    cells,
    selectable: &[("status.phase", |namespace| text(&namespace["status"], "phase").to_owned())],
    ..BLANK
};

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![cell::name(object), text(&object["status"], "phase").into(), cell::age(object, now)]
}

/// The name as a label, so that selectors can name namespaces; not while the name is still to be generated.
fn default(namespace: &mut Value) {
    let name = text(&namespace["metadata"], "name").to_owned();
    if !name.is_empty() {
        ensure_object(ensure_object(namespace, "metadata"), "labels")[NAME_LABEL] = name.into();
    }
}

fn prepare(namespace: &mut Value) {
    default(namespace);
    namespace["status"] = json!({"phase": "Active"});
    let finalizers = &mut ensure_object(namespace, "spec")["finalizers"];
    match finalizers.as_array_mut() {
        Some(list) if list.iter().any(|finalizer| finalizer == "kubernetes") => (),
        Some(list) => list.push("kubernetes".into()),
        None => *finalizers = json!(["kubernetes"]),
    }
}

fn validate(namespace: &Value) -> Vec<FieldError> {
    let path = Path::new("spec").child("finalizers");
    items(&namespace["spec"], "finalizers")
        .iter()
        .flat_map(|finalizer| rule::finalizer(&path, finalizer.as_str().unwrap_or_default()))
        .collect()
}

fn validate_status(new: &Value, _old: &Value) -> Vec<FieldError> {
    let (phase, detail) = if new["metadata"]["deletionTimestamp"].is_null() {
        ("Active", "may only be 'Active' if `deletionTimestamp` is empty")
    } else {
        ("Terminating", "may only be 'Terminating' if `deletionTimestamp` is not empty")
    };
    let own = text(&new["status"], "phase");
    if own == phase {
        return Vec::new();
    }
    vec![FieldError::invalid(Path::new("status").child("Phase"), &own.into(), detail)]
}
