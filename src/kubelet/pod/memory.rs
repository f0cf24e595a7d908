//! What a worker remembers about its pod between two looks.
//!
//! Only what cannot be observed: failures of operations, the deadline of a termination, what was said last. Losing it
//! (a crash of the agent) costs an early retry or a repeated stop signal, never correctness; [`Memory::of`] recovers the
//! rest from the pod's own status.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus, ResourceRequirements};
use runtime::{ContainerId, SandboxId};

use super::eviction::Eviction;
use super::plan::{Action, Hook, Plan, Stop, StopReason, Waiting, WaitingReason};
use super::resize::Pending;

/// Shortest and longest wait between two starts of a container or two pulls of an image. The longest wait between two
/// starts can be configured.
pub(crate) const BACKOFF: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));
/// A container that ran this long starts afresh.
const BACKOFF_RESET: Duration = Duration::from_secs(600);
/// Waits between two tries at a sandbox or its network.
const SANDBOX_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Waits between two tries at the volumes, as `pkg/util/goroutinemap/exponentialbackoff` upstream.
const FILES_RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(122));

/// Wait between two tries at renewing a token, of whose life a fifth is left then.
const RENEWAL_RETRY: Duration = Duration::from_secs(30);

/// What a worker remembers.
#[derive(Debug, Clone)]
pub struct Memory {
    /// The last status.
    pub status: PodStatus,
    /// Whether the API server has confirmed it (or nobody can be told).
    pub acknowledged: bool,
    /// When what is being terminated will be killed.
    pub deadline: Option<Timestamp>,
    /// Why the pod must end though nobody has asked it to.
    pub evicted: Option<Eviction>,
    /// The pod's directory and volumes.
    pub files: Files,
    /// Volumes whose images cannot be had, and what containers that mount them wait for.
    pub bad_images: BTreeMap<String, Waiting>,
    /// The last failure to make or connect a sandbox.
    pub sandbox: Option<Failure>,
    /// The attempt that the next sandbox has, if one was removed before.
    pub next_sandbox: u32,
    /// Last failed or finished pull of each container's image.
    pub pulls: BTreeMap<String, Pull>,
    /// Last failed start of each container.
    pub starts: BTreeMap<String, FailedStart>,
    /// Stops that were asked for.
    pub stops: BTreeMap<ContainerId, Stopping>,
    /// Which containers' `postStart` hooks are over, and whether they succeeded.
    pub post_starts: BTreeMap<ContainerId, bool>,
    /// What resized containers have.
    pub sizes: BTreeMap<ContainerId, ResourceRequirements>,
    /// What a pod that was resized has as a whole.
    pub pod_sizes: Option<ResourceRequirements>,
    /// Last failed resize of each container.
    pub resizes: BTreeMap<ContainerId, Failure>,
    /// Why the pod does not get the size that it asks for.
    pub resize_pending: Option<Pending>,
    /// Longest wait between two starts of a container.
    pub longest_backoff: Duration,
    /// Whether the object is known to be gone.
    pub object_gone: bool,
}

/// The state of the pod's directory and volumes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Files {
    /// Not made since this agent started.
    #[default]
    Absent,
    /// Complete, until a token must be renewed, if there is one, or what they are made of has changed.
    Ready { renew_at: Option<Timestamp> },
    /// Could not be made.
    Failed(Failure),
    /// Gone for good.
    Removed,
}

/// A failed operation that is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong.
    pub message: String,
    /// The wait that follows it.
    pub backoff: Duration,
    /// When to try again.
    pub retry_at: Timestamp,
}

impl Failure {
    /// The failure after `earlier`, with twice its wait within the limits.
    fn after(earlier: Option<&Self>, (first, last): (Duration, Duration), message: String, now: Timestamp) -> Self {
        let backoff = earlier.map_or(first, |earlier| (earlier.backoff * 2).min(last));
        Self { message, backoff, retry_at: now + backoff }
    }
}

/// The image of a volume that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadImage {
    /// Its name.
    pub reference: String,
    /// What is wrong.
    pub reason: WaitingReason,
    /// The same in full.
    pub message: String,
}

impl BadImage {
    /// What containers wait for that mount it, as for an image of their own; `again` if it was tried before.
    fn waiting(self, again: bool) -> Waiting {
        let Self { reference, reason, message } = self;
        if reason == WaitingReason::ErrImagePull && again {
            let message = format!("Back-off pulling image {reference:?}: ErrImagePull: {message}");
            return Waiting { reason: WaitingReason::ImagePullBackOff, message: Some(message) };
        }
        Waiting { reason, message: Some(message) }
    }
}

/// How the last pull of an image went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pull {
    /// It is there, pulled for this start.
    Done { attempt: u32 },
    /// It could not be fetched.
    Failed { reason: WaitingReason, failure: Failure },
}

/// A start that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedStart {
    /// Where.
    pub sandbox: SandboxId,
    /// The attempt that failed.
    pub attempt: u32,
    /// How.
    pub kind: StartError,
    /// The wait and its end.
    pub failure: Failure,
    /// When it happened.
    pub at: Timestamp,
}

/// How a start can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartError {
    /// What the container needs is missing: a ConfigMap, a key, a user.
    Config,
    /// It could not be made.
    Create,
    /// Its command could not be executed: it counts as ended with code 128.
    Execute,
}

/// A stop that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopping {
    /// When it is killed; before it is signalled, when its hook has had its time.
    pub deadline: Timestamp,
    /// Why.
    pub reason: StopReason,
    /// How far it is.
    pub stage: Stage,
}

/// How far the stop of a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Its `preStop` hook was begun.
    Hooking,
    /// The hook is over.
    Hooked,
    /// It was asked to end.
    Signalled,
}

/// The wait after a container's next end: none after the first start, then 10 s, doubling up to the longest; anew once it
/// has run for ten minutes. As `client-go/util/flowcontrol.Backoff` is used by `kuberuntime_manager.doBackOff`; that the
/// first wait is no longer than the longest is from KEP-4603.
pub fn next_backoff(last: Option<(Duration, Duration)>, longest: Duration) -> Duration {
    match last {
        None => Duration::ZERO,
        Some((_, ran)) if ran > BACKOFF_RESET => BACKOFF.0.min(longest),
        Some((Duration::ZERO, _)) => BACKOFF.0.min(longest),
        Some((backoff, _)) => (backoff * 2).min(longest),
    }
}

impl Memory {
    /// What can be known about a pod that this agent has not seen before.
    pub fn of(pod: &Pod) -> Self {
        Self {
            evicted: None,
            status: pod.status.clone().unwrap_or_default(),
            acknowledged: true,
            deadline: None,
            files: Files::default(),
            bad_images: BTreeMap::new(),
            sandbox: None,
            next_sandbox: 0,
            pulls: BTreeMap::new(),
            starts: BTreeMap::new(),
            stops: BTreeMap::new(),
            post_starts: BTreeMap::new(),
            sizes: BTreeMap::new(),
            pod_sizes: None,
            resizes: BTreeMap::new(),
            resize_pending: None,
            longest_backoff: BACKOFF.1,
            object_gone: false,
        }
    }

    /// Ends a pod that the node does not take (`kubelet.rejectPod` upstream).
    pub(crate) fn reject(&mut self, reason: &str, message: &str) {
        self.status.phase = Some("Failed".to_owned());
        self.status.reason = Some(reason.to_owned());
        self.status.message = Some(format!("Pod was rejected: {message}"));
        self.acknowledged = false;
    }

    /// Takes over the end of a pod that the API server has and this agent does not know of: a terminal phase is never
    /// left, whoever wrote it.
    pub fn heed(&mut self, pod: &Pod) {
        let over = |status: &PodStatus| matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        if let Some(status) = pod.status.as_ref().filter(|status| over(status) && !over(&self.status)) {
            self.status = status.clone();
        }
    }

    /// Takes over what a plan decided. The status is taken over by the worker, which knows whether it changed.
    pub fn adopt(&mut self, plan: &Plan) {
        self.deadline = plan.deadline.or(self.deadline);
        for action in &plan.actions {
            match action {
                Action::PreStop(stop) => self.stops_at(stop, Stage::Hooking),
                Action::StopContainer(stop) => self.stops_at(stop, Stage::Signalled),
                Action::RemoveSandbox { sandbox } => self.sandbox_ends(sandbox),
                _ => {}
            }
        }
    }

    fn stops_at(&mut self, stop: &Stop, stage: Stage) {
        let Stop { container, deadline, reason, .. } = stop;
        self.stops.insert(container.clone(), Stopping { deadline: *deadline, reason: *reason, stage });
    }

    /// A hook is over.
    pub fn hooked(&mut self, container: ContainerId, hook: Hook, succeeded: bool) {
        match hook {
            Hook::PostStart => {
                self.post_starts.insert(container, succeeded);
            }
            Hook::PreStop => {
                if let Some(stop) = self.stops.get_mut(&container).filter(|stop| stop.stage == Stage::Hooking) {
                    stop.stage = Stage::Hooked;
                }
            }
        }
    }

    /// A container has another size, and so has its pod.
    pub(crate) fn resized(&mut self, container: ContainerId, [own, pod]: [Option<ResourceRequirements>; 2]) {
        self.resizes.remove(&container);
        self.pod_sizes = pod;
        if let Some(own) = own {
            self.sizes.insert(container, own);
        }
    }

    /// A container could not be given another size, which is tried again.
    pub(crate) fn resize_failed(&mut self, container: ContainerId, message: String, now: Timestamp) {
        let failure = Failure::after(self.resizes.get(&container), BACKOFF, message, now);
        self.resizes.insert(container, failure);
    }

    /// A container could not be signalled, which is tried again.
    pub fn stop_failed(&mut self, container: &ContainerId) {
        if let Some(stop) = self.stops.get_mut(container) {
            stop.stage = Stage::Hooked;
        }
    }

    /// Forgets what concerns containers that do not exist any more.
    pub fn forget_all_but(&mut self, exists: impl Fn(&ContainerId) -> bool) {
        self.stops.retain(|id, _| exists(id));
        self.post_starts.retain(|id, _| exists(id));
        self.sizes.retain(|id, _| exists(id));
        self.resizes.retain(|id, _| exists(id));
    }

    /// What the volumes are made of has changed.
    pub fn volumes_changed(&mut self, now: Timestamp) {
        match &mut self.files {
            Files::Ready { renew_at } => *renew_at = Some(now),
            Files::Failed(failure) => failure.retry_at = now,
            Files::Absent | Files::Removed => {}
        }
    }

    /// The volumes are complete.
    pub fn files_ready(&mut self, renew_at: Option<Timestamp>) {
        self.files = Files::Ready { renew_at };
        self.bad_images.clear();
    }

    /// The volumes could not be made, or not made anew, in which case those that are there stay in use.
    pub fn files_failed(&mut self, message: String, bad_images: BTreeMap<String, BadImage>, now: Timestamp) {
        let known = std::mem::take(&mut self.bad_images);
        let waits = |(volume, bad): (String, BadImage)| {
            let waiting = bad.waiting(known.contains_key(&volume));
            (volume, waiting)
        };
        self.bad_images = bad_images.into_iter().map(waits).collect();
        if let Files::Ready { renew_at } = &mut self.files {
            *renew_at = Some(now + RENEWAL_RETRY);
            return;
        }
        let earlier = if let Files::Failed(failure) = &self.files { Some(failure) } else { None };
        self.files = Files::Failed(Failure::after(earlier, FILES_RETRY, message, now));
    }

    /// The sandbox could not be made or connected.
    pub fn sandbox_failed(&mut self, message: String, now: Timestamp) {
        self.sandbox = Some(Failure::after(self.sandbox.as_ref(), SANDBOX_RETRY, message, now));
    }

    /// A sandbox is being removed; its number is not used again, whatever comes of that.
    fn sandbox_ends(&mut self, sandbox: &SandboxId) {
        let attempt = sandbox.attempt().unwrap_or(0);
        self.next_sandbox = self.next_sandbox.max(attempt.saturating_add(1));
    }

    /// An image is there.
    pub fn pulled(&mut self, container: &str, attempt: u32) {
        self.pulls.insert(container.to_owned(), Pull::Done { attempt });
    }

    /// An image could not be fetched.
    pub fn pull_failed(&mut self, container: &str, reason: WaitingReason, message: String, now: Timestamp) {
        let earlier = match self.pulls.get(container) {
            Some(Pull::Failed { failure, .. }) => Some(failure),
            _ => None,
        };
        let failure = Failure::after(earlier, BACKOFF, message, now);
        self.pulls.insert(container.to_owned(), Pull::Failed { reason, failure });
    }

    /// A container could not be started. `backoff` is the wait that the start carried.
    pub fn start_failed(&mut self, start: &super::plan::Start, kind: StartError, message: String, now: Timestamp) {
        let earlier =
            self.starts.get(&start.name).filter(|earlier| earlier.kind == kind).map(|earlier| &earlier.failure);
        let failure = match kind {
            StartError::Execute => Failure { message, backoff: start.backoff, retry_at: now + start.backoff },
            StartError::Config => Failure { message, backoff: BACKOFF.0, retry_at: now + BACKOFF.0 },
            StartError::Create => Failure::after(earlier, BACKOFF, message, now),
        };
        self.starts.insert(
            start.name.clone(),
            FailedStart { sandbox: start.sandbox.clone(), attempt: start.attempt, kind, failure, at: now },
        );
    }

    /// A container was started.
    pub fn started(&mut self, container: &str) {
        self.starts.remove(container);
        self.pulls.remove(container);
    }
}
