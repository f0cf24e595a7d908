//! SPDY/3.1 as clients of sessions send it, and which of its streams are a connection.
//!
//! Draft 3.1, sections 2.2 and 2.6: a frame says its length first, header blocks have one compressed history.

use kubelet::fuzz::spdy;

use crate::memory::{Bound, bounded};

pub(crate) const WORDS: &[&str] = &[
    "\u{80}\u{3}\0\u{1}",
    "\u{80}\u{3}\0\u{2}",
    "\u{80}\u{3}\0\u{3}",
    "\u{80}\u{3}\0\u{6}",
    "streamtype",
    "requestid",
    "port",
    "error",
    "data",
    "\u{1}\0\0\u{4}",
];

/// The largest sizes of pieces in which a conversation arrives; all readings are compared.
const PIECES: [usize; 4] = [usize::MAX, 1, 3, 7];

/// A header block may be sixteen KiB, whatever its length when compressed, and is at least some twenty bytes. What it says is
/// written as text here, with up to six characters for a byte.
const FRAMES: Bound = Bound { base: 512 << 10, held: 16 << 10, ever: 64 << 10 };

pub(crate) fn check(data: &[u8]) {
    let mut readings = PIECES.map(|most| bounded(data.len(), FRAMES, || spdy(data, most))).into_iter();
    let first = readings.next().expect("there is one for each size");
    for other in readings {
        assert_eq!(first, other, "the cut of the conversation matters");
    }
    let (frames, waiting, _) = first;
    assert!(waiting <= frames.len().min(512), "{waiting} connections wait");
    a_long_control_frame_is_refused_at_its_header(data);
}

/// What no control frame may be long is refused before any of it has come.
fn a_long_control_frame_is_refused_at_its_header(data: &[u8]) {
    let Some(header) = data.first_chunk::<8>() else { return };
    let length = u32::from_be_bytes([0, header[5], header[6], header[7]]);
    let is_control = header[0] & 0x80 != 0;
    let (_, _, why) = spdy(header, usize::MAX);
    assert_eq!(why.as_deref() == Some("frame exceeds the limit"), is_control && length > 16 << 10, "{header:?}");
}
