//! A container from its start to its removal.
//!
//! ```text
//! Launching ──executed──► Running ──reaped──► Exited ──Remove──► (forgotten)
//!     └──────failed──────► (forgotten)
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci::protocol::{ContainerRecord, Outcome, RunState};
use rustix::fs::OFlags;
use rustix::process::Signal;

use crate::group::GroupFiles;
use crate::log::{Copied, Log, Stream};
use crate::program::{Launching, Process};
use crate::server::Asker;
use crate::time::{Moment, wall_nanos};

/// Chunks that are copied of an exited container's output before its exit is told: all that its pipes can hold.
const LAST_CHUNKS: u32 = 16;

/// A container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) phase: Phase,
    log: Log,
    streams: [Option<Stream>; 2],
    /// Kept open for as long as the container may read it.
    stdin: Option<OwnedFd>,
    group: GroupFiles,
    kill_at: Option<Moment>,
}

/// Where in its life it is.
#[derive(Debug)]
pub(crate) enum Phase {
    Launching(Launching, Asker),
    Running(Process, ContainerRecord),
    Exited(ContainerRecord),
    /// Between two of the above; never seen outside of a transition.
    Between,
}

/// What a container is made with, beside its program.
#[derive(Debug)]
pub(crate) struct Plumbing {
    pub(crate) log: Log,
    pub(crate) streams: [Option<Stream>; 2],
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) group: GroupFiles,
}

impl Container {
    pub(crate) fn new(launching: Launching, asker: Asker, plumbing: Plumbing) -> Self {
        let Plumbing { log, streams, stdin, group } = plumbing;
        Self { phase: Phase::Launching(launching, asker), log, streams, stdin, group, kill_at: None }
    }

    /// What is told of it; nothing before its program is executed.
    pub(crate) fn record(&self) -> Option<ContainerRecord> {
        match &self.phase {
            Phase::Running(_, record) | Phase::Exited(record) => {
                Some(ContainerRecord { log_errno: self.log.errno(), ..record.clone() })
            }
            Phase::Launching(..) | Phase::Between => None,
        }
    }

    /// The descriptor that tells of its start or end.
    pub(crate) fn life(&self) -> Option<BorrowedFd<'_>> {
        match &self.phase {
            Phase::Launching(launching, _) => Some(launching.as_fd()),
            Phase::Running(process, _) => Some(process.as_fd()),
            Phase::Exited(_) | Phase::Between => None,
        }
    }

    /// The streams that can be read now, with their places.
    pub(crate) fn readable(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        let streams = if self.log.retry_at().is_none() { &self.streams[..] } else { &[] };
        streams.iter().enumerate().filter_map(|(place, stream)| Some((place, stream.as_ref()?.as_fd())))
    }

    /// Its program is executed.
    pub(crate) fn started(&mut self, id: &str, process: Process, terminal: Option<OwnedFd>, sequence: u64) {
        if let Some(terminal) = terminal {
            // A terminal replaces the pipes; its input side goes away with it.
            let _ = rustix::fs::fcntl_setfl(&terminal, OFlags::NONBLOCK);
            self.streams = [Some(Stream::new("stdout", terminal)), None];
            self.stdin = None;
        }
        let record = ContainerRecord {
            container: id.to_owned(),
            sequence,
            started_at: wall_nanos(),
            state: RunState::Running { pid: process.pid },
            log_errno: None,
        };
        self.phase = Phase::Running(process, record);
    }

    /// Its init has ended: kills what is left in its group, copies the output that is there, keeps the exit.
    pub(crate) fn exited(&mut self, outcome: Outcome, sequence: u64, now: Moment) {
        let finished_at = wall_nanos();
        self.group.kill_all();
        let oom_killed = self.group.has_oom_kill();
        for place in 0..self.streams.len() {
            for _ in 0..LAST_CHUNKS {
                if self.copy(place, now) != Copied::Some {
                    break;
                }
            }
        }
        if let Phase::Running(_, record) = std::mem::replace(&mut self.phase, Phase::Between) {
            let state = RunState::Exited { outcome, oom_killed, finished_at };
            self.phase = Phase::Exited(ContainerRecord { sequence, state, ..record });
        }
        self.stdin = None;
        self.kill_at = None;
    }

    /// Sends the signal and moves the deadline earlier, never later.
    pub(crate) fn stop(&mut self, signal: i32, deadline: Moment, now: Moment) {
        let Phase::Running(process, _) = &self.phase else { return };
        process.signal(signal);
        self.kill_at = Some(self.kill_at.map_or(deadline, |earlier| earlier.min(deadline)));
        self.keep_deadline(now);
    }

    /// Kills all of it.
    pub(crate) fn kill(&self) {
        if let Phase::Running(process, _) = &self.phase {
            process.signal(Signal::KILL.as_raw());
        }
        self.group.kill_all();
    }

    /// When [`Container::tick`] has something to do.
    pub(crate) fn wake_at(&self) -> Option<Moment> {
        self.kill_at.into_iter().chain(self.log.retry_at()).min()
    }

    /// Does what is due; whether the state of its log has changed.
    pub(crate) fn tick(&mut self, now: Moment) -> bool {
        self.keep_deadline(now);
        let before = self.log.errno();
        if self.log.retry_at().is_some_and(|at| at <= now) {
            self.log.retry(now);
        }
        before != self.log.errno()
    }

    fn keep_deadline(&mut self, now: Moment) {
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = None;
            self.kill();
        }
    }

    /// Copies one chunk of a stream; whether the state of the log has changed.
    pub(crate) fn pump(&mut self, place: usize, now: Moment) -> bool {
        let before = self.log.errno();
        self.copy(place, now);
        before != self.log.errno()
    }

    fn copy(&mut self, place: usize, now: Moment) -> Copied {
        let Some(stream) = &mut self.streams[place] else { return Copied::End };
        let copied = self.log.copy(stream, now);
        if copied == Copied::End {
            self.streams[place] = None;
        }
        copied
    }
}

/// A command in a container.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) asker: Asker,
    pub(crate) phase: CommandPhase,
    pub(crate) kill_at: Option<Moment>,
    pub(crate) timed_out: bool,
}

/// Where in its life a command is.
#[derive(Debug)]
pub(crate) enum CommandPhase {
    Launching(Launching),
    Running(Process),
    /// Over, or between two of the above.
    Over,
}

impl Command {
    /// The descriptor that tells of its start or end.
    pub(crate) fn life(&self) -> Option<BorrowedFd<'_>> {
        match &self.phase {
            CommandPhase::Launching(launching) => Some(launching.as_fd()),
            CommandPhase::Running(process) => Some(process.as_fd()),
            CommandPhase::Over => None,
        }
    }

    /// Kills it; one that has not been executed yet is killed by being dropped.
    pub(crate) fn kill(&mut self) {
        self.kill_at = None;
        match &self.phase {
            CommandPhase::Running(process) => process.signal(Signal::KILL.as_raw()),
            CommandPhase::Launching(_) => self.phase = CommandPhase::Over,
            CommandPhase::Over => {}
        }
    }
}
