//! Forwarding over the channels of a WebSocket, as the Python client and kube-rs do: the ports are named in the request,
//! and each has one connection and two channels.
//!
//! ```text
//! client                                        kubelet
//!   │◄── the port as two bytes ───────────────────┤  first on each channel
//!   ├── data on channel 2 i ─────────────────────►│
//!   │◄── data on channel 2 i, text on 2 i + 1 ────┤
//!   │◄── close ───────────────────────────────────┤  when all connections have ended
//! ```
//!
//! After `handleWebSocketStreams` of upstream's streaming server, which closes the connection with the first that has
//! ended; here a connection that is refused takes no other one with it.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, frame::coding::CloseCode};

use super::Target;
use super::relay::{HEADROOM, Piece, Said, relay};
use crate::logs::pairs;
use crate::stream::websocket;

/// Messages that wait to be sent.
const BACKLOG: usize = 16;

/// Bytes that wait for the pod to take them; more than the longest message.
const ROOM: usize = 8 << 20;

/// The most ports: each has two channels, and a channel's number is one character in base64.
const PORTS: usize = 32;

/// How often a silent client is asked whether it is there, and how long it has to close its end.
const PING: Duration = Duration::from_secs(10);
const LINGER: Duration = Duration::from_secs(10);

/// The ports that a request names (`BuildV4Options`).
pub(in crate::stream) fn ports(query: &str) -> Result<Vec<u16>, String> {
    let mut ports = Vec::new();
    let all: Vec<String> = pairs(query).into_iter().filter(|(key, _)| key == "port").map(|(_, value)| value).collect();
    if all.is_empty() {
        return Err("query parameter \"port\" is required".to_owned());
    }
    for port in all.iter().flat_map(|list| list.split(',')) {
        match port.parse::<u16>() {
            _ if port.is_empty() => return Err("query parameter \"port\" cannot be empty".to_owned()),
            Ok(0) => return Err(format!("port {port:?} must be > 0")),
            Ok(port) => ports.push(port),
            Err(error) => return Err(format!("unable to parse {port:?} as a port: {error}")),
        }
    }
    if ports.len() > PORTS { Err(format!("at most {PORTS} ports can be forwarded")) } else { Ok(ports) }
}

/// Forwards a connection to each port until all have ended, or the client is gone.
pub(super) async fn carry<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    (base64, ports): (bool, &[u16]),
    target: &Target,
) {
    let limits = Some(websocket::limits());
    let (mut sink, mut source) = WebSocketStream::from_raw_socket(stream, Role::Server, limits).await.split();
    let (told, mut to_tell) = mpsc::channel(BACKLOG);
    let (mut inputs, room) = (Vec::new(), Arc::new(Semaphore::new(ROOM)));
    let connections = FuturesUnordered::new();
    for (place, port) in (0_u8..).zip(ports) {
        let (sender, input) = mpsc::unbounded_channel();
        inputs.push(sender);
        connections.push(relay(target, (place, *port), input, told.clone()));
    }
    drop(told);
    let connecting = connections.collect::<()>();
    let reading = async {
        while let Some(Ok(message)) = source.next().await {
            if !message.is_binary() && !message.is_text() {
                continue;
            }
            let Some((channel, data)) = decode(message.into_data(), base64) else { continue };
            // What is said on a channel of errors is of no interest.
            let input = inputs.get(usize::from(channel / 2)).filter(|_| channel % 2 == 0 && !data.is_empty());
            let Some(input) = input else { continue };
            let size = u32::try_from(data.len()).unwrap_or(u32::MAX);
            let room = Arc::clone(&room).acquire_many_owned(size).await.ok();
            // The pod may have gone meanwhile.
            let _ = input.send(Piece { bytes: data, room });
        }
    };
    let writing = async {
        for (place, port) in (0_u8..).zip(ports) {
            for channel in [2 * place, 2 * place + 1] {
                sink.send(encode(channel, &port.to_le_bytes(), base64)).await?;
            }
        }
        loop {
            let message = match tokio::time::timeout(PING, to_tell.recv()).await {
                Ok(Some((place, said))) => render(place, said, base64),
                Ok(None) => break,
                Err(_) => Some(Message::Ping(Bytes::new())),
            };
            if let Some(message) = message {
                sink.send(message).await?;
            }
        }
        sink.send(Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))).await
    };
    tokio::pin!(reading);
    let told = tokio::select! {
        () = &mut reading => return,
        (told, ()) = async { tokio::join!(writing, connecting) } => told,
    };
    if told.is_ok() {
        let _ = tokio::time::timeout(LINGER, reading).await;
    }
}

/// Channel and data of a message.
pub(in crate::stream) fn decode(mut message: Bytes, base64: bool) -> Option<(u8, Bytes)> {
    if message.is_empty() {
        return None;
    }
    let first = message.split_to(1)[0];
    if base64 { Some((first.checked_sub(b'0')?, BASE64.decode(&message).ok()?.into())) } else { Some((first, message)) }
}

fn encode(channel: u8, data: &[u8], base64: bool) -> Message {
    if base64 {
        // The digit of a channel beyond the ninth is the character that many places after `0`, as upstream.
        let digit = char::from(b'0'.saturating_add(channel));
        return Message::text(format!("{digit}{}", BASE64.encode(data)));
    }
    let mut message = BytesMut::with_capacity(1 + data.len());
    message.put_u8(channel);
    message.put_slice(data);
    Message::Binary(message.freeze())
}

/// What is told, as a message; the end of one connection has none.
fn render(place: u8, said: Said, base64: bool) -> Option<Message> {
    let (data, error) = (2 * place, 2 * place + 1);
    match said {
        Said::Data(piece) if base64 => Some(encode(data, &piece[HEADROOM..], true)),
        Said::Data(mut piece) => {
            // The byte of the channel takes the last of those that are reserved.
            let mut message = piece.split_off(HEADROOM - 1);
            message[0] = data;
            Some(Message::Binary(message.freeze()))
        }
        Said::Failed(why) => Some(encode(error, why.as_bytes(), base64)),
        Said::End | Said::Reset => None,
    }
}

#[cfg(test)]
mod tests;
