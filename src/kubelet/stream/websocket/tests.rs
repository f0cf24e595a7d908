use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;

const V5: Dialect = Dialect { version: 5, base64: false };

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
}

#[test]
fn the_accept_field_is_that_of_the_rfc() {
    assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

#[test]
fn the_newest_dialect_that_both_know_is_spoken() {
    let asked = |protocols| {
        let version = ("sec-websocket-version", "13");
        let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let headers = headers(&[version, key, ("sec-websocket-protocol", protocols)]);
        shake_hands(&headers, &DIALECTS, USUAL)
            .map(|(dialect, fields)| (dialect, fields[header::SEC_WEBSOCKET_PROTOCOL].clone()))
    };
    assert_eq!(asked("v5.channel.k8s.io").unwrap(), (V5, HeaderValue::from_static("v5.channel.k8s.io")));
    assert_eq!(asked("channel.k8s.io, v4.channel.k8s.io").unwrap().1, "v4.channel.k8s.io");
    assert_eq!(asked("base64.channel.k8s.io").unwrap().1, "base64.channel.k8s.io");
    assert_eq!(asked("v9.channel.k8s.io").unwrap_err().0, StatusCode::FORBIDDEN);
}

#[test]
fn a_request_without_a_key_is_refused() {
    assert_eq!(
        shake_hands(&headers(&[("sec-websocket-version", "13")]), &DIALECTS, USUAL).unwrap_err().0,
        StatusCode::BAD_REQUEST
    );
}

#[test]
fn what_clients_say_is_understood_and_the_rest_ignored() {
    let size = Size { columns: 80, rows: 24 };
    let cases: [(&[u8], Option<Input>); 8] = [
        (b"\0abc", Some(Input::Stdin(Bytes::from_static(b"abc")))),
        (b"\0", None),
        (b"", None),
        (b"\x04{\"Width\":80,\"Height\":24}", Some(Input::Resize(size))),
        (b"\x04{\"Width\":-1}", None),
        (b"\xff\0", Some(Input::EndOfStdin)),
        (b"\xff\x01", None),
        (b"\x01out", None),
    ];
    for (message, expected) in cases {
        assert_eq!(V5.decode(Bytes::copy_from_slice(message)), expected, "{message:?}");
    }
    let v4 = Dialect { version: 4, base64: false };
    assert_eq!(v4.decode(Bytes::from_static(b"\xff\0")), None);
    let text = Dialect { version: 4, base64: true };
    assert_eq!(text.decode(Bytes::from_static(b"0YWJj")), Some(Input::Stdin(Bytes::from_static(b"abc"))));
    assert_eq!(text.decode(Bytes::from_static(b"0YW?")), None);
    assert_eq!(text.decode(Bytes::from_static(b"!YWJj")), None);
    assert_eq!(text.encode(Output::Stdout(Bytes::from_static(b"abc"))), Message::text("1YWJj"));
}

#[tokio::test]
async fn the_last_message_is_followed_by_a_close_and_the_client_is_waited_for() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let (input, mut said) = mpsc::channel(1);
    let (told, output) = mpsc::channel(1);
    let carried = carry(ours, V5, Line { input, output, ready: oneshot::channel().0 });
    let client = async {
        let mut socket = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        socket.send(Message::binary(&b"\0in"[..])).await.unwrap();
        assert_eq!(said.recv().await, Some(Input::Stdin(Bytes::from_static(b"in"))));
        told.send(Output::Stdout(Bytes::from_static(b"out"))).await.unwrap();
        drop(told);
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::Ping(Bytes::new()));
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary(&b"\x01out"[..]));
        let Message::Close(Some(frame)) = socket.next().await.unwrap().unwrap() else { panic!("no close") };
        assert_eq!(frame.code, CloseCode::Normal);
        // Answers the close, and goes.
        assert!(!matches!(socket.next().await, Some(Ok(_))));
    };
    tokio::join!(carried, client);
}

#[tokio::test]
async fn a_client_that_vanishes_ends_the_input() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let (input, mut said) = mpsc::channel(1);
    let (_told, output) = mpsc::channel(1);
    drop(theirs);
    carry(ours, V5, Line { input, output, ready: oneshot::channel().0 }).await;
    assert_eq!(said.recv().await, None);
}

#[tokio::test]
async fn a_message_beyond_the_limit_ends_the_connection() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let (input, mut said) = mpsc::channel(1);
    let (_told, output) = mpsc::channel(1);
    let client = async {
        let mut socket = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        let sent = socket.send(Message::binary(vec![0; MAX_MESSAGE + 1])).await;
        drop((socket, sent));
    };
    tokio::join!(carry(ours, V5, Line { input, output, ready: oneshot::channel().0 }), client);
    assert_eq!(said.recv().await, None);
}

/// What a client hears, byte by byte, that has been told `out` and does as `answers` says when it is asked.
async fn hears(answers: bool) -> Vec<u8> {
    let (ours, mut theirs) = tokio::io::duplex(1 << 16);
    let (input, _said) = mpsc::channel(1);
    let (told, output) = mpsc::channel(1);
    told.send(Output::Stdout(Bytes::from_static(b"out"))).await.unwrap();
    let carried = carry(ours, V5, Line { input, output, ready: oneshot::channel().0 });
    let client = async {
        let mut heard = [0; 6];
        theirs.read_exact(&mut heard[..2]).await.unwrap();
        assert_eq!(heard[..2], [0x89, 0], "a question");
        let early = tokio::time::timeout(LISTENS / 2, theirs.read(&mut heard)).await;
        assert!(early.is_err(), "{heard:?} before the answer");
        if answers {
            // With a mask of zeros.
            theirs.write_all(&[0x8a, 0x80, 0, 0, 0, 0]).await.unwrap();
        }
        let begun = tokio::time::Instant::now();
        theirs.read_exact(&mut heard).await.unwrap();
        assert_eq!(begun.elapsed().is_zero(), answers);
        drop((theirs, told));
        heard.to_vec()
    };
    tokio::join!(carried, client).1
}

#[tokio::test(start_paused = true)]
async fn the_first_words_wait_until_the_client_listens_but_not_for_ever() {
    assert_eq!(hears(true).await, b"\x82\x04\x01out");
    assert_eq!(hears(false).await, b"\x82\x04\x01out");
}

#[tokio::test]
async fn what_a_client_asks_or_answers_with_is_no_input() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let (input, mut said) = mpsc::channel(4);
    let (_told, output) = mpsc::channel(1);
    let client = async {
        let mut socket = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        socket.send(Message::Ping(Bytes::from_static(b"\0ls"))).await.unwrap();
        socket.send(Message::Pong(Bytes::from_static(b"\0ls"))).await.unwrap();
        socket.send(Message::binary(&b"\0in"[..])).await.unwrap();
        assert_eq!(said.recv().await, Some(Input::Stdin(Bytes::from_static(b"in"))));
        assert_eq!(said.try_recv().ok(), None);
    };
    tokio::join!(carry(ours, V5, Line { input, output, ready: oneshot::channel().0 }), client);
}
