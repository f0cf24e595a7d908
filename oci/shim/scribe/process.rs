//! The scribe's own process.
//!
//! Invariants: it ends when its shim has ended or has forgotten the container, after at most [`LAST_CHUNKS`] of every
//! pipe; it does not end of itself while it holds output or the beginning of a line.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::{END, ERRNO, FINISH, Output, PROMPT, SETTLED};
use crate::log::{Copied, Log, Stream};
use crate::record;
use crate::time::Moment;

/// How long it stays without anything to do. The next output after that costs another fork of a fraction of a
/// millisecond, a longer stay the memory of a process.
const IDLE_MS: u64 = 3000;

/// Chunks that are copied of a container's last output before its end is told: more than its pipes usually hold. What a
/// process that has survived the container's init writes without end is cut off there.
const LAST_CHUNKS: u32 = 16;

/// Bytes of the longest message.
const MESSAGE: usize = 4096;

pub(super) struct Scribe<'a> {
    shim: BorrowedFd<'a>,
    container: &'a str,
    streams: [Option<Stream<'a>>; 2],
    log: Log<'a>,
    /// What the shim knows.
    told_errno: Option<i32>,
    /// When it has nothing to do any more.
    idle_at: Moment,
}

/// What became of the shim.
#[derive(PartialEq, Eq)]
enum Shim {
    Listens,
    HasGone,
}

impl<'a> Scribe<'a> {
    pub(super) fn new(shim: BorrowedFd<'a>, output: &'a Output) -> Self {
        let [stdout, stderr] = &output.pipes;
        let mut scribe = Self {
            shim,
            container: &output.container,
            streams: [
                stdout.as_ref().map(|pipe| Stream::new("stdout", pipe.as_fd())),
                stderr.as_ref().map(|pipe| Stream::new("stderr", pipe.as_fd())),
            ],
            log: Log::new(output.log.directory.as_fd(), &output.log.options),
            told_errno: output.errno,
            idle_at: Moment::now().after_ms(IDLE_MS),
        };
        scribe.be_prompt(output.prompt);
        scribe
    }

    fn be_prompt(&mut self, prompt: bool) {
        let now = Moment::now();
        for stream in self.streams.iter_mut().flatten() {
            self.log.be_prompt(stream, prompt, now);
        }
        self.tell_errno();
    }

    /// Works until there is nothing to do any more.
    pub(super) fn run(mut self, first: &[Vec<u8>]) {
        // Only for whoever looks at the list of processes.
        let _ = rustix::thread::set_name(c"coracle-scribe");
        first.iter().for_each(|message| self.obey(message));
        while self.round() == Shim::Listens {
            let is_idle = self.idle_at <= Moment::now() && self.log.retry_at().is_none();
            if is_idle && self.streams.iter().flatten().all(|stream| !stream.has_begun_line()) {
                return;
            }
        }
        self.copy_the_last();
    }

    /// Waits for something and does it.
    fn round(&mut self) -> Shim {
        let holds = self.log.retry_at().is_some();
        let wake_at = self.log.retry_at().unwrap_or(self.idle_at);
        let mut descriptors = vec![PollFd::from_borrowed_fd(self.shim, PollFlags::IN)];
        let mut places = Vec::new();
        for (place, stream) in self.streams.iter().enumerate().filter(|_| !holds) {
            if let Some(stream) = stream {
                descriptors.push(PollFd::from_borrowed_fd(stream.pipe(), PollFlags::IN));
                places.push(place);
            }
        }
        // With nothing but the beginning of a line to guard there is no moment to wait for.
        let timeout = (holds || self.idle_at > Moment::now()).then(|| timeout_until(wake_at));
        if poll(&mut descriptors, timeout.as_ref()).is_err() {
            return Shim::Listens;
        }
        let ready: Vec<bool> = descriptors.iter().map(|descriptor| !descriptor.revents().is_empty()).collect();
        drop(descriptors);
        if ready[0] && self.listen() == Shim::HasGone {
            return Shim::HasGone;
        }
        for (place, _) in places.into_iter().zip(&ready[1..]).filter(|(_, ready)| **ready) {
            self.copy(place);
        }
        let now = Moment::now();
        if self.log.retry_at().is_some_and(|at| at <= now) {
            self.log.retry(now);
            self.tell_errno();
        }
        Shim::Listens
    }

    fn listen(&mut self) -> Shim {
        let mut message = [0; MESSAGE];
        match recv(self.shim, &mut message, RecvFlags::DONTWAIT) {
            Ok((0, _)) => Shim::HasGone,
            Ok((length, _)) => {
                self.obey(&message[..length.min(MESSAGE)]);
                Shim::Listens
            }
            Err(Errno::AGAIN | Errno::INTR) => Shim::Listens,
            Err(_) => Shim::HasGone,
        }
    }

    fn obey(&mut self, message: &[u8]) {
        let Some((what, record)) = message.split_first() else { return };
        if *what == PROMPT {
            return self.be_prompt(*record == [1]);
        }
        if *what == FINISH {
            self.copy_the_last();
        }
        // The record on disk is for the time after the shim; without it the agent tells an exit as unknown then, so a
        // full disk is no reason to do anything else now.
        if let Err(error) = record::store(self.container, record) {
            eprintln!("cannot keep the record of {}: {error}", self.container);
        }
        self.idle_at = Moment::now().after_ms(IDLE_MS);
        self.say(SETTLED, 0);
    }

    fn copy_the_last(&mut self) {
        for place in 0..self.streams.len() {
            for _ in 0..LAST_CHUNKS {
                if self.copy(place) != Copied::Some {
                    break;
                }
            }
        }
    }

    /// Copies one chunk of a stream.
    fn copy(&mut self, place: usize) -> Copied {
        let Some(stream) = &mut self.streams[place] else { return Copied::End };
        let now = Moment::now();
        let copied = self.log.copy(stream, now);
        self.tell_errno();
        match copied {
            Copied::Some => self.idle_at = now.after_ms(IDLE_MS),
            Copied::End => {
                self.streams[place] = None;
                self.say(END, i32::try_from(place).unwrap_or(i32::MAX));
            }
            Copied::Nothing | Copied::Held => {}
        }
        copied
    }

    fn tell_errno(&mut self) {
        if self.told_errno != self.log.errno() {
            self.told_errno = self.log.errno();
            self.say(ERRNO, self.log.errno().unwrap_or(0));
        }
    }

    fn say(&self, kind: u8, number: i32) {
        let [a, b, c, d] = number.to_le_bytes();
        // A shim that has ended need not know.
        let _ = send(self.shim, &[kind, a, b, c, d], SendFlags::NOSIGNAL);
    }
}

fn timeout_until(moment: Moment) -> Timespec {
    // One more than is left, so that the moment has surely passed afterwards.
    let wait = moment.ms_since(Moment::now()) + 1;
    let (seconds, rest) = (i64::try_from(wait / 1000).unwrap_or(i64::MAX), wait % 1000);
    Timespec { tv_sec: seconds, tv_nsec: i64::try_from(rest * 1_000_000).unwrap_or(0) }
}
