//! What is known of a container between two operations.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use super::{Containers, LifecycleError};
use crate::cgroup::{Group, Hierarchies};

const STATE: &str = "state.json";
pub(super) const CONFIG: &str = "config.json";
pub(super) const FIFO: &str = "start";

/// A container, as it was when it was created.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Version of the specification that its configuration names.
    pub oci_version: String,
    /// Its name.
    pub id: String,
    /// Its first process, in the process namespace of who created it; 0 before there is one.
    pub pid: i32,
    /// When that process began, in ticks since boot: together with `pid` it names one process for ever.
    pub began: u64,
    /// Its bundle.
    pub bundle: PathBuf,
    /// Its root file system.
    pub rootfs: PathBuf,
    /// Its control group.
    pub group: PathBuf,
    /// Whether the group was there before the container, and may have other processes.
    #[serde(default)]
    pub shares_group: bool,
    /// Whether it has a process namespace that it shares with nobody, so that its first process takes all along.
    pub own_processes: bool,
    /// Nanoseconds since 1970.
    pub created: u64,
    /// Whatever its configuration says.
    #[serde(default, skip_serializing_if = "HashMap::is_empty")]
    pub annotations: HashMap<String, String>,
}

/// Where in its life a container is (runtime.md, "State").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It is being made, or a crash has left it half made.
    Creating,
    /// All is prepared, its program has not begun.
    Created,
    /// Its program runs.
    Running,
    /// Its first process has ended.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Stopped => "stopped",
        })
    }
}

impl Containers {
    /// What is known of a container.
    ///
    /// # Errors
    /// When it does not exist or its state cannot be read.
    pub fn record(&self, id: &str) -> Result<Record, LifecycleError> {
        let directory = self.directory(id)?;
        let file = directory.join(STATE);
        let bytes = match fs::read(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && directory.exists() => {
                return Err(LifecycleError::Status { operation: "use", id: id.to_owned(), status: Status::Creating });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(LifecycleError::NotFound { id: id.to_owned() });
            }
            result => result.map_err(|source| LifecycleError::file("read", &file, source))?,
        };
        serde_json::from_slice(&bytes).map_err(|source| LifecycleError::Malformed { path: file, source: source.into() })
    }

    /// Where in its life a container is.
    ///
    /// # Errors
    /// When its process cannot be examined.
    pub fn status(&self, record: &Record) -> Result<Status, LifecycleError> {
        Ok(match record.open_process()? {
            None if record.pid == 0 => Status::Creating,
            None => Status::Stopped,
            Some(_) if self.directory(&record.id)?.join(FIFO).exists() => Status::Created,
            Some(_) => Status::Running,
        })
    }

    /// The configuration that a container was made of.
    pub(super) fn configuration(&self, id: &str) -> Result<Spec, LifecycleError> {
        read_configuration(&self.directory(id)?.join(CONFIG))
    }
}

/// Reads a configuration.
pub(super) fn read_configuration(file: &Path) -> Result<Spec, LifecycleError> {
    let bytes = fs::read(file).map_err(|source| LifecycleError::file("read", file, source))?;
    serde_json::from_slice(&bytes)
        .map_err(|source| LifecycleError::Malformed { path: file.to_owned(), source: source.into() })
}

impl Record {
    /// Writes it so that it is there as a whole or not at all.
    pub(super) fn write(&self, directory: &Path) -> Result<(), LifecycleError> {
        let (file, draft) = (directory.join(STATE), directory.join("state.json.new"));
        let bytes = serde_json::to_vec(self)
            .map_err(|source| LifecycleError::Malformed { path: file.clone(), source: source.into() })?;
        fs::write(&draft, bytes).map_err(|source| LifecycleError::file("write", &draft, source))?;
        fs::rename(&draft, &file).map_err(|source| LifecycleError::file("write", &file, source))
    }

    /// A handle on its first process; none if that has ended. A descriptor is opened first and examined then, so that
    /// no other process can slip in between.
    pub(super) fn open_process(&self) -> Result<Option<OwnedFd>, LifecycleError> {
        let failed = |source: io::Error| LifecycleError::Signal { id: self.id.clone(), source };
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(None) };
        let process = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(process) => process,
            Err(Errno::SRCH) => return Ok(None),
            Err(errno) => return Err(failed(errno.into())),
        };
        Ok(match began(self.pid).map_err(failed)? {
            Some(began) if began == self.began && !has_ended(process.as_fd()).map_err(failed)? => Some(process),
            _ => None,
        })
    }

    /// Its control group.
    pub(super) fn open_group(&self, host: &Hierarchies) -> Result<Group, LifecycleError> {
        Ok(Group::new(host, &self.group)?)
    }
}

/// A descriptor of a process is readable once the process has ended, whether or not it has been reaped.
fn has_ended(process: BorrowedFd<'_>) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut ends = [PollFd::new(&process, PollFlags::IN)];
    Ok(poll(&mut ends, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? > 0)
}

/// When a process began, in ticks since boot: field 22 of proc_pid_stat(5). None if there is none.
pub(super) fn began(pid: i32) -> io::Result<Option<u64>> {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(text) => Ok(parse_began(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The second field is the program's name, which may hold blanks and brackets.
fn parse_began(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_whose_name_looks_like_fields_does_not_change_when_it_began() {
        let fields = "S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 1000 10";
        assert_eq!(parse_began(&format!("7 (a) R 1 2) {fields}")), Some(4711));
        assert_eq!(parse_began("7 (a"), None);
    }
}
