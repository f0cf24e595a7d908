//! A log over a WebSocket, for clients that read nothing else: browsers, and upstream's conformance tests.
//!
//! After `NewDefaultReaderProtocols` and `Reader` of `k8s.io/apimachinery/pkg/util/httpstream/wsstream`: one message for
//! each piece of the body, as it is or as text in base64. What the client says beside closing is of no interest. The
//! stream ends with the body, the client or this server.

use std::time::Duration;

use api::status::ApiError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::Body;
use crate::call::Call;

/// RFC 6455, section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The longest message of a client, which has nothing to say.
const MAX_MESSAGE: usize = 4096;

/// How long a client has to close its end after the last message.
const LINGER: Duration = Duration::from_secs(10);

/// Whether the client asks for a WebSocket.
pub(super) fn is_asked_for(call: &Call) -> bool {
    let has = |name: header::HeaderName, word: &str| {
        let values = call.headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case(word))
    };
    has(header::UPGRADE, "websocket") && has(header::CONNECTION, "upgrade")
}

/// Answers with a change of protocol, after which the body is carried in messages.
pub(super) fn answer(call: &Call, body: Body) -> Result<Response<Body>, ApiError> {
    let (encodes, fields) = shake_hands(&call.headers)?;
    let upgrade = call.upgrade.clone();
    let upgrade = upgrade.ok_or_else(|| ApiError::internal("the connection cannot change its protocol"))?;
    let closing = call.server.closing.clone();
    call.server.tunnels.spawn("log over a WebSocket", async move {
        let stream = match upgrade.await {
            Ok(upgraded) => TokioIo::new(upgraded),
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "a connection was not upgraded");
                return;
            }
        };
        closing.run_until_cancelled(carry(stream, body, encodes)).await;
    });
    let mut answer = Response::new(crate::respond::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *answer.headers_mut() = fields;
    Ok(answer)
}

/// Whether messages are text in base64, and the fields of the answer.
fn shake_hands(headers: &HeaderMap) -> Result<(bool, HeaderMap), ApiError> {
    const PROTOCOLS: [(&str, bool); 2] = [("binary.k8s.io", false), ("base64.binary.k8s.io", true)];
    let field = |name: header::HeaderName| headers.get(name).map(HeaderValue::as_bytes);
    if field(header::SEC_WEBSOCKET_VERSION) != Some(b"13") {
        return Err(ApiError::bad_request("missing or bad WebSocket version"));
    }
    let key = field(header::SEC_WEBSOCKET_KEY).ok_or_else(|| ApiError::bad_request("missing Sec-WebSocket-Key"))?;
    let mut digest = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    digest.update(key);
    digest.update(GUID);
    let accept = HeaderValue::from_str(&BASE64.encode(digest.finish())).expect("base64 is a valid field");
    let mut fields = HeaderMap::new();
    fields.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    fields.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    fields.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).into_iter().filter_map(|value| value.to_str().ok());
    let offered: Vec<&str> = offered.flat_map(|value| value.split(',')).map(str::trim).collect();
    if offered.is_empty() {
        return Ok((false, fields));
    }
    let picked = PROTOCOLS.into_iter().find(|(name, _)| offered.contains(name));
    let (name, encodes) = picked.ok_or_else(|| {
        ApiError::new(403, "Forbidden", format!("unable to negotiate protocol: client supports {offered:?}"))
    })?;
    fields.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
    Ok((encodes, fields))
}

async fn carry<S: AsyncRead + AsyncWrite + Unpin>(stream: S, body: Body, encodes: bool) {
    let limits = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    let (mut sink, mut source) = WebSocketStream::from_raw_socket(stream, Role::Server, Some(limits)).await.split();
    let mut body = body.into_data_stream();
    loop {
        let piece = tokio::select! {
            piece = body.next() => piece,
            said = source.next() => match said {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => continue,
            },
        };
        // A body that breaks off ends as one that is complete; the client sees no more either way.
        let Some(Ok(piece)) = piece else { break };
        if sink.send(message(piece, encodes)).await.is_err() {
            return;
        }
    }
    if sink.send(Message::Close(None)).await.is_ok() {
        // Closing at once would throw away what the client has not read yet.
        let _ = tokio::time::timeout(LINGER, async { while let Some(Ok(_)) = source.next().await {} }).await;
    }
}

fn message(piece: Bytes, encodes: bool) -> Message {
    if encodes { Message::text(BASE64.encode(&piece)) } else { Message::Binary(piece) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shaken(protocols: &str) -> Result<(bool, Option<String>), ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        // The example of RFC 6455, section 1.3.
        headers.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        if !protocols.is_empty() {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocols.parse().unwrap());
        }
        let (encodes, fields) = shake_hands(&headers)?;
        assert_eq!(fields[header::SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let protocol = fields.get(header::SEC_WEBSOCKET_PROTOCOL).map(|name| name.to_str().unwrap().to_owned());
        Ok((encodes, protocol))
    }

    #[test]
    fn a_client_gets_bytes_unless_it_asks_for_text() {
        assert_eq!(shaken("").unwrap(), (false, None));
        assert_eq!(shaken("binary.k8s.io").unwrap(), (false, Some("binary.k8s.io".to_owned())));
        assert_eq!(shaken("x, base64.binary.k8s.io").unwrap(), (true, Some("base64.binary.k8s.io".to_owned())));
        assert_eq!(shaken("channel.k8s.io").unwrap_err().code, 403);
        assert_eq!(shake_hands(&HeaderMap::new()).unwrap_err().code, 400);
    }

    #[tokio::test]
    async fn a_body_is_carried_piece_by_piece_and_then_the_server_takes_leave() {
        for (encodes, wanted) in [(false, Message::binary(&b"a\n"[..])), (true, Message::text("YQo="))] {
            let (ours, theirs) = tokio::io::duplex(1024);
            let body = http_body_util::Full::new(Bytes::from_static(b"a\n")).map_err(|never| match never {}).boxed();
            let told = async {
                let mut client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
                let mut told = Vec::new();
                while let Some(Ok(message)) = client.next().await {
                    told.push(message);
                }
                told
            };
            let ((), told) = tokio::join!(carry(ours, body, encodes), told);
            assert_eq!(told, [wanted, Message::Close(None)]);
        }
    }
}
