//! How long a pod that has failed is not replaced (`pkg/controller/job/backoff_utils.go`): 10 s, twice as long after each
//! further failure without a success in between, 10 minutes at most.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::decide::{End, end_of};

const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(600);

/// How long to wait after so many failures, of which the last was then.
pub(super) fn left(failures: u32, last: Timestamp, now: Timestamp) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    let delay = FIRST.saturating_mul(2_u32.saturating_pow(failures - 1)).min(LONGEST);
    let waited = Duration::try_from(now.duration_since(last)).unwrap_or_default();
    delay.saturating_sub(waited)
}

/// How long to wait by the pods that have ended.
pub(super) fn after<'p>(pods: impl Iterator<Item = &'p Pod>, counts_deleting: bool, now: Timestamp) -> Duration {
    let mut ends: Vec<(Timestamp, End)> =
        pods.filter_map(|pod| Some((ended_at(pod, now), end_of(pod, counts_deleting)?))).collect();
    ends.sort_by_key(|(at, _)| *at);
    let failures = ends.iter().rev().take_while(|(_, end)| *end == End::Failed).count();
    let last = ends.last().map_or(now, |(at, _)| *at);
    left(u32::try_from(failures).unwrap_or(u32::MAX), last, now)
}

/// When a pod has ended, as far as it says so.
pub(super) fn ended_at(pod: &Pod, now: Timestamp) -> Timestamp {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let finished = statuses.into_iter().flatten().filter_map(|status| {
        let terminated = status.state.as_ref()?.terminated.as_ref()?;
        terminated.finished_at.as_ref().map(|time| time.0)
    });
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let unready = conditions.into_iter().flatten().find(|one| one.type_ == "Ready" && one.status == "False");
    let unready = unready.and_then(|one| one.last_transition_time.as_ref()).map(|time| time.0);
    let deleted = pod.metadata.deletion_timestamp.as_ref().map(|time| time.0.min(now));
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    finished.max().or(unready).or(deleted).or(created).unwrap_or(now)
}
