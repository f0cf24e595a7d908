//! The first process of a process namespace that several containers share.
//!
//! Whoever is first there ends the namespace by ending, and inherits what its other processes leave behind. So it is
//! nobody's program: it executes nothing, reaps, and lives as long as its parent. Processes of the namespace see it as
//! process 1 (the pause container of others), and one with CAP_SYS_PTRACE may become it. Invariant: that gains nothing. It
//! has no descriptors, no privileges and nobody's ids (those of upstream's pause image), its root is empty, and it cannot
//! be looked into by anybody else.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use super::script::FsOption;
use super::{Capabilities, Fd, Launch, Namespaces, Program, Script, StartError, Started, Stdio, Step, mounts, start};

/// User and group of upstream's pause image.
const NOBODY: u32 = 65535;

const SIGKILL: i32 = 9;

/// `MOUNT_ATTR_RDONLY`, `MOUNT_ATTR_NOSUID`, `MOUNT_ATTR_NODEV` and `MOUNT_ATTR_NOEXEC`.
const SEALED: u64 = 0x1 | 0x2 | 0x4 | 0x8;

/// Makes a process namespace, which belongs to a user namespace or else to the caller's, and returns a handle on its first
/// process. That ends with the calling thread, if not before.
///
/// # Errors
/// Where and why it failed; nothing is left then.
pub fn keep_processes(null: BorrowedFd<'_>, users: Option<BorrowedFd<'_>>) -> Result<OwnedFd, StartError> {
    let prepare = |errno: Errno| StartError { place: super::Place::Prepare, errno: errno.raw_os_error() };
    let option =
        |name: &std::ffi::CStr, value: &std::ffi::CStr| FsOption { name: name.into(), value: Some(value.into()) };
    let empty = mounts::make(c"tmpfs", c"none", &[option(c"mode", c"555"), option(c"size", c"4k")], SEALED);
    let empty = empty.map_err(prepare)?;
    let script = script(users.is_some());
    let fds: Vec<BorrowedFd<'_>> = [empty.as_fd()].into_iter().chain(users).collect();
    let stdio = Stdio { stdin: null, stdout: null, stderr: null };
    let Started { pidfd, .. } = start(&Launch { script: &script, fds: &fds, stdio })?;
    Ok(pidfd)
}

/// What it does, with its root as the first descriptor and its user namespace, if it has one, as the second.
fn script(has_users: bool) -> Script {
    let own = Namespaces::PID.with(Namespaces::MOUNT);
    let (new, begin) = if has_users {
        (Namespaces::default(), vec![Step::Join { namespace: Fd(1), kind: Namespaces::USER }, Step::Fork { new: own }])
    } else {
        (own, Vec::new())
    };
    let rest = [
        Step::NewSession,
        Step::IsolateMounts,
        Step::Root { mount: Fd(0) },
        Step::Pivot,
        Step::BoundingSet { keep: 0 },
        Step::User { uid: NOBODY, gid: NOBODY, groups: Vec::new() },
        Step::DieWithParent { signal: SIGKILL },
        Step::NoNewPrivileges,
        Step::Capabilities(Capabilities::default()),
        Step::KeepProcesses,
    ];
    Script {
        version: Script::VERSION,
        new,
        pid_namespace: None,
        born_in: None,
        joins: Vec::new(),
        steps: begin.into_iter().chain(rest).collect(),
        // Never executed; shown by nobody either.
        program: Program { args: vec![c"keeper".into()], env: Vec::new() },
    }
}
