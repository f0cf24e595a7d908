use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

#[tokio::test]
async fn bytes_are_one_stream_however_they_are_cut() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let mut tunnel = Tunnel::new(ours).await;
    let mut client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
    for piece in [&b"he"[..], b"", b"llo"] {
        client.send(Message::binary(piece)).await.unwrap();
    }
    client.send(Message::text("ignored")).await.unwrap();
    client.send(Message::Ping(Bytes::new())).await.unwrap();
    let mut word = [0; 5];
    tunnel.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"hello");
    tunnel.write_all(b"back").await.unwrap();
    tunnel.flush().await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Message::binary(&b"back"[..]));
    client.close(None).await.unwrap();
    assert_eq!(tunnel.read(&mut word).await.unwrap(), 0);
}

#[tokio::test]
async fn a_client_that_vanishes_is_an_end_or_an_error() {
    let (ours, theirs) = tokio::io::duplex(16);
    let mut tunnel = Tunnel::new(ours).await;
    drop(theirs);
    assert!(!matches!(tunnel.read(&mut [0; 5]).await, Ok(1..)));
}
