//! The statuses of a pod's containers, after `kubelet_pods.convertToAPIContainerStatuses` upstream.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    ContainerUser, LinuxContainerUser, VolumeMount, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::super::plan::Draft;
use super::super::plan::WaitingReason;
use super::super::run::needs_sandbox;
use super::super::view::{Begun, Contained, Ended, Kind, Life, View, whole_seconds};
use super::super::{resize, restart_all};

/// Renders the statuses of containers, in the order of the pod.
pub(super) fn render(view: &View<'_>, draft: &Draft, containers: &[Contained<'_>]) -> Vec<ContainerStatus> {
    containers.iter().map(|container| one(view, draft, container)).collect()
}

fn one(view: &View<'_>, draft: &Draft, container: &Contained<'_>) -> ContainerStatus {
    let waiting = draft.waiting.get(container.name());
    let wait = |(reason, message): (&str, Option<String>)| ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..ContainerState::default()
    };
    let reason = waiting.map(|waiting| (waiting.reason.as_str(), waiting.message.clone()));
    let back_off = waiting.is_some_and(|waiting| waiting.message.is_some());
    let creating = view.init.is_empty() || container.kind == Kind::Ephemeral;
    let fallback = if creating { WaitingReason::ContainerCreating } else { WaitingReason::PodInitializing }.as_str();
    let restarting = waiting.is_some_and(|waiting| waiting.reason == WaitingReason::RestartingAllContainers);
    let removed = restarting.then(|| restart_all::ending(container, view));
    let (state, last) = match &container.life {
        _ if removed.is_some() => (wait(reason.unwrap_or_default()), removed.as_ref()),
        // What cannot be seen from outside has not happened: until its hook is done, the container does not run.
        Life::Runs { .. } if container.begun == Begun::Hooking => {
            (wait(reason.unwrap_or((fallback, None))), container.previous.as_ref())
        }
        Life::Runs { .. } if container.begun == Begun::Failed => {
            let (reason, message) = (WaitingReason::PostStartHookError.as_str(), "PostStartHook failed".to_owned());
            (wait((reason, Some(message))), container.previous.as_ref())
        }
        Life::Runs { since, .. } => (running(*since), container.previous.as_ref()),
        // A restart that has to wait is shown as such; what ended is the last state then.
        Life::Ended(ended) if back_off => (wait(reason.unwrap_or_default()), Some(ended)),
        Life::Ended(ended) => (terminated(ended), container.previous.as_ref()),
        Life::Waits if ended_unstarted(view, draft, container) => (never_started(view), container.previous.as_ref()),
        Life::Waits => (wait(reason.unwrap_or((fallback, None))), container.previous.as_ref()),
    };
    let id = match &container.life {
        Life::Runs { id, .. } => Some(id),
        Life::Ended(ended) => ended.id.as_ref(),
        Life::Waits => None,
    };
    let (image_id, image) = container.image.clone().unwrap_or_default();
    let spec_image = container.spec.image.clone().unwrap_or_default();
    let shown = container.runs() || state.terminated.is_some();
    let counted = restarting || (container.life == Life::Waits && container.was_removed());
    ContainerStatus {
        name: container.name().to_owned(),
        ready: ready(view, container),
        started: Some(container.is_started(view)).filter(|_| container.kind != Kind::Ephemeral),
        restart_count: i32::try_from(container.attempt.unwrap_or(0).saturating_add(u32::from(counted)))
            .unwrap_or(i32::MAX),
        container_id: id.map(|id| format!("coracle://{id}")),
        image: if shown && !image.is_empty() { image } else { spec_image },
        image_id,
        state: Some(state),
        last_state: Some(last.map(terminated).unwrap_or_default()),
        resources: match &container.life {
            Life::Runs { id, .. } => Some(resize::actual(view, container, id)),
            _ => None,
        },
        allocated_resources: container.spec.resources.as_ref().and_then(|own| own.requests.clone()),
        user: container.records.first().filter(|_| shown).and_then(|(_, record)| record.user.as_ref()).map(user),
        stop_signal: container.spec.lifecycle.as_ref().and_then(|own| own.stop_signal.clone()).filter(|_| shown),
        volume_mounts: container.spec.volume_mounts.as_ref().map(|mounts| mounts.iter().map(mount).collect()),
        ..ContainerStatus::default()
    }
}

/// A mount as it is: every kernel that runs this can make all mounts below read-only (KEP-3857).
fn mount(mount: &VolumeMount) -> VolumeMountStatus {
    let read_only = mount.read_only == Some(true);
    let all_below = matches!(mount.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible"));
    VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: read_only.then_some(true),
        recursive_read_only: read_only.then(|| if all_below { "Enabled" } else { "Disabled" }.to_owned()),
        ..VolumeMountStatus::default()
    }
}

fn user(user: &runtime::LinuxUser) -> ContainerUser {
    let groups = user.groups.iter().map(|group| i64::from(*group)).collect();
    let linux = LinuxContainerUser { uid: user.uid.into(), gid: user.gid.into(), supplemental_groups: Some(groups) };
    ContainerUser { linux: Some(linux) }
}

fn running(since: Timestamp) -> ContainerState {
    let started_at = Some(Time(whole_seconds(since)));
    ContainerState { running: Some(ContainerStateRunning { started_at }), ..ContainerState::default() }
}

fn terminated(ended: &Ended) -> ContainerState {
    let time = |time: Timestamp| Some(Time(whole_seconds(time)));
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: ended.id.as_ref().map(|id| format!("coracle://{id}")),
            exit_code: ended.code,
            signal: ended.signal,
            reason: Some(ended.reason.clone()).filter(|reason| !reason.is_empty()),
            message: ended.message.clone().filter(|message| !message.is_empty()),
            started_at: ended.started_at.map_or_else(|| time(Timestamp::UNIX_EPOCH), time),
            finished_at: time(ended.finished_at),
        }),
        ..ContainerState::default()
    }
}

/// Whether the pod has ended before this container was ever started, or has lost its only sandbox for good. What waits for
/// an init container that has failed goes on waiting for it, which says enough (`status_manager.TerminatePod` upstream).
fn ended_unstarted(view: &View<'_>, draft: &Draft, container: &Contained<'_>) -> bool {
    let lost = view.live_sandbox().is_none() && !view.is_busy() && !needs_sandbox(view);
    let over = draft.deadline.is_some() && !view.is_busy() && !view.containers().any(Contained::runs);
    let initialized = container.kind != Kind::App || view.initialized();
    (lost || over && view.ends() && initialized) && !waits_for_failed(view, container)
}

/// Whether an init container before this one has failed for good, so that this one's turn never came.
fn waits_for_failed(view: &View<'_>, container: &Contained<'_>) -> bool {
    let mut before = view.init.iter().take_while(|own| own.name() != container.name());
    let begun = view.apps.iter().any(|app| app.attempt.is_some());
    container.kind != Kind::Ephemeral && !begun && before.any(Contained::has_failed_init)
}

fn never_started(view: &View<'_>) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some("The container could not be located when the pod was terminated".to_owned()),
            finished_at: Some(Time(whole_seconds(view.now))),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    }
}

/// An init container is ready once it has done its part; others while they run and their readiness probe succeeds.
fn ready(view: &View<'_>, container: &Contained<'_>) -> bool {
    match (&container.life, container.kind) {
        (_, Kind::Init) => container.succeeded(),
        (_, Kind::Ephemeral) => false,
        _ if container.begun != Begun::Fully => false,
        (Life::Runs { id, .. }, _) => {
            let probed = view.observed.probes.get(id);
            let unprobed = container.spec.readiness_probe.is_none() && container.spec.startup_probe.is_none();
            let default = unprobed || container.shown.ready;
            probed.map_or(default, |probed| probed.started && probed.ready)
        }
        _ => false,
    }
}
