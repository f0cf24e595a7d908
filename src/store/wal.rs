//! Whether a write-ahead log of SQLite is whole (sqlite.org/fileformat2.html, "The WAL File Format").
//!
//! SQLite reads a log up to the first frame whose checksum is wrong and takes that for the end, which is right after a
//! crash, but silently drops acknowledged transactions when an earlier frame was damaged. The two differ by what follows:
//! a crash leaves at most the one transaction unfinished that was being written, so if two more have been committed
//! behind the wrong frame, that frame was right once. Frames of an earlier use of the file have other salts and do not
//! count.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// Whether no committed transaction is hidden behind a wrong frame. A log that is not there is whole.
pub(crate) fn is_whole(path: &Path) -> io::Result<bool> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        result => result?,
    };
    check(io::BufReader::with_capacity(1 << 16, file))
}

fn check(mut log: impl Read) -> io::Result<bool> {
    let mut header = [0; HEADER];
    if !fill(&mut log, &mut header)? {
        return Ok(true);
    }
    let big_endian = match word(&header, 0) {
        0x377f_0682 => false,
        0x377f_0683 => true,
        // A header is written before its first frame; without one there is no log.
        _ => return Ok(!header.iter().any(|byte| *byte != 0)),
    };
    let mut sum = Sum { first: 0, second: 0, big_endian };
    sum.add(&header[..24]);
    if !sum.is(&header, 24) {
        return Ok(false);
    }
    let salts = header[16..24].to_owned();
    let page = usize::try_from(word(&header, 8)).map_err(io::Error::other)?;
    if !(512..=65536).contains(&page) {
        return Ok(false);
    }
    let mut frame = vec![0; FRAME_HEADER + page];
    let (mut right, mut hidden) = (true, 0);
    while fill(&mut log, &mut frame)? {
        if frame[8..16] != salts {
            // In the middle of the current use it is a wrong frame like any other; at its end an earlier use begins.
            right = false;
            continue;
        }
        if right {
            sum.add(&frame[..8]);
            sum.add(&frame[FRAME_HEADER..]);
            right = sum.is(&frame, 16);
        }
        if !right && word(&frame, 4) != 0 {
            hidden += 1;
        }
    }
    Ok(hidden < 2)
}

/// Whether the buffer could be filled.
fn fill(log: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match log.read_exact(buffer) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        result => result.map(|()| true),
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The running checksum.
struct Sum {
    first: u32,
    second: u32,
    big_endian: bool,
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        for pair in bytes.chunks_exact(8) {
            let word = |at: usize| {
                let bytes = [pair[at], pair[at + 1], pair[at + 2], pair[at + 3]];
                if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
            };
            let (one, two) = (word(0), word(4));
            self.first = self.first.wrapping_add(one).wrapping_add(self.second);
            self.second = self.second.wrapping_add(two).wrapping_add(self.first);
        }
    }

    fn is(&self, bytes: &[u8], at: usize) -> bool {
        (word(bytes, at), word(bytes, at + 4)) == (self.first, self.second)
    }
}
