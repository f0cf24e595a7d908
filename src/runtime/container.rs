//! What a container is made of, and what can be seen of it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ImageId;

/// A container: 64 hexadecimal digits, unique on the node for ever.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContainerId(pub String);

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Limits and shares, in the units of cgroup v1 and the OCI runtime specification; the native runtime converts for v2.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Resources {
    /// Relative weight under contention, 2 to 262144; 1024 is one CPU.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU per period; none for no limit.
    pub cpu_quota: Option<i64>,
    /// Length of a period in microseconds.
    pub cpu_period: Option<u64>,
    /// Bytes of memory.
    pub memory_limit: Option<i64>,
    /// Number of tasks.
    pub pids_limit: Option<i64>,
    /// Bytes in huge pages, by the size of a page; negative for no limit.
    #[serde(default)]
    pub huge_pages: BTreeMap<u64, i64>,
    /// −1000 to 1000.
    pub oom_score_adj: Option<i32>,
}

/// What a container and its pod have from now on; a limit that is not said is taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resize {
    /// The pod as a whole.
    pub pod: Resources,
    /// The container.
    pub container: Resources,
}

/// Which system calls a container may make.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Seccomp {
    /// The field's common default profile.
    #[default]
    RuntimeDefault,
    /// All of them.
    Unconfined,
    /// A profile in the OCI JSON form on the host.
    Localhost(PathBuf),
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A file or directory of the host.
    HostPath(PathBuf),
    /// The files of an image that is present; never writable, and nothing in it can be executed.
    Image(ImageId),
    /// An empty tmpfs; its size in bytes, or none for half of the memory.
    Tmpfs { size: Option<u64>, mode: u32 },
}

/// A file system of a pod's own on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeSource {
    /// An empty one in memory; its size in bytes, or none for half of the memory; whose group its root is, if not root's.
    Memory { size: Option<u64>, mode: u32, group: Option<u32> },
    /// An empty one in huge pages; how large a page is; whose group its root is, if not root's.
    HugePages { page_size: u64, mode: u32, group: Option<u32> },
    /// What a server exports, with options of nfs(5).
    Nfs { server: String, path: String, options: Vec<String> },
}

/// How mounts pass between the host and the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Propagation {
    /// Not at all.
    #[default]
    None,
    /// Later mounts of the host appear in the container.
    HostToContainer,
    /// Both ways; the source must be on a shared mount.
    Bidirectional,
}

/// A mount into the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path in the container; created if absent.
    pub destination: PathBuf,
    /// What is mounted.
    pub source: MountSource,
    /// Only this part of it: a relative path that cannot lead out of it, whatever links are in it. Directories that are
    /// missing are made, with the mode of the source, but never in an image.
    pub sub_path: Option<PathBuf>,
    /// Whether it cannot be written through this mount.
    pub read_only: bool,
    /// Whether that holds for mounts below as well.
    pub recursive_read_only: bool,
    /// How mounts pass.
    pub propagation: Propagation,
}

/// Who the container's processes are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct User {
    /// `uid`, `name`, `uid:gid` or `name:group`, as the image's `User`; resolved in the image's own files. Empty: root.
    pub user: String,
    /// Overrides the primary group.
    pub gid: Option<u32>,
    /// Supplementary groups.
    pub additional_gids: Vec<u32>,
    /// Whether those of the image's `/etc/group` count as well.
    #[serde(default)]
    pub group_files: GroupFiles,
}

/// Whether the image says which supplementary groups its user has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum GroupFiles {
    /// Those of its `/etc/group` are added.
    #[default]
    Merged,
    /// They do not count.
    Ignored,
}

/// Who a container's first process was at its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinuxUser {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups, the primary one among them, in ascending order.
    pub groups: Vec<u32>,
}

/// What a container may do beyond its user's rights.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Privileges {
    /// All capabilities, all devices, no masks, no seccomp.
    pub privileged: bool,
    /// Capabilities added to the default set; `ALL` or names with or without `CAP_`.
    pub add_capabilities: Vec<String>,
    /// Capabilities removed from the default set.
    pub drop_capabilities: Vec<String>,
    /// Whether set-id programs and file capabilities have no effect.
    pub no_new_privileges: bool,
    /// System call filter.
    pub seccomp: Seccomp,
    /// Whether the root file system cannot be written.
    pub read_only_root: bool,
    /// How much of the process file system is there.
    #[serde(default)]
    pub proc_mount: ProcMount,
}

/// How much of the process file system a container has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ProcMount {
    /// What tells of or changes the host is hidden or read-only.
    #[default]
    Masked,
    /// All of it.
    Whole,
}

/// What a container shall be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Its identity.
    pub id: ContainerId,
    /// Its name within the pod.
    pub name: String,
    /// How often it was started before.
    pub attempt: u32,
    /// What its root file system is made of.
    pub image: ImageId,
    /// The name under which the image was asked for; kept for status.
    pub image_reference: String,
    /// Program and arguments, entry point and command merged already; not empty.
    pub args: Vec<String>,
    /// `NAME=value` pairs in order.
    pub env: Vec<(String, String)>,
    /// Working directory; created if absent.
    pub cwd: PathBuf,
    /// Who it runs as.
    pub user: User,
    /// What it may do.
    pub privileges: Privileges,
    /// Mounts beside the standard ones (proc, sys, dev, pts, shm, mqueue, cgroup).
    pub mounts: Vec<Mount>,
    /// Limits of its own cgroup.
    pub resources: Resources,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Whether its standard input is open.
    pub stdin: bool,
    /// A running container of its sandbox whose processes it sees; else the sandbox's sharing says which.
    pub processes_of: Option<ContainerId>,
    /// Free labels, kept and returned in status.
    pub labels: BTreeMap<String, String>,
}

/// How to end a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// The first signal, usually SIGTERM (15).
    pub signal: i32,
    /// After how long SIGKILL follows; zero kills at once.
    pub grace: Duration,
}

/// Where in its life a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    /// Its command runs.
    Running {
        /// Process id of its init on the host.
        pid: u32,
        /// Since when.
        started_at: Timestamp,
    },
    /// It has ended.
    Exited(Exit),
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Exit status; 128 + n when signal n ended it.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether the kernel killed it for want of memory in its cgroup.
    pub oom_killed: bool,
    /// When its command was executed.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
}

/// What can be seen of a container.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerStatus {
    /// Its identity.
    pub id: ContainerId,
    /// Its name within the pod.
    pub name: String,
    /// How often it was started before.
    pub attempt: u32,
    /// The image that it was made of.
    pub image: ImageId,
    /// The name under which the image was asked for.
    pub image_reference: String,
    /// The labels that it was given.
    pub labels: BTreeMap<String, String>,
    /// Who its first process was; unknown for what an earlier release has started.
    pub user: Option<LinuxUser>,
    /// Where in its life it is.
    pub state: ContainerState,
    /// Its log file.
    pub log_path: PathBuf,
}

/// A command to run inside a container, with the container's namespaces, cgroup, user and capabilities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecSpec {
    /// Program and arguments.
    pub args: Vec<String>,
    /// When to kill it; none for never.
    pub timeout: Option<Duration>,
    /// How many bytes of each stream to keep; the rest is read and dropped.
    pub output_limit: usize,
    /// Whether the same command will be run in the container again, as those of probes are.
    pub again: bool,
}

/// How a command inside a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecResult {
    /// Exit status, 128 + n for signal n; none when it was killed by the timeout.
    pub code: Option<i32>,
    /// Standard output, as far as kept.
    pub stdout: Vec<u8>,
    /// Standard error, as far as kept.
    pub stderr: Vec<u8>,
}
