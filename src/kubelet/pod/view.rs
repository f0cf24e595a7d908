//! The facts about one pod, put together from its object, what was seen and what is remembered.
//!
//! Used by the planner only. It judges where each container is in its life; it decides nothing. Invariant: a container's
//! attempts only grow, also across sandboxes and restarts of the agent, because the last status counts too.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as k8s;
use runtime::{ContainerId, ContainerStatus, SandboxState, SandboxStatus};

use super::eviction::Eviction;
use super::memory::{FailedStart, Memory};
use super::plan::{Desired, Observed, Subject, Wish};
use super::{parts, restart_all};
use facts::Facts;
use policy::{RestartPolicy, Restarts};

mod facts;
mod policy;

/// Exit code of a container whose end nobody saw.
pub(super) const UNKNOWN_EXIT: i32 = 137;
/// Exit code of a container whose command could not be executed, as containerd reports it.
const START_ERROR_EXIT: i32 = 128;
/// The reason that it ends with.
pub(super) const START_ERROR: &str = "StartError";

/// What kind of container it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Runs to completion before what follows.
    Init,
    /// An init container that keeps running.
    Sidecar,
    /// What the pod is for.
    App,
    /// Added to a pod that runs, to look into it; nothing depends on it.
    Ephemeral,
}

/// How far the start of a running container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begun {
    /// Its `postStart` hook is to be run, or runs: it does not count as running.
    Hooking,
    /// That has failed: it must go.
    Failed,
    /// It is started.
    Fully,
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
    pub(super) spec: Cow<'a, k8s::Container>,
    pub(super) kind: Kind,
    pub(super) restarts: Restarts<'a>,
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
    /// How far its start is.
    pub(super) begun: Begun,
    /// What the last status said about this life of it; it holds until the probes have something to say.
    pub(super) shown: Shown,
}

/// What a status says about a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Shown {
    pub(super) started: bool,
    pub(super) ready: bool,
}

/// Why a pod fails as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The reason in its status once it has ended, and of the event that says beforehand that it will.
    pub reason: &'static str,
    /// The message of both.
    pub message: String,
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
    /// Ephemeral containers in order.
    pub(super) ephemeral: Vec<Contained<'a>>,
}

impl<'a> View<'a> {
    pub(super) fn new(desired: Desired<'a>, observed: &'a Observed, memory: &'a Memory, now: Timestamp) -> Self {
        static NOTHING: std::sync::LazyLock<k8s::PodSpec> = std::sync::LazyLock::new(k8s::PodSpec::default);
        let spec = desired.pod.spec.as_ref().unwrap_or(&NOTHING);
        let sandbox = observed.sandboxes.iter().max_by_key(|sandbox| sandbox.spec.attempt);
        let policy = RestartPolicy::parse(spec.restart_policy.as_deref());
        let facts = Facts { observed, memory, sandbox, now };
        let init_policy = match policy {
            RestartPolicy::Never => RestartPolicy::Never,
            _ => RestartPolicy::OnFailure,
        };
        let init = spec.init_containers.iter().flatten().map(|container| {
            let sidecar = container.restart_policy.as_deref() == Some("Always");
            let kind = if sidecar { Kind::Sidecar } else { Kind::Init };
            facts.contained(Cow::Borrowed(container), kind, Restarts::of(container, init_policy))
        });
        let apps = spec
            .containers
            .iter()
            .map(|container| facts.contained(Cow::Borrowed(container), Kind::App, Restarts::of(container, policy)));
        let ephemeral = spec.ephemeral_containers.iter().flatten().map(|container| {
            facts.contained(Cow::Owned(parts::as_container(container)), Kind::Ephemeral, Restarts::NEVER)
        });
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
            ephemeral: ephemeral.collect(),
        }
    }

    /// All containers, in the order of the pod.
    pub(super) fn containers(&self) -> impl Iterator<Item = &Contained<'a>> {
        self.lasting().chain(&self.ephemeral)
    }

    /// All but ephemeral ones, which are never started again.
    pub(super) fn lasting(&self) -> impl Iterator<Item = &Contained<'a>> {
        self.init.iter().chain(&self.apps)
    }

    /// Whether everything of the pod must go.
    pub(super) fn ends(&self) -> bool {
        self.wish == Wish::Gone || self.pod.metadata.deletion_timestamp.is_some()
    }

    /// Whether the pod has reached a terminal phase, or must because its work or its time is over.
    pub(super) fn is_over(&self) -> bool {
        self.is_terminal() || self.cut_short().is_some() || self.outcome().is_some()
    }

    /// Whether the pod has done its work, and well; none while anything is left to do. Sidecars and ephemeral containers
    /// never matter.
    pub(super) fn outcome(&self) -> Option<bool> {
        if self.restarts_all() {
            return None;
        }
        if !self.apps.iter().any(|app| app.current) && self.init.iter().any(Contained::has_failed_init) {
            return Some(false);
        }
        let codes: Option<Vec<i32>> = self.apps.iter().map(Contained::ended_for_good).collect();
        codes.filter(|codes| !codes.is_empty()).map(|codes| codes.into_iter().all(|code| code == 0))
    }

    fn is_terminal(&self) -> bool {
        matches!(self.memory.status.phase.as_deref(), Some("Succeeded" | "Failed"))
    }

    /// Why the pod must fail whatever its containers do, unless it has ended or is being deleted already.
    pub(super) fn cut_short(&self) -> Option<Cut> {
        if self.ends() || self.is_terminal() {
            return None;
        }
        if self.past_active_deadline() {
            let message = "Pod was active on the node longer than the specified deadline".to_owned();
            return Some(Cut { reason: "DeadlineExceeded", message });
        }
        let Eviction { reason, message, .. } = self.memory.evicted.clone()?;
        Some(Cut { reason, message })
    }

    /// Whether all containers are to be started again, see [`super::restart_all`].
    pub(super) fn restarts_all(&self) -> bool {
        self.live_sandbox().is_some() && self.lasting().any(Contained::demands_all)
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

    /// The code with which it has ended, if it is not started again.
    pub(super) fn ended_for_good(&self) -> Option<i32> {
        match &self.life {
            Life::Ended(ended) if !self.restarts.after(ended.code) => Some(ended.code),
            _ => None,
        }
    }

    /// Whether it has ended in a way that has the whole pod restarted.
    pub(super) fn demands_all(&self) -> bool {
        let demands = |ended: &Ended| ended.id.is_some() && self.restarts.all_after(ended.code);
        self.current && !self.records.is_empty() && matches!(&self.life, Life::Ended(ended) if demands(ended))
    }

    /// Whether it was forgotten because the whole pod is started again. Its next start counts as done already then, in
    /// statuses.
    pub(super) fn was_removed(&self) -> bool {
        self.previous.as_ref().is_some_and(|previous| previous.reason == restart_all::REASON)
    }

    /// Whether it is an init container that keeps all after it from ever running.
    pub(super) fn has_failed_init(&self) -> bool {
        self.kind == Kind::Init && self.ended_for_good().is_some_and(|code| code != 0)
    }

    /// Whether it runs, its `postStart` hook is done, and its startup probe, if any, has succeeded.
    pub(super) fn is_started(&self, view: &View<'_>) -> bool {
        let Life::Runs { id, .. } = &self.life else { return false };
        if self.begun != Begun::Fully {
            return false;
        }
        let unprobed = self.spec.startup_probe.is_none() || self.shown.started;
        view.observed.probes.get(id).map_or(unprobed, |probed| probed.started)
    }

    /// The attempt of its next start.
    pub(super) fn next_attempt(&self) -> u32 {
        self.attempt.map_or(0, |attempt| attempt.saturating_add(1))
    }

    /// The wait after its next end.
    pub(super) fn next_backoff(&self, longest: Duration) -> Duration {
        let last = match &self.life {
            Life::Ended(ended) => Some(ended),
            _ => self.previous.as_ref(),
        };
        // Who was not the reason for it does not pay for it.
        let last = last.filter(|last| last.reason != restart_all::REASON);
        super::memory::next_backoff(last.map(|ended| (ended.backoff, ended.ran())), longest)
    }
}

/// Kubernetes times have whole seconds.
pub(crate) fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
