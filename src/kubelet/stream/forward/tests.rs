//! What is agreed on, and a pod for tests of the wires, whose network is this process's own.

use http::StatusCode;
use runtime::simulated::SimulatedRuntime;
use task::{SystemClock, Tasks};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// A pod.
pub(super) async fn target(tasks: &Tasks) -> Target {
    let runtime = SimulatedRuntime::new(Arc::new(SystemClock), tasks);
    let pod = serde_json::from_value(serde_json::json!({"metadata": {"uid": "u1", "name": "web"}})).unwrap();
    let spec = crate::container::sandbox_spec(&pod, 0, std::path::Path::new("kubepods"), "/nowhere".into());
    let sandbox = spec.id.clone();
    runtime.create_sandbox(spec).await.unwrap();
    Target { runtime: Arc::new(runtime), sandbox, network: "u1-0".to_owned() }
}

/// A port on which each connection is sent back what it sends, until it ends its direction.
pub(super) async fn echo(tasks: &Tasks) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = tasks.clone();
    tasks.spawn("echo", async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            connections.spawn("connection", async move {
                let (mut from, mut to) = connection.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    port
}

/// A port that breaks each connection off after its first byte.
pub(super) async fn breaks_off(tasks: &Tasks) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tasks.spawn("breaks off", async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let _ = connection.read_u8().await;
            // Without waiting for anything that is in flight: the peer is told by RST.
            let _ = rustix::net::sockopt::set_socket_linger(&connection, Some(std::time::Duration::ZERO));
        }
    });
    port
}

/// A port that nobody listens on.
pub(super) async fn closed() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// A port whose connections are taken and never read.
pub(super) async fn deaf(tasks: &Tasks) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tasks.spawn("deaf", async move {
        let mut held = Vec::new();
        while let Ok((mut connection, _)) = listener.accept().await {
            let _ = connection.write_all(b"hello").await;
            held.push(connection);
        }
    });
    port
}

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
}

fn asked(protocol: &'static str, query: &str) -> Result<Wire, StatusCode> {
    let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let version = ("sec-websocket-version", "13");
    let headers = headers(&[("upgrade", "websocket"), key, version, ("sec-websocket-protocol", protocol)]);
    negotiate(&headers, query).map(|(wire, _)| wire).map_err(|Refusal(code, _)| code)
}

#[test]
fn what_a_websocket_carries_is_agreed_on() {
    assert_eq!(asked("SPDY/3.1+portforward.k8s.io", ""), Ok(Wire::Tunnel));
    let channels = |base64| Ok(Wire::Channels { base64, ports: vec![80, 443] });
    assert_eq!(asked("v4.channel.k8s.io", "port=80,443"), channels(false));
    assert_eq!(asked("v4.base64.channel.k8s.io", "port=80&port=443"), channels(true));
    assert_eq!(asked("v5.channel.k8s.io", "port=80"), Err(StatusCode::FORBIDDEN));
    assert_eq!(asked("v4.channel.k8s.io", ""), Err(StatusCode::BAD_REQUEST));
}

#[test]
fn over_spdy_its_protocol_is_asked_for_by_name() {
    let asked = |protocols: &[&'static str]| {
        let mut pairs = vec![("upgrade", "SPDY/3.1")];
        pairs.extend(protocols.iter().map(|protocol| ("x-stream-protocol-version", *protocol)));
        negotiate(&headers(&pairs), "").map(|(wire, _)| wire).map_err(|Refusal(code, _)| code)
    };
    assert_eq!(asked(&["portforward.k8s.io"]), Ok(Wire::Spdy));
    assert_eq!(asked(&["v4.channel.k8s.io"]), Err(StatusCode::FORBIDDEN));
    assert_eq!(asked(&[]), Err(StatusCode::BAD_REQUEST));
}
