//! Deployments.

use jiff::Timestamp;
use serde_json::Value;

use super::{BASE, amount, at_most_all};
use crate::resources::cell::{self, column};
use crate::resources::path::{Path, default_text, default_to, ensure_object, number, present, text};
use crate::resources::workload::{self, CONTAINERS, IMAGES, SELECTOR};
use crate::resources::{Generation, Resource, SCALE, pod, rule, scale, selector, status_of};
use crate::status::FieldError;

/// `deployments.apps`.
pub(in crate::resources) const ROW: Resource = Resource {
    kind: "Deployment",
    list_kind: "DeploymentList",
    plural: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    subresources: &[SCALE, status_of("apps", "v1", "Deployment")],
    scale: Some(scale::USUAL),
    default,
    validate: |deployment| validate_spec(&deployment["spec"]),
    validate_update,
    validate_status,
    // The controller reads annotations as well (`pkg/registry/apps/deployment/strategy.go`).
    generation: Generation::Of(&["/spec", "/metadata/annotations"]),
    columns: &[
        cell::NAME,
        column("Ready", "string", "", "How many of its pods are ready.", 0),
        column("Up-to-date", "string", "", "How many of its pods are made from the present template.", 0),
        column("Available", "string", "", "How many of its pods have been ready for long enough.", 0),
        cell::AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells,
    warn: |object| pod::warn_of_idle_fields(&object["spec"]["template"]["spec"], "spec.template.spec"),
    status_keeps: &["labels"],
    ..BASE
};

fn cells(deployment: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&deployment["spec"], &deployment["status"]);
    let [containers, images] = workload::container_cells(&spec["template"]);
    vec![
        cell::name(deployment),
        format!("{}/{}", number(status, "readyReplicas"), number(spec, "replicas")).into(),
        number(status, "updatedReplicas").into(),
        number(status, "availableReplicas").into(),
        cell::age(deployment, now),
        containers,
        images,
        selector::query(&spec["selector"]).into(),
    ]
}

fn default(deployment: &mut Value) {
    let spec = ensure_object(deployment, "spec");
    pod::default_template(spec);
    default_to(spec, "replicas", 1);
    let strategy = ensure_object(spec, "strategy");
    default_text(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        let rolling = ensure_object(strategy, "rollingUpdate");
        default_to(rolling, "maxUnavailable", "25%");
        default_to(rolling, "maxSurge", "25%");
    }
    default_to(spec, "revisionHistoryLimit", 10);
    default_to(spec, "progressDeadlineSeconds", 600);
}

fn validate_spec(spec: &Value) -> Vec<FieldError> {
    let path = Path::new("spec");
    let template = path.child("template");
    let mut errors = Vec::new();
    workload::not_negative(spec, &["replicas"], &path, &mut errors);
    selector::check_own(spec, &path.child("selector"), "deployment", &mut errors);
    if present(spec, "selector") {
        workload::selected(spec, &template, &mut errors);
    }
    workload::lasting_template(&spec["template"], &template, "ReplicaSet", &mut errors);
    strategy(&spec["strategy"], &path.child("strategy"), &mut errors);
    let numbers = ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"];
    workload::not_negative(spec, &numbers, &path, &mut errors);
    let deadline = &spec["progressDeadlineSeconds"];
    if deadline.as_i64().is_some_and(|seconds| seconds <= number(spec, "minReadySeconds")) {
        let detail = "must be greater than minReadySeconds";
        errors.push(FieldError::invalid(path.child("progressDeadlineSeconds"), deadline, detail));
    }
    errors
}

fn strategy(strategy: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let rolling = &strategy["rollingUpdate"];
    let rolling_path = path.child("rollingUpdate");
    match text(strategy, "type") {
        "Recreate" if rolling.is_null() => (),
        "Recreate" => {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            errors.push(FieldError::forbidden(rolling_path, detail));
        }
        "RollingUpdate" if rolling.is_null() => {
            let detail = "this should be defaulted and never be nil";
            errors.push(FieldError::required(rolling_path, detail));
        }
        "RollingUpdate" => {
            amount(rolling, "maxUnavailable", &rolling_path, errors);
            amount(rolling, "maxSurge", &rolling_path, errors);
            if rule::amount(&rolling["maxUnavailable"]) == 0 && rule::amount(&rolling["maxSurge"]) == 0 {
                let value = &rolling["maxUnavailable"];
                let detail = "may not be 0 when `maxSurge` is 0";
                errors.push(FieldError::invalid(rolling_path.child("maxUnavailable"), value, detail));
            }
            at_most_all(rolling, "maxUnavailable", &rolling_path, errors);
        }
        _ => errors.push(FieldError::not_supported(path, strategy, &["Recreate", "RollingUpdate"])),
    }
}

fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = validate_spec(&new["spec"]);
    let path = Path::new("spec").child("selector");
    errors.extend(rule::immutable(path, &new["spec"]["selector"], &old["spec"]["selector"]));
    errors
}

fn validate_status(new: &Value, old: &Value) -> Vec<FieldError> {
    let (status, path) = (&new["status"], Path::new("status"));
    let counters = [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "terminatingReplicas",
        "collisionCount",
    ];
    let mut errors = Vec::new();
    workload::not_negative(status, &counters, &path, &mut errors);
    workload::parts(status, &["updatedReplicas", "readyReplicas", "availableReplicas"], &path, &mut errors);
    workload::available(status, "readyReplicas", &path, &mut errors);
    workload::collisions(new, old, &path, &mut errors);
    errors
}
