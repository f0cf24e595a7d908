//! One line of a log.

use std::io::BufRead as _;

/// A line as the shim wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// RFC 3339, nanoseconds.
    pub(super) time: &'a str,
    /// `stdout` or `stderr`.
    pub(super) stream: &'a str,
    /// Whether the line goes on in the next record.
    pub(super) partial: bool,
    /// What the container wrote.
    pub(super) text: &'a [u8],
}

impl<'a> Record<'a> {
    /// Reads a line without its newline; none if it is not in the CRI format.
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
        let mut text = line;
        let time = std::str::from_utf8(field(&mut text)).ok()?;
        let stream = std::str::from_utf8(field(&mut text)).ok()?;
        let tags = field(&mut text);
        let known = matches!(stream, "stdout" | "stderr") && matches!(tags.first(), Some(b'P' | b'F'));
        known.then_some(Self { time, stream, partial: tags.first() == Some(&b'P'), text })
    }

    /// As clients see it.
    pub(super) fn render(&self, timestamps: bool, out: &mut Vec<u8>) {
        if timestamps {
            out.extend_from_slice(self.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(self.text);
        if !self.partial {
            out.push(b'\n');
        }
    }
}

/// The first line without its newline; none if it has no end yet. The standard library searches many bytes at a time.
pub(super) fn first_line(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes;
    let length = rest.skip_until(b'\n').unwrap_or(0);
    bytes.get(..length)?.strip_suffix(b"\n")
}

/// Takes what comes before the next space, with the space.
fn field<'a>(line: &mut &'a [u8]) -> &'a [u8] {
    let whole = *line;
    let length = line.skip_until(b' ').unwrap_or(0);
    let field = whole.get(..length).unwrap_or_default();
    field.strip_suffix(b" ").unwrap_or(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_time_stream_tag_and_text_with_its_spaces() {
        let record = Record::parse(b"2026-11-20T15:00:00.000000001Z stdout F hello  world ").expect("a valid line");
        assert_eq!((record.stream, record.partial, record.text), ("stdout", false, b"hello  world ".as_slice()));
        let mut out = Vec::new();
        record.render(true, &mut out);
        assert_eq!(out, b"2026-11-20T15:00:00.000000001Z hello  world \n");
    }

    #[test]
    fn a_partial_line_is_not_ended() {
        let mut out = Vec::new();
        Record::parse(b"t stderr P hel").expect("a valid line").render(false, &mut out);
        Record::parse(b"t stderr F lo").expect("a valid line").render(false, &mut out);
        assert_eq!(out, b"hello\n");
    }

    #[test]
    fn an_empty_line_is_kept_and_garbage_is_not() {
        assert_eq!(Record::parse(b"t stdout F ").map(|record| record.text.len()), Some(0));
        assert_eq!(Record::parse(b"t stdin F x"), None);
        assert_eq!(Record::parse(b"garbage"), None);
    }
}
