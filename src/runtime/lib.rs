//! Sandboxes, containers and images of one node.
//!
//! The kubelet speaks to the two seams [`Runtime`] and [`Images`] only; each has a native implementation and a
//! simulator here. Nothing in this crate knows Kubernetes objects. Invariant: all operations are idempotent, so that a
//! caller that died half-way may simply ask again, and everything that exists can be told from [`Runtime::list`].

mod container;
mod images;
mod native;
mod native_images;
mod sandbox;
mod session;
pub mod simulated;
mod usage;

pub use container::*;
pub use images::*;
pub use native::{LogLimits, NativeConfig, NativeRuntime, PidLimits, raise_open_files, remove_tree};
pub use native_images::{NativeImages, RegistryOptions};
pub use sandbox::*;
pub use session::*;
pub use usage::*;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use oci::sys::NetNs;
use tokio::sync::broadcast;

/// Why the runtime could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// There is no such sandbox, or its shim is dead.
    #[error("sandbox {sandbox} does not exist")]
    NoSandbox { sandbox: SandboxId },
    /// There is no such container.
    #[error("container {container} does not exist")]
    NoContainer { container: ContainerId },
    /// The image has gone since it was resolved.
    #[error("image {image} does not exist")]
    NoImage { image: ImageId },
    /// The user named by the image or the caller is not in the image's `/etc/passwd` (or group in `/etc/group`).
    #[error("user {user:?} is not known in the image")]
    UnknownUser { user: String },
    /// A system call filter cannot be read.
    #[error("cannot load seccomp profile {profile:?}")]
    SeccompProfile {
        profile: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Nobody has said which program that runtime is.
    #[error("no runtime for {handler:?} is configured")]
    NoHandler { handler: String },
    /// What the caller asked for cannot be expressed as a container.
    #[error("invalid container: {message}")]
    Invalid { message: String },
    /// The container's command could not be executed: not found, not executable.
    #[error("cannot execute {command:?}")]
    Execute {
        command: String,
        #[source]
        source: std::io::Error,
    },
    /// A part of a mount's source cannot be had: it could not be created, or not be used.
    #[error("the part of the volume for {} cannot be {}", destination.display(), if *created { "used" } else { "created" })]
    SubPath {
        destination: std::path::PathBuf,
        /// Whether what was missing has been created.
        created: bool,
        #[source]
        source: std::io::Error,
    },
    /// A step of the operation failed in the kernel or on disk.
    #[error("{step} failed")]
    Step {
        step: String,
        #[source]
        source: std::io::Error,
    },
    /// The shim answered something that it must not.
    #[error("shim of {sandbox} broke the protocol: {message}")]
    Protocol { sandbox: SandboxId, message: String },
}

/// Says that a sandbox or one of its containers changed: look again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Changed(pub SandboxId);

/// Runs sandboxes and containers.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Creates the sandbox: its shim, namespaces and cgroup. Creating an existing one returns it as it is.
    async fn create_sandbox(&self, spec: SandboxSpec) -> Result<(), RuntimeError>;

    /// The network namespace of a running sandbox.
    async fn network_namespace(&self, sandbox: &SandboxId) -> Result<NetNs, RuntimeError>;

    /// Creates and starts a container; returns when its command has been executed. A container is started once only:
    /// a restart is a new container with a higher attempt.
    async fn start_container(&self, sandbox: &SandboxId, spec: ContainerSpec) -> Result<(), RuntimeError>;

    /// Sends the stop signal now and SIGKILL to the whole container when the grace is over; the shim keeps the
    /// deadline, also when the agent is gone. A repeated stop can only move the deadline earlier. Returns at once.
    async fn stop_container(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
        stop: Stop,
    ) -> Result<(), RuntimeError>;

    /// Changes the limits of a running container and of its pod as a whole. A limit that the kernel does not take, or that
    /// less than what is in use, is an error; what was before may hold in part then.
    async fn resize_container(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
        resize: Resize,
    ) -> Result<(), RuntimeError>;

    /// Sets the limits of groups above those of sandboxes, by their paths below the mount points. They hold for groups that
    /// are there and for those that come to be with a sandbox; groups that are not named any more keep what they have.
    async fn limit_groups(&self, groups: BTreeMap<PathBuf, Resources>) -> Result<(), RuntimeError>;

    /// Forgets an exited container and removes its writable layer; its log stays. An unknown one is fine.
    async fn remove_container(&self, sandbox: &SandboxId, container: &ContainerId) -> Result<(), RuntimeError>;

    /// Kills what still runs and removes all of the sandbox: processes, namespaces, cgroups, writable layers, record.
    /// Returns when nothing is left. An unknown one is fine.
    async fn remove_sandbox(&self, sandbox: &SandboxId) -> Result<(), RuntimeError>;

    /// Runs a command inside a container and waits for it.
    async fn exec(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
        exec: ExecSpec,
    ) -> Result<ExecResult, RuntimeError>;

    /// Runs a command inside a container with somebody at its standard streams; returns once they are there. Dropping the
    /// session kills the command.
    async fn open_session(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
        spec: SessionSpec,
    ) -> Result<Session, RuntimeError>;

    /// Lets somebody be at the standard streams of a container that runs; returns once they are there.
    async fn attach(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
        typing: Typing,
    ) -> Result<Attachment, RuntimeError>;

    /// Mounts a volume at a directory of the host, which is made if absent; one that is mounted there stays.
    async fn mount_volume(&self, at: &Path, source: VolumeSource) -> Result<(), RuntimeError>;

    /// Unmounts what [`Runtime::mount_volume`] has mounted there; absence is fine. What somebody else has mounted over it
    /// is an error.
    async fn unmount_volume(&self, at: &Path) -> Result<(), RuntimeError>;

    /// Everything that exists, also dead sandboxes whose removal is due.
    async fn list(&self) -> Result<Vec<SandboxStatus>, RuntimeError>;

    /// One sandbox, or none.
    async fn status(&self, sandbox: &SandboxId) -> Result<Option<SandboxStatus>, RuntimeError>;

    /// What the host and everything that runs has used until now.
    async fn usage(&self, measure: Measure) -> Result<Usage, RuntimeError>;

    /// The directories that hold what the containers of a sandbox write to their root file systems.
    async fn layers(&self, sandbox: &SandboxId) -> Result<BTreeMap<ContainerId, PathBuf>, RuntimeError>;

    /// Hints that something changed. Lagging receivers look at everything again.
    fn changes(&self) -> broadcast::Receiver<Changed>;
}
