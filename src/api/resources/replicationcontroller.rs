//! ReplicationControllers, which ReplicaSets have replaced.

use serde_json::{Value, json};

use super::apps::replicaset;
use super::path::{Path, default_to, ensure_object, number, object_len, object_mut, present, put};
use super::scale::{Scale, Selector, USUAL};
use super::{Dependents, Resource, SCALE, pod, selector, status_of, workload};
use crate::selector::LabelSelector;
use crate::status::FieldError;

/// `replicationcontrollers`.
pub(super) const ROW: Resource = Resource {
    kind: "ReplicationController",
    list_kind: "ReplicationControllerList",
    plural: "replicationcontrollers",
    singular: "replicationcontroller",
    short_names: &["rc"],
    subresources: &[SCALE, status_of("", "v1", "ReplicationController")],
    scale: Some(Scale { selector: Selector::Map("/spec/selector"), ..USUAL }),
    default,
    validate: |controller| validate(&controller["spec"]),
    validate_update: |new, _| validate(&new["spec"]),
    validate_status: |new, _| replicaset::validate_counters(&new["status"]),
    new_status: || json!({ "replicas": 0 }),
    dependents: Dependents::Orphaned { warning: "" },
    columns: replicaset::COLUMNS,
    cells: |controller, now| replicaset::cells(controller, selector::map_cell(&controller["spec"]["selector"]), now),
    selectable: &[("status.replicas", |controller| number(&controller["status"], "replicas").to_string())],
    warn: |object| pod::warn_of_idle_fields(&object["spec"]["template"]["spec"], "spec.template.spec"),
    ..workload::BASE
};

/// Labels of the template serve as selector and as labels, where these are left out.
fn default(controller: &mut Value) {
    let spec = ensure_object(controller, "spec");
    if present(spec, "template") {
        pod::default_template(spec);
    }
    let labels = spec["template"]["metadata"]["labels"].clone();
    if object_len(spec, "selector") == 0 {
        put(spec, "selector", &labels);
    }
    default_to(spec, "replicas", 1);
    if let Some(metadata) = object_mut(controller, "metadata")
        && object_len(metadata, "labels") == 0
    {
        put(metadata, "labels", &labels);
    }
}

fn validate(spec: &Value) -> Vec<FieldError> {
    let path = Path::new("spec");
    let mut errors = Vec::new();
    workload::not_negative(spec, &["minReadySeconds"], &path, &mut errors);
    if object_len(spec, "selector") == 0 {
        errors.push(FieldError::required(path.child("selector"), ""));
    }
    workload::not_negative(spec, &["replicas"], &path, &mut errors);
    let (template, template_path) = (&spec["template"], path.child("template"));
    if template.is_null() {
        errors.push(FieldError::required(template_path, ""));
        return errors;
    }
    let labels = &template["metadata"]["labels"];
    if !LabelSelector::from_labels(spec["selector"].as_object()).matches(labels.as_object()) {
        errors.push(workload::not_selected(labels, &template_path));
    }
    workload::lasting_template(template, &template_path, "ReplicationController", &mut errors);
    errors
}
