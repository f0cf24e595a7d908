//! Frames over a non-blocking Unix stream socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};

use super::frame::{Frames, MAX_DESCRIPTORS};

/// What one attempt to receive brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// Some bytes; [`Frames::take`] tells whether a message is complete.
    Some,
    /// The other side has closed the connection.
    Closed,
}

/// Reads what is there, up to the end of the current frame.
///
/// # Errors
/// `WouldBlock` when nothing is there; `InvalidData` when a limit was exceeded or descriptors were lost.
pub fn receive(socket: BorrowedFd<'_>, frames: &mut Frames) -> io::Result<Received> {
    let mut bytes = [0_u8; 4096];
    let wanted = frames.wanted().min(bytes.len());
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let mut slices = [IoSliceMut::new(&mut bytes[..wanted])];
    let message = rustix::net::recvmsg(socket, &mut slices, &mut ancillary, flags)?;
    let count = message.bytes;
    let truncated = message.flags.contains(rustix::net::ReturnFlags::CTRUNC);
    let descriptors = ancillary.drain().filter_map(|part| match part {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptors: Vec<_> = descriptors.flatten().collect();
    if count == 0 {
        return Ok(Received::Closed);
    }
    if truncated {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    frames.push(&bytes[..count], descriptors).map_err(invalid)?;
    Ok(Received::Some)
}

/// Writes what fits, the descriptors with the first byte; returns how many bytes.
///
/// # Errors
/// `WouldBlock` when nothing fits; the descriptors are not sent then.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    Ok(rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, flags)?)
}
