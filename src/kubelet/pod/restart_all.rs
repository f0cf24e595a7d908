//! Starting a whole pod again in its place, because one of its containers has ended in a way that demands it (KEP-5532).
//!
//! After `kuberuntime_manager.computePodActions` upstream: all containers are ended without their hooks and forgotten, and
//! what follows is what follows for a pod that has just got its sandbox. Sandbox, addresses and volumes stay; ephemeral
//! containers are left alone. Pure; called by the planner and the status. Invariant: the end that demands it is forgotten
//! last, and only when the status says of every container that it is restarted, so that an agent which dies on the way is
//! followed by one that goes on.

use std::time::Duration;

use super::plan::{Action, Draft, StopReason, WaitingReason};
use super::stop;
use super::view::{Contained, Ended, Life, UNKNOWN_EXIT, View};

/// The reason of a container's last end, and for which it waits.
pub(super) const REASON: &str = "RestartingAllContainers";
/// What is said about both.
const MESSAGE: &str = "The container is removed because RestartAllContainers in place";

/// The least time between two starts of a container that has the whole pod restarted. Upstream has no back-off for it
/// either, but is held up by its rounds.
const ROUND: Duration = Duration::from_secs(2);

/// Ends and forgets all containers.
pub(super) fn keep(view: &View<'_>, draft: &mut Draft) {
    if let Some(due) = due(view).filter(|due| *due > view.now) {
        draft.wake(due);
        return;
    }
    for container in view.lasting() {
        stop::stop_container(view, draft, container, view.now, StopReason::RestartAll);
    }
    if view.lasting().any(Contained::runs) {
        return;
    }
    let left =
        |demands: bool| view.lasting().filter(move |own| own.demands_all() == demands && !own.records.is_empty());
    let only_demanding = left(false).next().is_none();
    let known = |own: &&Contained<'_>| own.attempt.is_some() && (only_demanding || !own.demands_all());
    for container in view.lasting().filter(known) {
        draft.wait(container.name(), WaitingReason::RestartingAllContainers, Some(MESSAGE.to_owned()));
    }
    // Said all the same, also while containers are being forgotten: with the last one nothing else tells of it.
    if view.is_busy() {
        return;
    }
    for container in left(only_demanding) {
        // The newest goes last: it is what the container has come to.
        let Some((sandbox, record)) = container.records.last() else { continue };
        let (sandbox, id) = (sandbox.spec.id.clone(), record.id.clone());
        draft.act(view, Action::RemoveContainer { sandbox, container: id, name: container.name().to_owned() });
    }
}

/// What a container that is restarted so has as its last end.
pub(super) fn ending(container: &Contained<'_>, view: &View<'_>) -> Ended {
    let last = match &container.life {
        Life::Ended(ended) => Some(ended),
        _ => container.previous.as_ref(),
    };
    Ended {
        id: None,
        code: UNKNOWN_EXIT,
        signal: None,
        reason: REASON.to_owned(),
        message: Some(MESSAGE.to_owned()),
        started_at: None,
        finished_at: last.map_or(view.now, |last| last.finished_at),
        backoff: Duration::ZERO,
    }
}

/// When the pod is to be restarted.
fn due(view: &View<'_>) -> Option<jiff::Timestamp> {
    let started = |own: &Contained<'_>| match &own.life {
        Life::Ended(ended) => ended.started_at.map(|at| at + ROUND),
        _ => None,
    };
    view.lasting().filter(|own| own.demands_all()).filter_map(started).min()
}
