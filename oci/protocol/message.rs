//! The messages. Variants and fields are only appended.

use serde::{Deserialize, Serialize};

use crate::container::users::IdMaps;

/// The version of the protocol that this release speaks.
///
/// Version 2 has [`Request::Keep`] and [`Request::ExecKept`], version 3 [`Request::Attach`].
pub const VERSION: u16 = 3;

/// From the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToShim {
    /// The first message on the socket that is the shim's standard input. Descriptors: the directory that becomes the
    /// shim's root, and those of its groups.
    SetUp(SetUp),
    /// The first message on a connection to the control socket.
    Hello {
        /// The highest version that the agent speaks.
        version: u16,
    },
    /// Something to do.
    Request {
        /// Names the reply; unique on its connection.
        id: u64,
        /// What to do.
        request: Request,
    },
}

/// What the shim makes of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetUp {
    /// Which namespaces are made anew.
    pub namespaces: Namespaces,
    /// Host name in a new UTS namespace.
    pub hostname: String,
    /// Kernel parameters as paths below `/proc/sys`, with their values.
    pub sysctls: Vec<(String, String)>,
    /// Bytes of the `/dev/shm` that the containers share; 0 for none.
    pub shm_size: u64,
    /// Ids of a new user namespace, to which the new namespaces belong; none for the host's. The shim stays outside of it.
    pub user_namespace: Option<IdMaps>,
    /// How many descriptors after the first are `tasks` files of v1 groups, which the shim joins.
    pub joins: u16,
    /// Whether one more descriptor is the directory of a v2 group, which the shim is born in.
    pub born_in: bool,
    /// Whether there is a process namespace that containers may share.
    pub processes: bool,
}

/// Namespaces of the sandbox that are not the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Namespaces {
    /// Network.
    pub network: bool,
    /// System V IPC and POSIX message queues.
    pub ipc: bool,
    /// Host name.
    pub uts: bool,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Starts a container.
    Start(Box<Start>),
    /// Runs a command in a running container.
    Exec(Box<Exec>),
    /// Sends `signal` to a container's init now, and SIGKILL to all of it later, at an instant that later requests
    /// can only move earlier.
    Stop {
        /// Which container.
        container: String,
        /// The signal; 0 for none.
        signal: i32,
        /// Milliseconds until SIGKILL.
        grace_ms: u64,
    },
    /// Forgets an exited container.
    Remove {
        /// Which container.
        container: String,
    },
    /// Kills a command that [`Request::Exec`] or [`Request::ExecKept`] started.
    KillExec {
        /// The identity of that request.
        request: u64,
    },
    /// Asks for all containers.
    List,
    /// Kills all containers and ends.
    Shutdown,
    /// Keeps a command of a running container, in the place of one that was kept under the same number. Its descriptors
    /// are the script's.
    Keep {
        /// Where.
        container: String,
        /// Below [`KEPT`].
        number: u8,
        /// What it is, as bytes of [`crate::container::Script`].
        script: Vec<u8>,
    },
    /// Runs a command that is kept. Its input is empty, the two descriptors become its standard output and error.
    ExecKept {
        /// Where.
        container: String,
        /// Which one.
        number: u8,
        /// Milliseconds until SIGKILL; none for never.
        timeout_ms: Option<u64>,
    },
    /// Somebody is at the standard streams of a running container for as long as the other end of the stream socket is
    /// open that is the only descriptor. What the container says is in its log without delay meanwhile, also the
    /// beginnings of lines. One byte is sent over the socket, 1 to the first who asks for input and else 0, together with
    /// the container's terminal, or the writing end of its input if that was asked for and is still there. The shim
    /// closes the socket when the container has ended and its last output is in the log.
    Attach {
        /// To which one.
        container: String,
        /// What is to become of its input.
        input: Input,
    },
}

/// How many commands of a container a shim keeps.
pub const KEPT: u8 = 8;

/// What somebody wants of a container's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// Nothing.
    Not,
    /// To write to it, as others do; it stays open afterwards.
    Shared,
    /// To have it alone; it ends when nobody has the descriptor any more. Nothing of the kind is meant for a terminal.
    Whole,
}

/// A container to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Its identity: a name of a directory below `containers/` in the shim's root, which exists.
    pub container: String,
    /// What it is, as bytes of [`crate::container::Script`].
    pub script: Vec<u8>,
    /// What each of the message's descriptors is, in their order.
    pub roles: Vec<Role>,
    /// The place among the script's descriptors at which the shim inserts a mount of the sandbox's `/dev/shm`.
    pub shared_memory: Option<u16>,
    /// Where its output goes.
    pub log: LogOptions,
    /// Whether its standard input stays open; otherwise it is empty.
    pub stdin: bool,
    /// The place among the script's descriptors at which the shim inserts a handle on the first process of the sandbox's
    /// process namespace; counted with the one of `shared_memory`, if both are there.
    pub processes: Option<u16>,
}

/// What a descriptor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// The next one of the script's.
    Script,
    /// The directory of the log.
    LogDirectory,
    /// A `cgroup.procs` of the container's group, to find what is left of it.
    Processes,
    /// The `cgroup.kill` of the container's group.
    Kill,
    /// A file with a line `oom_kill <count>`: `memory.events`, or `memory.oom_control` on v1.
    MemoryEvents,
}

/// A log in CRI format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOptions {
    /// The name of the file in its directory.
    pub name: String,
    /// When to rotate, and how much to keep.
    pub limits: Limits,
}

/// Limits of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of one file.
    pub max_size: u64,
    /// Number of files, the current one included.
    pub max_files: u32,
}

/// A command to run in a container. Its first three descriptors become its standard input, output and error; the others
/// are the script's. If the script opens a terminal, that is all three of them, and the first descriptor is a stream
/// socket over which the terminal is sent, with one byte, once the command has been executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Where.
    pub container: String,
    /// What it is, as bytes of [`crate::container::Script`].
    pub script: Vec<u8>,
    /// Milliseconds until SIGKILL; none for never.
    pub timeout_ms: Option<u64>,
}

/// From the shim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromShim {
    /// The answer to [`ToShim::SetUp`] after the `Hello`: the sandbox is ready.
    IsSetUp {
        /// The version that the shim speaks.
        version: u16,
        /// Its process id.
        pid: u32,
        /// What could not be done and was no reason to fail.
        warnings: Vec<Warning>,
    },
    /// The answer to [`ToShim::SetUp`], before or after the `Hello`: the shim ends.
    SetUpFailed(Failure),
    /// The answer to [`ToShim::Hello`], and the first one to [`ToShim::SetUp`]: the shim is this process from now on.
    Hello {
        /// The version that the shim speaks.
        version: u16,
        /// Its process id.
        pid: u32,
    },
    /// The answer to a request.
    Reply {
        /// That of the request.
        id: u64,
        /// How it went.
        reply: Reply,
    },
    /// The state of a container is no longer what it was.
    Changed {
        /// Grows with every change; the same counter as in [`ContainerRecord`].
        sequence: u64,
    },
}

/// How a request went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It is done.
    Done,
    /// It could not be done.
    Failed(Failure),
    /// To [`Request::Start`].
    Started {
        /// The container as it is now.
        container: ContainerRecord,
        /// What could not be done and was no reason to fail.
        warnings: Vec<Warning>,
    },
    /// To [`Request::Exec`].
    Exited {
        /// How the command ended.
        outcome: Outcome,
        /// Whether the timeout killed it.
        timed_out: bool,
    },
    /// To [`Request::List`].
    Containers {
        /// The newest change.
        sequence: u64,
        /// All containers that were started and not removed.
        containers: Vec<ContainerRecord>,
    },
}

/// A step that could not be done and was no reason to fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// Which one.
    pub step: String,
    /// What the kernel said.
    pub errno: i32,
}

/// Why something could not be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// There is no such container.
    NoContainer,
    /// The container runs, and must not for this request.
    Runs,
    /// The container was started before.
    Exists,
    /// A step failed in the kernel.
    Step {
        /// Which one.
        step: String,
        /// What the kernel said.
        errno: i32,
    },
    /// The command could not be executed.
    Execute {
        /// What the kernel said.
        errno: i32,
    },
    /// The message does not make sense, for example has too few descriptors.
    Invalid,
}

/// What the shim knows of a container; also the form of the record on disk, which outlives the shim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Its identity.
    pub container: String,
    /// The change after which it is like this.
    pub sequence: u64,
    /// When its command was executed, in nanoseconds since 1970.
    pub started_at: i64,
    /// Where in its life it is.
    pub state: RunState,
    /// Output is held back because the log cannot be written: what the kernel said.
    pub log_errno: Option<i32>,
}

/// Where in its life a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunState {
    /// It runs.
    Running {
        /// Its init, on the host.
        pid: u32,
    },
    /// It has ended.
    Exited {
        /// How.
        outcome: Outcome,
        /// Whether the kernel killed a process of it for want of memory.
        oom_killed: bool,
        /// When, in nanoseconds since 1970.
        finished_at: i64,
    },
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It exited with this status.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}
