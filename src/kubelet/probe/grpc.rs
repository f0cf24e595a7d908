//! Asking a server of the gRPC health protocol, in plaintext (`pkg/probe/grpc` upstream).
//!
//! The protocol (github.com/grpc/grpc, doc/health-checking.md and doc/PROTOCOL-HTTP2.md) needs one request of two fields
//! and one answer of one, so both are written and read here.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::http::dial;
use crate::shared::chain;

/// gRPC's code for what a server does not have.
const UNIMPLEMENTED: &str = "12";
/// `SERVING` of `HealthCheckResponse.ServingStatus`.
const SERVING: u64 = 1;
/// Longest answer that is read.
const ANSWER_LIMIT: usize = 1024;

/// Asks how a service is; the problem is worded as upstream words it.
pub(super) async fn check(host: &str, port: u16, service: &str, timeout: Duration) -> Result<(), String> {
    let (seconds, address) = (timeout.as_secs(), format!("{host}:{port}"));
    let connect = async {
        let stream = dial(host, port).await?;
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        handshake.map_err(|error| chain(&error))
    };
    let whole = async {
        let connected = connect.await;
        let (mut sender, connection) =
            connected.map_err(|problem| format!("error: failed to connect service at {address:?}: {problem}"))?;
        let request = request(&address, service)?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|error| chain(&error))?;
            let (head, body) = response.into_parts();
            let collected = body.collect().await.map_err(|error| chain(&error))?;
            let trailers = collected.trailers().cloned().unwrap_or_default();
            Ok((head.status.as_u16(), head.headers, trailers, collected.to_bytes()))
        };
        // The connection is driven here, so that it goes with this future.
        let mut exchange = std::pin::pin!(exchange);
        let answer: Result<_, String> = tokio::select! {
            answer = &mut exchange => answer,
            _ = connection => exchange.await,
        };
        let (status, headers, trailers, body) =
            answer.map_err(|problem| format!("error: health rpc probe failed: {problem}"))?;
        judge(status, &headers, &trailers, &body)
    };
    let late =
        || format!("timeout: failed to connect service {address:?} within {seconds}s: context deadline exceeded");
    tokio::time::timeout(timeout, whole).await.unwrap_or_else(|_| Err(late()))
}

fn request(authority: &str, service: &str) -> Result<Request<Full<Bytes>>, String> {
    let message = request_message(service)?;
    let request = Request::post(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36")
        .body(Full::new(message));
    request.map_err(|error| format!("error: health rpc probe failed: {}", chain(&error)))
}

/// `HealthCheckRequest { service = 1 }`, uncompressed, behind its length.
fn request_message(service: &str) -> Result<Bytes, String> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
            length >>= 7;
        }
        message.push(u8::try_from(length).unwrap_or_default());
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).map_err(|_| "error: the name of the service is too long".to_owned())?;
    let mut framed = vec![0];
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(&message);
    Ok(framed.into())
}

fn judge(status: u16, headers: &HeaderMap, trailers: &HeaderMap, body: &[u8]) -> Result<(), String> {
    // An error without an answer has its trailers in the head ("Trailers-Only").
    let field = |name: &str| {
        let value = trailers.get(name).or_else(|| headers.get(name));
        value.and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let message = field("grpc-message").unwrap_or_default();
    match field("grpc-status").as_deref() {
        Some("0") => {}
        Some(UNIMPLEMENTED) => {
            let text = "this server does not implement the grpc health protocol (grpc.health.v1.Health)";
            return Err(format!("error: {text}: {message}"));
        }
        Some(code) => return Err(format!("error: health rpc probe failed: rpc error: code = {code} desc = {message}")),
        None => {
            return Err(format!("error: health rpc probe failed: unexpected HTTP status code received: {status}"));
        }
    }
    match serving_status(body) {
        Some(SERVING) => Ok(()),
        Some(other) => {
            let name = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
            let name = usize::try_from(other).ok().and_then(|index| name.get(index)).copied();
            Err(format!("service unhealthy (responded with {:?})", name.unwrap_or("UNKNOWN")))
        }
        None => Err("error: health rpc probe failed: the answer is not a health check response".to_owned()),
    }
}

/// `HealthCheckResponse { status = 1 }`; an absent field is 0. None if it is nothing of the kind.
fn serving_status(body: &[u8]) -> Option<u64> {
    let message = body.get(5..).filter(|rest| body[0] == 0 && rest.len() <= ANSWER_LIMIT)?;
    if message.is_empty() {
        return Some(0);
    }
    let rest = message.strip_prefix(&[0x08])?;
    let mut value = 0_u64;
    for (index, byte) in rest.iter().enumerate().take(9) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(code: &str) -> HeaderMap {
        let mut fields = HeaderMap::new();
        fields.insert("grpc-status", code.parse().expect("a code"));
        fields.insert("grpc-message", "no such method".parse().expect("a message"));
        fields
    }

    #[test]
    fn a_service_is_named_behind_its_length() {
        assert_eq!(request_message("").expect("a message").as_ref(), [0; 5]);
        assert_eq!(request_message("db").expect("a message").as_ref(), [0, 0, 0, 0, 4, 0x0a, 2, b'd', b'b']);
        let long = request_message(&"x".repeat(300)).expect("a message");
        assert_eq!(long[..8], [0, 0, 0, 1, 0x2f, 0x0a, 0xac, 0x02]);
    }

    #[test]
    fn an_answer_says_whether_it_serves() {
        let none = HeaderMap::new();
        let ok = fields("0");
        assert_eq!(judge(200, &none, &ok, &[0, 0, 0, 0, 2, 8, 1]), Ok(()));
        let unhealthy = judge(200, &none, &ok, &[0, 0, 0, 0, 2, 8, 2]);
        assert_eq!(unhealthy, Err("service unhealthy (responded with \"NOT_SERVING\")".to_owned()));
        assert_eq!(judge(200, &none, &ok, &[0; 5]), Err("service unhealthy (responded with \"UNKNOWN\")".to_owned()));
        assert!(judge(200, &none, &ok, b"x").is_err_and(|text| text.starts_with("error: health rpc probe failed")));
    }

    #[test]
    fn a_server_without_the_protocol_is_told_from_one_that_fails() {
        let none = HeaderMap::new();
        let absent = judge(200, &fields("12"), &none, b"").expect_err("it fails");
        assert!(absent.starts_with("error: this server does not implement the grpc health protocol"), "{absent}");
        let failed = judge(200, &none, &fields("5"), b"").expect_err("it fails");
        assert_eq!(failed, "error: health rpc probe failed: rpc error: code = 5 desc = no such method");
        assert!(judge(404, &none, &none, b"").is_err_and(|text| text.ends_with("received: 404")));
    }
}
