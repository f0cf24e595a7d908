//! PodDisruptionBudgets: how many of some pods may be evicted at once.
//!
//! Follows `pkg/apis/policy` of upstream.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cell::{self, column};
use super::path::{Path, number, present, text};
use super::{BLANK, Generation, Resource, rule, selector, status_of, workload};
use crate::status::FieldError;

/// `poddisruptionbudgets.policy`.
pub(super) const ROW: Resource = Resource {
    group: "policy",
    kind: "PodDisruptionBudget",
    list_kind: "PodDisruptionBudgetList",
    plural: "poddisruptionbudgets",
    singular: "poddisruptionbudget",
    short_names: &["pdb"],
    subresources: &[status_of("policy", "v1", "PodDisruptionBudget")],
    validate: |budget| validate(&budget["spec"]),
    validate_update: |new, _| validate(&new["spec"]),
    validate_status: |new, _| validate_status(&new["status"]),
    has_status: true,
    new_status: || json!({ "disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0 }),
    generation: Generation::SPEC,
    // Two updates that both count on the last permitted disruption must not both win.
    unconditional_update: false,
    columns: &[
        cell::NAME,
        column("Min Available", "string", "", "How many of the pods must stay.", 0),
        column("Max Unavailable", "string", "", "How many of the pods may be missing.", 0),
        column("Allowed Disruptions", "integer", "", "How many of the pods may be evicted now.", 0),
        cell::AGE,
    ],
    cells,
    ..BLANK
};

fn cells(budget: &Value, now: Timestamp) -> Vec<Value> {
    let amount = |field: &str| match &budget["spec"][field] {
        Value::Null => "N/A".into(),
        Value::String(percent) => percent.as_str().into(),
        number => number.to_string().into(),
    };
    vec![
        cell::name(budget),
        amount("minAvailable"),
        amount("maxUnavailable"),
        number(&budget["status"], "disruptionsAllowed").into(),
        cell::age(budget, now),
    ]
}

fn validate(spec: &Value) -> Vec<FieldError> {
    let path = Path::new("spec");
    let mut errors = Vec::new();
    if present(spec, "minAvailable") && present(spec, "maxUnavailable") {
        errors.push(FieldError::invalid(&path, spec, "minAvailable and maxUnavailable cannot be both set"));
    }
    for field in ["minAvailable", "maxUnavailable"] {
        errors.extend(rule::int_or_percent(&path.child(field), &spec[field]));
        errors.extend(rule::at_most_all(&path.child(field), &spec[field]));
    }
    selector::check(&spec["selector"], &path.child("selector"), &mut errors);
    if present(spec, "unhealthyPodEvictionPolicy") {
        let path = path.child("unhealthyPodEvictionPolicy");
        let known = ["AlwaysAllow", "IfHealthyBudget"];
        errors.extend(rule::one_of(&path, text(spec, "unhealthyPodEvictionPolicy"), &known));
    }
    errors
}

fn validate_status(status: &Value) -> Vec<FieldError> {
    let counters = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
    let mut errors = Vec::new();
    workload::not_negative(status, &counters, &Path::new("status"), &mut errors);
    errors
}
