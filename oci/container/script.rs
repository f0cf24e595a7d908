//! What becomes a container, as a list of steps.
//!
//! [`compile`](super::compile) writes a [`Script`] where the whole configuration is known; the child only interprets it
//! (see [`run`](super::run)). A script holds no descriptors but places ([`Fd`]) in a list that travels beside it, so
//! that it can be sent to another process as bytes. It deliberately knows nothing of images, pods or paths of the host.
//!
//! Invariant: a script that an earlier release has written keeps its meaning. Variants and fields are appended only,
//! and a change that older interpreters would get wrong raises [`Script::VERSION`].

use std::ffi::CString;

use serde::{Deserialize, Serialize};

/// A place in the list of descriptors that accompanies a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fd(pub u16);

/// Kinds of namespaces, as `CLONE_NEW*` bits of clone(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Namespaces(pub u32);

impl Namespaces {
    /// Mounts.
    pub const MOUNT: Self = Self(0x0002_0000);
    /// Control groups.
    pub const CGROUP: Self = Self(0x0200_0000);
    /// Host and domain name.
    pub const UTS: Self = Self(0x0400_0000);
    /// System V IPC and POSIX message queues.
    pub const IPC: Self = Self(0x0800_0000);
    /// Users, groups and capabilities.
    pub const USER: Self = Self(0x1000_0000);
    /// Process ids.
    pub const PID: Self = Self(0x2000_0000);
    /// Network.
    pub const NET: Self = Self(0x4000_0000);

    /// Whether all of `other` are among these.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These and `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// All that the interpreter needs to know about one program to be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// [`Script::VERSION`] of the writer.
    pub version: u16,
    /// Namespaces that are made by clone3(2) itself.
    pub new: Namespaces,
    /// A process namespace to be joined; by the parent, around clone3(2), because it takes effect for children only.
    pub pid_namespace: Option<Fd>,
    /// Directory of a v2 group that the child is born in.
    pub born_in: Option<Fd>,
    /// `tasks` files of v1 groups, which the child joins at [`Step::JoinGroups`].
    pub joins: Vec<Fd>,
    /// What the child does, in order.
    pub steps: Vec<Step>,
    /// What it becomes in the end.
    pub program: Program,
}

impl Script {
    /// Raised by changes that an older interpreter cannot notice by itself.
    pub const VERSION: u16 = 1;

    /// The bytes in which a script travels.
    ///
    /// # Errors
    /// Never for scripts of [`compile`](super::compile); the serializer has the last word.
    pub fn to_bytes(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_stdvec(self)
    }

    /// The script in `bytes`.
    ///
    /// # Errors
    /// When they are not a script, or one of a later version than this interpreter understands.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, postcard::Error> {
        let script: Self = postcard::from_bytes(bytes)?;
        if script.version == Self::VERSION { Ok(script) } else { Err(postcard::Error::DeserializeBadEncoding) }
    }
}

/// The program that the child becomes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Arguments, the program's name first; not empty.
    pub args: Vec<CString>,
    /// `NAME=value`.
    pub env: Vec<CString>,
}

/// How the mounts of a tree pass to and from other namespaces, as `MS_*` bits of mount(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Passing {
    /// Not at all.
    Private,
    /// From the host only.
    Slave,
    /// Both ways.
    Shared,
}

/// An option of a file system: `name=value`, or a bare `name`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsOption {
    /// Its name.
    pub name: CString,
    /// Its value; none for a flag.
    pub value: Option<CString>,
}

/// `MOUNT_ATTR_*` bits of mount_setattr(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Attributes {
    /// Set on the mount.
    pub set: u64,
    /// Cleared on the mount.
    pub clear: u64,
    /// Set on the mount and all mounts below.
    pub set_below: u64,
}

/// Sets of capabilities, bit n for capability number n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Capabilities {
    /// In force.
    pub effective: u64,
    /// May be in force.
    pub permitted: u64,
    /// May pass through execve(2) of programs that carry them.
    pub inheritable: u64,
    /// Pass through execve(2).
    pub ambient: u64,
}

/// One instruction of a classic BPF program: `struct sock_filter` of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[repr(C)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when a comparison holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// One thing that the child does. Paths are those of the container and resolved below its root, whatever symbolic links
/// an image holds. Variants are appended only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Joins a namespace. After joining a user namespace the child is its root.
    Join {
        /// The namespace.
        namespace: Fd,
        /// Its kind.
        kind: Namespaces,
    },
    /// Joins namespaces of the process that [`exec`](super::exec) is aimed at; its root becomes the root. After joining
    /// a user namespace the child is its root.
    JoinTarget {
        /// Which ones.
        kinds: Namespaces,
    },
    /// Becomes the leader of a new session.
    NewSession,
    /// Stops mounts from passing to the outside.
    IsolateMounts,
    /// Puts a detached mount over the root; all later paths are resolved below it.
    Root {
        /// The mount.
        mount: Fd,
    },
    /// Makes a new file system and attaches it. The mount point is created if it is absent.
    Mount {
        /// Type of the file system.
        file_system: CString,
        /// What is shown as its source.
        source: CString,
        /// Options of the file system itself.
        options: Vec<FsOption>,
        /// `MOUNT_ATTR_*` bits.
        attributes: u64,
        /// Where it goes.
        target: CString,
    },
    /// Attaches a detached mount. The mount point is created if it is absent.
    Attach {
        /// The mount.
        mount: Fd,
        /// Where it goes.
        target: CString,
        /// What is changed on it before.
        attributes: Attributes,
        /// How mounts below it pass.
        passing: Passing,
    },
    /// Creates a directory and those above it, unless it exists.
    Directory {
        /// Which one.
        path: CString,
        /// Permission bits of those that are created.
        mode: u32,
    },
    /// Creates a device node or fifo, replacing nothing that exists.
    Device {
        /// Which one.
        path: CString,
        /// File type and permission bits.
        mode: u32,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// Creates a symbolic link, unless something exists there.
    Symlink {
        /// What it holds.
        target: CString,
        /// Where it is.
        path: CString,
    },
    /// Opens a terminal in the container's `/dev/pts`, sends its master end to the parent, makes the other end standard
    /// input, output, error and controlling terminal.
    Terminal {
        /// Whether it is also bound to `/dev/console`.
        bind_console: bool,
        /// Owner of the terminal.
        uid: u32,
        /// Its size, if it is known: rows and columns.
        size: Option<(u16, u16)>,
    },
    /// Joins the groups of [`Script::joins`].
    JoinGroups,
    /// Makes a new namespace whose root is the groups that the child is in.
    NewCgroupNamespace,
    /// Hides a file behind `/dev/null`, a directory behind an empty read-only one. Absent paths are fine.
    Mask {
        /// Which one.
        path: CString,
    },
    /// Makes a path and all mounts below read-only. Absent paths are fine.
    ReadOnly {
        /// Which one.
        path: CString,
    },
    /// Makes the mount at a path read-only, without what is mounted below it.
    Seal {
        /// Which one.
        path: CString,
    },
    /// Makes the root mount itself read-only.
    ReadOnlyRoot,
    /// Makes the root the root of the namespace and drops everything outside.
    Pivot,
    /// Sets a kernel parameter.
    Sysctl {
        /// Below `/proc/sys`, with slashes.
        path: CString,
        /// Its value.
        value: Vec<u8>,
    },
    /// Sets the inclination of the kernel to kill the process for want of memory; a refusal is a warning.
    OomScore {
        /// −1000 to 1000.
        value: i32,
    },
    /// Sets a resource limit; what is refused is clamped to the present hard limit with a warning.
    Limit {
        /// `RLIMIT_*` number.
        resource: u32,
        /// Soft limit; `u64::MAX` for none.
        soft: u64,
        /// Hard limit; `u64::MAX` for none.
        hard: u64,
    },
    /// Sets the host name.
    HostName {
        /// The name.
        name: Vec<u8>,
    },
    /// Sets the domain name.
    DomainName {
        /// The name.
        name: Vec<u8>,
    },
    /// Changes the working directory, which must exist, and proves that it is inside the root.
    WorkingDirectory {
        /// Which one.
        path: CString,
    },
    /// Sets the mask of permission bits.
    Umask {
        /// Bits that new files do not get.
        mask: u32,
    },
    /// Removes all other capabilities from the bounding set.
    BoundingSet {
        /// What stays.
        keep: u64,
    },
    /// Changes user and groups; permitted capabilities stay for the steps that follow, and are in force.
    User {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
        /// Further groups.
        groups: Vec<u32>,
    },
    /// Sets the capabilities.
    Capabilities(Capabilities),
    /// Asks for a signal when the parent dies, and ends at once if it is dead already.
    DieWithParent {
        /// The signal.
        signal: i32,
    },
    /// Gives up that execve(2) grants privileges.
    NoNewPrivileges,
    /// Searches the program in the `PATH` of its environment.
    FindProgram,
    /// Installs a system call filter.
    Seccomp {
        /// The filter.
        program: Vec<Instruction>,
        /// `SECCOMP_FILTER_FLAG_*` bits.
        flags: u32,
    },
    /// Tells the parent that all is prepared, and waits until a byte can be read from a fifo, whoever writes it.
    AwaitStart {
        /// The fifo, opened for reading and writing, so that it never ends.
        fifo: Fd,
    },
    /// Opens a process file system that is mounted nowhere, for steps before there is one below the root.
    OwnProc,
    /// Raises a hard resource limit, if it is lower, as only the host's root may; a refusal is what a later
    /// [`Step::Limit`] tells of.
    RaiseLimit {
        /// `RLIMIT_*` number.
        resource: u32,
        /// Hard limit; `u64::MAX` for none.
        hard: u64,
    },
    /// Enters a new mount namespace that has nothing but complete process and kernel file systems, without which the
    /// kernel lets no user namespace mount its own. They go with the pivot of the container.
    VisibleMounts,
    /// Goes on in a child that is born into new namespaces and is a child of the parent; at most once in a script.
    Fork {
        /// Which ones.
        new: Namespaces,
    },
    /// Enters new namespaces; not one of process ids, which only children do.
    NewNamespaces {
        /// Which ones.
        kinds: Namespaces,
    },
    /// Replaces standard streams that are the null device of the host by the container's own. The owner, mode and
    /// times of a device node belong to its inode, so who holds the host's could change them for the whole host.
    OwnNullDevice,
    /// Is the first process of its process namespace until its end, and executes nothing: see
    /// [`keep_processes`](super::keep_processes).
    KeepProcesses,
}

impl Step {
    /// The path that it is about, for messages.
    #[must_use]
    pub fn subject(&self) -> Option<&std::ffi::CStr> {
        match self {
            Self::Mount { target: path, .. }
            | Self::Attach { target: path, .. }
            | Self::Directory { path, .. }
            | Self::Device { path, .. }
            | Self::Symlink { path, .. }
            | Self::Mask { path }
            | Self::ReadOnly { path }
            | Self::Seal { path }
            | Self::Sysctl { path, .. }
            | Self::WorkingDirectory { path } => Some(path),
            _ => None,
        }
    }

    /// A short name for messages.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Join { .. } | Self::JoinTarget { .. } => "join namespace",
            Self::NewSession => "new session",
            Self::IsolateMounts => "isolate mounts",
            Self::Root { .. } => "attach root file system",
            Self::Mount { .. } => "mount",
            Self::Attach { .. } => "bind mount",
            Self::Directory { .. } => "create directory",
            Self::Device { .. } => "create device",
            Self::Symlink { .. } => "create symbolic link",
            Self::Terminal { .. } => "open terminal",
            Self::JoinGroups => "join cgroup",
            Self::NewCgroupNamespace => "new cgroup namespace",
            Self::Mask { .. } => "mask path",
            Self::ReadOnly { .. } => "make path read-only",
            Self::Seal { .. } => "make mount read-only",
            Self::ReadOnlyRoot => "make root read-only",
            Self::Pivot => "pivot root",
            Self::Sysctl { .. } => "set kernel parameter",
            Self::OomScore { .. } => "set oom_score_adj",
            Self::Limit { .. } => "set resource limit",
            Self::HostName { .. } => "set host name",
            Self::DomainName { .. } => "set domain name",
            Self::WorkingDirectory { .. } => "change working directory",
            Self::Umask { .. } => "set umask",
            Self::BoundingSet { .. } => "limit bounding set",
            Self::User { .. } => "change user",
            Self::Capabilities(_) => "set capabilities",
            Self::DieWithParent { .. } => "set parent death signal",
            Self::NoNewPrivileges => "set no_new_privs",
            Self::FindProgram => "find program",
            Self::Seccomp { .. } => "install seccomp filter",
            Self::AwaitStart { .. } => "await start",
            Self::OwnProc => "open process file system",
            Self::RaiseLimit { .. } => "raise resource limit",
            Self::VisibleMounts => "make file systems visible",
            Self::Fork { .. } | Self::NewNamespaces { .. } => "new namespaces",
            Self::OwnNullDevice => "use own null device",
            Self::KeepProcesses => "keep process namespace",
        }
    }
}
