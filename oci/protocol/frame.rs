//! Frames: bytes to messages and back, without any input or output.

use std::os::fd::OwnedFd;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of a frame's header: the length of what follows, and the number of descriptors.
pub const HEADER: usize = 5;

/// The longest payload. The kernel's limit for arguments and environment together is of this order.
pub const MAX_FRAME: usize = 4 << 20;

/// The longest payload of somebody who has not introduced himself: a `Hello` and room for later additions.
pub const MAX_BRIEF_FRAME: usize = 256;

/// The most descriptors of a frame; below the kernel's `SCM_MAX_FD` of 253.
pub const MAX_DESCRIPTORS: usize = 250;

/// Why bytes are no message. The connection is of no use afterwards.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A frame is longer than any message may be.
    #[error("frame of {length} bytes exceeds the limit")]
    TooLong {
        /// Its length.
        length: usize,
    },
    /// More descriptors than any message may have, or others than its header announces.
    #[error("frame has {count} descriptors")]
    Descriptors {
        /// How many there are.
        count: usize,
    },
    /// The payload is not the expected message.
    #[error("frame is not a message of this protocol")]
    Malformed(#[source] postcard::Error),
    /// Bytes are left after the message.
    #[error("frame has {count} bytes after its message")]
    Trailing {
        /// How many.
        count: usize,
    },
}

/// A message as a frame that announces `descriptors` descriptors.
///
/// # Errors
/// When a limit is exceeded.
pub fn encode<T: Serialize>(message: &T, descriptors: usize) -> Result<Vec<u8>, FrameError> {
    let announced = u8::try_from(descriptors).ok().filter(|_| descriptors <= MAX_DESCRIPTORS);
    let announced = announced.ok_or(FrameError::Descriptors { count: descriptors })?;
    let frame = postcard::to_extend(message, vec![0; HEADER]).map_err(FrameError::Malformed)?;
    with_header(frame, announced)
}

fn with_header(mut frame: Vec<u8>, descriptors: u8) -> Result<Vec<u8>, FrameError> {
    let length = frame.len() - HEADER;
    let prefix = u32::try_from(length).ok().filter(|_| length <= MAX_FRAME).ok_or(FrameError::TooLong { length })?;
    frame[..4].copy_from_slice(&prefix.to_le_bytes());
    frame[4] = descriptors;
    Ok(frame)
}

/// The message that a payload is.
///
/// # Errors
/// When it is none, or more than one.
pub fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, FrameError> {
    let (message, rest) = postcard::take_from_bytes(payload).map_err(FrameError::Malformed)?;
    if rest.is_empty() { Ok(message) } else { Err(FrameError::Trailing { count: rest.len() }) }
}

/// Collects one frame at a time from bytes and descriptors as they arrive.
///
/// It never wants bytes of two frames at once, so that descriptors belong to the frame during which they arrived.
#[derive(Debug)]
pub struct Frames {
    max_length: usize,
    max_descriptors: usize,
    header: [u8; HEADER],
    header_filled: usize,
    payload: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Frames {
    /// Nothing received yet.
    #[must_use]
    pub fn new() -> Self {
        Self::limited(MAX_FRAME, MAX_DESCRIPTORS)
    }

    /// As [`Frames::new`], for short frames without descriptors only: strangers must not make the receiver keep
    /// anything.
    #[must_use]
    pub fn brief() -> Self {
        Self::limited(MAX_BRIEF_FRAME, 0)
    }

    fn limited(max_length: usize, max_descriptors: usize) -> Self {
        let (header, payload, descriptors) = ([0; HEADER], Vec::new(), Vec::new());
        Self { max_length, max_descriptors, header, header_filled: 0, payload, descriptors }
    }

    /// How many bytes to ask for next; never 0 after [`Frames::take`] has returned nothing.
    pub fn wanted(&self) -> usize {
        if self.header_filled < HEADER { HEADER - self.header_filled } else { self.length() - self.payload.len() }
    }

    /// Adds what arrived: at most [`Frames::wanted`] bytes.
    ///
    /// # Errors
    /// When the frame exceeds a limit.
    pub fn push(&mut self, bytes: &[u8], descriptors: impl IntoIterator<Item = OwnedFd>) -> Result<(), FrameError> {
        self.descriptors.extend(descriptors);
        let (head, body) = bytes.split_at(bytes.len().min(HEADER - self.header_filled));
        self.header[self.header_filled..][..head.len()].copy_from_slice(head);
        self.header_filled += head.len();
        if self.header_filled == HEADER && self.length() > self.max_length {
            return Err(FrameError::TooLong { length: self.length() });
        }
        if self.descriptors.len() > self.max_descriptors {
            return Err(FrameError::Descriptors { count: self.descriptors.len() });
        }
        self.payload.extend_from_slice(body);
        Ok(())
    }

    /// The message, once it is complete.
    ///
    /// # Errors
    /// When the frame is none.
    pub fn take<T: DeserializeOwned>(&mut self) -> Result<Option<(T, Vec<OwnedFd>)>, FrameError> {
        if self.header_filled < HEADER || self.payload.len() < self.length() {
            return Ok(None);
        }
        let empty = Self::limited(self.max_length, self.max_descriptors);
        let frame = std::mem::replace(self, empty);
        if frame.descriptors.len() != usize::from(frame.header[4]) {
            return Err(FrameError::Descriptors { count: frame.descriptors.len() });
        }
        Ok(Some((decode(&frame.payload)?, frame.descriptors)))
    }

    fn length(&self) -> usize {
        let [a, b, c, d, _] = self.header;
        usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX)
    }
}

impl Default for Frames {
    fn default() -> Self {
        Self::new()
    }
}
