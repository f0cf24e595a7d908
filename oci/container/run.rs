//! The parent's half of starting a program: clone, listen.
//!
//! ```text
//! parent                                   child
//!   │ ── clone3 ──────────────────────────▶ │  steps
//!   │ ◀───────────────── born, pid, its pidfd  │  (only with Fork) the child goes on in a child and ends
//!   │ ── go ──────────────────────────────▶ │  to that one; further steps
//!   │ ◀───────────────── terminal + its fd  │  (only with a terminal)
//!   │ ◀───────────────── warning, step, errno  (any number)
//!   │ ◀───────────────── waiting            │  (only with AwaitStart) until somebody writes to the fifo
//!   │ ◀───────────────── executing          │
//!   │ ◀───────────────── failed, place, errno  (or)
//!   │ ◀───────────────── end of file        │  execve(2) has closed the channel
//! ```
//!
//! May be called from any thread of any program; [`begin`] returns without waiting for the child, so that a program of
//! one thread can serve others meanwhile. It does not open, create or remove anything but the child. A caller that starts
//! something in a process namespace that others are in stays non-dumpable from then on (PR_SET_DUMPABLE(2const)).
//! Invariant: the child of a failed start has been killed; where it has not been waited for, it is among
//! [`super::ending_children`].

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, send, socketpair};
use rustix::process::{DumpableBehavior, PidfdFlags, Signal, WaitId, WaitIdOptions};
use rustix::process::{pidfd_open, pidfd_send_signal, set_dumpable_behavior, waitid};
use rustix::thread::ThreadNameSpaceType;
use serde::{Deserialize, Serialize};

use super::channel::{self, Message};
use super::child::Child;
use super::{Fd, Namespaces, Script, Step, ending};
use crate::sys::clone::{self, Birth};
use crate::sys::exec::Argv;

/// Descriptors that become the program's standard streams.
#[derive(Debug, Clone, Copy)]
pub struct Stdio<'a> {
    /// Standard input.
    pub stdin: BorrowedFd<'a>,
    /// Standard output.
    pub stdout: BorrowedFd<'a>,
    /// Standard error.
    pub stderr: BorrowedFd<'a>,
}

/// What is to be started.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// What the child does.
    pub script: &'a Script,
    /// What the script's [`Fd`]s mean. They stay the caller's; the child's copies vanish with execve(2).
    pub fds: &'a [BorrowedFd<'a>],
    /// Standard streams; a [`Step::Terminal`] replaces them.
    pub stdio: Stdio<'a>,
}

/// Where a start failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// Before there was a child.
    Prepare,
    /// Joining or leaving the process namespace.
    PidNamespace,
    /// clone3(2).
    Clone,
    /// Step of this index.
    Step(u16),
    /// execve(2) itself: ENOENT and EACCES speak of the program.
    Execute,
    /// The child was killed before it could execute anything.
    Died,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prepare => f.write_str("prepare"),
            Self::PidNamespace => f.write_str("join process namespace"),
            Self::Clone => f.write_str("clone"),
            Self::Step(index) => write!(f, "step {index}"),
            Self::Execute => f.write_str("execute program"),
            Self::Died => f.write_str("wait for program"),
        }
    }
}

/// Why nothing was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{place} failed with error {errno}")]
pub struct StartError {
    /// What failed.
    pub place: Place,
    /// The kernel's error number.
    pub errno: i32,
}

impl StartError {
    fn new(place: Place, errno: Errno) -> Self {
        Self { place, errno: errno.raw_os_error() }
    }

    /// The error number as an error.
    #[must_use]
    pub fn io(&self) -> io::Error {
        io::Error::from_raw_os_error(self.errno)
    }

    /// The step of `script` that failed, if one did.
    #[must_use]
    pub fn step<'s>(&self, script: &'s Script) -> Option<&'s Step> {
        match self.place {
            Place::Step(index) => script.steps.get(usize::from(index)),
            _ => None,
        }
    }
}

/// A step that could not be done and is not worth a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartWarning {
    /// Index of the step.
    pub step: u16,
    /// The kernel's error number.
    pub errno: i32,
}

/// A program that runs: its execve(2) has succeeded.
#[derive(Debug)]
pub struct Started {
    /// Its id in the caller's process namespace.
    pub pid: i32,
    /// A handle on it.
    pub pidfd: OwnedFd,
    /// The master end of its terminal, if it has one.
    pub terminal: Option<OwnedFd>,
    /// What could not be done.
    pub warnings: Vec<StartWarning>,
}

/// What became of a child since it was last looked at.
#[derive(Debug)]
pub enum Progress {
    /// It is still on its way: poll the descriptor for reading, then look again.
    Pending(Starting),
    /// It runs.
    Started(Started),
}

/// A child on its way to execve(2). Readable (see [`AsFd`]) when there is something to be seen of it. Dropping it kills
/// the child, which is to be found among [`super::ending_children`] then.
#[derive(Debug)]
pub struct Starting {
    child: Unstarted,
    channel: OwnedFd,
    terminal: Option<OwnedFd>,
    warnings: Vec<StartWarning>,
    executing: bool,
}

/// A child that nobody waits for yet: killed when dropped, and handed to [`ending`] to be reaped.
#[derive(Debug)]
struct Unstarted {
    pid: i32,
    /// None once it runs.
    pidfd: Option<OwnedFd>,
    /// Whether the caller has time to wait for its end.
    wait: bool,
}

impl Drop for Unstarted {
    fn drop(&mut self) {
        let Some(pidfd) = self.pidfd.take() else { return };
        // Fails only if it has ended already; either way it has to be reaped. Who serves others must not wait for that:
        // a child that hangs in a mount or in opening a file of a file system that does not answer dies when that does.
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        if self.wait {
            let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
        } else {
            ending::reap_later(pidfd);
        }
    }
}

/// Starts a container's first process and returns when its execve(2) has succeeded.
///
/// With a [`Step::DieWithParent`] the program lives as long as the calling thread does: the kernel takes the thread that
/// cloned it for its parent.
///
/// # Errors
/// Where and why it failed; nothing is left of the child then.
pub fn start(launch: &Launch<'_>) -> Result<Started, StartError> {
    begin(launch)?.finish()
}

/// Starts a further process in the namespaces of the process behind `target`, a descriptor of pidfd_open(2), and
/// returns when its execve(2) has succeeded. The caller becomes its parent.
///
/// # Errors
/// Where and why it failed; nothing is left of the child then.
pub fn exec(launch: &Launch<'_>, target: BorrowedFd<'_>) -> Result<Started, StartError> {
    begin_exec(launch, target)?.finish()
}

/// As [`start`], without waiting for the child.
///
/// # Errors
/// When there could not be a child.
pub fn begin(launch: &Launch<'_>) -> Result<Starting, StartError> {
    let pid_namespace = launch.script.pid_namespace.map(|fd| find(launch.fds, fd)).transpose();
    let pid_namespace = pid_namespace.map_err(|errno| StartError::new(Place::Prepare, errno))?;
    spawn(launch, pid_namespace, None)
}

/// As [`exec`], without waiting for the child.
///
/// # Errors
/// When there could not be a child.
pub fn begin_exec(launch: &Launch<'_>, target: BorrowedFd<'_>) -> Result<Starting, StartError> {
    spawn(launch, Some(target), Some(target))
}

/// What a place in the list of descriptors means.
pub(super) fn find<'a>(fds: &[BorrowedFd<'a>], fd: Fd) -> Result<BorrowedFd<'a>, Errno> {
    fds.get(usize::from(fd.0)).copied().ok_or(Errno::BADF)
}

fn spawn(
    launch: &Launch<'_>,
    pid_namespace: Option<BorrowedFd<'_>>,
    target: Option<BorrowedFd<'_>>,
) -> Result<Starting, StartError> {
    let prepare = |errno| StartError::new(Place::Prepare, errno);
    let script = launch.script;
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(prepare)?;
    // In the child the numbers 0, 1 and 2 are overwritten before anything else is used.
    let theirs = above_stdio(theirs.as_fd()).map_err(prepare)?;
    let stdio = [launch.stdio.stdin, launch.stdio.stdout, launch.stdio.stderr].map(above_stdio);
    let [stdin, stdout, stderr] = stdio;
    let stdio = [stdin.map_err(prepare)?, stdout.map_err(prepare)?, stderr.map_err(prepare)?];
    if script.program.args.is_empty() || launch.fds.iter().any(|fd| fd.as_raw_fd() <= 2) {
        return Err(prepare(Errno::INVAL));
    }
    let args = Argv::new(&script.program.args);
    let env = Argv::new(&script.program.env);
    let mut ours = Some(ours);
    let born_in = script.born_in.map(|fd| find(launch.fds, fd)).transpose().map_err(prepare)?;
    let birth = Birth { namespaces: script.new.0, cgroup: born_in, sibling: false };
    if pid_namespace.is_some() {
        // Else there would be a moment in which processes that are there already may look into the child.
        set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(prepare)?;
    }
    let inside = PidNamespace::enter(pid_namespace)?;
    let cloned = clone::clone3(birth, || {
        drop(ours.take());
        Child::new(launch, target, theirs.as_fd(), &stdio).run(&args, &env)
    });
    // From here on the child is killed when this function returns early.
    let child = cloned.map(|(pid, pidfd)| Unstarted { pid, pidfd: Some(pidfd), wait: false });
    inside.leave()?;
    let child = child.map_err(|errno| StartError::new(Place::Clone, errno))?;
    let channel = ours.expect("only the child takes it");
    let mut starting = Starting { child, channel, terminal: None, warnings: Vec::new(), executing: false };
    if script.steps.iter().any(|step| matches!(step, Step::Fork { .. })) {
        starting.await_birth()?;
    }
    Ok(starting)
}

/// A descriptor of the same thing with a number that is not that of a standard stream.
fn above_stdio(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    rustix::io::fcntl_dupfd_cloexec(fd, 3)
}

/// The calling thread's children are born in another process namespace until it leaves again.
struct PidNamespace {
    own: Option<OwnedFd>,
}

impl PidNamespace {
    fn enter(namespace: Option<BorrowedFd<'_>>) -> Result<Self, StartError> {
        let failed = |errno| StartError::new(Place::PidNamespace, errno);
        let Some(namespace) = namespace else { return Ok(Self { own: None }) };
        let own = pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).map_err(failed)?;
        set_namespaces(namespace, Namespaces::PID).map_err(failed)?;
        Ok(Self { own: Some(own) })
    }

    fn leave(mut self) -> Result<(), StartError> {
        let Some(own) = self.own.take() else { return Ok(()) };
        set_namespaces(own.as_fd(), Namespaces::PID).map_err(|errno| StartError::new(Place::PidNamespace, errno))
    }
}

/// setns(2). Neither allocates nor locks.
pub(super) fn set_namespaces(of: BorrowedFd<'_>, kinds: Namespaces) -> Result<(), Errno> {
    rustix::thread::move_into_thread_name_spaces(of, ThreadNameSpaceType::from_bits_retain(kinds.0))
}

impl AsFd for Starting {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

impl Starting {
    /// The child's id in the caller's process namespace.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.pid
    }

    /// Waits until the program runs, or until its [`Step::AwaitStart`] waits for the word to start. In the latter case
    /// nobody hears what becomes of it afterwards.
    ///
    /// # Errors
    /// Where and why it failed; nothing is left of the child then.
    pub fn finish(mut self) -> Result<Started, StartError> {
        self.child.wait = true;
        loop {
            match self.listen(RecvFlags::empty())? {
                Progress::Pending(starting) => self = starting,
                Progress::Started(started) => return Ok(started),
            }
        }
    }

    /// Looks at what the child has said, without waiting.
    ///
    /// # Errors
    /// Where and why it failed; the child has been killed then.
    pub fn advance(self) -> Result<Progress, StartError> {
        self.listen(RecvFlags::DONTWAIT)
    }

    /// Hears messages until the child runs, has failed, or (if waiting is forbidden) says nothing for the moment.
    fn listen(mut self, flags: RecvFlags) -> Result<Progress, StartError> {
        loop {
            match channel::hear(self.channel.as_fd(), flags) {
                Ok(Message::Terminal(master)) => self.terminal = Some(master),
                Ok(Message::Warning { step, errno }) => self.warnings.push(StartWarning { step, errno }),
                Ok(Message::Executing) => self.executing = true,
                Ok(Message::Waiting) => return Ok(Progress::Started(self.started())),
                Ok(Message::Born { .. }) => return Err(StartError::new(Place::Died, Errno::BADMSG)),
                Ok(Message::Failed { place, errno }) => return Err(StartError { place, errno }),
                Ok(Message::End) if self.executing => return Ok(Progress::Started(self.started())),
                Ok(Message::End) => return Err(StartError::new(Place::Died, Errno::CHILD)),
                Err(Errno::AGAIN) => return Ok(Progress::Pending(self)),
                Err(errno) => return Err(StartError::new(Place::Died, errno)),
            }
        }
    }

    /// Waits for the second child (see [`super::users`]) and takes it for the child. The first one has but a few steps
    /// before that, none of which waits for anybody.
    fn await_birth(&mut self) -> Result<(), StartError> {
        loop {
            match channel::hear(self.channel.as_fd(), RecvFlags::empty()) {
                Ok(Message::Born { pid, pidfd }) => {
                    // The first one ends by itself: there is next to nothing to wait for.
                    self.child.wait = true;
                    self.child = Unstarted { pid, pidfd: Some(pidfd), wait: false };
                    self.go();
                    return Ok(());
                }
                Ok(Message::Warning { step, errno }) => self.warnings.push(StartWarning { step, errno }),
                Ok(Message::Failed { place, errno }) => return Err(StartError { place, errno }),
                Ok(_) => return Err(StartError::new(Place::Died, Errno::CHILD)),
                Err(errno) => return Err(StartError::new(Place::Died, errno)),
            }
        }
    }

    /// Lets the child go on. One that has failed already does not hear this, and has said why.
    fn go(&self) {
        let _ = send(&self.channel, &[1], SendFlags::NOSIGNAL);
    }

    fn started(mut self) -> Started {
        let pidfd = self.child.pidfd.take().expect("it is taken here only");
        Started { pid: self.child.pid, pidfd, terminal: self.terminal, warnings: self.warnings }
    }
}
