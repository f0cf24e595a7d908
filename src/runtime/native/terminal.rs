//! The master end of a command's terminal, and how it comes here from the shim.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::termios::Winsize;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::net::unix::pipe::{Receiver, Sender};

use crate::{Input, Output, Size, Window};

/// A terminal. It hangs up when all that was made of it is dropped.
#[derive(Debug)]
pub(super) struct Terminal(OwnedFd);

impl Terminal {
    /// Waits for the terminal that is sent over a socket.
    ///
    /// # Errors
    /// `UnexpectedEof` when the other end was closed without one.
    pub(super) async fn receive(socket: &UnixStream) -> io::Result<Self> {
        let master = socket.async_io(Interest::READABLE, || take(socket)).await?;
        Self::new(master)
    }

    /// One that has come in another way.
    pub(super) fn new(master: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&master, true)?;
        Ok(Self(master))
    }

    /// What is typed. A terminal is read and written like a pipe, which is what the reactor has a safe type for.
    pub(super) fn input(&self) -> io::Result<Input> {
        Ok(Box::new(Sender::from_owned_fd_unchecked(self.0.try_clone()?)?))
    }

    /// What is shown. With nobody left at the other end reading it fails by EIO, which is the end.
    pub(super) fn output(&self) -> io::Result<Output> {
        Ok(Box::new(Receiver::from_owned_fd_unchecked(self.0.try_clone()?)?))
    }
}

/// Reads a byte and the descriptor that comes with it.
fn take(socket: &UnixStream) -> io::Result<OwnedFd> {
    take_both(socket)?.1.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Reads a byte and the descriptor that may come with it.
///
/// # Errors
/// `UnexpectedEof` when the other end was closed.
pub(super) fn take_both(socket: &UnixStream) -> io::Result<(u8, Option<OwnedFd>)> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = rustix::net::recvmsg(socket.as_fd(), &mut [IoSliceMut::new(&mut byte)], &mut ancillary, flags)?;
    let mut sent = ancillary.drain().filter_map(|part| match part {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptor = sent.find_map(|mut descriptors| descriptors.next());
    if received.bytes == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok((byte[0], descriptor)) }
}

impl Window for Terminal {
    fn resize(&self, size: Size) {
        let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        // A terminal that has hung up has no size.
        let _ = rustix::termios::tcsetwinsize(&self.0, size);
    }
}
