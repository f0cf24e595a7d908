//! One forwarded connection: what comes from the client goes to the pod, and back.
//!
//! Either direction ends by itself, as those of TCP do; what a client has in flight when the pod has said its last is
//! taken for a moment, as by containerd (internal/cri/server/sandbox_portforward_linux.go). Invariant: whatever happens to
//! a connection is told to its own client's streams and to nobody else's.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use net::DialError;
use task::{chain, errno_text};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use super::Target;

/// How much is read at once: with what wires put before it, four records of TLS, which are written in one call.
const PIECE: usize = (64 << 10) - 64;

/// Bytes before every piece of data in which wires write what they have to say of it.
pub(super) const HEADROOM: usize = 8;

/// How long the client's last words are taken after the pod has ended its direction.
const DRAIN: Duration = Duration::from_millis(500);

/// How long the pod may be silent after the client has ended its direction. Who only ends one direction waits for an
/// answer; who has gone altogether looks the same.
const SILENCE: Duration = Duration::from_secs(60);

/// What a client has sent, as long as it waits, and the room that it takes.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) bytes: Bytes,
    #[expect(dead_code, reason = "it is given back when the piece is dropped")]
    pub(super) room: Option<OwnedSemaphorePermit>,
}

/// What is to be told to the client of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Data, after [`HEADROOM`] bytes.
    Data(BytesMut),
    /// No more data comes.
    End,
    /// The pod has broken the connection off.
    Reset,
    /// There is no connection.
    Failed(String),
}

/// A connection from its beginning to its end; `key` is what the wire calls it. It ends early when nobody is left to be
/// told.
pub(super) async fn relay<K: Copy>(
    target: &Target,
    (key, port): (K, u16),
    input: mpsc::UnboundedReceiver<Piece>,
    told: mpsc::Sender<(K, Said)>,
) {
    // A client that is gone needs no answer.
    let tell = async |said| drop(told.send((key, said)).await);
    let connection = match dial(target, port).await {
        Ok(connection) => connection,
        Err(why) => return tell(Said::Failed(why)).await,
    };
    let (from_pod, to_pod) = connection.into_split();
    let (ended, has_ended) = watch::channel(false);
    let up = carry_up(input, to_pod);
    let down = carry_down(from_pod, (key, &told), has_ended);
    tokio::pin!(up, down);
    let (said, client_speaks) = tokio::select! {
        said = &mut down => (said, true),
        how = &mut up => {
            if how == Ended::Reset {
                return;
            }
            ended.send_replace(true);
            (down.await, false)
        }
    };
    let Some(said) = said else { return };
    tell(said).await;
    if client_speaks {
        let _ = tokio::time::timeout(DRAIN, up).await;
    }
}

/// How a direction has ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Orderly,
    Reset,
}

/// Passes on what the client sends until it has said its last: an empty piece, or nothing more at all if it gives up, which
/// is noticed also while the pod does not read.
async fn carry_up<W: AsyncWrite + Unpin>(mut input: mpsc::UnboundedReceiver<Piece>, mut to_pod: W) -> Ended {
    let mut waiting: VecDeque<Piece> = VecDeque::new();
    loop {
        let next = match waiting.front_mut() {
            None => input.recv().await,
            Some(first) if first.bytes.is_empty() => {
                // The pod may have gone meanwhile.
                let _ = to_pod.shutdown().await;
                return Ended::Orderly;
            }
            Some(first) => tokio::select! {
                next = input.recv() => next,
                written = to_pod.write(&first.bytes) => {
                    match written {
                        Ok(count) if count > 0 => first.bytes.advance(count),
                        // What the pod does not read any more is thrown away, lest it fills the room of others.
                        _ => first.bytes.clear(),
                    }
                    if first.bytes.is_empty() {
                        waiting.pop_front();
                    }
                    continue;
                }
            },
        };
        match next {
            Some(piece) => waiting.push_back(piece),
            None => return Ended::Reset,
        }
    }
}

/// Passes on what the pod sends; what is to be told last, nothing if nobody listens.
async fn carry_down<R: AsyncRead + Unpin, K: Copy>(
    mut from_pod: R,
    (key, told): (K, &mpsc::Sender<(K, Said)>),
    mut client_ended: watch::Receiver<bool>,
) -> Option<Said> {
    loop {
        let mut piece = BytesMut::with_capacity(HEADROOM + PIECE);
        piece.put_bytes(0, HEADROOM);
        let silence = async {
            // It never comes if the connection has ended otherwise.
            let _ = client_ended.wait_for(|ended| *ended).await;
            tokio::time::sleep(SILENCE).await;
        };
        let read = tokio::select! {
            biased;
            read = from_pod.read_buf(&mut piece) => read,
            () = silence => return Some(Said::End),
        };
        match read {
            Ok(0) => return Some(Said::End),
            Ok(_) => told.send((key, Said::Data(piece))).await.ok()?,
            Err(_) => return Some(Said::Reset),
        }
    }
}

/// Connects, or says why not in upstream's words (`portForward` of containerd and of the kubelet's streaming server).
async fn dial(target: &Target, port: u16) -> Result<TcpStream, String> {
    let Target { runtime, sandbox, network } = target;
    let inside = |why: String| {
        format!(
            "error forwarding port {port} to pod {sandbox}, uid : failed to execute portforward in network namespace \
             {network:?}: {why}"
        )
    };
    // Not held: a namespace lives as long as somebody has it open, and with it the pod's address.
    let namespace = runtime.network_namespace(sandbox).await.map_err(|error| inside(chain(&error)))?;
    net::dial(&namespace, port).await.map_err(|error| {
        inside(match error {
            DialError::Namespace(error) => chain(&error),
            DialError::Refused { by_four, by_six, .. } => {
                let said = |error: &io::Error| errno_text(error);
                format!(
                    "failed to connect to localhost:{port} inside namespace {:?}, IPv4: dial tcp4 127.0.0.1:{port}: connect: {} \
                     IPv6 dial tcp6 [::1]:{port}: connect: {} ",
                    sandbox.0,
                    said(&by_four),
                    said(&by_six)
                )
            }
        })
    })
}

#[cfg(test)]
mod tests;
