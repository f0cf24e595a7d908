//! A container's output on its way to the disk, as the event loop sees it.
//!
//! A disk may hang: a frozen file system, a dead network file server or a failing drive makes write(2), openat(2) and
//! rename(2) wait where not even SIGKILL reaches, and RWF_NOWAIT, O_NONBLOCK and io_uring do not help (file systems
//! refuse the first for buffered writes and wait for a thaw all the same, the second means nothing to a file, and the
//! threads of the third belong to the process, which cannot end before them). A thread would keep the shim from ending,
//! and the agent from learning of that, in the same way. So whatever touches the disk is done by a process of its own,
//! the scribe: one per container, forked when there is something to write, gone after a moment without. An idle shim
//! costs no more for it, a busy container a few dozen KiB, and a hung or full disk holds back only the container whose
//! output it is: starts, ends, commands and other containers go on.
//!
//! Invariants: the event loop touches no file; while there is a scribe, only it reads the container's output; what a
//! scribe has read is written in order or held, and it does not end of itself before it is written; the end of a
//! container waits for its last output to be written for a bounded time only.
//!
//! ```text
//! shim                                     scribe
//!   │ ── fork ─────────────────────────────▶ │  inherits pipes, log directory, first record
//!   │ ── Keep {record} ────────────────────▶ │  writes the record
//!   │ ── Finish {record} ──────────────────▶ │  copies the output that is there, writes the record
//!   │ ── Prompt {yes or no} ───────────────▶ │  beginnings of lines are written at once, or not until they are whole
//!   │ ◀───────────────────────────── Settled │  after each of the first two, and after the first record
//!   │ ◀────────────────────── Errno {number} │  the log cannot be written, or can again (0)
//!   │ ◀───────────────────────── End {place} │  nothing more comes from that pipe
//!   │ ◀────────────────────────── end of file│  it had nothing to do, or was killed
//! ```

mod process;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci::container::reap_later;
use oci::protocol::LogOptions;
use oci::sys::clone::fork_with_only;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};

use crate::time::Moment;
use process::Scribe;

/// How long to wait before another scribe is tried when there can be none, or one has ended before its time.
const RETRY_MS: u64 = 100;

/// What a scribe is asked for: the first byte of a message, the rest of which is a record, or one byte.
const KEEP: u8 = 0;
const FINISH: u8 = 1;
const PROMPT: u8 = 2;

/// What a scribe says: the first byte of a message of [`WORD`] bytes.
const SETTLED: u8 = 0;
const ERRNO: u8 = 1;
const END: u8 = 2;
const WORD: usize = 5;

/// Where a container's output goes, and what has to be kept of it.
#[derive(Debug)]
pub(crate) struct Output {
    log: LogPlace,
    /// The container's id.
    container: String,
    /// None once nothing more can come.
    pipes: [Option<OwnedFd>; 2],
    /// The connection to the scribe, if there is one.
    scribe: Option<OwnedFd>,
    /// Messages that have not been settled, in their order: at most those of a start and an end.
    unsettled: Vec<Vec<u8>>,
    /// No scribe is made before this.
    not_before: Option<Moment>,
    errno: Option<i32>,
    /// Whether somebody waits for beginnings of lines.
    prompt: bool,
}

/// A log file's directory, which stays open because its path means nothing after the pivot, and what to do in there.
#[derive(Debug)]
pub(crate) struct LogPlace {
    pub(crate) directory: OwnedFd,
    pub(crate) options: LogOptions,
}

impl Output {
    pub(crate) fn new(container: &str, log: LogPlace, pipes: [Option<OwnedFd>; 2]) -> Self {
        let container = container.to_owned();
        Self {
            log,
            container,
            pipes,
            scribe: None,
            unsettled: Vec::new(),
            not_before: None,
            errno: None,
            prompt: false,
        }
    }

    /// A terminal replaces the pipes; who reads from those, because they have ended, knows nothing of it.
    pub(crate) fn replace(&mut self, terminal: OwnedFd) {
        self.scribe = None;
        self.pipes = [Some(terminal), None];
    }

    /// A terminal, or where standard output comes from.
    pub(crate) fn first(&self) -> Option<BorrowedFd<'_>> {
        self.pipes[0].as_ref().map(AsFd::as_fd)
    }

    /// Has beginnings of lines written at once from now on, or no longer.
    pub(crate) fn be_prompt(&mut self, prompt: bool) {
        if self.prompt != prompt
            && let Some(scribe) = &self.scribe
        {
            // Without a scribe there is no beginning of a line; the next one knows. One that hangs writes nothing anyway.
            let _ = send(scribe, &[PROMPT, u8::from(prompt)], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
        self.prompt = prompt;
    }

    /// What the kernel said when the log could not be written.
    pub(crate) fn errno(&self) -> Option<i32> {
        self.errno
    }

    /// Whether all that was to be kept has been.
    pub(crate) fn is_settled(&self) -> bool {
        self.unsettled.is_empty()
    }

    /// What tells, by being readable, that [`Output::look`] has something to do.
    pub(crate) fn sources(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let waits = self.scribe.is_some() || self.not_before.is_some();
        let pipes = if waits { &[] } else { &self.pipes[..] };
        self.scribe.iter().chain(pipes.iter().flatten()).map(AsFd::as_fd)
    }

    /// When [`Output::tick`] has something to do.
    pub(crate) fn wake_at(&self) -> Option<Moment> {
        self.not_before
    }

    /// Has a record written.
    pub(crate) fn keep(&mut self, record: &[u8], now: Moment) {
        self.ask(KEEP, record, now);
    }

    /// Has the output that is there written, and then the record.
    pub(crate) fn finish(&mut self, record: &[u8], now: Moment) {
        self.ask(FINISH, record, now);
    }

    fn ask(&mut self, what: u8, record: &[u8], now: Moment) {
        let mut message = vec![what];
        message.extend_from_slice(record);
        if let Some(scribe) = &self.scribe {
            // One that has just ended gets a successor, and one that hangs does not read it either way.
            let _ = send(scribe, &message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
        self.unsettled.push(message);
        if self.scribe.is_none() && self.not_before.is_none() {
            self.fork(now);
        }
    }

    /// Hears the scribe, or makes one because there is output; whether the state of the log has changed.
    pub(crate) fn look(&mut self, now: Moment) -> bool {
        let before = self.errno;
        if self.scribe.is_some() {
            self.hear(now);
        } else {
            self.fork(now);
        }
        before != self.errno
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Moment) {
        if self.not_before.is_some_and(|at| at <= now) {
            self.not_before = None;
            if !self.unsettled.is_empty() {
                self.fork(now);
            }
        }
    }

    fn hear(&mut self, now: Moment) {
        let mut word = [0; WORD];
        while let Some(scribe) = &self.scribe {
            match recv(scribe, &mut word, RecvFlags::DONTWAIT) {
                Ok((WORD, _)) => self.heard(word),
                Err(Errno::AGAIN | Errno::INTR) => return,
                Ok(_) | Err(_) => {
                    self.scribe = None;
                    self.not_before = (!self.unsettled.is_empty()).then(|| now.after_ms(RETRY_MS));
                }
            }
        }
    }

    fn heard(&mut self, [kind, number @ ..]: [u8; WORD]) {
        let number = i32::from_le_bytes(number);
        match kind {
            SETTLED if !self.unsettled.is_empty() => drop(self.unsettled.remove(0)),
            ERRNO => self.errno = (number != 0).then_some(number),
            END => {
                if let Some(pipe) = usize::try_from(number).ok().and_then(|place| self.pipes.get_mut(place)) {
                    *pipe = None;
                }
            }
            _ => {}
        }
    }

    /// Makes a scribe, or tries again later: a container may have used up all processes of the pod.
    fn fork(&mut self, now: Moment) {
        if self.try_fork().is_err() {
            self.not_before = Some(now.after_ms(RETRY_MS));
        }
    }

    fn try_fork(&mut self) -> Result<(), Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        // What is not its own it must not hold, above all connections and other containers' pipes, whose other ends
        // have to see when they close.
        let mut own = vec![theirs.as_fd(), self.log.directory.as_fd()];
        own.extend(self.pipes.iter().flatten().map(AsFd::as_fd));
        let pidfd = fork_with_only(&own, || Scribe::new(theirs.as_fd(), self).run(&self.unsettled))?;
        reap_later(pidfd);
        self.scribe = Some(ours);
        Ok(())
    }
}
