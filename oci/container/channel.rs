//! What parent and child say to each other before execve(2). Nothing of the child's side allocates or locks.
//!
//! Datagrams of eight bytes: kind, place, two bytes of index, four bytes of error number, little endian. The channel is
//! between two processes of one program, so it has no versions.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

use super::Place;

/// Something that the child says.
#[derive(Debug)]
pub(super) enum Message {
    /// The master end of its terminal.
    Terminal(OwnedFd),
    /// A step could not be done.
    Warning { step: u16, errno: i32 },
    /// All is prepared, and it waits for the word to start.
    Waiting,
    /// Nothing but the system call filter and execve(2) is left.
    Executing,
    /// It ends because something could not be done.
    Failed { place: Place, errno: i32 },
    /// A second child was born by [`super::Step::Fork`]; the first has nothing more to say.
    Born { pid: i32, pidfd: OwnedFd },
    /// Nothing more comes.
    End,
}

const TERMINAL: u8 = 1;
const WARNING: u8 = 2;
const EXECUTING: u8 = 3;
const FAILED_STEP: u8 = 4;
const FAILED_EXECUTE: u8 = 5;
const FAILED_PREPARE: u8 = 6;
const WAITING: u8 = 7;
const BORN: u8 = 8;

fn say(channel: BorrowedFd<'_>, kind: u8, index: u16, errno: i32, rights: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut bytes = [kind, 0, 0, 0, 0, 0, 0, 0];
    bytes[2..4].copy_from_slice(&index.to_le_bytes());
    bytes[4..].copy_from_slice(&errno.to_le_bytes());
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !rights.is_empty() && !control.push(SendAncillaryMessage::ScmRights(rights)) {
        return Err(Errno::TOOBIG);
    }
    sendmsg(channel, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL).map(drop)
}

pub(super) fn say_terminal(channel: BorrowedFd<'_>, master: BorrowedFd<'_>) -> Result<(), Errno> {
    say(channel, TERMINAL, 0, 0, &[master])
}

pub(super) fn say_warning(channel: BorrowedFd<'_>, step: u16, errno: Errno) -> Result<(), Errno> {
    say(channel, WARNING, step, errno.raw_os_error(), &[])
}

pub(super) fn say_waiting(channel: BorrowedFd<'_>) -> Result<(), Errno> {
    say(channel, WAITING, 0, 0, &[])
}

pub(super) fn say_executing(channel: BorrowedFd<'_>) -> Result<(), Errno> {
    say(channel, EXECUTING, 0, 0, &[])
}

pub(super) fn say_failed(channel: BorrowedFd<'_>, place: Place, errno: Errno) -> Result<(), Errno> {
    let (kind, index) = match place {
        Place::Step(index) => (FAILED_STEP, index),
        Place::Execute => (FAILED_EXECUTE, 0),
        _ => (FAILED_PREPARE, 0),
    };
    say(channel, kind, index, errno.raw_os_error(), &[])
}

pub(super) fn say_born(channel: BorrowedFd<'_>, pid: i32, pidfd: BorrowedFd<'_>) -> Result<(), Errno> {
    say(channel, BORN, 0, pid, &[pidfd])
}

/// What the child says next; EAGAIN if it has not said it yet and `flags` forbid to wait.
pub(super) fn hear(channel: BorrowedFd<'_>, flags: RecvFlags) -> Result<Message, Errno> {
    let mut bytes = [0; 8];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let length = loop {
        match recvmsg(channel, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
            Ok(received) => break received.bytes,
            // The child has ended without having read what it was sent. The kernel tells this once, before it gives out
            // what the child has said.
            Err(Errno::INTR | Errno::CONNRESET) => {}
            Err(errno) => return Err(errno),
        }
    };
    if length == 0 {
        return Ok(Message::End);
    }
    let step = u16::from_le_bytes([bytes[2], bytes[3]]);
    let errno = i32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    let mut rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let mut right = || rights.next().and_then(|mut fds| fds.next()).ok_or(Errno::BADMSG);
    match bytes[0] {
        TERMINAL => right().map(Message::Terminal),
        BORN => right().map(|pidfd| Message::Born { pid: errno, pidfd }),
        WARNING => Ok(Message::Warning { step, errno }),
        EXECUTING => Ok(Message::Executing),
        WAITING => Ok(Message::Waiting),
        FAILED_STEP => Ok(Message::Failed { place: Place::Step(step), errno }),
        FAILED_EXECUTE => Ok(Message::Failed { place: Place::Execute, errno }),
        FAILED_PREPARE => Ok(Message::Failed { place: Place::Prepare, errno }),
        _ => Err(Errno::BADMSG),
    }
}
