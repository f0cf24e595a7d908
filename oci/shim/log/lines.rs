//! Cuts output into lines and stamps them.

use std::io::BufRead as _;

use super::CHUNK;
use crate::time::{RFC3339_LENGTH, rfc3339};

/// Bytes that a stamped line has beside its text: time, stream, tag, spaces, newline.
pub(super) const STAMPED: usize = RFC3339_LENGTH + " stdout F \n".len();

/// The lines of one stream.
#[derive(Debug)]
pub(super) struct Lines {
    stream: &'static str,
    /// The beginning of a line whose end has not come yet; shorter than a chunk.
    begun: Vec<u8>,
    /// Beginnings of lines are passed on at once, because somebody waits for them.
    prompt: bool,
}

/// Collects stamped lines in a buffer and passes it on when it is full.
struct Batch<'a> {
    buffer: &'a mut [u8],
    filled: usize,
    write: &'a mut dyn FnMut(&[u8]),
}

impl Batch<'_> {
    fn line(&mut self, parts: [&[u8]; 7]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if self.filled + length > self.buffer.len() {
            self.flush();
        }
        for part in parts {
            self.buffer[self.filled..][..part.len()].copy_from_slice(part);
            self.filled += part.len();
        }
    }

    fn flush(&mut self) {
        if self.filled > 0 {
            (self.write)(&self.buffer[..self.filled]);
            self.filled = 0;
        }
    }
}

impl Lines {
    pub(super) fn new(stream: &'static str) -> Self {
        Self { stream, begun: Vec::new(), prompt: false }
    }

    /// Whether a line has begun whose end has not come yet.
    pub(super) fn has_begun(&self) -> bool {
        !self.begun.is_empty()
    }

    /// Passes on beginnings of lines at once from now on, or no longer.
    pub(super) fn be_prompt(&mut self, prompt: bool, nanos: i64, buffer: &mut [u8], write: &mut dyn FnMut(&[u8])) {
        self.prompt = prompt;
        if prompt && !self.begun.is_empty() {
            let mut batch = Batch { buffer, filled: 0, write };
            self.emit(&mut batch, &rfc3339(nanos), b" P ", b"");
            batch.flush();
        }
    }

    /// Passes on the lines of `input` that are complete or as long as a line may be.
    pub(super) fn feed(&mut self, input: &[u8], nanos: i64, buffer: &mut [u8], write: &mut dyn FnMut(&[u8])) {
        let stamp = rfc3339(nanos);
        let mut batch = Batch { buffer, filled: 0, write };
        let mut rest = input;
        while !rest.is_empty() {
            let whole = rest;
            // The standard library searches many bytes at a time.
            let length = rest.skip_until(b'\n').unwrap_or(whole.len());
            let piece = &whole[..length];
            let (text, complete) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let mut text = text;
            while self.begun.len() + text.len() > CHUNK {
                let (now, later) = text.split_at(CHUNK - self.begun.len());
                self.emit(&mut batch, &stamp, b" P ", now);
                text = later;
            }
            if complete {
                self.emit(&mut batch, &stamp, b" F ", text);
            } else if self.prompt {
                self.emit(&mut batch, &stamp, b" P ", text);
            } else {
                self.begun.extend_from_slice(text);
            }
        }
        batch.flush();
    }

    /// Passes on the last line, if it has no end; nor has it one in the log, as in that of containerd
    /// (`internal/cri/io/logger.go`), so that readers get what was written to the byte.
    pub(super) fn finish(&mut self, nanos: i64, buffer: &mut [u8], write: &mut dyn FnMut(&[u8])) {
        if !self.begun.is_empty() {
            let mut batch = Batch { buffer, filled: 0, write };
            self.emit(&mut batch, &rfc3339(nanos), b" P ", b"");
            batch.flush();
        }
    }

    fn emit(&mut self, batch: &mut Batch<'_>, stamp: &[u8], tag: &[u8], text: &[u8]) {
        batch.line([stamp, b" ", self.stream.as_bytes(), tag, &self.begun, text, b"\n"]);
        if !self.begun.is_empty() {
            // Not clear(): memory is kept for incomplete lines only.
            self.begun = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(pieces: &[&[u8]]) -> String {
        let mut lines = Lines::new("stdout");
        let mut buffer = vec![0; CHUNK + STAMPED];
        let mut written = Vec::new();
        let mut write = |bytes: &[u8]| written.extend_from_slice(bytes);
        for piece in pieces {
            lines.feed(piece, 0, &mut buffer, &mut write);
        }
        lines.finish(0, &mut buffer, &mut write);
        String::from_utf8(written).unwrap().replace("1970-01-01T00:00:00.000000000Z stdout", "T")
    }

    #[test]
    fn each_line_is_stamped() {
        assert_eq!(log(&[b"one\ntwo\n\n"]), "T F one\nT F two\nT F \n");
    }

    #[test]
    fn a_line_that_comes_in_pieces_is_one_line() {
        assert_eq!(log(&[b"o", b"n", b"e\ntw", b"o\n"]), "T F one\nT F two\n");
    }

    #[test]
    fn an_incomplete_last_line_is_written_at_the_end_and_stays_incomplete() {
        assert_eq!(log(&[b"one\ntwo"]), "T F one\nT P two\n");
    }

    #[test]
    fn a_line_longer_than_a_chunk_is_cut_and_its_parts_are_tagged() {
        let long = vec![b'x'; CHUNK + 3];
        let text = format!("T P {}\nT F xxx\n", "x".repeat(CHUNK));
        assert_eq!(log(&[&long, b"\n"]), text);
        let exact = vec![b'x'; CHUNK];
        assert_eq!(log(&[&exact, b"\n"]), format!("T F {}\n", "x".repeat(CHUNK)));
    }

    #[test]
    fn beginnings_of_lines_are_passed_on_at_once_as_long_as_somebody_waits_for_them() {
        let mut lines = Lines::new("stdout");
        let mut buffer = vec![0; CHUNK + STAMPED];
        let mut written = Vec::new();
        let mut write = |bytes: &[u8]| written.extend_from_slice(bytes);
        lines.feed(b"$ ", 0, &mut buffer, &mut write);
        lines.be_prompt(true, 0, &mut buffer, &mut write);
        lines.feed(b"l", 0, &mut buffer, &mut write);
        lines.feed(b"s\n", 0, &mut buffer, &mut write);
        lines.be_prompt(false, 0, &mut buffer, &mut write);
        lines.feed(b"$ ", 0, &mut buffer, &mut write);
        let text = String::from_utf8(written).unwrap().replace("1970-01-01T00:00:00.000000000Z stdout", "T");
        assert_eq!(text, "T P $ \nT P l\nT F s\n");
        assert!(lines.has_begun());
    }

    #[test]
    fn many_short_lines_exceed_the_buffer_and_none_is_lost() {
        let input = vec![b'\n'; CHUNK];
        assert_eq!(log(&[&input]).lines().count(), CHUNK);
    }
}
