//! Where each container is in its life, from what the runtime has of it and what the last status said.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as k8s;
use runtime::{ContainerId, ContainerState, ContainerStatus, SandboxState, SandboxStatus};

use super::super::labels;
use super::super::memory::{Memory, StartError, next_backoff};
use super::super::plan::{Observed, StopReason};
use super::policy::Restarts;
use super::{Begun, Contained, Ended, Kind, Life, START_ERROR, START_ERROR_EXIT, Shown, UNKNOWN_EXIT, whole_seconds};

impl Ended {
    pub(super) fn ran(&self) -> Duration {
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

    fn from_api(ended: &k8s::ContainerStateTerminated, restarts: i32, longest: Duration, now: Timestamp) -> Self {
        let time = |time: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| time.as_ref().map(|t| t.0);
        let backoff =
            (0..restarts.min(8)).fold(Duration::ZERO, |last, _| next_backoff(Some((last, Duration::ZERO)), longest));
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
pub(super) struct Facts<'a> {
    pub(super) observed: &'a Observed,
    pub(super) memory: &'a Memory,
    pub(super) sandbox: Option<&'a SandboxStatus>,
    pub(super) now: Timestamp,
}

impl<'a> Facts<'a> {
    pub(super) fn contained(&self, spec: Cow<'a, k8s::Container>, kind: Kind, restarts: Restarts<'a>) -> Contained<'a> {
        let mut records: Vec<_> = self
            .observed
            .sandboxes
            .iter()
            .flat_map(|sandbox| sandbox.containers.iter().map(move |container| (sandbox, container)))
            .filter(|(_, container)| container.name == spec.name)
            .collect();
        records.sort_by_key(|(_, container)| std::cmp::Reverse(container.attempt));
        let old = self.old_status(&spec, kind);
        let mut contained = Contained {
            kind,
            restarts,
            life: Life::Waits,
            current: false,
            attempt: None,
            image: None,
            previous: None,
            failed_start: self.memory.starts.get(&spec.name),
            begun: Begun::Fully,
            shown: Shown::default(),
            records,
            spec,
        };
        match contained.records.first().copied() {
            Some(newest) => self.fill_from_runtime(&mut contained, newest, old),
            None => self.fill_from_status(&mut contained, old),
        }
        self.fill_from_failed_start(&mut contained);
        contained.begun = self.begun(&contained, old);
        contained.shown = shown(&contained, old);
        contained
    }

    /// How far the start of a container is. Who has shown it as running has seen its hook succeed, also if that was an
    /// earlier agent.
    fn begun(&self, contained: &Contained<'_>, old: Option<&k8s::ContainerStatus>) -> Begun {
        let hook = contained.spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
        let (Life::Runs { id, .. }, Some(_)) = (&contained.life, hook) else { return Begun::Fully };
        let shown = old.is_some_and(|old| {
            let running = old.state.as_ref().is_some_and(|state| state.running.is_some());
            running && old.container_id.as_deref().map(parse_id).as_ref() == Some(id)
        });
        match self.memory.post_starts.get(id) {
            Some(true) => Begun::Fully,
            Some(false) => Begun::Failed,
            None if shown => Begun::Fully,
            None => Begun::Hooking,
        }
    }

    fn old_status(&self, spec: &k8s::Container, kind: Kind) -> Option<&'a k8s::ContainerStatus> {
        let status = &self.memory.status;
        let list = match kind {
            Kind::App => &status.container_statuses,
            Kind::Ephemeral => &status.ephemeral_container_statuses,
            Kind::Init | Kind::Sidecar => &status.init_container_statuses,
        };
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
            .map(|ended| Ended::from_api(&ended, old.restart_count, self.memory.longest_backoff, self.now))
    }

    /// A container that the runtime does not know, but the last status does.
    fn fill_from_status(&self, contained: &mut Contained<'a>, old: Option<&k8s::ContainerStatus>) {
        let Some(old) = old else { return };
        let last = old.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        let last = last.map(|ended| Ended::from_api(ended, old.restart_count, self.memory.longest_backoff, self.now));
        let state = old.state.as_ref();
        let waits = state.and_then(|state| state.waiting.as_ref()).and_then(|waiting| waiting.reason.as_deref());
        if let Some(ended) = state.and_then(|state| state.terminated.as_ref()) {
            contained.life =
                Life::Ended(Ended::from_api(ended, old.restart_count, self.memory.longest_backoff, self.now));
            contained.previous = last;
        } else if let Some(running) = state.and_then(|state| state.running.as_ref()) {
            let id = old.container_id.as_deref().map(parse_id);
            let since = running.started_at.as_ref().map(|time| time.0);
            contained.life = Life::Ended(Ended::lost(id, since, whole_seconds(self.now)));
            contained.previous = last;
        } else if let (Some("CrashLoopBackOff" | "RunContainerError"), Some(last)) = (waits, last.clone()) {
            contained.life = Life::Ended(last);
        } else {
            contained.previous = last;
        }
        let known = contained.life != Life::Waits || contained.previous.is_some();
        let count = u32::try_from(old.restart_count).unwrap_or(0);
        let counted = contained.life == Life::Waits && contained.was_removed();
        contained.attempt = known.then(|| if counted { count.saturating_sub(1) } else { count });
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
            reason: START_ERROR.to_owned(),
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
        let changed = self
            .memory
            .stops
            .get(&record.id)
            .is_some_and(|stop| matches!(stop.reason, StopReason::Changed | StopReason::Resized));
        let label = record.labels.get(labels::BACKOFF).and_then(|seconds| seconds.parse().ok());
        if changed { Duration::ZERO } else { label.map_or(Duration::ZERO, Duration::from_secs) }
    }
}

/// What a status said about the life that goes on.
fn shown(contained: &Contained<'_>, old: Option<&k8s::ContainerStatus>) -> Shown {
    let (Life::Runs { id, .. }, Some(old)) = (&contained.life, old) else { return Shown::default() };
    if old.container_id.as_deref().map(parse_id).as_ref() != Some(id) {
        return Shown::default();
    }
    Shown { started: old.started == Some(true), ready: old.ready }
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
