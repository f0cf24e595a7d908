//! The plan for a pod that ends: stop containers, remove the sandbox, the files and finally the object.
//!
//! Called by [`super::plan::plan`]; `run` borrows [`stop_container`] for single containers. Sidecars are signalled after the
//! app containers, in reverse order (KEP-753). Invariant: the deadline only moves earlier.
//!
//! ```text
//!   stop wanted ──► preStop hook ──► signal ──► (grace, at least 2 s) ──► SIGKILL
//!                     │ deadline passes ▲
//!                     └─────────────────┘
//! ```

use std::time::Duration;

use jiff::Timestamp;

use super::memory::{Files, Stage};
use super::plan::{Action, Draft, Hook, Stop, StopReason, Subject, Wish};
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

/// Stops what runs; true once nothing does. All `preStop` hooks begin at once; sidecars are signalled in turn.
pub(super) fn stop_all(view: &View<'_>, draft: &mut Draft) -> bool {
    let deadline = deadline(view);
    draft.deadline = Some(deadline);
    let others = || view.containers().filter(|container| container.kind != Kind::Sidecar);
    for container in others() {
        stop_container(view, draft, container, deadline, StopReason::PodEnds);
    }
    let last = if others().any(Contained::runs) { None } else { view.init.iter().rev().find(|sidecar| sidecar.runs()) };
    for sidecar in view.init.iter().filter(|init| init.kind == Kind::Sidecar) {
        if last.is_some_and(|last| last.name() == sidecar.name()) {
            stop_container(view, draft, sidecar, deadline, StopReason::PodEnds);
        } else {
            pre_stop(view, draft, sidecar, deadline, StopReason::PodEnds);
        }
    }
    !view.is_busy() && !view.containers().any(Contained::runs)
}

/// Asks a container to end once its `preStop` hook is over, unless it was asked to end at least as early.
pub(super) fn stop_container(
    view: &View<'_>,
    draft: &mut Draft,
    container: &Contained<'_>,
    deadline: Timestamp,
    reason: StopReason,
) {
    let Some(mut stop) = pre_stop(view, draft, container, deadline, reason) else { return };
    // Whatever the hook has taken, this much is left, as in `kuberuntime_container.killContainer`.
    stop.deadline = stop.deadline.max(view.now + SHORTEST_GRACE);
    let known = view.memory.stops.get(&stop.container).filter(|known| known.stage == Stage::Signalled);
    if known.is_none_or(|known| known.deadline > stop.deadline) {
        draft.act(view, Action::StopContainer(stop));
    }
}

/// Runs what is to be run before a container is signalled, for as long as there is time; how to stop it once that is over.
fn pre_stop(
    view: &View<'_>,
    draft: &mut Draft,
    container: &Contained<'_>,
    deadline: Timestamp,
    reason: StopReason,
) -> Option<Stop> {
    let Life::Runs { id, .. } = &container.life else { return None };
    let (sandbox, _) = container.records.first()?;
    let known = view.memory.stops.get(id);
    // The time that a hook takes is part of the grace. What a signal was given may lie later, see below.
    let before = known.filter(|known| known.stage != Stage::Signalled);
    let stop = Stop {
        sandbox: sandbox.spec.id.clone(),
        container: id.clone(),
        name: container.name().to_owned(),
        deadline: before.map_or(deadline, |known| known.deadline.min(deadline)),
        reason: known.map_or(reason, |known| known.reason),
        told: known.is_some(),
    };
    let hook = container.spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    if hook.is_none() || stop.deadline <= view.now {
        return Some(stop);
    }
    let subject = Subject::Hook(stop.name.clone(), Hook::PreStop);
    match known.map(|known| known.stage) {
        Some(Stage::Hooked | Stage::Signalled) => return Some(stop),
        Some(Stage::Hooking) if !busy(view, &subject) => return Some(stop),
        _ => {}
    }
    draft.wake(stop.deadline);
    if known.is_none() {
        draft.act(view, Action::PreStop(stop));
    }
    None
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
    let seconds = view.memory.evicted.as_ref().and_then(|own| own.grace).map_or(seconds, |most| seconds.min(most));
    let asked = view.now + grace(seconds);
    view.memory.deadline.map_or(asked, |known| known.min(asked))
}

fn grace(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

fn busy(view: &View<'_>, subject: &Subject) -> bool {
    view.observed.in_flight.contains(subject)
}
