//! ReplicaSets.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::BASE;
use crate::resources::cell::{self, column};
use crate::resources::path::{Path, default_to, ensure_object, number, present};
use crate::resources::workload::{self, CONTAINERS, IMAGES, SELECTOR};
use crate::resources::{Column, Resource, SCALE, pod, rule, scale, selector, status_of};
use crate::status::FieldError;

/// `replicasets.apps`.
pub(in crate::resources) const ROW: Resource = Resource {
    kind: "ReplicaSet",
    list_kind: "ReplicaSetList",
    plural: "replicasets",
    singular: "replicaset",
    short_names: &["rs"],
    subresources: &[SCALE, status_of("apps", "v1", "ReplicaSet")],
    scale: Some(scale::USUAL),
    default,
    validate: |set| validate_spec(&set["spec"]),
    validate_update,
    validate_status: |new, _| validate_counters(&new["status"]),
    new_status: || json!({ "replicas": 0 }),
    columns: COLUMNS,
    cells: |set, now| cells(set, selector::cell(&set["spec"]["selector"]), now),
    selectable: &[("status.replicas", |set| number(&set["status"], "replicas").to_string())],
    warn: |object| pod::warn_of_idle_fields(&object["spec"]["template"]["spec"], "spec.template.spec"),
    ..BASE
};

/// Columns of kinds that keep a number of equal pods.
pub(in crate::resources) const COLUMNS: &[Column] = &[
    cell::NAME,
    column("Desired", "integer", "", "How many pods are wanted.", 0),
    column("Current", "integer", "", "How many pods there are.", 0),
    column("Ready", "integer", "", "How many of them are ready.", 0),
    cell::AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

/// The cells of [`COLUMNS`].
pub(in crate::resources) fn cells(set: &Value, selector: Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&set["spec"], &set["status"]);
    let [containers, images] = workload::container_cells(&spec["template"]);
    vec![
        cell::name(set),
        number(spec, "replicas").into(),
        number(status, "replicas").into(),
        number(status, "readyReplicas").into(),
        cell::age(set, now),
        containers,
        images,
        selector,
    ]
}

fn default(set: &mut Value) {
    let spec = ensure_object(set, "spec");
    pod::default_template(spec);
    default_to(spec, "replicas", 1);
}

fn validate_spec(spec: &Value) -> Vec<FieldError> {
    let path = Path::new("spec");
    let template = path.child("template");
    let mut errors = Vec::new();
    workload::not_negative(spec, &["replicas", "minReadySeconds"], &path, &mut errors);
    // Upstream names the wrong kind.
    selector::check_own(spec, &path.child("selector"), "deployment", &mut errors);
    if present(spec, "selector") {
        workload::selected(spec, &template, &mut errors);
    }
    workload::lasting_template(&spec["template"], &template, "ReplicaSet", &mut errors);
    errors
}

fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = validate_spec(&new["spec"]);
    let path = Path::new("spec").child("selector");
    errors.extend(rule::immutable(path, &new["spec"]["selector"], &old["spec"]["selector"]));
    errors
}

/// Checks the counters of a status, which a ReplicationController has as well.
pub(in crate::resources) fn validate_counters(status: &Value) -> Vec<FieldError> {
    let path = Path::new("status");
    let parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
    let mut errors = Vec::new();
    workload::not_negative(status, &["replicas"], &path, &mut errors);
    workload::not_negative(status, &parts, &path, &mut errors);
    workload::not_negative(status, &["observedGeneration", "terminatingReplicas"], &path, &mut errors);
    workload::parts(status, &parts, &path, &mut errors);
    workload::available(status, "readyReplicas", &path, &mut errors);
    errors
}
