//! Commands inside containers that somebody talks with, and containers themselves.
//!
//! A [`Session`] is the other ends of a command's standard streams and its end. What is said passes from the command to
//! whoever holds the session directly, through pipes or a terminal; a stream that is not read fills up and stops its
//! writer, nobody else. Invariant: a session that is dropped takes its command with it.

use std::fmt;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::RuntimeError;

/// A command to talk with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSpec {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Which streams somebody is at; the others are empty.
    pub streams: Wanted,
}

/// Which streams of a command somebody is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// All of them are a terminal.
    Terminal {
        /// Whether there is input.
        stdin: bool,
    },
    /// Pipes.
    Pipes {
        /// Standard input.
        stdin: bool,
        /// Standard output.
        stdout: bool,
        /// Standard error.
        stderr: bool,
    },
}

/// What is written to a command.
pub type Input = Box<dyn AsyncWrite + Send + Unpin>;

/// What a command writes.
pub type Output = Box<dyn AsyncRead + Send + Unpin>;

/// The exit status of a command, 128 + n for signal n.
pub type End = Pin<Box<dyn Future<Output = Result<i32, RuntimeError>> + Send>>;

/// A command that runs, or is about to.
pub struct Session {
    /// Its standard input; closing it ends the input, except that of a terminal.
    pub stdin: Option<Input>,
    /// Its standard output, with a terminal all that it writes.
    pub stdout: Option<Output>,
    /// Its standard error.
    pub stderr: Option<Output>,
    /// The size of its terminal.
    pub window: Option<Box<dyn Window>>,
    /// How it ends. To be polled, lest it never begins.
    pub end: End,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stdin, stdout, stderr, window, .. } = self;
        let there = (stdin.is_some(), stdout.is_some(), stderr.is_some(), window.is_some());
        f.debug_tuple("Session").field(&there).finish()
    }
}

/// What somebody wants of a container's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Typing {
    /// Nothing.
    Not,
    /// To write to it, as others do; it stays open afterwards.
    Shared,
    /// To have it alone; it ends with whoever has it. A terminal is shared all the same.
    Whole,
}

/// Somebody is at the standard streams of a container. What it says is in its log without delay meanwhile, so that whoever
/// reads slowly stops nobody, and nothing is missing in the log.
pub struct Attachment {
    /// The container's input, if it was asked for and is there.
    pub stdin: Option<Input>,
    /// The size of its terminal.
    pub window: Option<Box<dyn Window>>,
    /// Whether nobody has asked for the container's input before.
    pub is_first: bool,
    /// The container has ended, and its last word is in its log. Dropping it ends the attachment.
    pub end: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stdin, window, is_first, .. } = self;
        f.debug_tuple("Attachment").field(&(stdin.is_some(), window.is_some(), is_first)).finish()
    }
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Characters of a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// The window that a terminal is shown in.
pub trait Window: Send + Sync {
    /// Has changed its size; those in the foreground are told by SIGWINCH.
    fn resize(&self, size: Size);
}
