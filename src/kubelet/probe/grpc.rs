//! Asking a server of the gRPC health protocol, in plaintext (`pkg/probe/grpc` upstream).
//!
//! The protocol (github.com/grpc/grpc, doc/health-checking.md and doc/PROTOCOL-HTTP2.md) needs one request of two fields
//! and one answer of one, so both are written and read here.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use task::chain;

use super::http::dial;

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

    /// A health server for one connection: what it answers by the name of the service.
    async fn serve(listener: tokio::net::TcpListener) {
        let (stream, _) = listener.accept().await.expect("a client");
        let answer = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async {
            assert_eq!((request.uri().path(), request.method().as_str()), ("/grpc.health.v1.Health/Check", "POST"));
            assert_eq!(request.headers()["content-type"], "application/grpc");
            let body = request.into_body().collect().await.expect("a body").to_bytes();
            let healthy = u8::from(body.ends_with(b"good"));
            let data = http_body::Frame::data(Bytes::from(vec![0, 0, 0, 0, 2, 8, 2 - healthy]));
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().expect("a code"));
            let frames = [data, http_body::Frame::trailers(trailers)].map(Ok::<_, std::convert::Infallible>);
            let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
            Ok::<_, std::convert::Infallible>(http::Response::new(body))
        });
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        // How a client goes away is its own business.
        let _ = server.serve_connection(TokioIo::new(stream), answer).await;
    }

    #[tokio::test]
    async fn a_server_is_asked_over_a_connection_and_a_port_without_one_is_told() {
        for (service, expected) in
            [("good", Ok(())), ("bad", Err("service unhealthy (responded with \"NOT_SERVING\")".to_owned()))]
        {
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a listener");
            let port = listener.local_addr().expect("an address").port();
            let mut tasks = tokio::task::JoinSet::new();
            tasks.spawn(serve(listener));
            assert_eq!(check("127.0.0.1", port, service, Duration::from_secs(60)).await, expected);
        }
        let refused = check("127.0.0.1", 1, "", Duration::from_secs(60)).await.expect_err("nobody is there");
        assert!(refused.starts_with("error: failed to connect service at \"127.0.0.1:1\": dial tcp"), "{refused}");
    }
}
