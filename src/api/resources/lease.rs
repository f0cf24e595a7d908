//! Leases: heartbeats of nodes and leader election.

use jiff::Timestamp;
use serde_json::Value;

use super::cell::{self, column};
use super::path::{Path, text};
use super::{BLANK, Resource, WriteBehind};
use crate::status::FieldError;

/// `leases.coordination.k8s.io`.
pub(super) const ROW: Resource = Resource {
    group: "coordination.k8s.io",
    kind: "Lease",
    list_kind: "LeaseList",
    plural: "leases",
    singular: "lease",
    validate,
    validate_update: |new, _| validate(new),
    create_on_update: true,
    unconditional_update: false,
    write_behind: WriteBehind::Namespace("kube-node-lease"),
    columns: &[cell::NAME, column("Holder", "string", "", "Who holds it.", 0), cell::AGE],
    cells,
    ..BLANK
};

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![cell::name(object), text(&object["spec"], "holderIdentity").into(), cell::age(object, now)]
}

/// `pkg/apis/coordination/validation/validation.go`.
fn validate(lease: &Value) -> Vec<FieldError> {
    let (spec, path) = (&lease["spec"], Path::new("spec"));
    let mut errors = Vec::new();
    let mut at_least = |field: &str, least: i64, detail: &str| {
        if spec[field].as_i64().is_some_and(|value| value < least) {
            errors.push(FieldError::invalid(path.child(field), &spec[field], detail));
        }
    };
    at_least("leaseDurationSeconds", 1, "must be greater than 0");
    at_least("leaseTransitions", 0, "must be greater than or equal to 0");
    if !text(spec, "preferredHolder").is_empty() && text(spec, "strategy").is_empty() {
        let detail = "may only be specified if `strategy` is defined";
        errors.push(FieldError::forbidden(path.child("preferredHolder"), detail));
    }
    errors
}
