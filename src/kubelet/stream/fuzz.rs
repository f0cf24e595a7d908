//! Doors for the fuzz targets in `tests/fuzz`: the parsers of what clients of sessions send, in plain types. Never in what is
//! shipped.

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::Input;
use super::forward;
use super::spdy::frame::{Decoder, Frame};
use super::websocket::Dialect;

/// What a client of a command says.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// Input.
    Stdin(Vec<u8>),
    /// No more input.
    EndOfStdin,
    /// Columns and rows of its terminal.
    Resize(u16, u16),
}

/// Reads SPDY that arrives in pieces of at most `most` bytes: frames as text, neighbouring data joined, how many connections
/// wait for their other halves in the end, and why it is none.
pub fn spdy(data: &[u8], most: usize) -> (Vec<String>, usize, Option<String>) {
    let (mut decoder, mut arrived) = (Decoder::new(), BytesMut::new());
    let (mut frames, mut pairs): (Vec<Frame>, _) = (Vec::new(), forward::Pairs::default());
    let mut why = None;
    // A connection that is not read further once what arrived is no frame.
    'reading: for piece in data.chunks(most.max(1)) {
        arrived.extend_from_slice(piece);
        loop {
            match decoder.next(&mut arrived) {
                Ok(Some(frame)) => {
                    if let Frame::Open { stream, fields, .. } = &frame {
                        // What it means shows in how many wait in the end.
                        let _ = pairs.open((*stream, fields), 0, far());
                    }
                    join(&mut frames, frame);
                }
                Ok(None) => break,
                Err(error) => {
                    why = Some(error.to_string());
                    break 'reading;
                }
            }
        }
    }
    let waiting = pairs.late(far()).len();
    (frames.iter().map(|frame| format!("{frame:?}")).collect(), waiting, why)
}

/// A moment that is the same for all of a run.
fn far() -> Instant {
    static FAR: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *FAR.get_or_init(Instant::now)
}

fn join(frames: &mut Vec<Frame>, frame: Frame) {
    if let (Some(Frame::Data { stream, data, last }), Frame::Data { stream: next, data: more, last: ends }) =
        (frames.last_mut(), &frame)
        && stream == next
        && !*last
    {
        *data = [data.as_ref(), more.as_ref()].concat().into();
        *last = *ends;
        return;
    }
    frames.push(frame);
}

/// Reads a message of a client of a command.
pub fn message(version: u8, base64: bool, message: &[u8]) -> Option<Said> {
    let said = Dialect::of(version, base64).decode(Bytes::copy_from_slice(message))?;
    Some(match said {
        Input::Stdin(bytes) => Said::Stdin(bytes.to_vec()),
        Input::EndOfStdin => Said::EndOfStdin,
        Input::Resize(size) => Said::Resize(size.columns, size.rows),
    })
}

/// Reads a message of a client that forwards ports: its channel and data.
pub fn port_message(base64: bool, message: &[u8]) -> Option<(u8, Vec<u8>)> {
    forward::decode(Bytes::copy_from_slice(message), base64).map(|(channel, data)| (channel, data.to_vec()))
}

/// Reads the ports that a client asks for.
///
/// # Errors
/// When what is asked for is no list of ports, or too long a one.
pub fn ports(query: &str) -> Result<Vec<u16>, String> {
    forward::ports(query)
}
