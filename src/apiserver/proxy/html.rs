//! Links of HTML pages, rewritten while the page passes.
//!
//! Only start tags are looked into, in the way of the HTML standard's tokenizer (§13.2.5) as far as it decides where a tag
//! ends: quotes, comments, and elements whose content is no markup. Everything that is no link stays as it is, to the
//! byte. Invariants: what comes out does not depend on how the input is cut; not more than [`LONGEST_TAG`] is held back.

use std::io::{self, Write};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzDecoder, GzEncoder};
use http_body::Frame;

use super::rewrite::Links;
use crate::Body;
use crate::server::BoxError;

/// A tag that is longer passes as it is. What is held is looked at again with each piece, so it must not be much.
const LONGEST_TAG: usize = 8 * 1024;
/// How much is unpacked at once: 1000 times as much may come out.
const PIECE: usize = 4 * 1024;

/// Which attributes of which elements hold addresses, as upstream's `atomsToAttrs`.
const LINKS: [(&str, &[&str]); 26] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("track", &["src"]),
    ("video", &["poster", "src"]),
];

/// Elements whose content is no markup up to their end tag.
const RAW: [&str; 8] = ["iframe", "noembed", "noframes", "script", "style", "textarea", "title", "xmp"];

/// Where the reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Text,
    Comment,
    /// In an element of [`RAW`].
    Raw(&'static str),
}

/// Finds links in a page that comes in pieces.
#[derive(Debug)]
pub(super) struct Reader {
    state: State,
    held: Vec<u8>,
}

/// What can be done with the beginning of what is held.
enum Step {
    /// So many bytes pass, and then this is the state.
    Pass(usize, State),
    /// A start tag ends there.
    Tag(Tag),
    /// More must come.
    Wait,
}

/// A start tag.
struct Tag {
    end: usize,
    name: Range<usize>,
    attributes: Vec<(Range<usize>, Range<usize>)>,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self { state: State::Text, held: Vec::new() }
    }

    /// Takes a piece and puts out what is decided; at the `end` all that is left.
    pub(super) fn push(&mut self, piece: &[u8], end: bool, links: &Links, out: &mut Vec<u8>) {
        self.held.extend_from_slice(piece);
        let held = std::mem::take(&mut self.held);
        let mut rest = held.as_slice();
        while !rest.is_empty() {
            match step(self.state, rest, end) {
                Step::Pass(count, state) => {
                    out.extend_from_slice(&rest[..count]);
                    rest = &rest[count..];
                    self.state = state;
                }
                Step::Tag(tag) => {
                    self.state = emit(&tag, rest, links, out);
                    rest = &rest[tag.end..];
                }
                Step::Wait if end || rest.len() >= LONGEST_TAG => {
                    let (passes, left) = rest.split_at(rest.len().min(LONGEST_TAG));
                    out.extend_from_slice(passes);
                    rest = left;
                }
                Step::Wait => break,
            }
        }
        self.held = rest.to_vec();
    }
}

fn step(state: State, rest: &[u8], end: bool) -> Step {
    match state {
        State::Comment => up_to(rest, b"-->", end, State::Comment),
        State::Raw(name) => raw(rest, name, end),
        State::Text => text(rest),
    }
}

/// Passes what is before a mark and the mark; without one all that cannot be its beginning.
fn up_to(rest: &[u8], mark: &[u8], end: bool, state: State) -> Step {
    match rest.windows(mark.len()).position(|window| window == mark) {
        Some(at) => Step::Pass(at + mark.len(), State::Text),
        None if end => Step::Pass(rest.len(), state),
        None if rest.len() >= mark.len() => Step::Pass(rest.len() + 1 - mark.len(), state),
        None => Step::Wait,
    }
}

/// Passes the content of an element up to its end tag.
fn raw(rest: &[u8], name: &'static str, end: bool) -> Step {
    let longest = name.len() + 3;
    let is_end = |window: &[u8]| {
        window.starts_with(b"</")
            && window[2..longest - 1].eq_ignore_ascii_case(name.as_bytes())
            && (window[longest - 1].is_ascii_whitespace() || b"/>".contains(&window[longest - 1]))
    };
    match rest.windows(longest).position(is_end) {
        Some(at) => Step::Pass(at + 2, State::Text),
        None if end => Step::Pass(rest.len(), State::Raw(name)),
        None if rest.len() >= longest => Step::Pass(rest.len() + 1 - longest, State::Raw(name)),
        None => Step::Wait,
    }
}

fn text(rest: &[u8]) -> Step {
    // Not how much has come but this alone decides.
    let rest = &rest[..rest.len().min(LONGEST_TAG)];
    let before = rest.iter().position(|byte| *byte == b'<').unwrap_or(rest.len());
    if before > 0 {
        return Step::Pass(before, State::Text);
    }
    match rest {
        [_, b'!', b'-', b'-', ..] => Step::Pass(4, State::Comment),
        [_] | [_, b'!'] | [_, b'!', b'-'] => Step::Wait,
        [_, b'!' | b'?' | b'/', ..] => match rest.iter().position(|byte| *byte == b'>') {
            Some(at) => Step::Pass(at + 1, State::Text),
            None => Step::Wait,
        },
        [_, first, ..] if first.is_ascii_alphabetic() => tag(rest).map_or(Step::Wait, Step::Tag),
        _ => Step::Pass(1, State::Text),
    }
}

/// The start tag at the beginning; none if its end is not there.
fn tag(rest: &[u8]) -> Option<Tag> {
    let find = |from: usize, stop: &dyn Fn(u8) -> bool| {
        rest.get(from..)?.iter().position(|byte| stop(*byte)).map(|at| from + at)
    };
    let is_space = |byte: u8| byte.is_ascii_whitespace();
    let name = 1..find(1, &|byte| is_space(byte) || b"/>".contains(&byte))?;
    let (mut at, mut attributes) = (name.end, Vec::new());
    loop {
        at = find(at, &|byte| !is_space(byte) && byte != b'/')?;
        if rest[at] == b'>' {
            return Some(Tag { end: at + 1, name, attributes });
        }
        // A name may begin with `=`.
        let key = at..find(at + 1, &|byte| is_space(byte) || b"/>=".contains(&byte))?;
        at = find(key.end, &|byte| !is_space(byte))?;
        if rest[at] != b'=' {
            continue;
        }
        at = find(at + 1, &|byte| !is_space(byte))?;
        let value = match rest[at] {
            quote @ (b'"' | b'\'') => at + 1..find(at + 1, &|byte| byte == quote)?,
            _ => at..find(at, &|byte| is_space(byte) || byte == b'>')?,
        };
        at = value.end + usize::from(matches!(rest[value.end], b'"' | b'\''));
        attributes.push((key, value));
    }
}

/// Puts out a tag with its links rewritten; what follows it.
fn emit(tag: &Tag, rest: &[u8], links: &Links, out: &mut Vec<u8>) -> State {
    let name = String::from_utf8_lossy(&rest[tag.name.clone()]).to_ascii_lowercase();
    let holders = LINKS.iter().find(|(element, _)| *element == name).map_or(&[][..], |(_, attributes)| attributes);
    let mut from = 0;
    for (key, value) in &tag.attributes {
        let is_link = holders.iter().any(|holder| rest[key.clone()].eq_ignore_ascii_case(holder.as_bytes()));
        let address = std::str::from_utf8(&rest[value.clone()]).ok().filter(|_| is_link);
        if let Some(address) = address.and_then(|address| links.rewritten(address)) {
            out.extend_from_slice(&rest[from..value.start]);
            out.extend_from_slice(address.as_bytes());
            from = value.end;
        }
    }
    out.extend_from_slice(&rest[from..tag.end]);
    RAW.iter().find(|raw| **raw == name).map_or(State::Text, |raw| State::Raw(raw))
}

/// What a page is packed with, and how.
type Gzip = (GzDecoder<Vec<u8>>, GzEncoder<Vec<u8>>);

/// A page being rewritten.
pub(super) struct Page {
    reader: Reader,
    links: Links,
    gzip: Option<Box<Gzip>>,
}

impl Page {
    /// None if it is packed in another way than gzip.
    pub(super) fn new(encoding: &str, links: Links) -> Option<Self> {
        let gzip = match encoding {
            "" | "identity" => None,
            "gzip" => Some(Box::new((GzDecoder::new(Vec::new()), GzEncoder::new(Vec::new(), Compression::fast())))),
            _ => return None,
        };
        Some(Self { reader: Reader::new(), links, gzip })
    }

    /// The page of a body.
    pub(super) fn of(self, body: Body) -> Rewritten {
        Rewritten { page: self, body, waiting: Bytes::new(), state: Progress::Fresh }
    }

    fn push(&mut self, piece: &[u8], end: bool) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        let Some(gzip) = &mut self.gzip else {
            self.reader.push(piece, end, &self.links, &mut out);
            return Ok(out);
        };
        let (unpack, pack) = gzip.as_mut();
        unpack.write_all(piece)?;
        if end {
            unpack.try_finish()?;
        } else {
            unpack.flush()?;
        }
        self.reader.push(&std::mem::take(unpack.get_mut()), end, &self.links, &mut out);
        pack.write_all(&out)?;
        if end {
            pack.try_finish()?;
        } else if !out.is_empty() {
            // A page that is written slowly is read as it is written.
            pack.flush()?;
        }
        Ok(std::mem::take(pack.get_mut()))
    }
}

/// How far a body has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Nothing has come: an answer to HEAD stays without a body.
    Fresh,
    Begun,
    Ended,
}

/// The body of a page with its links rewritten.
pub(super) struct Rewritten {
    page: Page,
    body: Body,
    /// What has come and is not looked at yet.
    waiting: Bytes,
    state: Progress,
}

impl Rewritten {
    /// What comes of the next of what is there; none if nothing is.
    fn next(&mut self) -> Option<io::Result<Vec<u8>>> {
        if self.waiting.is_empty() {
            return None;
        }
        let piece = self.waiting.split_to(self.waiting.len().min(PIECE));
        Some(self.page.push(&piece, false))
    }
}

impl http_body::Body for Rewritten {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let shown =
            |piece: io::Result<Vec<u8>>| Some(piece.map(|piece| Frame::data(piece.into())).map_err(BoxError::from));
        loop {
            while let Some(piece) = self.next() {
                if !piece.as_ref().is_ok_and(Vec::is_empty) {
                    return Poll::Ready(shown(piece));
                }
            }
            if self.state == Progress::Ended {
                return Poll::Ready(None);
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => {
                    self.state = Progress::Begun;
                    // Trailers describe a body that is another now.
                    self.waiting = frame.into_data().unwrap_or_default();
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None if self.state == Progress::Fresh => return Poll::Ready(None),
                None => {
                    self.state = Progress::Ended;
                    let last = self.page.push(&[], true);
                    return Poll::Ready(if last.as_ref().is_ok_and(Vec::is_empty) { None } else { shown(last) });
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self.state {
            Progress::Fresh => self.body.is_end_stream(),
            Progress::Begun => false,
            Progress::Ended => true,
        }
    }
}

#[cfg(test)]
mod tests;
