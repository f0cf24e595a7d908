//! What a sandbox is made of, and what can be seen of it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{ContainerStatus, Resources};

/// A sandbox: pod UID and attempt, as `<uid>-<attempt>`. Safe as a file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SandboxId(pub String);

impl SandboxId {
    /// The identity of the given attempt at a pod's sandbox.
    pub fn new(pod_uid: &str, attempt: u32) -> Self {
        Self(format!("{pod_uid}-{attempt}"))
    }

    /// Which attempt at its pod's sandbox it is.
    pub fn attempt(&self) -> Option<u32> {
        self.0.rsplit_once('-').and_then(|(_, attempt)| attempt.parse().ok())
    }
}

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether a namespace is the sandbox's own or the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Sharing {
    /// Its own, shared by the sandbox's containers.
    #[default]
    Sandbox,
    /// The host's.
    Host,
}

/// Whose processes a container sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum PidSharing {
    /// Its own only.
    #[default]
    Container,
    /// Those of all containers of the sandbox.
    Sandbox,
    /// Those of the host.
    Host,
}

/// The ids of a sandbox with a user namespace: 0 inside is `first` outside, and so on, for users and groups alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRange {
    /// What root is outside.
    pub first: u32,
    /// How many ids there are.
    pub count: u32,
}

/// What a sandbox shall be. Recorded on disk, so that an agent that starts later can tell what it finds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Its identity.
    pub id: SandboxId,
    /// The pod's UID, from which host-visible names derive.
    pub pod_uid: String,
    /// Which try at this pod's sandbox it is, from 0.
    pub attempt: u32,
    /// The pod's namespace and name: for logs and messages only.
    pub namespace: String,
    /// See `namespace`.
    pub name: String,
    /// Host name of the UTS namespace; ignored with the host's network.
    pub hostname: String,
    /// Network (and with it UTS) namespace.
    pub network: Sharing,
    /// IPC namespace.
    pub ipc: Sharing,
    /// Process namespaces of the containers.
    pub pid: PidSharing,
    /// The pod's cgroup below the mount points, e.g. `kubepods/burstable/pod<uid>`.
    pub cgroup: PathBuf,
    /// Limits of the pod's cgroup as a whole.
    pub resources: Resources,
    /// Where logs go: `<log_directory>/<container>/<attempt>.log`, CRI format.
    pub log_directory: PathBuf,
    /// Namespaced kernel parameters, by their dotted names.
    pub sysctls: BTreeMap<String, String>,
    /// The user namespace of the sandbox and all of its containers; none for the host's.
    #[serde(default)]
    pub user_namespace: Option<UserRange>,
    /// Which other runtime runs the containers; none for this one.
    #[serde(default)]
    pub handler: Option<String>,
}

/// Whether a sandbox can run containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SandboxState {
    /// Its shim lives.
    Ready,
    /// Its shim is dead, and so are its containers; only removal is possible.
    Dead,
}

/// What can be seen of a sandbox.
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxStatus {
    /// What it was created as.
    pub spec: SandboxSpec,
    /// Whether it can run containers.
    pub state: SandboxState,
    /// When it was created.
    pub created_at: jiff::Timestamp,
    /// All containers that have been started and not been removed, oldest first.
    pub containers: Vec<ContainerStatus>,
}
