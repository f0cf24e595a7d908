//! Frames of SPDY/3.1: bytes to frames and back, without any input or output.
//!
//! Draft 3.1, section 2.6. Total: whatever arrives is frames, or an error and the end of the connection. Control frames
//! are limited, and data is passed on in pieces as it comes, so that no length that a client claims makes room for anything.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::header::{Packer, Unpacker};

/// Bytes before every frame's content.
const HEADER: usize = 8;

/// The longest control frame.
const MAX_CONTROL: usize = 16 << 10;

/// The first two bytes of a control frame.
const CONTROL: u16 = 0x8003;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

/// The flag of the last frame of a stream's direction.
const FIN: u8 = 1;

/// Why a stream is refused, or ended before its time.
pub(in crate::stream) const REFUSED_STREAM: u32 = 3;
pub(in crate::stream) const CANCEL: u32 = 5;

/// Why bytes are no frames. The connection is of no use afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::stream) enum SpdyError {
    /// A frame or what it unpacks to is longer than anything that clients have to say.
    #[error("frame exceeds the limit")]
    TooLong,
    /// It is of another version, or shorter than its kind is.
    #[error("frame is none of SPDY/3.1")]
    Malformed,
    /// Names and values cannot be unpacked.
    #[error("header block is damaged")]
    Header,
}

/// The number of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::stream) struct StreamId(pub(in crate::stream) u32);

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::stream) enum Frame {
    Open {
        stream: StreamId,
        fields: Vec<(String, String)>,
        last: bool,
    },
    /// A piece of data; with `last` there is no more on this stream. Either part may be missing, not both.
    Data {
        stream: StreamId,
        data: Bytes,
        last: bool,
    },
    Reset {
        stream: StreamId,
    },
    Ping {
        id: u32,
    },
    /// No more streams will come.
    GoAway,
}

/// Makes frames of bytes.
#[derive(Debug)]
pub(in crate::stream) struct Decoder {
    unpacker: Unpacker,
    /// What is left of a frame of data.
    data: Option<(StreamId, usize, bool)>,
}

impl Decoder {
    pub(in crate::stream) fn new() -> Self {
        Self { unpacker: Unpacker::new(), data: None }
    }

    /// The next frame in what has arrived, which it is taken from; none if more must come.
    pub(in crate::stream) fn next(&mut self, arrived: &mut BytesMut) -> Result<Option<Frame>, SpdyError> {
        loop {
            if let Some((stream, left, last)) = self.data.take() {
                let piece = arrived.split_to(left.min(arrived.len())).freeze();
                let left = left - piece.len();
                if left > 0 {
                    self.data = Some((stream, left, last));
                }
                let last = last && left == 0;
                if piece.is_empty() && !last {
                    if left > 0 {
                        return Ok(None);
                    }
                    // A frame without content and without meaning.
                    continue;
                }
                return Ok(Some(Frame::Data { stream, data: piece, last }));
            }
            let Some(header) = arrived.first_chunk::<HEADER>() else { return Ok(None) };
            let [kind @ .., a, b, c] = *header;
            let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
            let [first @ .., flags] = kind;
            let first = u32::from_be_bytes(first);
            if first >> 31 == 0 {
                arrived.advance(HEADER);
                self.data = Some((StreamId(first), length, flags & FIN != 0));
                continue;
            }
            if length > MAX_CONTROL {
                return Err(SpdyError::TooLong);
            }
            if arrived.len() < HEADER + length {
                return Ok(None);
            }
            arrived.advance(HEADER);
            let content = arrived.split_to(length).freeze();
            let [version @ .., high, low] = first.to_be_bytes();
            if u16::from_be_bytes(version) != CONTROL {
                return Err(SpdyError::Malformed);
            }
            if let Some(frame) = self.control(u16::from_be_bytes([high, low]), flags, content)? {
                return Ok(Some(frame));
            }
        }
    }

    /// A control frame; those that have no meaning here (settings, windows, headers that come later) are none.
    fn control(&mut self, kind: u16, flags: u8, mut content: Bytes) -> Result<Option<Frame>, SpdyError> {
        let mut number = || content.try_get_u32().map_err(|_| SpdyError::Malformed);
        Ok(match kind {
            SYN_STREAM => {
                let stream = StreamId(number()? & 0x7fff_ffff);
                number()?;
                content.try_get_u16().map_err(|_| SpdyError::Malformed)?;
                let fields = self.unpacker.read(&content)?;
                Some(Frame::Open { stream, fields, last: flags & FIN != 0 })
            }
            RST_STREAM => Some(Frame::Reset { stream: StreamId(number()? & 0x7fff_ffff) }),
            PING => Some(Frame::Ping { id: number()? }),
            GOAWAY => Some(Frame::GoAway),
            SYN_REPLY => {
                number()?;
                // Blocks have one history, so that each must be read.
                self.unpacker.read(&content)?;
                None
            }
            HEADERS => {
                number()?;
                self.unpacker.read(&content)?;
                None
            }
            _ => None,
        })
    }
}

/// Makes bytes of frames.
#[derive(Debug)]
pub(in crate::stream) struct Encoder(Packer);

impl Encoder {
    pub(in crate::stream) fn new() -> Self {
        Self(Packer::new())
    }

    /// Accepts a stream.
    pub(in crate::stream) fn reply(&mut self, stream: StreamId) -> Bytes {
        let mut content = BytesMut::new();
        content.put_u32(stream.0);
        content.put_slice(&self.0.write(&[]));
        control(SYN_REPLY, &content)
    }

    /// Opens a stream, as clients do.
    #[cfg(test)]
    pub(in crate::stream) fn open(&mut self, stream: StreamId, fields: &[(&str, &str)]) -> Bytes {
        let mut content = BytesMut::new();
        content.put_u32(stream.0);
        content.put_bytes(0, 6);
        content.put_slice(&self.0.write(fields));
        control(SYN_STREAM, &content)
    }
}

fn control(kind: u16, content: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEADER + content.len());
    frame.put_u16(CONTROL);
    frame.put_u16(kind);
    frame.put_u32(u32::try_from(content.len()).unwrap_or_default());
    frame.put_slice(content);
    frame.freeze()
}

/// Ends a stream.
pub(in crate::stream) fn reset(stream: StreamId, status: u32) -> Bytes {
    let mut content = BytesMut::new();
    content.put_u32(stream.0);
    content.put_u32(status);
    control(RST_STREAM, &content)
}

/// Asks, or answers with the number of the question.
pub(in crate::stream) fn ping(id: u32) -> Bytes {
    control(PING, &id.to_be_bytes())
}

/// Data, less than 16 MiB, and whether it is the last.
pub(in crate::stream) fn data(stream: StreamId, data: &[u8], last: bool) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEADER + data.len());
    frame.put_u32(stream.0);
    frame.put_u32(u32::from(last) << 24 | u32::try_from(data.len()).unwrap_or_default() & 0xff_ffff);
    frame.put_slice(data);
    frame.freeze()
}

/// The same of data, less than 16 MiB, before which there is room for the header.
pub(in crate::stream) fn seal(stream: StreamId, mut frame: BytesMut) -> Bytes {
    let length = u32::try_from(frame.len().saturating_sub(HEADER)).unwrap_or_default() & 0xff_ffff;
    let header = u64::from(stream.0) << 32 | u64::from(length);
    if let Some(room) = frame.first_chunk_mut::<HEADER>() {
        *room = header.to_be_bytes();
    }
    frame.freeze()
}

#[cfg(test)]
mod tests;
