//! The heart of the kubelet: what to do next for one pod, and what to say about it.
//!
//! [`plan`] is pure, synchronous and total: everything that it knows is in its arguments, everything that it wants is in
//! its result. The worker observes, plans, acts and observes again; it decides nothing. Invariants, kept by the
//! properties in `tests.rs`: applying a plan again and again comes to rest; no action concerns a subject that an
//! operation in flight concerns; a wake-up lies in the future; no app container starts before the init containers are done; the deadline of a
//! termination never moves later; a terminal phase is never left.
//!
//! ```text
//!            volumes ─┐
//!  (new) ──► sandbox ─┴► network ──► init containers ──► app containers ──► retire: sandbox removed, status kept
//!                ▲  sandbox died         │ restarts with back-off │             (terminal phase)
//!                └───────────────────────┴────────────┬───────────┘
//!            deletion, deadline: stop containers ◄────┘──► sandbox removed ──► files removed ──► object deleted
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use runtime::{ContainerId, ImageId, SandboxStatus};

use super::memory::Memory;
pub use super::view::Cut;
use super::view::View;
use super::{restart_all, run, status, stop};

pub use super::pulling::Pulled;
pub use super::step::{Action, Hook, Start, Stop, StopReason, Subject};

/// What the sources of pods want.
#[derive(Debug, Clone, Copy)]
pub struct Desired<'a> {
    /// The pod as last seen.
    pub pod: &'a Pod,
    /// Whether it shall exist on this node.
    pub wish: Wish,
}

/// Whether a pod shall exist on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// The object exists; its `deletionTimestamp` says the rest.
    Keep,
    /// The object is gone (or was never known): everything of it must go, and there is nobody to report to.
    Gone,
}

/// What was seen of a pod just now.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// The pod's sandboxes.
    pub sandboxes: Vec<SandboxStatus>,
    /// Addresses of the newest sandbox; empty while it is not attached.
    pub addresses: Vec<IpAddr>,
    /// Addresses of the node.
    pub host_addresses: Vec<IpAddr>,
    /// Images that are present, by the references in the pod.
    pub images: BTreeMap<String, PresentImage>,
    /// Last words of ended containers.
    pub messages: BTreeMap<ContainerId, String>,
    /// What probes say.
    pub probes: BTreeMap<ContainerId, Probed>,
    /// How far pulls are that take long, by container.
    pub pulls: BTreeMap<String, Pulled>,
    /// What operations are under way on.
    pub in_flight: BTreeSet<Subject>,
}

/// An image on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresentImage {
    /// Its identity.
    pub id: ImageId,
    /// `imageID` in statuses: the name with a digest if it has one.
    pub status_id: String,
}

/// The verdicts of a running container's probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Probed {
    /// The startup probe has succeeded, or there is none.
    pub started: bool,
    /// The readiness probe succeeds, or there is none.
    pub ready: bool,
    /// Which probe demands a restart.
    pub failed: Option<FailedProbe>,
}

/// A probe whose failure ends the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailedProbe {
    /// `livenessProbe`
    Liveness,
    /// `startupProbe`
    Startup,
}

/// Why a container waits, for its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The word that users see.
    pub reason: WaitingReason,
    /// The sentence that users see.
    pub message: Option<String>,
}

/// The words for a waiting container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitingReason {
    ContainerCreating,
    PodInitializing,
    CrashLoopBackOff,
    ErrImagePull,
    ImagePullBackOff,
    ErrImageNeverPull,
    InvalidImageName,
    CreateContainerConfigError,
    CreateContainerError,
    RunContainerError,
    PostStartHookError,
    RestartingAllContainers,
}

impl WaitingReason {
    /// As written in a status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ContainerCreating => "ContainerCreating",
            Self::PodInitializing => "PodInitializing",
            Self::CrashLoopBackOff => "CrashLoopBackOff",
            Self::ErrImagePull => "ErrImagePull",
            Self::ImagePullBackOff => "ImagePullBackOff",
            Self::ErrImageNeverPull => "ErrImageNeverPull",
            Self::InvalidImageName => "InvalidImageName",
            Self::CreateContainerConfigError => "CreateContainerConfigError",
            Self::CreateContainerError => "CreateContainerError",
            Self::RunContainerError => "RunContainerError",
            Self::PostStartHookError => "PostStartHookError",
            Self::RestartingAllContainers => restart_all::REASON,
        }
    }
}

/// What to do and to say.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Steps that can all begin now.
    pub actions: Vec<Action>,
    /// The status that the pod has.
    pub status: PodStatus,
    /// Why the pod fails as a whole, from the moment at which that is decided.
    pub cut: Option<Cut>,
    /// When to look again though nothing has happened; later than now.
    pub wake_at: Option<Timestamp>,
    /// When what is being terminated will be killed; remembered, so that it can only move earlier.
    pub deadline: Option<Timestamp>,
    /// Nothing is left of the pod: its worker may end.
    pub finished: bool,
}

/// The decision as it takes shape.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) now: Timestamp,
    pub(super) actions: Vec<Action>,
    pub(super) waiting: BTreeMap<String, Waiting>,
    pub(super) wake_at: Option<Timestamp>,
    pub(super) deadline: Option<Timestamp>,
    pub(super) finished: bool,
}

impl Draft {
    /// Looks again at `at` at the latest. What is due already has begun, or begins when what is in flight has come back;
    /// a wake-up in the past would only make the worker spin until then.
    pub(super) fn wake(&mut self, at: Timestamp) {
        if at <= self.now {
            return;
        }
        self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
    }

    /// Says why a container waits.
    pub(super) fn wait(&mut self, container: &str, reason: WaitingReason, message: Option<String>) {
        self.waiting.insert(container.to_owned(), Waiting { reason, message });
    }

    /// Adds a step unless its subject is busy; tells whether it was added.
    pub(super) fn act(&mut self, view: &View<'_>, action: Action) -> bool {
        let subject = action.subject();
        let busy = view.observed.in_flight.contains(&subject)
            || self.actions.iter().any(|earlier| earlier.subject() == subject);
        if !busy {
            self.actions.push(action);
        }
        !busy
    }
}

/// Decides what to do next for a pod and what its status is.
pub fn plan(desired: Desired<'_>, observed: &Observed, memory: &Memory, now: Timestamp) -> Plan {
    let view = View::new(desired, observed, memory, now);
    let mut draft = Draft { now, ..Draft::default() };
    if view.ends() {
        stop::tear_down(&view, &mut draft);
    } else if view.is_over() {
        stop::retire(&view, &mut draft);
    } else {
        run::keep_running(&view, &mut draft);
    }
    let (status, cut) = (status::render(&view, &draft), view.cut_short());
    let Draft { actions, wake_at, deadline, finished, .. } = draft;
    Plan { actions, status, cut, wake_at, deadline, finished }
}
