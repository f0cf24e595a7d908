//! The phase of a pod, after `kubelet_pods.getPhase` upstream.

use k8s_openapi::api::core::v1::ContainerStatus;

use super::super::plan::Draft;
use super::super::view::{Contained, Cut, Kind, View};

/// Where a pod is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

impl Phase {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }

    fn parse(text: Option<&str>) -> Option<Self> {
        [Self::Pending, Self::Running, Self::Succeeded, Self::Failed]
            .into_iter()
            .find(|phase| Some(phase.as_str()) == text)
    }

    fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// A phase and, if the pod as a whole failed, why.
pub(super) struct Verdict {
    pub(super) phase: Phase,
    /// The phase that follows once nothing runs any more: a terminal one is shown only then.
    pub(super) bound_for: Phase,
    pub(super) reason: Option<String>,
    pub(super) message: Option<String>,
}

/// How many containers are in which state.
#[derive(Default)]
struct Tally {
    waiting: usize,
    running: usize,
    stopped: usize,
    succeeded: usize,
    /// Of those that have stopped, how many are started again.
    restarting: usize,
}

/// Judges the phase. It never leaves a terminal one and never falls back to Pending.
pub(super) fn judge(view: &View<'_>, draft: &Draft, init: &[ContainerStatus], apps: &[ContainerStatus]) -> Verdict {
    let old = Phase::parse(view.memory.status.phase.as_deref());
    let plain = |phase| Verdict { phase, bound_for: phase, reason: None, message: None };
    if let Some(terminal) = old.filter(|phase| phase.is_terminal()) {
        return plain(terminal);
    }
    let stopped = !view.is_busy() && !view.containers().any(Contained::runs);
    if let Some(Cut { reason, message }) = view.cut_short() {
        // Phase and reason are shown together, and only once nothing runs (`status_manager.mergePodStatus` upstream).
        let unstopped = Verdict { bound_for: Phase::Failed, ..plain(old.unwrap_or(Phase::Pending)) };
        let failed = Verdict { reason: Some(reason.to_owned()), message: Some(message), ..plain(Phase::Failed) };
        return if stopped { failed } else { unstopped };
    }
    if view.restarts_all() && !view.ends() {
        return plain(old.map_or(shown(view), |old| old.max(shown(view))));
    }
    let ended = view.ends() && stopped && draft.deadline.is_some();
    let computed = compute(view, init, apps, ended);
    if ended && !computed.is_terminal() {
        return plain(Phase::Failed);
    }
    if computed.is_terminal() && !stopped {
        return Verdict { bound_for: computed, ..plain(old.map_or(shown(view), |old| old.max(shown(view)))) };
    }
    plain(old.map_or(computed, |old| computed.max(old)))
}

/// The phase of a pod that is to be another one.
fn shown(view: &View<'_>) -> Phase {
    if view.apps.iter().any(|app| app.attempt.is_some()) { Phase::Running } else { Phase::Pending }
}

fn compute(view: &View<'_>, init: &[ContainerStatus], apps: &[ContainerStatus], ended: bool) -> Phase {
    // As upstream, a container that counts as ended has begun, also if it was never there.
    let begun = apps.iter().any(|app| running(app).is_some() || terminated(app).is_some());
    let (pending, failed) = judge_init(view, init, begun);
    if failed {
        return Phase::Failed;
    }
    let mut tally = Tally::default();
    for (app, status) in view.apps.iter().zip(apps) {
        match (
            running(status),
            terminated(status),
            status.last_state.as_ref().and_then(|last| last.terminated.as_ref()),
        ) {
            (Some(()), _, _) => tally.running += 1,
            (None, Some(code), _) => {
                tally.stopped += 1;
                tally.succeeded += usize::from(code == 0);
                tally.restarting += usize::from(app.restarts.after(code));
            }
            (None, None, Some(_)) => {
                tally.stopped += 1;
                tally.restarting += 1;
            }
            (None, None, None) => tally.waiting += 1,
        }
    }
    match tally {
        _ if pending => Phase::Pending,
        Tally { waiting: 1.., .. } => Phase::Pending,
        Tally { running: 1.., .. } => Phase::Running,
        Tally { stopped: 1.., restarting: 1.., .. } if !ended => Phase::Running,
        Tally { stopped: 1.., .. } if tally.stopped == tally.succeeded => Phase::Succeeded,
        Tally { stopped: 1.., .. } => Phase::Failed,
        _ => Phase::Pending,
    }
}

/// Whether init containers are still to do their part, and whether one has failed for good.
fn judge_init(view: &View<'_>, statuses: &[ContainerStatus], begun: bool) -> (bool, bool) {
    let mut pending = false;
    for (init, status) in view.init.iter().zip(statuses) {
        match init.kind {
            Kind::Sidecar => pending |= !begun && !init.is_started(view),
            _ => match terminated(status) {
                Some(0) => {}
                Some(code) if !init.restarts.after(code) => return (false, true),
                _ => pending |= !begun,
            },
        }
    }
    (pending, false)
}

fn running(status: &ContainerStatus) -> Option<()> {
    status.state.as_ref()?.running.as_ref().map(|_| ())
}

fn terminated(status: &ContainerStatus) -> Option<i32> {
    status.state.as_ref()?.terminated.as_ref().map(|ended| ended.exit_code)
}
