//! User namespaces, and mounts whose files appear with the ids of one.
//!
//! A user namespace is the answer to a process that gets out of its container, or to a hole in the kernel that asks for a
//! capability only inside a namespace: it arrives on the host as an id that owns nothing there. It does not answer holes
//! that ask for no id at all, and it opens to the container what the kernel shows to root of any user namespace (mounting,
//! its own network's tables), which capabilities and the filter keep closed as before.
//!
//! ```text
//! opener (agent)            short-lived child
//!   │ ── clone3 NEWUSER ──────▶ │ waits; it never executes anything
//!   │ uid_map, gid_map          │   each is written once and by this side, which holds CAP_SETUID and CAP_SETGID on the
//!   │                           │   host: setgroups(2) stays allowed inside, and nothing inside can write them again
//!   │ opens /proc/<id>/ns/user  │
//!   │ ── SIGKILL ─────────────▶ │   the descriptor keeps the namespace from here on
//!
//! starter (shim)            first child                      second child
//!   │ ── clone3 ──────────────▶ │ in the v2 group, on the host's ids
//!   │                           │ OwnProc, OomScore, RaiseLimit: what only the host's root may
//!   │                           │ Join of namespaces by path: while it still may
//!   │                           │ VisibleMounts
//!   │                           │ Join USER: from here on uid 0 of the namespace, with all capabilities in it and none
//!   │                           │   outside. Before everything that is to belong to it
//!   │                           │ Fork ── clone3 PARENT, NEW… ──▶ │ all other namespaces belong to the user namespace
//!   │ ◀──────── born, id, pidfd │                                 │
//!   │ reaps ──────────────────▶ ▪                                 │
//!   │ ── go ────────────────────────────────────────────────────▶ │ as without a user namespace from here on (see run)
//!   │    cgroup.procs, go (joins)
//! ```
//!
//! A second child is needed because the kernel gives a process namespace to the user namespace that its creator is in, and
//! only children are born into it. A further process ([`super::exec`]) needs none: JoinTarget joins the user namespace
//! together with all others, by one setns(2), whose permissions are those of the caller on the host.
//!
//! The namespaces that a pod's containers share (network, IPC, UTS) have to belong to the pod's user namespace (KEP-127),
//! else root inside could neither mount sysfs and mqueue nor set an address: [`Born`] makes them together.
//!
//! Traps, and where they are answered:
//! - `CLONE_NEWUSER` first: what was made before belongs to the host and cannot be used from inside. The kernel itself
//!   orders the flags of one clone3(2); steps are ordered by [`compile`](super::compile).
//! - A process that joins keeps the host's memory descriptor until execve(2): not dumpable, and its `mm` still belongs to
//!   the host's user namespace, so that nobody inside can trace it or open its descriptors (CVE-2016-9962). For the same
//!   reason it cannot write its own files in `/proc`: OomScore comes before.
//! - Supplementary groups of the host are dropped before joining: inside they could not be seen, and would still count.
//! - Mounts that come from the host as descriptors are attached in a namespace that belongs to the user namespace; what
//!   it got as a copy of the host's is locked (mount_namespaces(7)) and gone with the pivot.
//! - proc and sysfs may be mounted only where a complete one is visible already (`mount_too_revealing`), so that nothing
//!   that the host has covered is uncovered; the shim sees neither, so VisibleMounts makes them, in a mount namespace that
//!   has nothing else and ends with the first child.
//! - Capabilities in a namespace of its own open `release_agent` of cgroup v1 (CVE-2022-0492); the kernel demands the
//!   host's CAP_SYS_ADMIN since, and the default filter forbids unshare(2) and mount(2) without CAP_SYS_ADMIN besides.
//! - A set-user-id file that the container makes through a mapped volume belongs to the host's root on disk. Volumes lie
//!   below directories that only root may enter; a hostPath is the administrator's own word.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use serde::{Deserialize, Serialize};

use super::Namespaces;
use crate::sys::clone::{Birth, clone3};
use crate::sys::namespace;

/// Consecutive ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The first one inside.
    pub inside: u32,
    /// What it is outside.
    pub outside: u32,
    /// How many there are.
    pub count: u32,
}

/// What the ids of a user namespace are outside of it, see user_namespaces(7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMaps {
    /// Users.
    pub uids: Vec<IdRange>,
    /// Groups.
    pub gids: Vec<IdRange>,
}

impl IdMaps {
    /// The same `count` ids from 0 for users and groups.
    #[must_use]
    pub fn contiguous(outside: u32, count: u32) -> Self {
        let ranges = vec![IdRange { inside: 0, outside, count }];
        Self { uids: ranges.clone(), gids: ranges }
    }

    /// Root outside: user and group.
    #[must_use]
    pub fn root(&self) -> Option<(u32, u32)> {
        Some((outside(&self.uids, 0)?, outside(&self.gids, 0)?))
    }
}

/// What an id is outside, if it is mapped.
#[must_use]
pub fn outside(ranges: &[IdRange], id: u32) -> Option<u32> {
    ranges.iter().find_map(|range| {
        let place = id.checked_sub(range.inside).filter(|place| *place < range.count)?;
        range.outside.checked_add(place)
    })
}

/// Why there is no user namespace.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step}")]
pub struct UsersError {
    /// What was refused, with what may stand behind it.
    pub step: &'static str,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl UsersError {
    fn new(step: &'static str, source: impl Into<io::Error>) -> Self {
        Self { step, source: source.into() }
    }
}

/// Namespaces that were just made, with a process that holds them; it ends when this is dropped.
#[derive(Debug)]
pub struct Born {
    pidfd: OwnedFd,
    user_namespace: OwnedFd,
    /// The process ends with the last descriptor of this end.
    _alive: OwnedFd,
}

impl Drop for Born {
    fn drop(&mut self) {
        // Fails only if it has ended already; either way it has to be reaped.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        let _ = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
    }
}

impl Born {
    /// Makes a user namespace, and namespaces of `kinds` that belong to it.
    ///
    /// Needs `/proc` of the caller's process namespace.
    ///
    /// # Errors
    /// When the host forbids it.
    pub fn new(maps: &IdMaps, kinds: Namespaces) -> Result<Self, UsersError> {
        let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| UsersError::new("make a pipe", errno))?;
        let mut ours = Some(ours);
        let birth = Birth { namespaces: Namespaces::USER.with(kinds).0, ..Birth::default() };
        let cloned = clone3(birth, || {
            drop(ours.take());
            // Ends with the process that made it, if that does not kill it before.
            let _ = rustix::io::retry_on_intr(|| rustix::io::read(&theirs, &mut [0_u8; 1]));
        });
        let (pid, pidfd) = cloned.map_err(|errno| UsersError::new(refusal(errno), errno))?;
        let reaped = Unfinished(Some(pidfd));
        let path = |name: &str| format!("/proc/{pid}/{name}");
        let write =
            |name, step, ranges| fs::write(path(name), lines(ranges)).map_err(|source| UsersError::new(step, source));
        write("uid_map", "map users into a user namespace (this needs CAP_SETUID)", &maps.uids)?;
        write("gid_map", "map groups into a user namespace (this needs CAP_SETGID)", &maps.gids)?;
        let namespace = fs::File::open(path("ns/user"));
        let namespace = namespace.map_err(|source| UsersError::new("open a new user namespace", source))?;
        let alive = ours.expect("only the child takes it");
        Ok(Self { pidfd: reaped.finish(), user_namespace: namespace.into(), _alive: alive })
    }

    /// The user namespace.
    #[must_use]
    pub fn user_namespace(&self) -> BorrowedFd<'_> {
        self.user_namespace.as_fd()
    }

    /// A handle on the process that is in all of them.
    #[must_use]
    pub fn process(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// A child that is killed and reaped if something fails.
struct Unfinished(Option<OwnedFd>);

impl Unfinished {
    fn finish(mut self) -> OwnedFd {
        self.0.take().expect("it is taken here only")
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(pidfd) = self.0.take() {
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
            let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
        }
    }
}

/// What the errors of clone3(2) say of user namespaces.
const fn refusal(errno: Errno) -> &'static str {
    match errno {
        Errno::NOSPC | Errno::USERS => "make a user namespace: the host allows no more (user.max_user_namespaces)",
        Errno::INVAL => "make a user namespace: the kernel has none (CONFIG_USER_NS)",
        Errno::PERM => "make a user namespace: the host forbids it (chroot, or a security module)",
        _ => "make a user namespace",
    }
}

fn lines(ranges: &[IdRange]) -> String {
    ranges.iter().map(|range| format!("{} {} {}\n", range.inside, range.outside, range.count)).collect()
}

/// Makes a user namespace that nobody is in.
///
/// Needs `/proc` of the caller's process namespace.
///
/// # Errors
/// When the host forbids it.
pub fn make(maps: &IdMaps) -> Result<OwnedFd, UsersError> {
    let born = Born::new(maps, Namespaces::default())?;
    let namespace = born.user_namespace.try_clone();
    namespace.map_err(|source| UsersError::new("duplicate a descriptor", source))
}

/// The user namespace that a namespace belongs to.
///
/// # Errors
/// When it is outside of the caller's own.
pub fn owner(of: BorrowedFd<'_>) -> Result<OwnedFd, UsersError> {
    namespace::owner(of).map_err(|errno| UsersError::new("find the user namespace that a namespace belongs to", errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_that_holds_new_namespaces_lives_until_it_is_let_go() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIP the_process_that_holds_new_namespaces_lives_until_it_is_let_go: not root");
            return;
        }
        let born = Born::new(&IdMaps::contiguous(1 << 16, 1 << 16), Namespaces::UTS).unwrap();
        let ended = || {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            waitid(WaitId::PidFd(born.process()), options).unwrap().is_some()
        };
        // Long enough for a process that has nothing to wait for to be gone.
        (0..1000).for_each(|_| std::thread::yield_now());
        assert!(!ended());
        pidfd_send_signal(born.process(), Signal::KILL).unwrap();
        waitid(WaitId::PidFd(born.process()), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
        assert!(ended());
    }

    #[test]
    fn an_id_is_found_in_the_range_that_maps_it() {
        let maps = IdMaps {
            uids: vec![
                IdRange { inside: 0, outside: 100_000, count: 10 },
                IdRange { inside: 1000, outside: 7, count: 1 },
            ],
            gids: vec![IdRange { inside: 1, outside: 5, count: 1 }],
        };
        assert_eq!(outside(&maps.uids, 9), Some(100_009));
        assert_eq!(outside(&maps.uids, 10), None);
        assert_eq!(outside(&maps.uids, 1000), Some(7));
        assert_eq!(maps.root(), None, "no group 0");
        assert_eq!(IdMaps::contiguous(65536, 65536).root(), Some((65536, 65536)));
    }
}
