//! Between a client and a command: input in, output out, and the end.
//!
//! Whatever the client sends is taken, also when the command does not want it any more, so that the wire sees the client
//! go. Output that the command has left in its pipes is told to the last byte, however slowly the client reads; only a
//! stream that somebody else holds open and does not write to is given up.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use runtime::{RuntimeError, Session};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};

use super::{Input, Output, status};

/// How much is read at once: with what wires put before it, eight records of TLS, which are written in two calls. A few bytes
/// more would take a record and a call of their own.
const PIECE: usize = (128 << 10) - 64;

/// How long a stream may be silent after the command has ended before it is given up: a process that the command has left
/// behind may hold it open for ever.
const DRAIN: Duration = Duration::from_millis(200);

/// Talks until the command has ended and all is told, or the client is gone.
pub(super) async fn talk(
    opened: Result<Session, RuntimeError>,
    command: &[String],
    from_client: mpsc::Receiver<Input>,
    to_client: mpsc::Sender<Output>,
) {
    let session = match opened {
        Ok(session) => session,
        Err(error) => {
            let _ = to_client.send(Output::Status(status::of(&Err(error), command))).await;
            return;
        }
    };
    let Session { stdin, stdout, stderr, window, end } = session;
    let (ended, has_ended) = watch::channel(false);
    let output = async {
        tokio::join!(
            copy(stdout, Output::Stdout, &to_client, has_ended.clone()),
            copy(stderr, Output::Stderr, &to_client, has_ended.clone()),
        )
    };
    let command_ends = async {
        let how = end.await;
        // Nobody listens if both streams have ended.
        let _ = ended.send(true);
        how
    };
    let both = async { tokio::join!(command_ends, output).0 };
    tokio::select! {
        how = both => drop(to_client.send(Output::Status(status::of(&how, command))).await),
        () = feed(stdin, window, from_client) => {}
        () = to_client.closed() => {}
    }
}

/// Passes on what the client says until the client is gone.
async fn feed(
    mut stdin: Option<runtime::Input>,
    window: Option<Box<dyn runtime::Window>>,
    mut from_client: mpsc::Receiver<Input>,
) {
    while let Some(said) = from_client.recv().await {
        match said {
            Input::Stdin(bytes) => {
                if let Some(open) = &mut stdin
                    && open.write_all(&bytes).await.is_err()
                {
                    // The command has closed its end, and may go on without.
                    stdin = None;
                }
            }
            Input::EndOfStdin => stdin = None,
            Input::Resize(size) => window.iter().for_each(|window| window.resize(size)),
        }
    }
}

/// Tells the client what the command writes.
async fn copy(
    stream: Option<runtime::Output>,
    name: fn(Bytes) -> Output,
    to_client: &mpsc::Sender<Output>,
    mut has_ended: watch::Receiver<bool>,
) {
    let Some(mut stream) = stream else { return };
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(PIECE);
        let silence = async {
            // It says nothing any more if the command is gone.
            let _ = has_ended.wait_for(|ended| *ended).await;
            tokio::time::sleep(DRAIN).await;
        };
        let read = tokio::select! {
            biased;
            read = stream.read_buf(&mut buffer) => read,
            () = silence => return,
        };
        // An error of a stream is the end of what can be had from it.
        if !matches!(read, Ok(count) if count > 0) || to_client.send(name(buffer.split().freeze())).await.is_err() {
            return;
        }
    }
}
