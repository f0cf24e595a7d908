//! Starting programs of the host: with a deadline, and with output in files, which a container may go on to hold.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};

/// A program that takes longer has failed; only a hang takes as long.
const DEADLINE: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// How a program ended and what it printed.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// What it printed, without the last line's end; it must have succeeded.
    #[track_caller]
    pub(crate) fn ok(&self) -> &str {
        assert_eq!(self.code, Some(0), "the program failed: {self:?}");
        self.out.trim_end()
    }

    /// The program must have failed by its own account, not by a signal.
    #[track_caller]
    pub(crate) fn fails(&self) {
        assert!(self.code.is_some_and(|code| code != 0), "no failure: {self:?}");
    }
}

/// A program of the host; tests alone start such.
#[expect(clippy::disallowed_methods, reason = "the runtime under test is a program")]
pub(crate) fn command(words: &[String]) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

/// Runs a program to its end. Its output goes to files in `directory`: pipes would not end before the last process that
/// holds them, and a container outlives the command that creates it.
pub(crate) fn run(mut command: Command, stdin: Stdio, directory: &Path) -> Ran {
    let scratch = tempfile::tempdir_in(directory).unwrap();
    let (out, err) = (scratch.path().join("out"), scratch.path().join("err"));
    command.stdin(stdin).stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
    let child = command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let status = end_of(child, &format!("{command:?}"));
    let text = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    Ran { code: status.code(), out: text(&out), err: text(&err) }
}

/// Waits for the end of a child; one that does not end is killed.
pub(crate) fn end_of(mut child: Child, what: &str) -> ExitStatus {
    let pid = Pid::from_child(&child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    if !readable(&pidfd) {
        pidfd_send_signal(&pidfd, Signal::KILL).unwrap();
        child.wait().unwrap();
        panic!("{what} did not end");
    }
    child.wait().unwrap()
}

/// Collects the end of a process that became this one's child, once it ends: the kernel keeps a pid namespace's first
/// process until those of the others are collected.
pub(crate) fn collect(pid: Pid) {
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    std::thread::spawn(move || {
        readable(&pidfd);
        let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    });
}

/// Waits until something can be read, a pidfd's process has ended, or the deadline is over.
pub(crate) fn readable(fd: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    poll(&mut fds, Some(&DEADLINE)).unwrap() == 1
}
