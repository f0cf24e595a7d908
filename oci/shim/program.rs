//! Processes on their way from a script to their end, container inits and commands alike.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci::container::{Place, Progress, Script, StartError, StartWarning, Started, Starting, Step};
use oci::protocol::{Failure, Outcome, Warning};
use rustix::process::{Signal, WaitId, WaitIdOptions};

/// A process that has been cloned and has not executed its program yet.
#[derive(Debug)]
pub(crate) struct Launching {
    starting: Starting,
    /// Kept to name the step that failed.
    script: Script,
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
}

impl Launching {
    pub(crate) fn new(starting: Starting, script: Script) -> Self {
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
                Ok(Launched::Running(Process { pid, pidfd }, terminal, warnings))
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

    /// How it ended, if it has.
    pub(crate) fn reap(&self) -> Option<Outcome> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options).ok()??;
        let signal = status.terminating_signal().map(Outcome::Signal);
        signal.or(status.exit_status().map(Outcome::Code))
    }
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
