//! The kinds of `apps/v1`: workloads of pods that run for ever, and the history of what they were.
//!
//! Follows `pkg/apis/apps` and `pkg/registry/apps` of upstream.

pub(super) mod controllerrevision;
pub(super) mod daemonset;
pub(super) mod deployment;
pub(super) mod replicaset;
pub(super) mod statefulset;

use serde_json::Value;

use super::path::Path;
use super::{Resource, rule, workload};
use crate::status::FieldError;

/// What the workloads of this group have in common.
const BASE: Resource = Resource { group: "apps", ..workload::BASE };

/// How much may be missing or too much during an update: a number, or a percentage of the replicas.
fn amount(rolling: &Value, field: &str, path: &Path, errors: &mut Vec<FieldError>) {
    errors.extend(rule::int_or_percent(&path.child(field), &rolling[field]));
}

/// Checks that an amount is not more than all of the replicas.
fn at_most_all(rolling: &Value, field: &str, path: &Path, errors: &mut Vec<FieldError>) {
    errors.extend(rule::at_most_all(&path.child(field), &rolling[field]));
}
