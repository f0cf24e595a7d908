//! What is told of a Deployment (`pkg/controller/deployment/{sync,progress}.go`).

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentSpec, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::decide::{Held, Work, available, size};

pub(super) const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const FAILURE: &str = "ReplicaFailure";
/// It has come to its end.
const ARRIVED: &str = "NewReplicaSetAvailable";
const LATE: &str = "ProgressDeadlineExceeded";

/// Whether it must make progress within a time; the largest number stands for none.
pub(super) fn has_deadline(spec: &DeploymentSpec) -> bool {
    spec.progress_deadline_seconds.is_some_and(|seconds| seconds != i32::MAX)
}

/// Sets a condition. One that says the same with the same reason stays as it is; the time of transition stays while the
/// answer does (`SetDeploymentCondition`).
fn set(conditions: &mut Vec<DeploymentCondition>, mut new: DeploymentCondition) {
    let former = conditions.iter().position(|one| one.type_ == new.type_).map(|place| conditions.remove(place));
    match former {
        Some(former) if former.status == new.status && former.reason == new.reason => {
            conditions.push(former);
            return;
        }
        Some(former) if former.status == new.status => new.last_transition_time = former.last_transition_time,
        _ => {}
    }
    conditions.push(new);
}

fn condition(kind: &str, word: &str, reason: &str, message: String, now: Timestamp) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.to_owned(),
        status: word.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

fn find<'c>(conditions: &'c [DeploymentCondition], kind: &str) -> Option<&'c DeploymentCondition> {
    conditions.iter().find(|one| one.type_ == kind)
}

fn has_reason(condition: Option<&DeploymentCondition>, reason: &str) -> bool {
    condition.is_some_and(|one| one.reason.as_deref() == Some(reason))
}

/// Tells of its progress.
pub(super) fn progress(
    conditions: &mut Vec<DeploymentCondition>,
    word: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) {
    set(conditions, condition(PROGRESSING, word, reason, message, now));
}

/// Time in which it is paused does not count against its deadline.
pub(super) fn note_pause(conditions: &mut Vec<DeploymentCondition>, spec: &DeploymentSpec, now: Timestamp) {
    let former = find(conditions, PROGRESSING);
    if !has_deadline(spec) || has_reason(former, LATE) {
        return;
    }
    match (spec.paused.unwrap_or(false), has_reason(former, "DeploymentPaused")) {
        (true, false) => progress(conditions, "Unknown", "DeploymentPaused", "Deployment is paused".to_owned(), now),
        (false, true) => progress(conditions, "Unknown", "DeploymentResumed", "Deployment is resumed".to_owned(), now),
        _ => {}
    }
}

/// The numbers; conditions are those of before.
pub(super) fn numbers(work: &Work<'_>) -> DeploymentStatus {
    let sum = |of: fn(&ReplicaSet) -> i32| work.all().map(|held| of(&held.set)).sum::<i32>();
    let has = |set: &ReplicaSet| set.status.as_ref().map_or(0, |status| status.replicas);
    let ready = |set: &ReplicaSet| set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
    let ending = |set: &ReplicaSet| set.status.as_ref().and_then(|status| status.terminating_replicas).unwrap_or(0);
    let some = |number: i32| (number > 0).then_some(number);
    DeploymentStatus {
        observed_generation: work.deployment.metadata.generation,
        replicas: some(sum(has)),
        updated_replicas: some(work.new.as_ref().map_or(0, |held| has(&held.set))),
        ready_replicas: some(sum(ready)),
        available_replicas: some(sum(available)),
        unavailable_replicas: some(sum(size) - sum(available)),
        terminating_replicas: Some(sum(ending)),
        collision_count: work.deployment.status.as_ref().and_then(|status| status.collision_count),
        conditions: None,
    }
}

/// Whether all pods are of the present template and available.
pub(super) fn is_complete(work: &Work<'_>, status: &DeploymentStatus) -> bool {
    let wanted = (work.wanted() > 0).then(|| work.wanted());
    status.updated_replicas == wanted && status.replicas == wanted && status.available_replicas == wanted
}

fn has_moved(former: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let number = |of: Option<i32>| of.unwrap_or(0);
    let outdated = |status: &DeploymentStatus| number(status.replicas) - number(status.updated_replicas);
    number(new.updated_replicas) > number(former.updated_replicas)
        || outdated(new) < outdated(former)
        || number(new.ready_replicas) > number(former.ready_replicas)
        || number(new.available_replicas) > number(former.available_replicas)
}

/// How long it may still take without any progress; none if that does not matter.
fn time_left(work: &Work<'_>, conditions: &[DeploymentCondition]) -> Option<jiff::SignedDuration> {
    let former = find(conditions, PROGRESSING)?;
    let seconds = work.spec.progress_deadline_seconds.filter(|_| has_deadline(work.spec))?;
    if has_reason(Some(former), ARRIVED) || has_reason(Some(former), LATE) {
        return None;
    }
    let since = former.last_update_time.as_ref()?.0;
    Some(jiff::SignedDuration::from_secs(i64::from(seconds)) - work.now.duration_since(since))
}

/// Says how it stands.
pub(super) fn conclude(work: &mut Work<'_>, status: &mut DeploymentStatus, rolls: bool) {
    let former = work.deployment.status.clone().unwrap_or_default();
    let number = |of: Option<i32>| of.unwrap_or(0);
    let mut conditions = std::mem::take(&mut work.conditions);
    let (word, reason, text) = if number(status.available_replicas) >= work.wanted() - work.max_unavailable() {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set(&mut conditions, condition(AVAILABLE, word, reason, text.to_owned(), work.now));
    if rolls {
        tell_progress(work, (&former, status), &mut conditions);
        tell_failure(work, &mut conditions);
    }
    // What has not changed keeps its place, lest writes follow writes.
    let order = former.conditions.unwrap_or_default();
    conditions.sort_by_key(|one| order.iter().position(|former| former.type_ == one.type_).unwrap_or(usize::MAX));
    status.conditions = (!conditions.is_empty()).then_some(conditions);
}

fn tell_progress(
    work: &Work<'_>,
    (former, status): (&DeploymentStatus, &DeploymentStatus),
    conditions: &mut Vec<DeploymentCondition>,
) {
    if !has_deadline(work.spec) {
        conditions.retain(|one| one.type_ != PROGRESSING);
        return;
    }
    let present = find(conditions, PROGRESSING).cloned();
    // Once it has arrived, pods that go and come again are no progress and no lack of it.
    if status.replicas == status.updated_replicas && has_reason(present.as_ref(), ARRIVED) {
        return;
    }
    let subject = match &work.new {
        Some(held) => format!("ReplicaSet {:?}", held.set.metadata.name.as_deref().unwrap_or_default()),
        None => format!("Deployment {:?}", work.deployment.metadata.name.as_deref().unwrap_or_default()),
    };
    if is_complete(work, status) {
        progress(conditions, "True", ARRIVED, format!("{subject} has successfully progressed."), work.now);
    } else if has_moved(former, status) {
        let text = format!("{subject} is progressing.");
        let mut new = condition(PROGRESSING, "True", "ReplicaSetUpdated", text, work.now);
        if let Some(present) = present.filter(|present| present.status == "True") {
            new.last_transition_time = present.last_transition_time;
        }
        // Said anew each time: the deadline counts from here.
        conditions.retain(|one| one.type_ != PROGRESSING);
        conditions.push(new);
    } else if has_reason(present.as_ref(), LATE) || time_left(work, conditions).is_some_and(|left| !left.is_positive())
    {
        progress(conditions, "False", LATE, format!("{subject} has timed out progressing."), work.now);
    }
}

/// Passes on why a set cannot have its pods, first of all that of the new one.
fn tell_failure(work: &Work<'_>, conditions: &mut Vec<DeploymentCondition>) {
    let failure = |held: &Held| {
        let all = held.set.status.as_ref().and_then(|status| status.conditions.as_ref());
        all.into_iter().flatten().find(|one| one.type_ == FAILURE && one.status == "True").cloned()
    };
    match work.new.iter().chain(&work.old).find_map(failure) {
        Some(found) => {
            let reason = found.reason.unwrap_or_default();
            let new = condition(FAILURE, "True", &reason, found.message.unwrap_or_default(), work.now);
            set(conditions, new);
        }
        None => conditions.retain(|one| one.type_ != FAILURE),
    }
}

/// When the deadline passes, if it may.
pub(super) fn deadline(work: &Work<'_>, status: &DeploymentStatus) -> Option<Duration> {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    if work.spec.paused.unwrap_or(false) || is_complete(work, status) {
        return None;
    }
    let left = time_left(work, conditions)?;
    // One more second, so that it has surely passed then.
    Some(Duration::try_from(left).unwrap_or_default() + Duration::from_secs(1))
}

/// The set of the present template could not be made.
pub(super) fn creation_failed(status: &mut DeploymentStatus, of: &Deployment, message: &str, now: Timestamp) {
    if of.spec.as_ref().is_some_and(has_deadline) {
        let conditions = status.conditions.get_or_insert_default();
        let name = of.metadata.name.as_deref().unwrap_or_default();
        let text = format!("Failed to create new replica set for deployment {name:?}: {message}");
        progress(conditions, "False", "ReplicaSetCreateError", text, now);
    }
}
