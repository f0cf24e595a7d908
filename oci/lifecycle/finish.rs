//! The operations `kill` and `delete`.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};

use super::{Containers, LifecycleError, Record, Status};
use crate::cgroup::Hierarchies;

/// How long `delete` by force waits for a killed process: one in an uninterruptible call ends later or never.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// Who gets a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// The first process.
    First,
    /// All processes of the container's group.
    All,
}

/// Whether a container that has not ended is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// It is an error.
    No,
    /// It is killed. A container that does not exist is fine.
    Yes,
}

impl Containers {
    /// Sends a signal.
    ///
    /// # Errors
    /// When the container does not exist, or has ended already.
    pub fn kill(&self, id: &str, signal: Signal, whom: Whom) -> Result<(), LifecycleError> {
        let record = self.record(id)?;
        let Some(process) = record.open_process()? else {
            let (id, status) = (id.to_owned(), self.status(&record)?);
            return Err(LifecycleError::Status { operation: "signal", id, status });
        };
        let failed = |errno: Errno| LifecycleError::Signal { id: id.to_owned(), source: errno.into() };
        // Without a process namespace of its own nobody else ends the container's other processes.
        if whom == Whom::All || (signal == Signal::KILL && !record.own_processes) {
            let group = record.open_group(&Hierarchies::detect().map_err(LifecycleError::Cgroup)?)?;
            if signal == Signal::KILL {
                group.kill_all()?;
            } else {
                group.signal_all(signal)?;
            }
        }
        match pidfd_send_signal(&process, signal) {
            // It has ended just now, and had the signal or no need of it.
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// Removes what is left of a container.
    ///
    /// # Errors
    /// When it does not exist or has not ended, unless that is forced; or when the kernel refuses to remove something.
    pub fn delete(&self, id: &str, force: Force) -> Result<(), LifecycleError> {
        let directory = self.directory(id)?;
        match self.record(id) {
            Ok(record) => self.end(&record, force)?,
            Err(LifecycleError::NotFound { .. }) if force == Force::Yes => return Ok(()),
            // Somebody was killed before there was anything else than the directory.
            Err(LifecycleError::Status { status: Status::Creating, .. }) if force == Force::Yes => {}
            Err(error) => return Err(error),
        }
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(LifecycleError::file("remove", &directory, error))
            }
            _ => Ok(()),
        }
    }

    /// Sees to it that no process is left, and removes the group.
    fn end(&self, record: &Record, force: Force) -> Result<(), LifecycleError> {
        let status = self.status(record)?;
        if status != Status::Stopped && force == Force::No {
            return Err(LifecycleError::Status { operation: "delete", id: record.id.clone(), status });
        }
        if let Some(process) = record.open_process()? {
            let failed = |errno: Errno| LifecycleError::Signal { id: record.id.clone(), source: errno.into() };
            match pidfd_send_signal(&process, Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => return Err(failed(errno)),
            }
            let fd = process.as_fd();
            if poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&PATIENCE)).map_err(failed)? == 0 {
                return Err(failed(Errno::TIMEDOUT));
            }
        }
        let group = record.open_group(&Hierarchies::detect().map_err(LifecycleError::Cgroup)?)?;
        if status == Status::Creating {
            // Whoever made the container was killed; a child without a starter ends by itself, but perhaps not yet.
            return if record.shares_group { Ok(()) } else { Ok(group.kill_all().and_then(|()| group.remove())?) };
        }
        // With a process namespace of its own, the end of the first process was the end of all.
        if !record.own_processes {
            group.kill_all()?;
        }
        Ok(group.remove()?)
    }
}
