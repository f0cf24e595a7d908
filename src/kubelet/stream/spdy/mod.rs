//! Channels over SPDY/3.1: `remotecommand` as clients up to kubectl 1.29 speak it, and later ones where a proxy is in the
//! way of WebSockets (`k8s.io/kubelet/pkg/cri/streaming/remotecommand/httpstream.go`).
//!
//! ```text
//! client                                       kubelet
//!   ├── SYN_STREAM streamtype: error ────────────►│
//!   │◄── SYN_REPLY ───────────────────────────────┤  one for each that is expected; then the command begins
//!   ├── DATA on stdin, FIN ends it ──────────────►│
//!   │◄── DATA on stdout, stderr ──────────────────┤
//!   │◄── FIN on these, Status and FIN on error ───┤  when the command has ended
//! ```
//!
//! No side has windows: what is not read stays in the connection. A stream that nobody expects is refused, the others go
//! on. Invariant: what a client can make the server keep is bounded by the streams that are expected.

pub(super) mod frame;
mod header;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode};
use runtime::Wanted;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};

use super::websocket::{message_of, size};
use super::{Input, Line, Output};
use crate::serve::Refusal;
use frame::{Decoder, Encoder, Frame, StreamId};

/// Frames that wait to be answered.
const ANSWERS: usize = 16;

/// How much is read at once.
const PIECE: usize = 64 << 10;

/// How long the client may take to open the streams (`DefaultStreamCreationTimeout`).
const CREATION: Duration = Duration::from_secs(30);

/// How often a silent client is asked whether it is there.
const PING: Duration = Duration::from_secs(10);

/// How long a client has to close its end after the last frame.
const LINGER: Duration = Duration::from_secs(10);

/// The most bytes of a size that is not complete.
const MAX_SIZE: usize = 1024;

/// The field by which both sides say what they speak.
pub(super) const PROTOCOL: &str = "x-stream-protocol-version";

/// What a client of SPDY speaks on top of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dialect {
    /// From version 4 the end is told as `Status`, from 3 there are sizes.
    version: u8,
}

/// Dialects by preference.
const DIALECTS: [(&str, Dialect); 4] = [
    ("v4.channel.k8s.io", Dialect { version: 4 }),
    ("v3.channel.k8s.io", Dialect { version: 3 }),
    ("v2.channel.k8s.io", Dialect { version: 2 }),
    ("channel.k8s.io", Dialect { version: 1 }),
];

/// Picks what is spoken; the fields of the answer beside the usual ones.
pub(super) fn shake_hands(headers: &HeaderMap) -> Result<(Dialect, HeaderMap), Refusal> {
    let offered = offered(headers);
    let mut fields = HeaderMap::new();
    if offered.is_empty() {
        return Ok((Dialect { version: 1 }, fields));
    }
    let picked = DIALECTS.into_iter().find(|(name, _)| offered.contains(name));
    let (name, dialect) = picked.ok_or_else(|| disagree(&offered, &DIALECTS.map(|(name, _)| name)))?;
    fields.insert(PROTOCOL, HeaderValue::from_static(name));
    Ok((dialect, fields))
}

/// What the client says that it speaks.
pub(super) fn offered(headers: &HeaderMap) -> Vec<&str> {
    let offered = headers.get_all(PROTOCOL).into_iter().filter_map(|value| value.to_str().ok());
    offered.flat_map(|value| value.split(',')).map(str::trim).collect()
}

/// Nothing is spoken by both.
pub(super) fn disagree(offered: &[&str], ours: &[&str]) -> Refusal {
    let message = format!("unable to negotiate protocol: client supports {offered:?}, server accepts {ours:?}\n");
    Refusal(StatusCode::FORBIDDEN, message)
}

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Error,
    Stdin,
    Stdout,
    Stderr,
    Resize,
}

impl Kind {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "error" => Self::Error,
            "stdin" => Self::Stdin,
            "stdout" => Self::Stdout,
            "stderr" => Self::Stderr,
            "resize" => Self::Resize,
            _ => return None,
        })
    }
}

/// The streams that a client opens for what it asks.
fn expected(wanted: Wanted, dialect: Dialect) -> Vec<Kind> {
    let (stdin, stdout, stderr, tty) = match wanted {
        Wanted::Terminal { stdin } => (stdin, true, false, true),
        Wanted::Pipes { stdin, stdout, stderr } => (stdin, stdout, stderr, false),
    };
    let all = [
        (Kind::Error, true),
        (Kind::Stdin, stdin),
        (Kind::Stdout, stdout),
        (Kind::Stderr, stderr),
        (Kind::Resize, tty && dialect.version >= 3),
    ];
    all.into_iter().filter(|(_, is_expected)| *is_expected).map(|(kind, _)| kind).collect()
}

/// Something that the client is answered beside output.
#[derive(Debug)]
enum Answer {
    Accept(StreamId),
    Refuse(StreamId),
    Pong(u32),
}

/// Carries frames until all is told or the client is gone.
pub(super) async fn carry<S: AsyncRead + AsyncWrite>(stream: S, (dialect, wanted): (Dialect, Wanted), line: Line) {
    let (source, sink) = tokio::io::split(stream);
    let Line { input, mut output, ready } = line;
    let (answers, asked) = mpsc::channel(ANSWERS);
    let (complete, streams) = oneshot::channel();
    let expected = expected(wanted, dialect);
    let mut reader = Reader { expected, open: BTreeMap::new(), complete: Some(complete), size: BytesMut::new() };
    let reading = reader.read(source, &input, answers);
    let mut writer = Writer { sink, encoder: Encoder::new(), asked };
    let writing = async {
        let streams = writer.await_streams(streams).await?;
        // Nobody wants to know if the command has been given up.
        let _ = ready.send(());
        writer.write(&mut output, &streams, dialect).await
    };
    tokio::pin!(reading);
    let told: Option<()> = tokio::select! {
        () = &mut reading => return,
        told = writing => told,
    };
    if told.is_some() {
        drop(output);
        let _ = tokio::time::timeout(LINGER, async { tokio::join!(reading, writer.answer_rest()) }).await;
    }
}

/// What comes from the client.
struct Reader {
    expected: Vec<Kind>,
    open: BTreeMap<StreamId, Kind>,
    /// Told once all expected streams are there.
    complete: Option<oneshot::Sender<BTreeMap<Kind, StreamId>>>,
    /// A size that has come in part.
    size: BytesMut,
}

impl Reader {
    /// Reads until the client is gone, or says what is no frame.
    async fn read<R: AsyncRead + Unpin>(
        &mut self,
        mut source: R,
        input: &mpsc::Sender<Input>,
        answers: mpsc::Sender<Answer>,
    ) {
        let (mut decoder, mut arrived) = (Decoder::new(), BytesMut::new());
        loop {
            loop {
                let frame = match decoder.next(&mut arrived) {
                    Ok(Some(frame)) => frame,
                    Ok(None) => break,
                    Err(error) => {
                        tracing::debug!(error = &error as &dyn std::error::Error, "a client broke the protocol");
                        return;
                    }
                };
                // The end of the writer or of the command is no reason not to wait for that of the client.
                match frame {
                    Frame::Open { stream, fields, .. } => drop(answers.send(self.open(stream, &fields)).await),
                    Frame::Data { stream, data, last } => self.data(stream, data, last, input).await,
                    // The client asks by odd numbers; even ones are answers.
                    Frame::Ping { id } if id % 2 == 1 => drop(answers.send(Answer::Pong(id)).await),
                    Frame::Ping { .. } | Frame::Reset { .. } | Frame::GoAway => {}
                }
            }
            arrived.reserve(PIECE);
            if !matches!(source.read_buf(&mut arrived).await, Ok(count) if count > 0) {
                return;
            }
        }
    }

    fn open(&mut self, stream: StreamId, fields: &[(String, String)]) -> Answer {
        let kind = fields.iter().find(|(name, _)| name == "streamtype").and_then(|(_, kind)| Kind::of(kind));
        let is_new = |kind: &Kind| !self.open.values().any(|other| other == kind) && !self.open.contains_key(&stream);
        let Some(kind) = kind.filter(|kind| self.expected.contains(kind)).filter(is_new) else {
            return Answer::Refuse(stream);
        };
        self.open.insert(stream, kind);
        if self.open.len() == self.expected.len()
            && let Some(complete) = self.complete.take()
        {
            // Without a listener the session is over.
            let _ = complete.send(self.open.iter().map(|(stream, kind)| (*kind, *stream)).collect());
        }
        Answer::Accept(stream)
    }

    async fn data(&mut self, stream: StreamId, data: Bytes, last: bool, input: &mpsc::Sender<Input>) {
        match self.open.get(&stream) {
            Some(Kind::Stdin) => {
                if !data.is_empty() {
                    let _ = input.send(Input::Stdin(data)).await;
                }
                if last {
                    let _ = input.send(Input::EndOfStdin).await;
                }
            }
            Some(Kind::Resize) => {
                self.size.extend_from_slice(&data);
                while let Some(end) = self.size.iter().position(|byte| *byte == b'\n') {
                    let line = self.size.split_to(end + 1);
                    if let Some(size) = size(&line) {
                        let _ = input.send(Input::Resize(size)).await;
                    }
                }
                if self.size.len() > MAX_SIZE {
                    self.size.clear();
                }
            }
            _ => {}
        }
    }
}

/// What goes to the client.
struct Writer<W> {
    sink: W,
    encoder: Encoder,
    asked: mpsc::Receiver<Answer>,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// Accepts streams until all are there; none if they do not come or the client is gone.
    async fn await_streams(
        &mut self,
        mut streams: oneshot::Receiver<BTreeMap<Kind, StreamId>>,
    ) -> Option<BTreeMap<Kind, StreamId>> {
        let late = tokio::time::sleep(CREATION);
        tokio::pin!(late);
        loop {
            tokio::select! {
                streams = &mut streams => return streams.ok(),
                answer = self.asked.recv() => self.answer(answer?).await?,
                () = &mut late => return None,
            }
        }
    }

    /// Tells what there is to tell, to the end.
    async fn write(
        &mut self,
        output: &mut mpsc::Receiver<Output>,
        streams: &BTreeMap<Kind, StreamId>,
        dialect: Dialect,
    ) -> Option<()> {
        let mut pings = 0_u32;
        loop {
            let told = tokio::select! {
                answer = self.asked.recv() => {
                    self.answer(answer?).await?;
                    continue;
                }
                told = output.recv() => told,
                () = tokio::time::sleep(PING) => {
                    pings = pings.wrapping_add(2);
                    self.send(&frame::ping(pings)).await?;
                    continue;
                }
            };
            let (kind, data) = match told {
                Some(Output::Stdout(data)) => (Kind::Stdout, data),
                Some(Output::Stderr(data)) => (Kind::Stderr, data),
                Some(Output::Status(status)) => {
                    let text = if dialect.version >= 4 { status.to_string().into_bytes() } else { message_of(&status) };
                    return self.end(streams, &text).await;
                }
                None => return self.end(streams, b"").await,
            };
            if let Some(stream) = streams.get(&kind) {
                self.send(&frame::data(*stream, &data, false)).await?;
            }
        }
    }

    /// Ends all streams, the one of errors with its last word.
    async fn end(&mut self, streams: &BTreeMap<Kind, StreamId>, error: &[u8]) -> Option<()> {
        for kind in [Kind::Stdout, Kind::Stderr] {
            if let Some(stream) = streams.get(&kind) {
                self.send(&frame::data(*stream, b"", true)).await?;
            }
        }
        self.send(&frame::data(*streams.get(&Kind::Error)?, error, true)).await
    }

    /// Answers what is asked until nobody asks.
    async fn answer_rest(&mut self) {
        while let Some(answer) = self.asked.recv().await {
            if self.answer(answer).await.is_none() {
                return;
            }
        }
    }

    async fn answer(&mut self, answer: Answer) -> Option<()> {
        let frame = match answer {
            Answer::Accept(stream) => self.encoder.reply(stream),
            Answer::Refuse(stream) => frame::reset(stream, frame::REFUSED_STREAM),
            Answer::Pong(id) => frame::ping(id),
        };
        self.send(&frame).await
    }

    async fn send(&mut self, frame: &[u8]) -> Option<()> {
        self.sink.write_all(frame).await.ok()?;
        self.sink.flush().await.ok()
    }
}

#[cfg(test)]
mod tests;
