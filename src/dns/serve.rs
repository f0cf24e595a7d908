//! Sockets: datagrams and connections of those who ask.
//!
//! ```text
//! datagram ──► take ──┬─ answered ──────────────► datagram
//!                     └─ waiting ──► own task ──► datagram
//! connection: messages with their lengths, answered in whatever order is first (RFC 7766 §6.2.1.1)
//! ```
//!
//! Limits: how many wait for others is the forwarder's; how many connections there are, in all and of one address; how
//! many questions of a connection are in work; how long a connection may be idle, or takes no answers. Invariant: nobody
//! who does not read his answers keeps others from theirs.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use task::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::message::Transport;
use crate::server::{Server, Taken, Waiting};

/// The largest question that is read; longer ones are cut and thus malformed.
const LARGEST: usize = 4096;
/// Connections at a time, and of one address.
const CONNECTIONS: usize = 256;
const OF_ONE: usize = 64;
/// How long a connection may say nothing, or read nothing (RFC 7766 §6.2.3).
const IDLE: Duration = Duration::from_secs(10);
/// Questions of one connection that are in work; further ones are not read meanwhile.
const AT_ONCE: usize = 32;
/// Bytes of answers that are collected before they are written.
const AT_A_TIME: usize = 64 << 10;
/// How long to wait after the kernel has refused.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers datagrams, for ever.
pub(crate) async fn datagrams(socket: UdpSocket, server: Server, tasks: Tasks) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; LARGEST];
    loop {
        let (count, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "cannot receive questions");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        match server.take(&buffer[..count], Transport::Udp) {
            Taken::Answered(answer) => send(&socket, &answer, from),
            Taken::Waiting(waiting) => {
                let (socket, server) = (Arc::clone(&socket), server.clone());
                tasks.spawn("dns-question", async move { send(&socket, &server.finish(waiting).await, from) });
            }
            Taken::Ignored => {}
        }
    }
}

/// An answer that the kernel has no room for is lost like any datagram, and asked for again.
fn send(socket: &UdpSocket, answer: &[u8], to: SocketAddr) {
    if let Err(error) = socket.try_send_to(answer, to) {
        tracing::debug!(%error, %to, "an answer was not sent");
    }
}

/// Answers connections, for ever.
pub(crate) async fn connections(listener: TcpListener, server: Server, tasks: Tasks) {
    let guests = Arc::new(Guests::default());
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "cannot accept connections");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // Closed at once otherwise, which tells the asker to come again.
        if let Some(guest) = guests.enter(from.ip()) {
            let server = server.clone();
            tasks.spawn("dns-connection", async move {
                if let Err(error) = converse(stream, &server).await {
                    tracing::debug!(%error, %from, "a connection ended");
                }
                drop(guest);
            });
        }
    }
}

/// Who is connected.
#[derive(Debug, Default)]
struct Guests(Mutex<HashMap<IpAddr, usize>>);

/// A place among them.
struct Guest {
    guests: Arc<Guests>,
    address: IpAddr,
}

impl Guests {
    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Guest> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.values().sum::<usize>() >= CONNECTIONS {
            return None;
        }
        let count = all.entry(address).or_default();
        if *count >= OF_ONE {
            return None;
        }
        *count += 1;
        Some(Guest { guests: Arc::clone(self), address })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut all = self.guests.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.address);
            }
        }
    }
}

/// Questions of a connection whose answers are awaited.
type Work<'a> = FuturesUnordered<std::pin::Pin<Box<dyn Future<Output = Vec<u8>> + Send + 'a>>>;

/// What happens next on a connection.
enum Event {
    /// Bytes came; none if there will be no more.
    Read(usize),
    /// An answer came from others.
    Answer(Vec<u8>),
}

async fn converse(mut stream: TcpStream, server: &Server) -> io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    let (mut buffer, mut work, mut is_open) = (Vec::with_capacity(512), Work::new(), true);
    while is_open || !work.is_empty() {
        let event = tokio::select! {
            read = timeout(IDLE, reader.read_buf(&mut buffer)), if is_open && work.len() < AT_ONCE => match read {
                Ok(count) => Event::Read(count?),
                // Idle is who neither asks nor waits.
                Err(_) if work.is_empty() => return Ok(()),
                Err(_) => continue,
            },
            Some(answer) = work.next(), if !work.is_empty() => Event::Answer(answer),
        };
        let mut out = Vec::new();
        match event {
            Event::Read(0) => is_open = false,
            Event::Read(_) => {}
            Event::Answer(answer) => frame(&mut out, &answer),
        }
        while work.len() < AT_ONCE
            && let Some(message) = next_message(&mut buffer)
        {
            match server.take(&message, Transport::Tcp) {
                Taken::Answered(answer) => frame(&mut out, &answer),
                Taken::Waiting(waiting) => work.push(later(server, waiting)),
                Taken::Ignored => {}
            }
            // Who asks much at once gets his answers as he reads them.
            if out.len() >= AT_A_TIME {
                timeout(IDLE, writer.write_all(&out)).await??;
                out.clear();
            }
        }
        timeout(IDLE, writer.write_all(&out)).await??;
    }
    Ok(())
}

fn later(server: &Server, waiting: Box<Waiting>) -> std::pin::Pin<Box<dyn Future<Output = Vec<u8>> + Send + '_>> {
    Box::pin(server.finish(waiting))
}

/// Takes a whole message off the front of what was read.
fn next_message(buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let (length, rest) = buffer.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes(*length));
    let message = rest.get(..length)?.to_vec();
    buffer.drain(..2 + length);
    Some(message)
}

fn frame(out: &mut Vec<u8>, answer: &[u8]) {
    // An answer is never longer than its length can say.
    if let Ok(length) = u16::try_from(answer.len()) {
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_whole_and_in_their_order() {
        let mut buffer = Vec::new();
        for part in [&[0u8, 2, 7][..], &[8, 0, 0, 0], &[1, 9, 0]] {
            buffer.extend_from_slice(part);
        }
        assert_eq!(next_message(&mut buffer), Some(vec![7, 8]));
        assert_eq!(next_message(&mut buffer), Some(vec![]));
        assert_eq!(next_message(&mut buffer), Some(vec![9]));
        assert_eq!((next_message(&mut buffer), buffer.len()), (None, 1));
    }

    #[test]
    fn places_are_limited_in_all_and_for_one_and_given_back() {
        let guests = Arc::new(Guests::default());
        let address = |last: u8| IpAddr::from([10, 42, 0, last]);
        let enter = |last| guests.enter(address(last));
        let mut inside: Vec<Guest> = (0..OF_ONE).map(|_| enter(1).unwrap()).collect();
        assert!(enter(1).is_none() && enter(2).is_some());
        inside.extend((0..CONNECTIONS - OF_ONE).map(|number| enter(10 + u8::try_from(number % 4).unwrap()).unwrap()));
        assert!(enter(2).is_none());
        inside.truncate(1);
        assert!(enter(1).is_some() && enter(2).is_some());
        drop(inside);
        assert!(guests.0.lock().unwrap().is_empty());
    }
}
