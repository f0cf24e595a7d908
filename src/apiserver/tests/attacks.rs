//! Attacks on the listener: each goes on while others get their answers.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use task::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::client::TlsStream;

use super::tls::Served;
use super::world::sample;
use crate::fairness::Limits;

const CONFIG_MAP: &str = r#"{"metadata":{"name":"one"}}"#;
const POST: &str = "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sesame\r\n";

/// Another client, which has nothing to do with the attack.
async fn others_are_served(served: &Served) {
    let path = "/api/v1/namespaces?limit=1";
    assert_eq!(served.get(path, "", Some(&served.admin())).await, Some(200));
    assert_eq!(served.get("/livez", "", None).await, Some(200));
}

/// A connection from an address of its own.
async fn stranger(served: &Served) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    socket.connect(([127, 0, 0, 1], served.port).into()).await.unwrap()
}

/// Everything that comes back until the other side closes or the head of an answer is complete.
async fn answer(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut text = Vec::new();
    while !text.windows(4).any(|end| end == b"\r\n\r\n") {
        // An abrupt end is one too.
        if stream.read_buf(&mut text).await.unwrap_or(0) == 0 {
            break;
        }
    }
    String::from_utf8(text).unwrap()
}

/// The code of the answer to this text; what follows the answer's head is not read.
async fn code(served: &Served, text: &str) -> String {
    let mut stream = served.connect("localhost", "http/1.1", None).await.unwrap();
    // The server may answer and close before it has read all.
    let _ = stream.write_all(text.as_bytes()).await;
    answer(&mut stream).await.split(' ').nth(1).unwrap_or("closed").to_owned()
}

async fn http2_client(served: &Served, tasks: &Tasks) -> http2::SendRequest<Full<Bytes>> {
    let stream = served.connect("localhost", "h2", None).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tasks.spawn("client", connection);
    sender
}

async fn ask(sender: &mut http2::SendRequest<Full<Bytes>>, path: &str) -> Response<Incoming> {
    let request = Request::get(format!("https://localhost{path}")).header("authorization", "Bearer sesame");
    sender.send_request(request.body(Full::new(Bytes::new())).unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_flood_of_silent_connections_keeps_out_only_its_own_address() {
    let served = Served::limited(Limits { connections_of_address: 16, ..Limits::default() }).await;
    let mut flood = Vec::new();
    for _ in 0..16 {
        flood.push(stranger(&served).await);
    }
    assert_eq!(answer(&mut stranger(&served).await).await, "", "one more is closed at once");
    others_are_served(&served).await;
    drop(flood);
    served.stop().await;
}

#[tokio::test]
async fn clients_that_do_not_go_on_are_dropped() {
    let served = Served::start().await;
    let mut silent = stranger(&served).await;
    let mut without_preface = served.connect("localhost", "h2", None).await.unwrap();
    let mut slow = served.connect("localhost", "http/1.1", None).await.unwrap();
    slow.write_all(b"GET /version HTTP/1.1\r\nx: ").await.unwrap();
    let mut slow_body = served.connect("localhost", "http/1.1", None).await.unwrap();
    slow_body.write_all(format!("{POST}content-length: 99\r\n\r\n{{").as_bytes()).await.unwrap();
    others_are_served(&served).await;
    tokio::time::pause();
    assert_eq!(answer(&mut silent).await, "");
    assert_eq!(answer(&mut without_preface).await, "");
    assert!(!answer(&mut slow).await.contains(" 200 "));
    assert!(answer(&mut slow_body).await.starts_with("HTTP/1.1 408 "));
    tokio::time::resume();
    others_are_served(&served).await;
    served.stop().await;
}

#[tokio::test]
async fn bombs_are_refused_with_the_right_code() {
    let served = Served::start().await;
    let many: String = (0..101).map(|number| format!("x-{number}: y\r\n")).collect();
    assert_eq!(code(&served, &format!("GET /version HTTP/1.1\r\n{many}\r\n")).await, "431");
    let long = "y".repeat(40 * 1024);
    assert_eq!(code(&served, &format!("GET /version HTTP/1.1\r\nx: {long}\r\n\r\n")).await, "431");
    assert_eq!(code(&served, &format!("{POST}content-length: 3145729\r\n\r\n")).await, "413");
    assert_eq!(code(&served, &format!("{POST}content-encoding: gzip\r\ncontent-length: 2\r\n\r\n{{}}")).await, "415");
    let deep = "[".repeat(1_000_000);
    let laughs = (1..20).fold("a0: &a0 [x, x]\n".to_owned(), |text, number| {
        let before = number - 1;
        format!(
            "{text}a{number}: &a{number} [*a{before}, *a{before}, *a{before}, *a{before}, *a{before}, *a{before}]\n"
        )
    });
    let numbers = format!("{{\"data\":{}}}", "9".repeat(1_000_000));
    for (kind, body) in [("json", &deep), ("yaml", &deep), ("yaml", &laughs), ("json", &numbers)] {
        let head = format!("{POST}content-type: application/{kind}\r\ncontent-length: {}\r\n\r\n", body.len());
        assert_eq!(code(&served, &format!("{head}{body}")).await, "400", "{kind} {}", &body[..20]);
    }
    let chunk = format!("100000\r\n{}\r\n", " ".repeat(0x10_0000));
    let endless = format!("{POST}transfer-encoding: chunked\r\n\r\n{}", chunk.repeat(4));
    assert_eq!(code(&served, &endless).await, "413");
    let tasks = Tasks::new();
    let mut sender = http2_client(&served, &tasks).await;
    let mut request = Request::get("https://localhost/version");
    for number in 0..101 {
        request = request.header(format!("x-{number}"), "y");
    }
    let response = sender.send_request(request.body(Full::new(Bytes::new())).unwrap()).await.unwrap();
    assert_eq!(response.status(), 431);
    others_are_served(&served).await;
    tasks.stop();
    served.stop().await;
}

#[tokio::test]
async fn a_flood_of_watches_keeps_out_only_its_own_user() {
    let served = Served::limited(Limits { streams_of_user: 16, ..Limits::default() }).await;
    let (tasks, mut watches) = (Tasks::new(), Vec::new());
    let mut sender = http2_client(&served, &tasks).await;
    for _ in 0..16 {
        let response = ask(&mut sender, "/api/v1/pods?watch=1").await;
        assert_eq!(response.status(), 200);
        watches.push(response);
    }
    let mut other = http2_client(&served, &tasks).await;
    for sender in [&mut sender, &mut other] {
        let refused = ask(sender, "/api/v1/pods?watch=1").await;
        assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].as_bytes()), (429, &b"1"[..]));
    }
    assert_eq!(ask(&mut sender, "/api/v1/pods").await.status(), 200, "it may still ask");
    let watch = "/api/v1/pods?watch=1&timeoutSeconds=1";
    assert_eq!(served.get(watch, "", Some(&served.admin())).await, Some(200), "others may watch");
    others_are_served(&served).await;
    drop(watches);
    tasks.stop();
    served.stop().await;
}

/// Announces a body and waits until the server wants it, or answers.
async fn begin(served: &Served) -> (TlsStream<TcpStream>, String) {
    let mut stream = served.connect("localhost", "http/1.1", None).await.unwrap();
    let head = format!("{POST}content-length: {}\r\nexpect: 100-continue\r\n\r\n", CONFIG_MAP.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    let text = answer(&mut stream).await;
    let code = text.split(' ').nth(1).unwrap_or("closed").to_owned();
    (stream, code)
}

#[tokio::test]
async fn a_flood_of_bodies_that_do_not_end_keeps_out_only_its_own_user() {
    let limits = Limits { bodies_of_user: 16 * 1024, smallest_body: 1024, ..Limits::default() };
    let served = Served::limited(limits).await;
    let mut flood = Vec::new();
    for _ in 0..16 {
        let (stream, code) = begin(&served).await;
        assert_eq!(code, "100");
        flood.push(stream);
    }
    assert_eq!(begin(&served).await.1, "429");
    others_are_served(&served).await;
    let path = "/api/v1/namespaces/default/configmaps/other";
    let made = served.world.ask("POST /api/v1/namespaces/default/configmaps", sample("ConfigMap", "other")).await;
    made.expect(201);
    assert_eq!(served.get(path, "", Some(&served.admin())).await, Some(200));
    // One that ends makes room for another.
    let mut first = flood.remove(0);
    first.write_all(CONFIG_MAP.as_bytes()).await.unwrap();
    assert!(answer(&mut first).await.starts_with("HTTP/1.1 201 "));
    assert_eq!(begin(&served).await.1, "100");
    drop(flood);
    served.stop().await;
}
