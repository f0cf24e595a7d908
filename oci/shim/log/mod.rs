//! Container output to log files in CRI format.
//!
//! Called by a scribe (see [`crate::scribe`]) when a pipe is readable; the event loop never gets here. Invariants: what was read
//! is written in order or held; while something is held because the file cannot be written, no more is read, so that
//! the container's pipe fills up and its writer waits; one call reads one chunk, so that the caller gets back to its other
//! duties.
//!
//! The format is that of the kubelet (kubernetes/kubernetes: pkg/kubelet/kuberuntime/logs), the cutting of long lines
//! and the treatment of an incomplete last line are those of containerd (internal/cri/io/logger.go).

mod file;
mod lines;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, PoisonError};

use oci::protocol::LogOptions;

use crate::time::{Moment, wall_nanos};
use file::LogFile;
use lines::{Lines, STAMPED};

/// Bytes of the longest line that is not cut, and of one read.
pub(crate) const CHUNK: usize = 16 << 10;

/// How long to wait before trying again to write.
const RETRY_MS: u64 = 1000;

struct Buffers {
    input: [u8; CHUNK],
    output: [u8; CHUNK + STAMPED],
}

/// Not on the heap: zero pages that nobody has touched cost nothing, in the shim and in every scribe.
static BUFFERS: Mutex<Buffers> = Mutex::new(Buffers { input: [0; CHUNK], output: [0; CHUNK + STAMPED] });

/// One of a container's output pipes.
#[derive(Debug)]
pub(crate) struct Stream<'a> {
    pipe: BorrowedFd<'a>,
    lines: Lines,
}

impl<'a> Stream<'a> {
    pub(crate) fn new(name: &'static str, pipe: BorrowedFd<'a>) -> Self {
        Self { pipe, lines: Lines::new(name) }
    }

    /// Where it comes from.
    pub(crate) fn pipe(&self) -> BorrowedFd<'a> {
        self.pipe
    }

    /// Whether the beginning of a line is kept here alone.
    pub(crate) fn has_begun_line(&self) -> bool {
        self.lines.has_begun()
    }
}

/// What one call of [`Log::copy`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copied {
    /// Some output.
    Some,
    /// No output now.
    Nothing,
    /// The end of the output.
    End,
    /// Output is held because the file cannot be written.
    Held,
}

/// A container's log.
#[derive(Debug)]
pub(crate) struct Log<'a> {
    file: LogFile<'a>,
    /// Formatted, but not written yet.
    held: Vec<u8>,
    retry_at: Option<Moment>,
    errno: Option<i32>,
}

impl<'a> Log<'a> {
    /// A log that is opened when there is something to write.
    pub(crate) fn new(directory: BorrowedFd<'a>, options: &'a LogOptions) -> Self {
        Self { file: LogFile::new(directory, options), held: Vec::new(), retry_at: None, errno: None }
    }

    /// What the kernel said when the file could not be written.
    pub(crate) fn errno(&self) -> Option<i32> {
        self.errno
    }

    /// When to call [`Log::retry`]; while there is such a moment, nothing is read.
    pub(crate) fn retry_at(&self) -> Option<Moment> {
        self.retry_at
    }

    /// Tries again to write what is held.
    pub(crate) fn retry(&mut self, now: Moment) {
        let held = std::mem::take(&mut self.held);
        self.errno = None;
        self.retry_at = None;
        self.write(&held, now);
    }

    /// Copies at most one chunk from a stream.
    pub(crate) fn copy(&mut self, stream: &mut Stream<'_>, now: Moment) -> Copied {
        if self.retry_at.is_some() {
            return Copied::Held;
        }
        let mut buffers = BUFFERS.lock().unwrap_or_else(PoisonError::into_inner);
        let Buffers { input, output } = &mut *buffers;
        let count = match rustix::io::read(stream.pipe, &mut input[..]) {
            Ok(count) => count,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Copied::Nothing,
            // A pipe gives no other error; whatever it is, there is nothing more to read.
            Err(_) => 0,
        };
        let stamp = wall_nanos();
        let mut write = |bytes: &[u8]| self.write(bytes, now);
        if count == 0 {
            stream.lines.finish(stamp, output, &mut write);
            return Copied::End;
        }
        stream.lines.feed(&input[..count], stamp, output, &mut write);
        if self.retry_at.is_some() { Copied::Held } else { Copied::Some }
    }

    /// Passes on beginnings of lines at once from now on, or no longer.
    pub(crate) fn be_prompt(&mut self, stream: &mut Stream<'_>, prompt: bool, now: Moment) {
        let mut buffers = BUFFERS.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = wall_nanos();
        stream.lines.be_prompt(prompt, stamp, &mut buffers.output, &mut |bytes| self.write(bytes, now));
    }

    fn write(&mut self, bytes: &[u8], now: Moment) {
        if self.retry_at.is_some() {
            self.held.extend_from_slice(bytes);
            return;
        }
        let (written, result) = self.file.append(bytes);
        if let Err(error) = result {
            self.held.extend_from_slice(&bytes[written..]);
            self.errno = Some(errno(&error));
            self.retry_at = Some(now.after_ms(RETRY_MS));
        }
    }
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(rustix::io::Errno::IO.raw_os_error())
}
