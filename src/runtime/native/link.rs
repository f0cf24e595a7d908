//! The agent's end of a connection to a shim.
//!
//! Requests of many callers share a connection; replies find their way back by identity. Two tasks own the two
//! directions of the socket. It deliberately does not reconnect: whoever owns the sandbox knows whether there still is
//! a shim. Invariant: every request is answered, if only by [`LinkError::Closed`].

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use oci::protocol::{Frames, FromShim, Received, Reply, Request, ToShim, encode, receive, send};
use task::Tasks;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};

/// Messages that wait to be sent.
const QUEUE: usize = 64;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// The connection ended before.
    #[error("connection to shim is closed")]
    Closed,
    /// The request cannot be a message.
    #[error("request is no message")]
    Encode(#[source] oci::protocol::FrameError),
}

/// A connection. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Link {
    outgoing: mpsc::Sender<Outgoing>,
    shared: Arc<Shared>,
    /// The newest change that the shim has told of; closed with the connection.
    changes: watch::Receiver<u64>,
}

#[derive(Debug)]
struct Outgoing {
    frame: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

#[derive(Debug, Default)]
struct Shared {
    next: AtomicU64,
    /// None once the connection has ended.
    waiting: Mutex<Waiting>,
}

type Waiting = Option<HashMap<u64, oneshot::Sender<Reply>>>;

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no code panics while it holds the table")
    }
}

/// Forgets a request that nobody waits for any more, and kills the command if it was one.
#[derive(Debug)]
struct Forget<'a> {
    link: &'a Link,
    id: u64,
    kill: bool,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.link.shared.waiting().as_mut() {
            waiting.remove(&self.id);
        }
        if self.kill {
            let request = Request::KillExec { request: self.id };
            let message = ToShim::Request { id: self.link.next_id(), request };
            if let Ok(frame) = encode(&message, 0) {
                // With a full queue the command lives until its own timeout.
                let _ = self.link.outgoing.try_send(Outgoing { frame, descriptors: Vec::new() });
            }
        }
    }
}

impl Link {
    /// A connection over a socket whose greeting is over.
    pub(super) fn new(socket: Socket, tasks: &Tasks) -> Self {
        let (outgoing, queue) = mpsc::channel(QUEUE);
        let (newest, changes) = watch::channel(0);
        let shared = Arc::new(Shared { next: AtomicU64::new(1), waiting: Mutex::new(Some(HashMap::new())) });
        let socket = Arc::new(socket);
        tasks.spawn("shim-write", write_all(Arc::clone(&socket), queue));
        tasks.spawn("shim-read", read_all(socket, Arc::clone(&shared), newest));
        Self { outgoing, shared, changes }
    }

    /// Hears of changes until the connection ends.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// Asks and waits for the answer. A caller that stops waiting for a command kills it.
    pub(super) async fn request(&self, request: Request, descriptors: Vec<OwnedFd>) -> Result<Reply, LinkError> {
        let id = self.next_id();
        let is_command = matches!(request, Request::Exec(_) | Request::ExecKept { .. });
        let message = ToShim::Request { id, request };
        let frame = encode(&message, descriptors.len()).map_err(LinkError::Encode)?;
        let (answer, reply) = oneshot::channel();
        self.shared.waiting().as_mut().ok_or(LinkError::Closed)?.insert(id, answer);
        let mut forget = Forget { link: self, id, kill: is_command };
        self.outgoing.send(Outgoing { frame, descriptors }).await.map_err(|_| LinkError::Closed)?;
        let reply = reply.await.map_err(|_| LinkError::Closed);
        forget.kill = false;
        reply
    }

    fn next_id(&self) -> u64 {
        self.shared.next.fetch_add(1, Ordering::Relaxed)
    }
}

async fn write_all(socket: Arc<Socket>, mut queue: mpsc::Receiver<Outgoing>) {
    while let Some(Outgoing { frame, descriptors }) = queue.recv().await {
        let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        if socket.write(&frame, &borrowed).await.is_err() {
            return;
        }
    }
}

async fn read_all(socket: Arc<Socket>, shared: Arc<Shared>, newest: watch::Sender<u64>) {
    /// Tells all who wait that nothing comes any more, also when the task is cancelled.
    struct Close(Arc<Shared>);
    impl Drop for Close {
        fn drop(&mut self) {
            self.0.waiting().take();
        }
    }
    let shared = Close(shared);
    let mut frames = Frames::new();
    loop {
        match socket.read(&mut frames).await {
            Ok(FromShim::Reply { id, reply }) => {
                let answer = shared.0.waiting().as_mut().and_then(|waiting| waiting.remove(&id));
                if let Some(answer) = answer {
                    // The caller may have given up at this moment.
                    let _ = answer.send(reply);
                }
            }
            Ok(FromShim::Changed { sequence }) => {
                newest.send_replace(sequence);
            }
            Ok(FromShim::Hello { .. } | FromShim::IsSetUp { .. } | FromShim::SetUpFailed(_)) => {}
            Err(error) => {
                tracing::debug!(error = %error, "connection to shim ended");
                return;
            }
        }
    }
}

/// A connected socket that speaks in messages.
#[derive(Debug)]
pub(super) struct Socket(UnixStream);

impl Socket {
    /// Takes over a connected, non-blocking socket, inside a tokio runtime.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        UnixStream::from_std(std::os::unix::net::UnixStream::from(socket)).map(Self)
    }

    /// Sends a message as a whole.
    pub(super) async fn say(&self, message: &ToShim, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let frame =
            encode(message, descriptors.len()).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        self.write(&frame, descriptors).await
    }

    async fn write(&self, frame: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut written = 0;
        while written < frame.len() {
            let with = if written == 0 { descriptors } else { &[] };
            written += self.0.async_io(Interest::WRITABLE, || send(self.0.as_fd(), &frame[written..], with)).await?;
        }
        Ok(())
    }

    /// Receives the next message. Losing the future between two polls loses nothing that is in `frames`.
    pub(super) async fn read(&self, frames: &mut Frames) -> io::Result<FromShim> {
        loop {
            let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
            if let Some((message, _)) = frames.take().map_err(invalid)? {
                return Ok(message);
            }
            let received = self.0.async_io(Interest::READABLE, || receive(self.0.as_fd(), frames)).await?;
            if received == Received::Closed {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
