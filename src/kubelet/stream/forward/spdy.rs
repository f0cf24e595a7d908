//! Forwarding over SPDY/3.1: any number of connections, each with a stream for its data and one for its errors.
//!
//! ```text
//! client                                                  kubelet
//!   ├── SYN_STREAM streamtype: error, port, requestid ──────►│
//!   ├── SYN_STREAM streamtype: data, port, requestid ───────►│
//!   │◄── SYN_REPLY to each ──────────────────────────────────┤  then the pod's port is connected to
//!   ├── DATA on data, FIN ends the direction ───────────────►│
//!   │◄── DATA on data ───────────────────────────────────────┤
//!   │◄── FIN on both; text on error if there was no connection; RST_STREAM if the pod broke it off
//! ```
//!
//! SPDY has no windows here: data for a pod that does not read waits in a room that all connections of the session share,
//! and once that is full the session reads no more. Invariant: no session holds more than that room.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::super::spdy::frame::{self, Decoder, Encoder, Frame, StreamId};
use super::Target;
use super::pairs::{Opened, Pair, Pairs};
use super::relay::{Piece, Said, relay};

/// Frames that wait to be sent.
const BACKLOG: usize = 16;

/// How much is read at once.
const PIECE: usize = 64 << 10;

/// Bytes that wait for pods to read them.
const ROOM: u32 = 4 << 20;

/// How long the other half of a connection is waited for (`DefaultStreamCreationTimeout`).
const CREATION: Duration = Duration::from_secs(30);

/// How often a silent client is asked whether it is there.
const PING: Duration = Duration::from_secs(10);

/// Where what clients send goes, by the streams of data.
type Inputs = Arc<Mutex<BTreeMap<StreamId, mpsc::UnboundedSender<Piece>>>>;

fn lock(inputs: &Inputs) -> MutexGuard<'_, BTreeMap<StreamId, mpsc::UnboundedSender<Piece>>> {
    inputs.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection that is to be made.
type Begun = (Pair, mpsc::UnboundedReceiver<Piece>);

/// Forwards connections until the client is gone, or says what is no frame.
pub(super) async fn carry<S: AsyncRead + AsyncWrite>(stream: S, target: &Target) {
    let (source, sink) = tokio::io::split(stream);
    let (answers, to_answer) = mpsc::channel(BACKLOG);
    let (begin, begun) = mpsc::unbounded_channel();
    let (told, to_tell) = mpsc::channel(BACKLOG);
    let inputs = Inputs::default();
    let mut reader = Reader {
        encoder: Encoder::new(),
        pairs: Pairs::default(),
        inputs: Arc::clone(&inputs),
        room: Arc::new(Semaphore::new(usize::try_from(ROOM).unwrap_or(usize::MAX))),
        answers,
        begin,
    };
    tokio::select! {
        _ = reader.read(source) => {}
        _ = write(sink, to_answer, to_tell) => {}
        () = connect_all(target, begun, (&inputs, told)) => {}
    }
}

/// Has all connections at once.
async fn connect_all(
    target: &Target,
    mut begun: mpsc::UnboundedReceiver<Begun>,
    (inputs, told): (&Inputs, mpsc::Sender<(Pair, Said)>),
) {
    let mut connections = FuturesUnordered::new();
    loop {
        let next = tokio::select! {
            next = begun.recv() => next,
            Some(()) = connections.next() => continue,
        };
        let Some((pair, input)) = next else { return };
        let told = told.clone();
        connections.push(async move {
            relay(target, (pair, pair.port), input, told).await;
            lock(inputs).remove(&pair.data);
        });
    }
}

/// What comes from the client.
struct Reader {
    encoder: Encoder,
    pairs: Pairs,
    inputs: Inputs,
    room: Arc<Semaphore>,
    answers: mpsc::Sender<Bytes>,
    begin: mpsc::UnboundedSender<Begun>,
}

impl Reader {
    /// Reads until the client is gone, or says what is no frame; none when nobody writes any more.
    async fn read<R: AsyncRead + Unpin>(&mut self, mut source: R) -> Option<()> {
        let (mut decoder, mut arrived) = (Decoder::new(), BytesMut::new());
        loop {
            loop {
                match decoder.next(&mut arrived) {
                    Ok(Some(frame)) => self.take(frame).await?,
                    Ok(None) => break,
                    Err(error) => {
                        tracing::debug!(error = &error as &dyn std::error::Error, "a client broke the protocol");
                        return Some(());
                    }
                }
            }
            arrived.reserve(PIECE);
            let until = self.pairs.until();
            let late = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                read = source.read_buf(&mut arrived) => {
                    if !matches!(read, Ok(count) if count > 0) {
                        return Some(());
                    }
                }
                () = late => self.give_up_late().await?,
            }
        }
    }

    async fn take(&mut self, frame: Frame) -> Option<()> {
        match frame {
            Frame::Open { stream, fields, last } => {
                self.open(stream, &fields).await?;
                if last {
                    self.data(stream, Bytes::new(), true).await;
                }
            }
            Frame::Data { stream, data, last } => self.data(stream, data, last).await,
            Frame::Reset { stream } => {
                self.pairs.forget(stream);
                lock(&self.inputs).remove(&stream);
            }
            // The client asks by odd numbers; even ones are answers.
            Frame::Ping { id } if id % 2 == 1 => self.answers.send(frame::ping(id)).await.ok()?,
            Frame::Ping { .. } | Frame::GoAway => {}
        }
        Some(())
    }

    async fn open(&mut self, stream: StreamId, fields: &[(String, String)]) -> Option<()> {
        let (connections, is_known) = {
            let inputs = lock(&self.inputs);
            (inputs.len(), inputs.contains_key(&stream))
        };
        let opened = match is_known {
            true => Opened::Refused,
            false => self.pairs.open((stream, fields), connections, Instant::now() + CREATION),
        };
        if opened == Opened::Refused {
            return self.answers.send(frame::reset(stream, frame::REFUSED_STREAM)).await.ok();
        }
        self.answers.send(self.encoder.reply(stream)).await.ok()?;
        if let Opened::Whole(pair) = opened {
            let (sender, input) = mpsc::unbounded_channel();
            lock(&self.inputs).insert(pair.data, sender);
            self.begin.send((pair, input)).ok()?;
        }
        Some(())
    }

    async fn data(&self, stream: StreamId, data: Bytes, last: bool) {
        // What is said on a stream of errors, or one that has ended, is of no interest.
        let Some(input) = lock(&self.inputs).get(&stream).cloned() else { return };
        if let Ok(size) = u32::try_from(data.len())
            && size > 0
        {
            // No piece is larger than what is read at once, so that there will be room for it.
            let room = Arc::clone(&self.room).acquire_many_owned(size.min(ROOM)).await.ok();
            // The pod may have gone meanwhile.
            let _ = input.send(Piece { bytes: data, room });
        }
        if last {
            let _ = input.send(Piece { bytes: Bytes::new(), room: None });
        }
    }

    async fn give_up_late(&mut self) -> Option<()> {
        for (request, stream, is_error) in self.pairs.late(Instant::now()) {
            let frame = if is_error {
                frame::data(stream, format!("(request={request}) timed out waiting for streams").as_bytes(), true)
            } else {
                frame::reset(stream, frame::REFUSED_STREAM)
            };
            self.answers.send(frame).await.ok()?;
        }
        Some(())
    }
}

/// Sends what there is to be sent until the client is gone.
async fn write<W: AsyncWrite + Unpin>(
    mut sink: W,
    mut answers: mpsc::Receiver<Bytes>,
    mut told: mpsc::Receiver<(Pair, Said)>,
) -> Option<()> {
    let mut pings = 0_u32;
    loop {
        let frame = tokio::select! {
            // A stream is accepted before anything is said on it.
            biased;
            answer = answers.recv() => answer?,
            Some((pair, said)) = told.recv() => render(pair, said),
            () = tokio::time::sleep(PING) => {
                pings = pings.wrapping_add(2);
                frame::ping(pings)
            }
        };
        sink.write_all(&frame).await.ok()?;
        sink.flush().await.ok()?;
    }
}

/// What is told, as frames.
fn render(Pair { data, error, .. }: Pair, said: Said) -> Bytes {
    match said {
        Said::Data(piece) => frame::seal(data, piece),
        Said::End => [frame::data(data, b"", true), frame::data(error, b"", true)].concat().into(),
        Said::Reset => [frame::reset(data, frame::CANCEL), frame::data(error, b"", true)].concat().into(),
        Said::Failed(why) => [frame::data(error, why.as_bytes(), true), frame::data(data, b"", true)].concat().into(),
    }
}

#[cfg(test)]
mod tests;
