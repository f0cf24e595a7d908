//! Processes on their way from a script to their end, container inits and commands alike.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use oci::container::{Place, Progress, Script, StartError, StartWarning, Started, Starting, Step, reap_later};
use oci::protocol::{Failure, Outcome, Warning};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use crate::time::Moment;

/// How long a process that has ended may be withheld by a tracer before its end is told without its status.
const WITHHELD_MS: u64 = 1000;

/// How long to wait between two looks at such a process.
const LOOK_MS: u64 = 20;

/// A process that has been cloned and has not executed its program yet.
#[derive(Debug)]
pub(crate) struct Launching {
    starting: Starting,
    /// Kept to name the step that failed.
    script: Rc<Script>,
}

/// What became of a [`Launching`].
#[derive(Debug)]
pub(crate) enum Launched {
    Pending(Launching),
    Running(Process, Option<OwnedFd>, Vec<Warning>),
}

/// A process that executes its program.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pidfd: OwnedFd,
    withheld: Option<Withheld>,
}

/// A process that has ended and that its parent cannot reap: the kernel shows it to its tracer alone, until that has
/// taken note or has ended itself (ptrace(2); kernel/exit.c, `wait_consider_task`). A container may trace a command that
/// is run in it. Its descriptor is readable all the time, so it must not be polled.
#[derive(Debug)]
struct Withheld {
    until: Moment,
    look_at: Moment,
}

/// What a look at a process showed.
#[derive(Debug)]
pub(crate) enum Look {
    Lives(Process),
    /// It has ended, and a tracer keeps how.
    Withheld(Process),
    Ended(Outcome),
}

impl Launching {
    pub(crate) fn new(starting: Starting, script: Rc<Script>) -> Self {
        Self { starting, script }
    }

    /// Looks what became of it.
    pub(crate) fn look(self) -> Result<Launched, Failure> {
        let Self { starting, script } = self;
        match starting.advance().map_err(|error| failure(&error, &script))? {
            Progress::Pending(starting) => Ok(Launched::Pending(Self { starting, script })),
            Progress::Started(Started { pid, pidfd, terminal, warnings }) => {
                let warnings = warnings.iter().map(|warning| named(warning, &script)).collect();
                let pid = u32::try_from(pid).unwrap_or(0);
                Ok(Launched::Running(Process { pid, pidfd, withheld: None }, terminal, warnings))
            }
        }
    }
}

impl AsFd for Launching {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.starting.as_fd()
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Process {
    /// Sends a signal; a process that has ended gets none, and a number that is no signal is the same as 0.
    pub(crate) fn signal(&self, number: i32) {
        if let Some(signal) = Signal::from_named_raw(number) {
            let _ = rustix::process::pidfd_send_signal(&self.pidfd, signal);
        }
    }

    /// Kills it with the processes of its group, which it leads as the first of its session. The group's number is nobody
    /// else's until it is reaped, which is done here alone.
    pub(crate) fn kill_group(&self) {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
        self.signal(Signal::KILL.as_raw());
    }

    /// Leaves it to be reaped whenever it ends.
    pub(crate) fn leave(self) {
        reap_later(self.pidfd);
    }

    /// What to poll for its end.
    pub(crate) fn life(&self) -> Option<BorrowedFd<'_>> {
        self.withheld.is_none().then(|| self.pidfd.as_fd())
    }

    /// When to look without its having been polled.
    pub(crate) fn look_at(&self) -> Option<Moment> {
        self.withheld.as_ref().map(|withheld| withheld.look_at)
    }

    /// Whether it has ended.
    pub(crate) fn is_over(&self) -> bool {
        is_over(&self.pidfd)
    }

    /// Reaps it if it has ended. What a tracer does not give away in time is told as a kill, because nothing better is
    /// known; the process is reaped when it can be.
    pub(crate) fn look(mut self, now: Moment) -> Look {
        if let Some(outcome) = reap(&self.pidfd) {
            return Look::Ended(outcome);
        }
        if !self.is_over() {
            return Look::Lives(self);
        }
        let until = self.withheld.map_or(now.after_ms(WITHHELD_MS), |withheld| withheld.until);
        if until <= now {
            reap_later(self.pidfd);
            return Look::Ended(Outcome::Signal(Signal::KILL.as_raw()));
        }
        self.withheld = Some(Withheld { until, look_at: now.after_ms(LOOK_MS) });
        Look::Withheld(self)
    }
}

/// Whether a child has ended, reaped or not.
pub(crate) fn is_over(pidfd: &OwnedFd) -> bool {
    let mut descriptors = [PollFd::new(pidfd, PollFlags::IN)];
    poll(&mut descriptors, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

/// Reaps a child and tells how it ended, if it has.
pub(crate) fn reap(pidfd: &OwnedFd) -> Option<Outcome> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let status = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options).ok()??;
    let signal = status.terminating_signal().map(Outcome::Signal);
    signal.or(status.exit_status().map(Outcome::Code))
}

fn named(warning: &StartWarning, script: &Script) -> Warning {
    let step = script.steps.get(usize::from(warning.step)).map_or("unknown step", |step| step.name());
    Warning { step: step.to_owned(), errno: warning.errno }
}

/// What is reported of a start that failed.
pub(crate) fn failure(error: &StartError, script: &Script) -> Failure {
    let errno = error.errno;
    match (error.place, error.step(script)) {
        (Place::Execute, _) | (_, Some(Step::FindProgram)) => Failure::Execute { errno },
        (_, Some(step)) => Failure::Step { step: step.name().to_owned(), errno },
        (place, None) => Failure::Step { step: place.to_string(), errno },
    }
}
