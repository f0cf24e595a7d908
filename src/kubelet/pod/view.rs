//! The facts about one pod, put together from its object, what was seen and what is remembered.
//!
//! Used by the planner only. It judges where each container is in its life; it decides nothing. Invariant: a container's
//! attempts only grow, also across sandboxes and restarts of the agent, because the last status counts too.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as k8s;
use runtime::{ContainerId, ContainerState, ContainerStatus, SandboxState, SandboxStatus};

use super::labels;
use super::memory::{FailedStart, Memory, StartError};
use super::plan::{Desired, Observed, StopReason, Subject, Wish};

/// Exit code of a container whose end nobody saw.
const UNKNOWN_EXIT: i32 = 137;
/// Exit code of a container whose command could not be executed, as containerd reports it.
const START_ERROR_EXIT: i32 = 128;

/// What kind of container it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Runs to completion before what follows.
    Init,
    /// An init container that keeps running.
    Sidecar,
    /// What the pod is for.
    App,
}

/// When a container is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    fn parse(text: Option<&str>) -> Self {
        match text {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            _ => Self::Always,
        }
    }

    /// Whether an end with this code is followed by another start.
    pub(super) fn restarts_after(self, code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => code != 0,
            Self::Never => false,
        }
    }
}

/// A life of a container that is over.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ended {
    pub(super) id: Option<ContainerId>,
    pub(super) code: i32,
    pub(super) signal: Option<i32>,
    pub(super) reason: String,
    pub(super) message: Option<String>,
    pub(super) started_at: Option<Timestamp>,
    pub(super) finished_at: Timestamp,
    /// The wait before the next start.
    pub(super) backoff: Duration,
}

/// Where a container is in its life.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Life {
    /// Not started in this sandbox, and nothing says that it shall not be.
    Waits,
    /// Its command runs.
    Runs { id: ContainerId, since: Timestamp },
    /// Its last life is over.
    Ended(Ended),
}

/// One container of the pod.
#[derive(Debug)]
pub(super) struct Contained<'a> {
    pub(super) spec: &'a k8s::Container,
    pub(super) kind: Kind,
    pub(super) policy: RestartPolicy,
    pub(super) life: Life,
    /// Whether that life was seen in the newest sandbox.
    pub(super) current: bool,
    /// The attempt of that life.
    pub(super) attempt: Option<u32>,
    /// Its image, as statuses show it, and the name it was asked for by.
    pub(super) image: Option<(String, String)>,
    /// The life before.
    pub(super) previous: Option<Ended>,
    /// All that the runtime has of it, the newest first.
    pub(super) records: Vec<(&'a SandboxStatus, &'a ContainerStatus)>,
    /// A start that failed after that life, or instead of it.
    pub(super) failed_start: Option<&'a FailedStart>,
}

/// The facts.
pub(super) struct View<'a> {
    pub(super) pod: &'a k8s::Pod,
    pub(super) spec: &'a k8s::PodSpec,
    pub(super) wish: Wish,
    pub(super) observed: &'a Observed,
    pub(super) memory: &'a Memory,
    pub(super) now: Timestamp,
    /// Sandbox of the highest attempt.
    pub(super) sandbox: Option<&'a SandboxStatus>,
    /// Init containers and sidecars in order.
    pub(super) init: Vec<Contained<'a>>,
    /// App containers in order.
    pub(super) apps: Vec<Contained<'a>>,
}

impl<'a> View<'a> {
    pub(super) fn new(desired: Desired<'a>, observed: &'a Observed, memory: &'a Memory, now: Timestamp) -> Self {
        static NOTHING: std::sync::LazyLock<k8s::PodSpec> = std::sync::LazyLock::new(k8s::PodSpec::default);
        let spec = desired.pod.spec.as_ref().unwrap_or(&NOTHING);
        let sandbox = observed.sandboxes.iter().max_by_key(|sandbox| sandbox.spec.attempt);
        let policy = RestartPolicy::parse(spec.restart_policy.as_deref());
        let facts = Facts { observed, memory, sandbox, now };
        let init = spec.init_containers.iter().flatten().map(|container| {
            let sidecar = container.restart_policy.as_deref() == Some("Always");
            let (kind, policy) = match policy {
                _ if sidecar => (Kind::Sidecar, RestartPolicy::Always),
                RestartPolicy::Never => (Kind::Init, RestartPolicy::Never),
                _ => (Kind::Init, RestartPolicy::OnFailure),
            };
            facts.contained(container, kind, policy)
        });
        let apps = spec.containers.iter().map(|container| facts.contained(container, Kind::App, policy));
        Self {
            pod: desired.pod,
            spec,
            wish: desired.wish,
            observed,
            memory,
            now,
            sandbox,
            init: init.collect(),
            apps: apps.collect(),
        }
    }

    /// All containers, in the order of the pod.
    pub(super) fn containers(&self) -> impl Iterator<Item = &Contained<'a>> {
        self.init.iter().chain(&self.apps)
    }

    /// Whether everything of the pod must go.
    pub(super) fn ends(&self) -> bool {
        self.wish == Wish::Gone || self.pod.metadata.deletion_timestamp.is_some()
    }

    /// Whether the pod has reached a terminal phase, or must because its time is over.
    pub(super) fn is_over(&self) -> bool {
        let phase = self.memory.status.phase.as_deref();
        matches!(phase, Some("Succeeded" | "Failed")) || self.past_active_deadline()
    }

    /// When `activeDeadlineSeconds` are over.
    pub(super) fn active_deadline(&self) -> Option<Timestamp> {
        let seconds = u64::try_from(self.spec.active_deadline_seconds?).ok()?;
        Some(self.start_time() + Duration::from_secs(seconds))
    }

    /// Whether `activeDeadlineSeconds` are over.
    pub(super) fn past_active_deadline(&self) -> bool {
        self.active_deadline().is_some_and(|deadline| deadline <= self.now)
    }

    /// When this node first saw the pod.
    pub(super) fn start_time(&self) -> Timestamp {
        self.memory.status.start_time.as_ref().map_or_else(|| whole_seconds(self.now), |time| time.0)
    }

    /// Whether the pod uses the host's network.
    pub(super) fn host_network(&self) -> bool {
        self.spec.host_network == Some(true)
    }

    /// The newest sandbox, if it can run containers.
    pub(super) fn live_sandbox(&self) -> Option<&'a SandboxStatus> {
        self.sandbox.filter(|sandbox| sandbox.state == SandboxState::Ready)
    }

    /// The newest sandbox, if it can run containers and is connected.
    pub(super) fn connected_sandbox(&self) -> Option<&'a SandboxStatus> {
        self.live_sandbox().filter(|_| self.host_network() || !self.observed.addresses.is_empty())
    }

    /// Whether all init containers have done their part in the newest sandbox.
    pub(super) fn initialized(&self) -> bool {
        let begun = self.apps.iter().any(|app| app.current);
        self.init.iter().all(|init| match init.kind {
            Kind::Sidecar => begun || init.is_started(self),
            _ => begun || (init.current && init.succeeded()),
        })
    }

    /// Whether an operation on any container is under way: one that is being started may run a moment from now.
    pub(super) fn is_busy(&self) -> bool {
        let busy = |container: &Contained<'_>| {
            self.observed.in_flight.contains(&Subject::Container(container.name().to_owned()))
        };
        self.containers().any(busy)
    }

    /// Whether any container has ever been started.
    pub(super) fn ever_started(&self) -> bool {
        self.containers().any(|container| container.attempt.is_some())
    }
}

impl Contained<'_> {
    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.spec.name
    }

    /// Whether its command runs.
    pub(super) fn runs(&self) -> bool {
        matches!(self.life, Life::Runs { .. })
    }

    /// Whether it has ended well.
    pub(super) fn succeeded(&self) -> bool {
        matches!(&self.life, Life::Ended(ended) if ended.code == 0)
    }

    /// Whether it runs and its startup probe, if any, has succeeded.
    pub(super) fn is_started(&self, view: &View<'_>) -> bool {
        let Life::Runs { id, .. } = &self.life else { return false };
        view.observed.probes.get(id).map_or(self.spec.startup_probe.is_none(), |probed| probed.started)
    }

    /// The attempt of its next start.
    pub(super) fn next_attempt(&self) -> u32 {
        self.attempt.map_or(0, |attempt| attempt.saturating_add(1))
    }

    /// The wait after its next end.
    pub(super) fn next_backoff(&self) -> Duration {
        let last = match &self.life {
            Life::Ended(ended) => Some(ended),
            _ => self.previous.as_ref(),
        };
        super::memory::next_backoff(last.map(|ended| (ended.backoff, ended.ran())))
    }
}

impl Ended {
    fn ran(&self) -> Duration {
        let since = self.started_at.unwrap_or(self.finished_at);
        Duration::try_from(self.finished_at.duration_since(since)).unwrap_or_default()
    }

    fn lost(id: Option<ContainerId>, started_at: Option<Timestamp>, finished_at: Timestamp) -> Self {
        Self {
            id,
            code: UNKNOWN_EXIT,
            signal: None,
            reason: "ContainerStatusUnknown".to_owned(),
            message: Some("The container could not be located when the pod was terminated".to_owned()),
            started_at,
            finished_at,
            backoff: Duration::ZERO,
        }
    }

    fn from_api(ended: &k8s::ContainerStateTerminated, restarts: i32, now: Timestamp) -> Self {
        let time = |time: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| time.as_ref().map(|t| t.0);
        let backoff = (0..restarts.min(8))
            .fold(Duration::ZERO, |last, _| super::memory::next_backoff(Some((last, Duration::ZERO))));
        Self {
            id: ended.container_id.as_deref().map(parse_id),
            code: ended.exit_code,
            signal: ended.signal,
            reason: ended.reason.clone().unwrap_or_default(),
            message: ended.message.clone(),
            started_at: time(&ended.started_at),
            finished_at: time(&ended.finished_at).unwrap_or(now),
            backoff,
        }
    }
}

/// What [`View::new`] looks at for each container.
struct Facts<'a> {
    observed: &'a Observed,
    memory: &'a Memory,
    sandbox: Option<&'a SandboxStatus>,
    now: Timestamp,
}

impl<'a> Facts<'a> {
    fn contained(&self, spec: &'a k8s::Container, kind: Kind, policy: RestartPolicy) -> Contained<'a> {
        let mut records: Vec<_> = self
            .observed
            .sandboxes
            .iter()
            .flat_map(|sandbox| sandbox.containers.iter().map(move |container| (sandbox, container)))
            .filter(|(_, container)| container.name == spec.name)
            .collect();
        records.sort_by_key(|(_, container)| std::cmp::Reverse(container.attempt));
        let old = self.old_status(spec, kind);
        let mut contained = Contained {
            spec,
            kind,
            policy,
            life: Life::Waits,
            current: false,
            attempt: None,
            image: None,
            previous: None,
            failed_start: self.memory.starts.get(&spec.name),
            records,
        };
        match contained.records.first().copied() {
            Some(newest) => self.fill_from_runtime(&mut contained, newest, old),
            None => self.fill_from_status(&mut contained, old),
        }
        self.fill_from_failed_start(&mut contained);
        contained
    }

    fn old_status(&self, spec: &k8s::Container, kind: Kind) -> Option<&'a k8s::ContainerStatus> {
        let status = &self.memory.status;
        let list = if kind == Kind::App { &status.container_statuses } else { &status.init_container_statuses };
        list.iter().flatten().find(|old| old.name == spec.name)
    }

    fn fill_from_runtime(
        &self,
        contained: &mut Contained<'a>,
        (sandbox, newest): (&'a SandboxStatus, &'a ContainerStatus),
        old: Option<&k8s::ContainerStatus>,
    ) {
        contained.life = self.life(sandbox, newest);
        contained.current = self.sandbox.is_some_and(|current| current.spec.id == sandbox.spec.id);
        contained.attempt = Some(newest.attempt);
        let status_id = newest.labels.get(labels::IMAGE_ID).cloned().unwrap_or_else(|| newest.image.0.clone());
        contained.image = Some((status_id, newest.image_reference.clone()));
        let before = contained.records.get(1).map(|(sandbox, record)| self.life(sandbox, record));
        contained.previous = match before {
            Some(Life::Ended(ended)) => Some(ended),
            _ => old.and_then(|old| self.previous_from_status(old, newest)),
        };
    }

    /// The life before, when the runtime has forgotten it: what the last status says about it.
    fn previous_from_status(&self, old: &k8s::ContainerStatus, newest: &ContainerStatus) -> Option<Ended> {
        let own = newest.id.0.as_str();
        let ended = |state: &Option<k8s::ContainerState>| state.as_ref().and_then(|state| state.terminated.clone());
        [ended(&old.state), ended(&old.last_state)]
            .into_iter()
            .flatten()
            .find(|ended| ended.container_id.as_deref().map(parse_id).is_none_or(|id| id.0 != own))
            .map(|ended| Ended::from_api(&ended, old.restart_count, self.now))
    }

    /// A container that the runtime does not know, but the last status does.
    fn fill_from_status(&self, contained: &mut Contained<'a>, old: Option<&k8s::ContainerStatus>) {
        let Some(old) = old else { return };
        let last = old.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        let last = last.map(|ended| Ended::from_api(ended, old.restart_count, self.now));
        let state = old.state.as_ref();
        let waits = state.and_then(|state| state.waiting.as_ref()).and_then(|waiting| waiting.reason.as_deref());
        if let Some(ended) = state.and_then(|state| state.terminated.as_ref()) {
            contained.life = Life::Ended(Ended::from_api(ended, old.restart_count, self.now));
            contained.previous = last;
        } else if let Some(running) = state.and_then(|state| state.running.as_ref()) {
            let id = old.container_id.as_deref().map(parse_id);
            let since = running.started_at.as_ref().map(|time| time.0);
            contained.life = Life::Ended(Ended::lost(id, since, whole_seconds(self.now)));
            contained.previous = last;
        } else if let (Some("CrashLoopBackOff"), Some(last)) = (waits, last.clone()) {
            contained.life = Life::Ended(last);
        } else {
            contained.previous = last;
        }
        let known = contained.life != Life::Waits || contained.previous.is_some();
        contained.attempt = known.then(|| u32::try_from(old.restart_count).unwrap_or(0));
        if contained.life != Life::Waits {
            contained.image = Some((old.image_id.clone(), old.image.clone()));
        }
    }

    /// A command that could not be executed makes a life of its own, without a container.
    fn fill_from_failed_start(&self, contained: &mut Contained<'a>) {
        let Some(failed) = contained.failed_start.filter(|failed| failed.kind == StartError::Execute) else { return };
        if contained
            .attempt
            .is_some_and(|attempt| attempt > failed.attempt || contained.current && attempt == failed.attempt)
        {
            return;
        }
        let ended = Ended {
            id: None,
            code: START_ERROR_EXIT,
            signal: None,
            reason: "StartError".to_owned(),
            message: Some(failed.failure.message.clone()),
            started_at: None,
            finished_at: failed.at,
            backoff: failed.failure.backoff,
        };
        let earlier = std::mem::replace(&mut contained.life, Life::Ended(ended));
        if let (Life::Ended(earlier), true) = (earlier, contained.attempt.is_some_and(|last| last < failed.attempt)) {
            contained.previous = Some(earlier);
        }
        contained.attempt = Some(failed.attempt);
        contained.current = self.sandbox.is_some_and(|current| current.spec.id == failed.sandbox);
        let reference = contained.spec.image.clone().unwrap_or_default();
        let status_id = self.observed.images.get(&reference).map(|image| image.status_id.clone()).unwrap_or_default();
        contained.image = Some((status_id, reference));
    }

    fn life(&self, sandbox: &SandboxStatus, record: &ContainerStatus) -> Life {
        match record.state {
            ContainerState::Running { started_at, .. } if sandbox.state == SandboxState::Ready => {
                Life::Runs { id: record.id.clone(), since: started_at }
            }
            ContainerState::Running { started_at, .. } => {
                Life::Ended(Ended::lost(Some(record.id.clone()), Some(started_at), whole_seconds(self.now)))
            }
            ContainerState::Exited(exit) => Life::Ended(Ended {
                id: Some(record.id.clone()),
                code: exit.code,
                signal: None,
                reason: exit_reason(exit).to_owned(),
                message: self.observed.messages.get(&record.id).cloned(),
                started_at: Some(exit.started_at),
                finished_at: exit.finished_at,
                backoff: self.backoff_of(record),
            }),
        }
    }

    fn backoff_of(&self, record: &ContainerStatus) -> Duration {
        let changed = self.memory.stops.get(&record.id).is_some_and(|stop| stop.reason == StopReason::Changed);
        let label = record.labels.get(labels::BACKOFF).and_then(|seconds| seconds.parse().ok());
        if changed { Duration::ZERO } else { label.map_or(Duration::ZERO, Duration::from_secs) }
    }
}

fn exit_reason(exit: runtime::Exit) -> &'static str {
    match exit {
        runtime::Exit { oom_killed: true, .. } => "OOMKilled",
        runtime::Exit { code: 0, .. } => "Completed",
        _ => "Error",
    }
}

/// The container behind `coracle://<id>`.
fn parse_id(text: &str) -> ContainerId {
    ContainerId(text.rsplit_once("://").map_or(text, |(_, id)| id).to_owned())
}

/// Kubernetes times have whole seconds.
pub(crate) fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
