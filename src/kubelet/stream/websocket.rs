//! Channels over WebSocket: the subprotocols of `k8s.io/apimachinery/pkg/util/remotecommand` and of KEP 4006.
//!
//! A message is one byte that names its channel, and data; in the base64 dialects the byte is a digit and the data is
//! encoded, for clients that have text only. Messages are limited; what is no message of a channel that a client may
//! write is ignored, as upstream. Invariants: nothing is said before the client has shown that it listens; after the last
//! message the client has time to read it, since closing a connection on which something is unread throws away what it was
//! sent.
//!
//! kubectl up to 1.33 begins to read before it has prepared its channels, and drops what comes for one that is not there yet
//! (kubernetes/kubernetes issue 131189): the first words of who says them at once, as a container does that somebody is
//! attached to. So the first message is a question whether the client is there (RFC 6455, section 5.5.2), which it
//! answers as it reads, when its channels are all but made.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use runtime::Size;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{Input, Line, Output, bad_request};
use crate::serve::Refusal;

/// The longest message of a client. The Python client sends its whole input as one.
const MAX_MESSAGE: usize = 4 << 20;

/// How often a silent client is asked whether it is there; one that has vanished is noticed by the answer of its host.
const PING: Duration = Duration::from_secs(10);

/// How long the first words wait for the client's answer that it listens; not every library answers by itself.
const LISTENS: Duration = Duration::from_secs(1);

/// How long a client has to close its end after the last message.
const LINGER: Duration = Duration::from_secs(10);

/// RFC 6455, section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// A subprotocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dialect {
    /// 0 for the one without a number.
    version: u8,
    base64: bool,
}

/// Subprotocols by preference.
pub(super) const DIALECTS: [(&str, Dialect); 5] = [
    ("v5.channel.k8s.io", Dialect { version: 5, base64: false }),
    ("v4.channel.k8s.io", Dialect { version: 4, base64: false }),
    ("v4.base64.channel.k8s.io", Dialect { version: 4, base64: true }),
    ("channel.k8s.io", Dialect { version: 0, base64: false }),
    ("base64.channel.k8s.io", Dialect { version: 0, base64: true }),
];

/// The one of who names none.
pub(super) const USUAL: Dialect = Dialect { version: 0, base64: false };

/// Checks the request for a connection and picks what it speaks, `usual` if it does not say; the fields of the answer
/// beside the usual ones.
pub(super) fn shake_hands<T: Copy>(
    headers: &HeaderMap,
    protocols: &[(&'static str, T)],
    usual: T,
) -> Result<(T, HeaderMap), Refusal> {
    let field = |name: header::HeaderName| headers.get(name).map(HeaderValue::as_bytes);
    if field(header::SEC_WEBSOCKET_VERSION) != Some(b"13") {
        return Err(bad_request("missing or bad WebSocket version"));
    }
    let key = field(header::SEC_WEBSOCKET_KEY).ok_or_else(|| bad_request("missing Sec-WebSocket-Key"))?;
    let mut fields = HeaderMap::new();
    fields.insert(header::SEC_WEBSOCKET_ACCEPT, accept(key));
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).into_iter().filter_map(|value| value.to_str().ok());
    let offered: Vec<&str> = offered.flat_map(|value| value.split(',')).map(str::trim).collect();
    if offered.is_empty() {
        return Ok((usual, fields));
    }
    let picked = protocols.iter().copied().find(|(name, _)| offered.contains(name));
    let (name, dialect) = picked.ok_or_else(|| {
        Refusal(StatusCode::FORBIDDEN, format!("unable to negotiate protocol: client supports {offered:?}\n"))
    })?;
    fields.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
    Ok((dialect, fields))
}

fn accept(key: &[u8]) -> HeaderValue {
    let mut digest = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    digest.update(key);
    digest.update(GUID);
    HeaderValue::from_str(&BASE64.encode(digest.finish())).expect("base64 is a valid field")
}

/// What a client may make the server keep.
pub(super) fn limits() -> WebSocketConfig {
    WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE))
}

/// Carries messages until all is told or the client is gone.
pub(super) async fn carry<S: AsyncRead + AsyncWrite + Unpin>(stream: S, dialect: Dialect, line: Line) {
    let (mut sink, mut source) = WebSocketStream::from_raw_socket(stream, Role::Server, Some(limits())).await.split();
    let Line { input, mut output, ready } = line;
    // There is nothing to wait for; nobody wants to know if the command has been given up.
    let _ = ready.send(());
    let listens = Notify::new();
    let reading = async {
        while let Some(Ok(message)) = source.next().await {
            let said = match message {
                Message::Binary(data) => dialect.decode(data),
                Message::Text(text) => dialect.decode(text.into()),
                Message::Pong(_) => {
                    listens.notify_one();
                    None
                }
                _ => None,
            };
            if let Some(said) = said {
                // Without a listener the client's end is waited for all the same.
                let _ = input.send(said).await;
            }
        }
    };
    let writing = async {
        sink.send(Message::Ping(Bytes::new())).await?;
        // One that does not answer hears the rest all the same.
        let _ = tokio::time::timeout(LISTENS, listens.notified()).await;
        while let Some(message) = next(&mut output, dialect).await {
            sink.send(message).await?;
        }
        sink.send(Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))).await
    };
    tokio::pin!(reading);
    let told: Result<(), Error> = tokio::select! {
        () = &mut reading => return,
        told = writing => told,
    };
    if told.is_ok() {
        drop(output);
        let _ = tokio::time::timeout(LINGER, reading).await;
    }
}

/// The next message for the client; a question if there is none for some time, none after the last.
async fn next(output: &mut tokio::sync::mpsc::Receiver<Output>, dialect: Dialect) -> Option<Message> {
    match tokio::time::timeout(PING, output.recv()).await {
        Ok(told) => told.map(|told| dialect.encode(told)),
        Err(_) => Some(Message::Ping(Bytes::new())),
    }
}

/// A size as clients write it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireSize {
    width: u16,
    height: u16,
}

/// The size that a client tells of, if it makes sense.
pub(super) fn size(json: &[u8]) -> Option<Size> {
    let WireSize { width, height } = serde_json::from_slice(json).ok()?;
    Some(Size { columns: width, rows: height })
}

/// What a client without a protocol of its own for it is told of an end: the message of a failure.
pub(super) fn message_of(status: &Value) -> Vec<u8> {
    let text = status["message"].as_str().filter(|_| status["status"] != "Success");
    text.unwrap_or_default().as_bytes().to_vec()
}

impl Dialect {
    #[cfg(feature = "fuzz")]
    pub(super) fn of(version: u8, base64: bool) -> Self {
        Self { version, base64 }
    }

    pub(super) fn decode(self, mut message: Bytes) -> Option<Input> {
        if message.is_empty() {
            return None;
        }
        let first = message.split_to(1)[0];
        let channel = if self.base64 { first.checked_sub(b'0')? } else { first };
        let data = if self.base64 { BASE64.decode(&message).ok()?.into() } else { message };
        match channel {
            STDIN if data.is_empty() => None,
            STDIN => Some(Input::Stdin(data)),
            RESIZE => size(&data).map(Input::Resize),
            CLOSE if self.version >= 5 && *data == [STDIN] => Some(Input::EndOfStdin),
            _ => None,
        }
    }

    fn encode(self, told: Output) -> Message {
        let (channel, data) = match told {
            Output::Stdout(data) => (STDOUT, data),
            Output::Stderr(data) => (STDERR, data),
            Output::Status(status) if self.version >= 4 => (ERROR, status.to_string().into_bytes().into()),
            Output::Status(status) => (ERROR, message_of(&status).into()),
        };
        if self.base64 {
            return Message::text(format!("{}{}", channel, BASE64.encode(&data)));
        }
        let mut message = BytesMut::with_capacity(1 + data.len());
        message.put_u8(channel);
        message.put_slice(&data);
        Message::Binary(message.freeze())
    }
}

#[cfg(test)]
mod tests;
