//! DaemonSets.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{BASE, amount, at_most_all};
use crate::resources::cell::{self, column};
use crate::resources::path::{Path, default_text, default_to, ensure_object, number, present, text};
use crate::resources::workload::{self, CONTAINERS, IMAGES, SELECTOR};
use crate::resources::{Resource, pod, rule, selector, status_of};
use crate::status::FieldError;

/// Where `apps/v1` keeps what older versions have as `spec.templateGeneration`.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// `daemonsets.apps`.
pub(in crate::resources) const ROW: Resource = Resource {
    kind: "DaemonSet",
    list_kind: "DaemonSetList",
    plural: "daemonsets",
    singular: "daemonset",
    short_names: &["ds"],
    subresources: &[status_of("apps", "v1", "DaemonSet")],
    default,
    prepare: |set| set_template_generation(set, template_generation(set).max(1)),
    prepare_update,
    validate: |set| validate_spec(&set["spec"]),
    validate_update,
    validate_status,
    new_status,
    columns: &[
        cell::NAME,
        column("Desired", "integer", "", "How many nodes should run its pod.", 0),
        column("Current", "integer", "", "How many nodes run its pod as they should.", 0),
        column("Ready", "integer", "", "On how many nodes its pod is ready.", 0),
        column("Up-to-date", "integer", "", "How many of its pods are made from the present template.", 0),
        column("Available", "integer", "", "How many of its pods have been ready for long enough.", 0),
        column("Node Selector", "string", "", "Labels of the nodes that it is for.", 0),
        cell::AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells,
    warn: |object| pod::warn_of_idle_fields(&object["spec"]["template"]["spec"], "spec.template.spec"),
    ..BASE
};

fn new_status() -> Value {
    let counted = ["currentNumberScheduled", "desiredNumberScheduled", "numberMisscheduled", "numberReady"];
    counted.iter().map(|field| ((*field).to_owned(), json!(0))).collect()
}

fn cells(set: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&set["spec"], &set["status"]);
    let count = |field: &str| number(status, field).into();
    let [containers, images] = workload::container_cells(&spec["template"]);
    vec![
        cell::name(set),
        count("desiredNumberScheduled"),
        count("currentNumberScheduled"),
        count("numberReady"),
        count("updatedNumberScheduled"),
        count("numberAvailable"),
        selector::map_cell(&spec["template"]["spec"]["nodeSelector"]),
        cell::age(set, now),
        containers,
        images,
        selector::cell(&spec["selector"]),
    ]
}

fn default(set: &mut Value) {
    let spec = ensure_object(set, "spec");
    pod::default_template(spec);
    let strategy = ensure_object(spec, "updateStrategy");
    default_text(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        let rolling = ensure_object(strategy, "rollingUpdate");
        default_to(rolling, "maxUnavailable", 1);
        default_to(rolling, "maxSurge", 0);
    }
    default_to(spec, "revisionHistoryLimit", 10);
}

fn template_generation(set: &Value) -> i64 {
    text(&set["metadata"]["annotations"], TEMPLATE_GENERATION).parse().unwrap_or(0)
}

fn set_template_generation(set: &mut Value, generation: i64) {
    let annotations = ensure_object(ensure_object(set, "metadata"), "annotations");
    annotations[TEMPLATE_GENERATION] = generation.to_string().into();
}

/// Clients do not count templates, whatever they send.
fn prepare_update(new: &mut Value, old: &Value) {
    let grown = i64::from(new["spec"]["template"] != old["spec"]["template"]);
    set_template_generation(new, template_generation(old).saturating_add(grown));
}

fn validate_spec(spec: &Value) -> Vec<FieldError> {
    let path = Path::new("spec");
    let template = path.child("template");
    let mut errors = Vec::new();
    selector::check(&spec["selector"], &path.child("selector"), &mut errors);
    workload::selected(spec, &template, &mut errors);
    if present(spec, "selector") && selector::is_empty(&spec["selector"]) {
        let detail = "empty selector is invalid for daemonset";
        errors.push(FieldError::invalid(path.child("selector"), &spec["selector"], detail));
    }
    workload::lasting_template(&spec["template"], &template, "DaemonSet", &mut errors);
    workload::not_negative(spec, &["minReadySeconds"], &path, &mut errors);
    strategy(&spec["updateStrategy"], &path.child("updateStrategy"), &mut errors);
    workload::not_negative(spec, &["revisionHistoryLimit"], &path, &mut errors);
    errors
}

fn strategy(strategy: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let rolling = &strategy["rollingUpdate"];
    match text(strategy, "type") {
        "OnDelete" => (),
        "RollingUpdate" if rolling.is_null() => errors.push(FieldError::required(path.child("rollingUpdate"), "")),
        "RollingUpdate" => rolling_update(rolling, &path.child("rollingUpdate"), errors),
        _ => errors.push(FieldError::not_supported(path, strategy, &["RollingUpdate", "OnDelete"])),
    }
}

/// Either pods are missing during an update, or there are too many of them.
fn rolling_update(rolling: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    for field in ["maxUnavailable", "maxSurge"] {
        amount(rolling, field, path, errors);
    }
    for field in ["maxUnavailable", "maxSurge"] {
        at_most_all(rolling, field, path, errors);
    }
    match (rule::amount(&rolling["maxUnavailable"]) != 0, rule::amount(&rolling["maxSurge"]) != 0) {
        (true, true) => {
            let detail = "may not be set when maxUnavailable is non-zero";
            errors.push(FieldError::invalid(path.child("maxSurge"), &rolling["maxSurge"], detail));
        }
        (false, false) => {
            errors.push(FieldError::required(path.child("maxUnavailable"), "cannot be 0 when maxSurge is 0"));
        }
        _ => (),
    }
}

fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = validate_spec(&new["spec"]);
    let path = Path::new("spec").child("selector");
    errors.extend(rule::immutable(path, &new["spec"]["selector"], &old["spec"]["selector"]));
    errors
}

fn validate_status(new: &Value, old: &Value) -> Vec<FieldError> {
    let path = Path::new("status");
    let counters = [
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
        "collisionCount",
    ];
    let mut errors = Vec::new();
    workload::not_negative(&new["status"], &counters, &path, &mut errors);
    workload::collisions(new, old, &path, &mut errors);
    errors
}
