//! The kinds of `batch/v1`: pods that end.
//!
//! Follows `pkg/apis/batch` and `pkg/registry/batch` of upstream.

pub(super) mod cronjob;
mod indexes;
pub(super) mod job;
mod job_status;
mod policy;
