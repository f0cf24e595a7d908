//! The kinds of `batch/v1`: pods that end.
//!
//! Follows `pkg/apis/batch` and `pkg/registry/batch` of upstream.

pub(super) mod cronjob;
mod indexes;
pub(super) mod job;
mod job_status;
mod policy;

use super::{Resource, workload};

/// What the kinds of this group have in common.
const BASE: Resource = Resource { group: "batch", ..workload::BASE };
