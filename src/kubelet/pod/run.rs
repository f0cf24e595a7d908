//! The plan for a pod that shall run: sandbox, network, volumes, then containers in their order.
//!
//! Called by [`super::plan::plan`] only. After `kuberuntime_manager.computePodActions` upstream, but per step: whatever
//! can begin now begins now.

use runtime::{ContainerId, Fetched, SandboxStatus};

use super::memory::{FailedStart, Files, Pull, StartError};
use super::plan::{Action, Draft, PresentImage, Pulled, Start, StopReason, Subject, WaitingReason};
use super::view::{Begun, Contained, Ended, Kind, Life, START_ERROR, UNKNOWN_EXIT, View};
use super::{pulling, resize, restart_all, stop};
use crate::shared::in_full;

/// How much of the wait after a failed pull or start the failure itself is shown for; then the back-off is.
const SHOW_ERROR: u32 = 2;
/// How long to wait before looking again whether an image that must not be pulled has appeared.
const LOOK_FOR_IMAGE: std::time::Duration = std::time::Duration::from_secs(10);

/// Plans for a pod that shall run.
pub(super) fn keep_running(view: &View<'_>, draft: &mut Draft) {
    if let Some(deadline) = view.active_deadline() {
        draft.wake(deadline);
    }
    prepare_files(view, draft);
    keep_sandbox(view, draft);
    let ready = view.connected_sandbox().filter(|_| matches!(view.memory.files, Files::Ready { .. }));
    for container in view.containers() {
        default_wait(view, draft, container);
    }
    if view.restarts_all() {
        return restart_all::keep(view, draft);
    }
    for container in &view.ephemeral {
        keep_ephemeral(view, draft, ready, container);
    }
    let mut before = true;
    for (position, init) in view.init.iter().enumerate() {
        if !before {
            break;
        }
        before = keep_init(view, draft, ready, init, position);
    }
    if !before {
        return;
    }
    let mut ready = ready;
    for app in &view.apps {
        keep_container(view, draft, ready, app);
        // Upstream starts one container after the other, each with its hook; pods rely on that to have one wait for the
        // other.
        ready = ready.filter(|_| !starts_with_hook(view, draft, app));
    }
}

/// Whether a container with a `postStart` hook is on its way to being started.
fn starts_with_hook(view: &View<'_>, draft: &Draft, container: &Contained<'_>) -> bool {
    let has_hook = container.spec.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.post_start.is_some());
    let subject = Subject::Container(container.name().to_owned());
    let starts = |action: &Action| matches!(action, Action::StartContainer(start) if start.name == container.name());
    let hooking = container.runs() && container.begun == Begun::Hooking;
    has_hook && (hooking || view.observed.in_flight.contains(&subject) || draft.actions.iter().any(starts))
}

/// An ephemeral container is started once and never again.
fn keep_ephemeral(view: &View<'_>, draft: &mut Draft, ready: Option<&SandboxStatus>, container: &Contained<'_>) {
    if container.life == Life::Waits && container.attempt.is_none() {
        start(view, draft, ready, container);
    }
}

fn prepare_files(view: &View<'_>, draft: &mut Draft) {
    let at = match &view.memory.files {
        Files::Ready { renew_at: None } => return,
        Files::Ready { renew_at: Some(at) } => *at,
        Files::Absent | Files::Removed => view.now,
        Files::Failed(failure) => failure.retry_at,
    };
    if at > view.now {
        draft.wake(at);
    } else if any_start_is_due(view) || keeps_up(view) {
        draft.act(view, Action::PrepareFiles);
    }
}

/// Whether a container runs that reads files whose content comes from the API: tokens end, objects change, and who knows
/// how old they are, if an earlier agent wrote them.
fn keeps_up(view: &View<'_>) -> bool {
    let mut volumes = view.pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let from_api = volumes.any(|volume| {
        volume.projected.is_some()
            || volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.downward_api.is_some()
    });
    from_api && view.containers().any(|container| matches!(container.life, Life::Runs { .. }))
}

/// Whether there is any container that does not run and is not done: a pod that merely runs on needs nothing made.
fn any_start_is_due(view: &View<'_>) -> bool {
    view.containers().any(|container| match &container.life {
        Life::Runs { .. } => false,
        Life::Waits => true,
        Life::Ended(ended) => {
            container.kind != Kind::Ephemeral && (!container.current || container.restarts.after(ended.code))
        }
    })
}

/// Removes what is dead or superseded, then makes and connects one sandbox. The pod's cgroup belongs to all its
/// sandboxes, so the next one is made only after the last one has gone.
fn keep_sandbox(view: &View<'_>, draft: &mut Draft) {
    let live = view.live_sandbox();
    let stale = view.observed.sandboxes.iter().find(|one| live.is_none_or(|live| live.spec.id != one.spec.id));
    if let Some(stale) = stale {
        draft.act(view, Action::RemoveSandbox { sandbox: stale.spec.id.clone() });
        return;
    }
    if let Some(failure) = &view.memory.sandbox {
        draft.wake(failure.retry_at);
        if failure.retry_at > view.now {
            return;
        }
    }
    match live {
        None if needs_sandbox(view) => {
            draft.act(view, Action::CreateSandbox { attempt: view.memory.next_sandbox });
        }
        Some(live) if view.connected_sandbox().is_none() => {
            draft.act(view, Action::AttachNetwork { sandbox: live.spec.id.clone() });
        }
        _ => {}
    }
}

/// Whether anything is left to run. A pod that never restarts and has lost its sandbox is over.
pub(super) fn needs_sandbox(view: &View<'_>) -> bool {
    let lost = |app: &Contained<'_>| !app.restarts.after(UNKNOWN_EXIT);
    if view.ever_started() && view.apps.iter().all(lost) {
        return false;
    }
    view.apps.iter().any(|app| app.ended_for_good().is_none())
}

/// What is shown of a container whose turn has not come.
fn default_wait(view: &View<'_>, draft: &mut Draft, container: &Contained<'_>) {
    let creating = view.init.is_empty() || container.kind == Kind::Ephemeral;
    let reason = if creating { WaitingReason::ContainerCreating } else { WaitingReason::PodInitializing };
    let mut mounts = container.spec.volume_mounts.iter().flatten();
    match mounts.find_map(|mount| view.memory.bad_images.get(&mount.name)) {
        // As upstream, which fetches images of volumes when it starts what mounts them.
        Some(bad) if view.init.is_empty() || container.kind != Kind::App => {
            draft.wait(container.name(), bad.reason, bad.message.clone());
        }
        _ => draft.wait(container.name(), reason, None),
    }
}

/// Does what an init container needs; tells whether what comes after it may begin.
fn keep_init(
    view: &View<'_>,
    draft: &mut Draft,
    ready: Option<&SandboxStatus>,
    init: &Contained<'_>,
    position: usize,
) -> bool {
    let passed = later_has_begun(view, position);
    if init.kind == Kind::Sidecar {
        keep_container(view, draft, ready, init);
        return passed || init.is_started(view);
    }
    if passed || (init.current && init.succeeded()) {
        return true;
    }
    keep_container(view, draft, ready, init);
    false
}

/// Whether a container after the init container at `position` has been started in this sandbox, which proves that the
/// init container was done even if nothing is left of it.
fn later_has_begun(view: &View<'_>, position: usize) -> bool {
    view.init.iter().skip(position + 1).chain(&view.apps).any(|later| later.current)
}

/// Does what a container needs whose turn it is.
fn keep_container(view: &View<'_>, draft: &mut Draft, ready: Option<&SandboxStatus>, container: &Contained<'_>) {
    remove_old_records(view, draft, container);
    match &container.life {
        Life::Runs { .. } => keep_healthy(view, draft, container),
        Life::Waits => start(view, draft, ready, container),
        Life::Ended(ended) if container.kind == Kind::Init && !container.current && ended.code == 0 => {
            start(view, draft, ready, container);
        }
        Life::Ended(ended) if container.restarts.after(ended.code) => {
            restart(view, draft, ready, container, ended);
        }
        Life::Ended(_) => {}
    }
}

/// Keeps the newest record and the one before it, whose log `--previous` shows.
fn remove_old_records(view: &View<'_>, draft: &mut Draft, container: &Contained<'_>) {
    for (sandbox, record) in container.records.iter().skip(2) {
        draft.act(
            view,
            Action::RemoveContainer {
                sandbox: sandbox.spec.id.clone(),
                container: record.id.clone(),
                name: container.name().to_owned(),
            },
        );
    }
}

/// Ends a running container whose definition has changed, whose `postStart` hook failed or whose probes demand it; runs
/// that hook first.
fn keep_healthy(view: &View<'_>, draft: &mut Draft, container: &Contained<'_>) {
    let Life::Runs { id, .. } = &container.life else { return };
    let asked = container.image.as_ref().map(|(_, reference)| reference.as_str());
    let changed = asked.is_some_and(|asked| container.spec.image.as_deref().is_some_and(|image| image != asked));
    let failed = view.observed.probes.get(id).and_then(|probed| probed.failed);
    let reason = match container.begun {
        _ if changed => Some(StopReason::Changed),
        Begun::Failed => Some(StopReason::PostStart),
        Begun::Hooking => {
            post_start(view, draft, container, id);
            None
        }
        Begun::Fully => failed.map(StopReason::Probe).or_else(|| resize::keep(view, draft, container)),
    };
    // A stop that was begun goes on, whatever the probes say now.
    let reason = view.memory.stops.get(id).map(|stop| stop.reason).or(reason);
    if let Some(reason) = reason {
        stop::stop_container(view, draft, container, view.now + stop::probe_grace(view, container, reason), reason);
    }
}

fn post_start(view: &View<'_>, draft: &mut Draft, container: &Contained<'_>, id: &ContainerId) {
    if let Some((sandbox, _)) = container.records.first().filter(|_| !view.memory.stops.contains_key(id)) {
        let (sandbox, name) = (sandbox.spec.id.clone(), container.name().to_owned());
        draft.act(view, Action::PostStart { sandbox, container: id.clone(), name });
    }
}

fn restart(
    view: &View<'_>,
    draft: &mut Draft,
    ready: Option<&SandboxStatus>,
    container: &Contained<'_>,
    ended: &Ended,
) {
    let due = ended.finished_at + ended.backoff;
    if due <= view.now {
        draft.waiting.remove(container.name());
        start(view, draft, ready, container);
        return;
    }
    let show_until = due - ended.backoff / SHOW_ERROR;
    if ended.reason == START_ERROR && view.now < show_until {
        draft.wake(show_until);
        draft.wait(container.name(), WaitingReason::RunContainerError, ended.message.clone());
        return;
    }
    draft.wake(due);
    let seconds = ended.backoff.as_secs();
    let period = if seconds >= 60 { format!("{}m{}s", seconds / 60, seconds % 60) } else { format!("{seconds}s") };
    let message = format!(
        "back-off {period} restarting failed container={} pod={}",
        container.name(),
        in_full(&view.pod.metadata)
    );
    draft.wait(container.name(), WaitingReason::CrashLoopBackOff, Some(message));
}

/// Fetches the image if need be, then starts.
fn start(view: &View<'_>, draft: &mut Draft, ready: Option<&SandboxStatus>, container: &Contained<'_>) {
    let Some(image) = image(view, draft, container) else { return };
    let Some(sandbox) = ready else { return };
    if let Some(failed) = container.failed_start.filter(|failed| failed.kind != StartError::Execute) {
        show_failed_start(draft, container, failed);
        draft.wake(failed.failure.retry_at);
        if failed.failure.retry_at > view.now {
            return;
        }
    }
    draft.act(
        view,
        Action::StartContainer(Start {
            sandbox: sandbox.spec.id.clone(),
            name: container.name().to_owned(),
            attempt: container.next_attempt(),
            image,
            backoff: container.next_backoff(view.memory.longest_backoff),
        }),
    );
}

fn show_failed_start(draft: &mut Draft, container: &Contained<'_>, failed: &FailedStart) {
    let reason = match failed.kind {
        StartError::Config => WaitingReason::CreateContainerConfigError,
        StartError::Create | StartError::Execute => WaitingReason::CreateContainerError,
    };
    draft.wait(container.name(), reason, Some(failed.failure.message.clone()));
}

/// The image to start from, once the pull policy is satisfied.
fn image(view: &View<'_>, draft: &mut Draft, container: &Contained<'_>) -> Option<PresentImage> {
    let reference = container.spec.image.clone().unwrap_or_default();
    let present = view.observed.images.get(&reference);
    let attempt = container.next_attempt();
    let fresh = view.memory.pulls.get(container.name()) == Some(&Pull::Done { attempt });
    match container.spec.image_pull_policy.as_deref() {
        // Nothing is fetched by a name that none can have, but it is said so (`image_manager.EnsureImageExists` upstream).
        Some("Never") if present.is_none() && !runtime::is_image_name(&reference) => {
            pull(view, draft, container, reference)
        }
        Some("Never") => {
            if present.is_none() {
                let message = format!("Container image {reference:?} is not present with pull policy of Never");
                draft.wait(container.name(), WaitingReason::ErrImageNeverPull, Some(message));
                draft.wake(view.now + LOOK_FOR_IMAGE);
            }
            present.cloned()
        }
        Some("Always") if !fresh => pull(view, draft, container, reference),
        _ if present.is_none() => pull(view, draft, container, reference),
        _ => present.cloned(),
    }
}

fn pull(view: &View<'_>, draft: &mut Draft, container: &Contained<'_>, reference: String) -> Option<PresentImage> {
    if let Some(Pull::Failed { reason, failure }) = view.memory.pulls.get(container.name()) {
        let show_until = failure.retry_at - failure.backoff / SHOW_ERROR;
        // Shown until another try has come to something.
        let (reason, message) = match reason {
            WaitingReason::ErrImagePull if show_until <= view.now => {
                let text = format!("Back-off pulling image {reference:?}: ErrImagePull: {}", failure.message);
                (WaitingReason::ImagePullBackOff, text)
            }
            reason => (*reason, failure.message.clone()),
        };
        draft.wait(container.name(), reason, Some(message));
        draft.wake(if show_until > view.now { show_until } else { failure.retry_at });
        if failure.retry_at > view.now {
            return None;
        }
    }
    if container.life == Life::Waits {
        show_progress(view, draft, container, &reference);
    }
    let attempt = container.next_attempt();
    draft.act(view, Action::PullImage { container: container.name().to_owned(), reference, attempt });
    None
}

/// Says how far a pull under way is. It says so in place of why the one before failed.
fn show_progress(view: &View<'_>, draft: &mut Draft, container: &Contained<'_>, reference: &str) {
    if !view.observed.in_flight.contains(&Subject::Image(container.name().to_owned())) {
        return;
    }
    draft.wake(view.now + pulling::EVERY);
    let Some(Pulled { fetched, rate }) = view.observed.pulls.get(container.name()) else { return };
    default_wait(view, draft, container);
    let Fetched { registry, done, total } = fetched;
    let message = format!("Pulling image {reference:?} from {registry}: {done}/{total} bytes, {rate} bytes/s");
    if let Some(waiting) = draft.waiting.get_mut(container.name()) {
        waiting.message = Some(message);
    }
}
