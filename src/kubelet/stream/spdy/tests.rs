use super::*;

const V4: Dialect = Dialect { version: 4 };
const PIPES: Wanted = Wanted::Pipes { stdin: true, stdout: true, stderr: false };

fn offering(protocols: &[&'static str]) -> HeaderMap {
    protocols.iter().map(|name| (PROTOCOL.parse().unwrap(), HeaderValue::from_static(name))).collect()
}

#[test]
fn the_newest_dialect_that_both_know_is_spoken() {
    let all = ["v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "channel.k8s.io"];
    let (dialect, fields) = shake_hands(&offering(&all)).unwrap();
    assert_eq!((dialect, &fields[PROTOCOL]), (V4, &HeaderValue::from_static("v4.channel.k8s.io")));
    assert_eq!(shake_hands(&offering(&["channel.k8s.io"])).unwrap().0.version, 1);
    assert_eq!(shake_hands(&offering(&["portforward.k8s.io"])).unwrap_err().0, StatusCode::FORBIDDEN);
}

#[test]
fn a_terminal_has_a_stream_for_sizes_and_none_for_errors() {
    let kinds = expected(Wanted::Terminal { stdin: true }, V4);
    assert_eq!(kinds, [Kind::Error, Kind::Stdin, Kind::Stdout, Kind::Resize]);
}

/// The client's end: what it has been sent so far.
async fn received<R: AsyncRead + Unpin>(client: &mut R, bytes: usize) -> Vec<u8> {
    let mut buffer = vec![0; bytes];
    client.read_exact(&mut buffer).await.unwrap();
    buffer
}

#[tokio::test]
async fn a_command_begins_once_its_streams_are_there_and_its_end_closes_them() {
    let (ours, mut client) = tokio::io::duplex(1 << 16);
    let (input, mut said) = mpsc::channel(4);
    let (told, output) = mpsc::channel(4);
    let (ready, is_ready) = oneshot::channel();
    let carried = carry(ours, (V4, PIPES), Line { input, output, ready });
    let conversation = async {
        let (mut encoder, mut replies) = (Encoder::new(), Encoder::new());
        for (stream, kind) in [(1, "error"), (3, "stdin"), (5, "nonsense"), (7, "stdin"), (9, "stdout")] {
            client.write_all(&encoder.open(StreamId(stream), &[("streamtype", kind)])).await.unwrap();
        }
        is_ready.await.unwrap();
        for stream in [1, 3, 5, 7, 9].map(StreamId) {
            let expected = match stream {
                StreamId(5 | 7) => frame::reset(stream, frame::REFUSED_STREAM),
                _ => replies.reply(stream),
            };
            assert_eq!(received(&mut client, expected.len()).await, expected, "{stream:?}");
        }
        client.write_all(&frame::data(StreamId(3), b"in", true)).await.unwrap();
        assert_eq!(said.recv().await, Some(Input::Stdin(Bytes::from_static(b"in"))));
        assert_eq!(said.recv().await, Some(Input::EndOfStdin));
        client.write_all(&frame::ping(1)).await.unwrap();
        let pong = frame::ping(1);
        assert_eq!(received(&mut client, pong.len()).await, pong);
        told.send(Output::Stdout(Bytes::from_static(b"out"))).await.unwrap();
        told.send(Output::Status(serde_json::json!({"status": "Success"}))).await.unwrap();
        let out = frame::data(StreamId(9), b"out", false);
        let status = frame::data(StreamId(1), b"{\"status\":\"Success\"}", true);
        let expected = [out, frame::data(StreamId(9), b"", true), status].concat();
        assert_eq!(received(&mut client, expected.len()).await, expected);
        drop(client);
    };
    tokio::join!(carried, conversation);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_opens_no_streams_is_given_up_and_nothing_has_begun() {
    let (ours, _client) = tokio::io::duplex(1 << 16);
    let (input, _said) = mpsc::channel(4);
    let (_told, output) = mpsc::channel(4);
    let (ready, is_ready) = oneshot::channel();
    carry(ours, (V4, PIPES), Line { input, output, ready }).await;
    assert!(is_ready.await.is_err());
}

#[tokio::test]
async fn a_client_that_vanishes_ends_the_input() {
    let (ours, client) = tokio::io::duplex(1 << 16);
    let (input, mut said) = mpsc::channel(4);
    let (_told, output) = mpsc::channel(4);
    let (ready, _is_ready) = oneshot::channel();
    drop(client);
    carry(ours, (V4, PIPES), Line { input, output, ready }).await;
    assert_eq!(said.recv().await, None);
}

#[tokio::test]
async fn sizes_are_read_whole_however_they_come() {
    let mut reader = Reader {
        expected: vec![Kind::Resize],
        open: BTreeMap::from([(StreamId(1), Kind::Resize)]),
        complete: None,
        size: BytesMut::new(),
    };
    let (input, mut said) = mpsc::channel(4);
    for piece in [&b"{\"Width\":80,"[..], b"\"Height\":24}\n{\"Wid"] {
        reader.data(StreamId(1), Bytes::from_static(piece), false, &input).await;
    }
    assert_eq!(said.try_recv(), Ok(Input::Resize(runtime::Size { columns: 80, rows: 24 })));
    assert!(said.try_recv().is_err());
}
