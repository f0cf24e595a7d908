//! The steps that a plan is made of, and what each concerns.
//!
//! Data only: made by the planner, carried out by the worker.

use std::time::Duration;

use jiff::Timestamp;
use runtime::{ContainerId, SandboxId};

use super::plan::{FailedProbe, PresentImage};

/// What an operation concerns; there is at most one operation on each.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// The pod's volumes and directory.
    Files,
    /// The pod's sandboxes and their network.
    Sandbox,
    /// The image of a container.
    Image(String),
    /// A container, by name.
    Container(String),
    /// A hook of a container, by the container's name: it is stopped while a hook of it runs.
    Hook(String, Hook),
    /// The pod's object.
    Object,
}

/// Why a container is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The pod ends.
    PodEnds,
    /// Its definition has changed.
    Changed,
    /// A probe demands it.
    Probe(FailedProbe),
    /// Its `postStart` hook failed.
    PostStart,
    /// The whole pod is started again.
    RestartAll,
    /// It shall have another size, which its `resizePolicy` has it started with.
    Resized,
}

/// What a container has done at a turn of its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// `lifecycle.postStart`: until it is done, the container does not count as running.
    PostStart,
    /// `lifecycle.preStop`: until it is done, or the time is over, the container is not signalled.
    PreStop,
}

/// One step; the worker carries it out without asking why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make the pod's directory and volumes.
    PrepareFiles,
    /// Create the sandbox of the given attempt.
    CreateSandbox { attempt: u32 },
    /// Connect a sandbox to the pod network.
    AttachNetwork { sandbox: SandboxId },
    /// Remove a sandbox and give its addresses back.
    RemoveSandbox { sandbox: SandboxId },
    /// Fetch an image.
    PullImage { container: String, reference: String, attempt: u32 },
    /// Create and start a container.
    StartContainer(Start),
    /// Do what shall be done right after a container's start.
    PostStart { sandbox: SandboxId, container: ContainerId, name: String },
    /// Do what shall be done before a container is asked to end, which it will be at the deadline at the latest.
    PreStop(Stop),
    /// Ask a container to end, and kill it at the deadline.
    StopContainer(Stop),
    /// Give a running container and its pod other limits.
    ResizeContainer { sandbox: SandboxId, container: ContainerId, name: String },
    /// Forget an ended container.
    RemoveContainer { sandbox: SandboxId, container: ContainerId, name: String },
    /// Remove the pod's directory and volumes.
    RemoveFiles,
    /// Remove the pod's object for good.
    DeleteObject,
}

/// How to stop a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// Where.
    pub sandbox: SandboxId,
    /// Which.
    pub container: ContainerId,
    /// Its name.
    pub name: String,
    /// When it is killed; when its hook has had its time.
    pub deadline: Timestamp,
    /// Why.
    pub reason: StopReason,
    /// Users have been told already that it is being stopped.
    pub told: bool,
}

/// How to start a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Where.
    pub sandbox: SandboxId,
    /// Its name.
    pub name: String,
    /// How often it was started before.
    pub attempt: u32,
    /// What it is made of.
    pub image: PresentImage,
    /// How long to wait before the next start when this one ends.
    pub backoff: Duration,
}

impl Action {
    /// What the action concerns.
    pub fn subject(&self) -> Subject {
        match self {
            Self::PrepareFiles | Self::RemoveFiles => Subject::Files,
            Self::CreateSandbox { .. } | Self::AttachNetwork { .. } | Self::RemoveSandbox { .. } => Subject::Sandbox,
            Self::PullImage { container, .. } => Subject::Image(container.clone()),
            Self::StartContainer(start) => Subject::Container(start.name.clone()),
            Self::PostStart { name, .. } => Subject::Hook(name.clone(), Hook::PostStart),
            Self::PreStop(stop) => Subject::Hook(stop.name.clone(), Hook::PreStop),
            Self::StopContainer(stop) => Subject::Container(stop.name.clone()),
            Self::ResizeContainer { name, .. } | Self::RemoveContainer { name, .. } => Subject::Container(name.clone()),
            Self::DeleteObject => Subject::Object,
        }
    }
}
