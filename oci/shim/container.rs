//! A container from its start to its removal.
//!
//! ```text
//! Launching ──executed──► Running ──reaped──► Ending ──output and record written──► Exited ──Remove──► (forgotten)
//!     └──failed, given up──► (forgotten)         └───────────DRAIN_MS later───────────┘
//! ```

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use oci::container::Script;
use oci::protocol::{ContainerRecord, Input, Outcome, RunState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::Signal;

use crate::group::GroupFiles;
use crate::program::{Launching, Process};
use crate::scribe::Output;
use crate::server::Asker;
use crate::time::{Moment, wall_nanos};

/// How long the last output and the record may take to be written before the end is told all the same. A process that
/// has survived the container's init may hold its output open for ever, and a disk may hang.
const DRAIN_MS: u64 = 1000;

/// A container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) phase: Phase,
    output: Output,
    /// Kept open for as long as the container may read it, and nobody has it alone.
    stdin: Option<OwnedFd>,
    has_terminal: bool,
    attached: Attached,
    group: GroupFiles,
    /// Commands that are run in it again and again.
    pub(crate) kept: BTreeMap<u8, Kept>,
    kill_at: Option<Moment>,
    /// Kills for want of memory that had happened before this program killed the container: that of some other process,
    /// which the container survived.
    survived_oom_kills: u64,
}

/// Where in its life it is.
#[derive(Debug)]
pub(crate) enum Phase {
    Launching(Launching, Asker),
    Running(Process, ContainerRecord),
    Ending(Ending),
    Exited(ContainerRecord),
    /// Between two of the above; never seen outside of a transition.
    Between,
}

/// The most who are at a container's streams at a time.
const ATTACHED: usize = 64;

/// Who is at a container's streams.
#[derive(Debug, Default)]
struct Attached {
    /// Closed by their other ends.
    sockets: Vec<OwnedFd>,
    /// Whether anybody has asked for its input so far.
    was_talked_to: bool,
}

fn has_hung_up(socket: &OwnedFd) -> bool {
    let mut descriptors = [PollFd::new(socket, PollFlags::empty())];
    // One that cannot be asked is asked again when something happens to it.
    poll(&mut descriptors, Some(&Timespec::default())).is_ok_and(|count| count > 0)
}

/// The last moments of a container, which still counts as running.
#[derive(Debug)]
pub(crate) struct Ending {
    running: ContainerRecord,
    exited: ContainerRecord,
    until: Moment,
}

/// What a container is made with, beside its program.
#[derive(Debug)]
pub(crate) struct Plumbing {
    pub(crate) output: Output,
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) group: GroupFiles,
}

impl Container {
    pub(crate) fn new(launching: Launching, asker: Asker, plumbing: Plumbing) -> Self {
        let Plumbing { output, stdin, group } = plumbing;
        let phase = Phase::Launching(launching, asker);
        let attached = Attached::default();
        Self {
            phase,
            output,
            stdin,
            has_terminal: false,
            attached,
            group,
            kept: BTreeMap::new(),
            kill_at: None,
            survived_oom_kills: 0,
        }
    }

    /// What is told of it; nothing before its program is executed.
    pub(crate) fn record(&self) -> Option<ContainerRecord> {
        match &self.phase {
            Phase::Running(_, record) | Phase::Ending(Ending { running: record, .. }) | Phase::Exited(record) => {
                Some(ContainerRecord { log_errno: self.output.errno(), ..record.clone() })
            }
            Phase::Launching(..) | Phase::Between => None,
        }
    }

    /// The descriptor that tells of its start or end.
    pub(crate) fn life(&self) -> Option<BorrowedFd<'_>> {
        match &self.phase {
            Phase::Launching(launching, _) => Some(launching.as_fd()),
            Phase::Running(process, _) => process.life(),
            Phase::Ending(_) | Phase::Exited(_) | Phase::Between => None,
        }
    }

    /// The descriptors that tell of its output.
    pub(crate) fn output(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.output.sources()
    }

    /// Its program is executed.
    pub(crate) fn started(&mut self, id: &str, process: Process, terminal: Option<OwnedFd>, sequence: u64) {
        if let Some(terminal) = terminal {
            // Its input side goes away with the pipes.
            let _ = rustix::fs::fcntl_setfl(&terminal, OFlags::NONBLOCK);
            self.output.replace(terminal);
            self.stdin = None;
            self.has_terminal = true;
        }
        let record = ContainerRecord {
            container: id.to_owned(),
            sequence,
            started_at: wall_nanos(),
            state: RunState::Running { pid: process.pid },
            log_errno: None,
        };
        self.output.keep(&bytes(&record), Moment::now());
        self.phase = Phase::Running(process, record);
    }

    /// Its init has ended: kills what is left in its group, has its last output and its exit written.
    pub(crate) fn ended(&mut self, running: ContainerRecord, outcome: Outcome, sequence: u64, now: Moment) {
        let finished_at = wall_nanos();
        let oom_killed = self.group.oom_kills() > self.survived_oom_kills;
        self.group.kill_all();
        let state = RunState::Exited { outcome, oom_killed, finished_at };
        let exited = ContainerRecord { sequence, state, log_errno: self.output.errno(), ..running.clone() };
        self.output.finish(&bytes(&exited), now);
        self.kept.clear();
        self.phase = Phase::Ending(Ending { running, exited, until: now.after_ms(DRAIN_MS) });
        self.stdin = None;
        self.kill_at = None;
    }

    /// Its end may be told, if there was one and nothing more is to be waited for; whether that is so.
    pub(crate) fn settle(&mut self, now: Moment) -> bool {
        let is_due = |ending: &Ending| self.output.is_settled() || ending.until <= now;
        match std::mem::replace(&mut self.phase, Phase::Between) {
            Phase::Ending(ending) if is_due(&ending) => {
                self.phase = Phase::Exited(ending.exited);
                self.attached.sockets.clear();
                true
            }
            other => {
                self.phase = other;
                false
            }
        }
    }

    /// Sends the signal and moves the deadline earlier, never later.
    pub(crate) fn stop(&mut self, signal: i32, deadline: Moment, now: Moment) {
        let Phase::Running(process, _) = &self.phase else { return };
        process.signal(signal);
        self.kill_at = Some(self.kill_at.map_or(deadline, |earlier| earlier.min(deadline)));
        self.keep_deadline(now);
    }

    /// Kills all of it.
    pub(crate) fn kill(&mut self) {
        if let Phase::Running(process, _) = &self.phase {
            if !process.is_over() {
                self.survived_oom_kills = self.group.oom_kills();
            }
            process.signal(Signal::KILL.as_raw());
        }
        self.group.kill_all();
    }

    /// Kills what its init has left, which has ended.
    pub(crate) fn kill_rest(&self) {
        self.group.kill_all();
    }

    /// When [`Container::tick`], a look at its life or [`Container::settle`] has something to do.
    pub(crate) fn wake_at(&self) -> Option<Moment> {
        let phase = match &self.phase {
            Phase::Ending(ending) => Some(ending.until),
            _ => self.look_at(),
        };
        self.kill_at.into_iter().chain(self.output.wake_at()).chain(phase).min()
    }

    /// When to look at its life without its having been polled.
    pub(crate) fn look_at(&self) -> Option<Moment> {
        match &self.phase {
            Phase::Running(process, _) => process.look_at(),
            _ => None,
        }
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Moment) {
        self.keep_deadline(now);
        self.output.tick(now);
    }

    fn keep_deadline(&mut self, now: Moment) {
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = None;
            self.kill();
        }
    }

    /// Somebody is at its streams.
    pub(crate) fn attach(&mut self, socket: OwnedFd, input: Input) -> io::Result<()> {
        if self.attached.sockets.len() >= ATTACHED {
            return Err(Errno::USERS.into());
        }
        let is_first = input != Input::Not && !std::mem::replace(&mut self.attached.was_talked_to, true);
        let whole = if input == Input::Whole && !self.has_terminal { self.stdin.take() } else { None };
        let given = match input {
            _ if self.has_terminal => self.output.first(),
            Input::Not => None,
            Input::Shared => self.stdin.as_ref().map(AsFd::as_fd),
            Input::Whole => whole.as_ref().map(AsFd::as_fd),
        };
        // A socket that does not take it now has nobody at its other end.
        oci::protocol::send(socket.as_fd(), &[u8::from(is_first)], given.as_slice())?;
        self.attached.sockets.push(socket);
        self.output.be_prompt(true);
        Ok(())
    }

    /// What tells, by being closed, that [`Container::let_go`] has something to do.
    pub(crate) fn attached(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.attached.sockets.iter().map(AsFd::as_fd)
    }

    /// Forgets those who have gone.
    pub(crate) fn let_go(&mut self) {
        self.attached.sockets.retain(|socket| !has_hung_up(socket));
        self.output.be_prompt(!self.attached.sockets.is_empty());
    }

    /// Sees to its output; whether the state of its log has changed.
    pub(crate) fn pump(&mut self, now: Moment) -> bool {
        self.output.look(now)
    }
}

fn bytes(record: &ContainerRecord) -> Vec<u8> {
    postcard::to_extend(record, Vec::new()).expect("a record has no types that cannot be written")
}

/// How long a command that was killed may take to end before it is told as ended: it may wait for a file system that does
/// not answer, and then whoever asked for it, a probe for example, waits for that too.
const GONE_MS: u64 = 1000;

/// What is needed to run a command, but for its standard streams.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) script: Rc<Script>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// A command in a container.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) asker: Asker,
    pub(crate) phase: CommandPhase,
    pub(crate) kill_at: Option<Moment>,
    pub(crate) timed_out: bool,
    /// When its end is told though it has not come.
    pub(crate) gone_at: Option<Moment>,
    /// Where its terminal goes, if it has one: the socket that came in the place of its standard input.
    pub(crate) terminal_to: Option<OwnedFd>,
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
    pub(crate) fn new(
        asker: Asker,
        launching: Launching,
        timeout_ms: Option<u64>,
        terminal_to: Option<OwnedFd>,
    ) -> Self {
        let kill_at = timeout_ms.map(|timeout| Moment::now().after_ms(timeout));
        let phase = CommandPhase::Launching(launching);
        Self { asker, phase, kill_at, timed_out: false, gone_at: None, terminal_to }
    }

    /// The descriptor that tells of its start or end.
    pub(crate) fn life(&self) -> Option<BorrowedFd<'_>> {
        match &self.phase {
            CommandPhase::Launching(launching) => Some(launching.as_fd()),
            CommandPhase::Running(process) => process.life(),
            CommandPhase::Over => None,
        }
    }

    /// When the command has something due.
    pub(crate) fn wake_at(&self) -> Option<Moment> {
        self.kill_at.into_iter().chain(self.gone_at).chain(self.look_at()).min()
    }

    /// When to look at its life without its having been polled.
    pub(crate) fn look_at(&self) -> Option<Moment> {
        match &self.phase {
            CommandPhase::Running(process) => process.look_at(),
            _ => None,
        }
    }

    /// It is executed. Its terminal belongs to whoever asked for the command: nothing of what is said there passes
    /// through this program. A socket that does not take it now has nobody at its other end.
    pub(crate) fn started(&mut self, process: Process, terminal: Option<&OwnedFd>) {
        if let (Some(socket), Some(terminal)) = (self.terminal_to.take(), terminal) {
            let _ = oci::protocol::send(socket.as_fd(), &[0], &[terminal.as_fd()]);
        }
        self.phase = CommandPhase::Running(process);
    }

    /// Kills it and its group; one that has not been executed yet is killed by being dropped.
    pub(crate) fn kill(&mut self) {
        self.kill_at = None;
        match &self.phase {
            CommandPhase::Running(process) => {
                process.kill_group();
                self.gone_at = Some(Moment::now().after_ms(GONE_MS));
            }
            CommandPhase::Launching(_) => self.phase = CommandPhase::Over,
            CommandPhase::Over => {}
        }
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Moment) {
        if self.kill_at.is_some_and(|at| at <= now) {
            self.timed_out = true;
            self.kill();
        }
        if self.gone_at.is_some_and(|at| at <= now)
            && let CommandPhase::Running(process) = std::mem::replace(&mut self.phase, CommandPhase::Over)
        {
            process.leave();
        }
    }
}
