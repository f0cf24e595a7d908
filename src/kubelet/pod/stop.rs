//! The plan for a pod that ends: stop containers, remove the sandbox, the files and finally the object.
//!
//! Called by [`super::plan::plan`]; `run` borrows [`stop_container`] for single containers. Sidecars are stopped after the app
//! containers, in reverse order (KEP-753). Invariant: the deadline only moves earlier.

use std::time::Duration;

use jiff::Timestamp;

use super::memory::Files;
use super::plan::{Action, Draft, StopReason, Subject, Wish};
use super::view::{Contained, Kind, Life, View};
use crate::sources::SOURCE;

/// A container always gets this long, as upstream's `minimumGracePeriodInSeconds`.
const SHORTEST_GRACE: Duration = Duration::from_secs(2);
/// `terminationGracePeriodSeconds` by default.
const DEFAULT_GRACE: i64 = 30;

/// Plans for a pod of which nothing shall remain.
pub(super) fn tear_down(view: &View<'_>, draft: &mut Draft) {
    let begun = view.ever_started() || view.sandbox.is_some();
    if begun && !stop_all(view, draft) {
        return;
    }
    if !remove_sandboxes(view, draft) {
        return;
    }
    if view.memory.files != Files::Removed {
        draft.act(view, Action::RemoveFiles);
        return;
    }
    if view.wish == Wish::Gone || view.memory.object_gone {
        draft.finished = !busy(view, &Subject::Object);
    } else if view.memory.acknowledged {
        draft.act(view, Action::DeleteObject);
    }
}

/// Plans for a pod that is over but still has an object: nothing of it remains but its files, logs and status.
pub(super) fn retire(view: &View<'_>, draft: &mut Draft) {
    if !stop_all(view, draft) {
        return;
    }
    let told = view.memory.acknowledged && matches!(view.memory.status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if told {
        remove_sandboxes(view, draft);
    }
}

/// Stops what runs; true once nothing does.
pub(super) fn stop_all(view: &View<'_>, draft: &mut Draft) -> bool {
    let deadline = deadline(view);
    draft.deadline = Some(deadline);
    let apps_run = view.containers().any(|container| container.kind != Kind::Sidecar && container.runs());
    if apps_run {
        for container in view.containers().filter(|container| container.kind != Kind::Sidecar) {
            stop_container(view, draft, container, deadline, StopReason::PodEnds);
        }
    } else if let Some(sidecar) = view.init.iter().rev().find(|sidecar| sidecar.runs()) {
        stop_container(view, draft, sidecar, deadline, StopReason::PodEnds);
    }
    !view.is_busy() && !view.containers().any(Contained::runs)
}

/// Asks a container to end, unless it was asked to end at least as early.
pub(super) fn stop_container(
    view: &View<'_>,
    draft: &mut Draft,
    container: &Contained<'_>,
    deadline: Timestamp,
    reason: StopReason,
) {
    let Life::Runs { id, .. } = &container.life else { return };
    let Some((sandbox, _)) = container.records.first() else { return };
    if view.memory.stops.get(id).is_some_and(|stop| stop.deadline <= deadline) {
        return;
    }
    let (sandbox, container, name) = (sandbox.spec.id.clone(), id.clone(), container.name().to_owned());
    draft.act(view, Action::StopContainer { sandbox, container, name, deadline, reason });
}

/// How long a container gets whose probe failed, or whose definition changed.
pub(super) fn probe_grace(view: &View<'_>, container: &Contained<'_>, reason: StopReason) -> Duration {
    use super::plan::FailedProbe;
    let probe = match reason {
        StopReason::Probe(FailedProbe::Liveness) => container.spec.liveness_probe.as_ref(),
        StopReason::Probe(FailedProbe::Startup) => container.spec.startup_probe.as_ref(),
        _ => None,
    };
    let own = probe.and_then(|probe| probe.termination_grace_period_seconds);
    grace(own.or(view.spec.termination_grace_period_seconds).unwrap_or(DEFAULT_GRACE))
}

/// Removes all sandboxes; true once none is left.
fn remove_sandboxes(view: &View<'_>, draft: &mut Draft) -> bool {
    if let Some(sandbox) = view.observed.sandboxes.first() {
        draft.act(view, Action::RemoveSandbox { sandbox: sandbox.spec.id.clone() });
        return false;
    }
    !busy(view, &Subject::Sandbox)
}

/// When everything is killed: what was decided before, or the grace from now on if that is earlier.
fn deadline(view: &View<'_>) -> Timestamp {
    // An object that went away without waiting for its node was deleted by force. Manifests simply go.
    let notes = view.pod.metadata.annotations.as_ref();
    let forced = view.wish == Wish::Gone && notes.is_none_or(|notes| !notes.contains_key(SOURCE));
    let own = if forced { 0 } else { view.spec.termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE) };
    let seconds = view.pod.metadata.deletion_grace_period_seconds.unwrap_or(own);
    let asked = view.now + grace(seconds);
    view.memory.deadline.map_or(asked, |known| known.min(asked))
}

fn grace(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).max(SHORTEST_GRACE)
}

fn busy(view: &View<'_>, subject: &Subject) -> bool {
    view.observed.in_flight.contains(subject)
}
