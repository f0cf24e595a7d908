//! Connections to agents.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci::protocol::{Frames, FromShim, Received, ToShim, encode, receive, send};

/// The most bytes that wait to be sent; an agent that reads so slowly is cut off and may connect again.
const BACKLOG: usize = 8 << 20;

/// Names a connection for as long as the shim lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConnectionId(pub(crate) u64);

/// A connection to an agent.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: OwnedFd,
    frames: Frames,
    unsent: VecDeque<u8>,
    /// Whether the agent has introduced itself.
    pub(crate) greeted: bool,
}

impl Connection {
    /// A connection of somebody who has not introduced himself.
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket, frames: Frames::brief(), unsent: VecDeque::new(), greeted: false }
    }

    /// The connection to the agent that has started this program.
    pub(crate) fn first(socket: OwnedFd) -> Self {
        Self { frames: Frames::new(), ..Self::new(socket) }
    }

    /// The agent has introduced itself, and may send long messages from now on.
    pub(crate) fn greet(&mut self) {
        self.greeted = true;
        self.frames = Frames::new();
    }

    /// Whether something waits to be sent.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// The next message, if it is complete.
    ///
    /// # Errors
    /// When the connection is of no use any more, its regular end included.
    pub(crate) fn read(&mut self) -> io::Result<Option<(ToShim, Vec<OwnedFd>)>> {
        loop {
            match receive(self.socket.as_fd(), &mut self.frames) {
                Ok(Received::Some) => {}
                Ok(Received::Closed) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
            if let Some(message) = self.frames.take().map_err(invalid)? {
                return Ok(Some(message));
            }
        }
    }

    /// Queues a message and sends what can be sent now.
    ///
    /// # Errors
    /// When the connection is of no use any more.
    pub(crate) fn write(&mut self, message: &FromShim) -> io::Result<()> {
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        let frame = encode(message, 0).map_err(invalid)?;
        if self.unsent.len() + frame.len() > BACKLOG {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.unsent.extend(frame);
        self.flush()
    }

    /// Sends what can be sent now.
    ///
    /// # Errors
    /// When the connection is of no use any more.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            let (head, _) = self.unsent.as_slices();
            match send(self.socket.as_fd(), head, &[]) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.unsent = VecDeque::new();
        Ok(())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
