use task::Tasks;
use tokio::io::DuplexStream;

use super::super::pairs::CONNECTIONS;
use super::super::tests::{breaks_off, closed, deaf, echo, target};
use super::*;

/// A client with its own codec.
struct Client {
    stream: DuplexStream,
    encoder: Encoder,
    decoder: Decoder,
    arrived: BytesMut,
}

async fn client(tasks: &Tasks) -> Client {
    let (ours, stream) = tokio::io::duplex(1 << 16);
    let target = target(tasks).await;
    tasks.spawn("session", async move { carry(ours, &target).await });
    Client { stream, encoder: Encoder::new(), decoder: Decoder::new(), arrived: BytesMut::new() }
}

impl Client {
    async fn send(&mut self, frame: &[u8]) {
        self.stream.write_all(frame).await.unwrap();
    }

    /// Opens the streams of a connection: `first` is that of errors, `first + 2` that of data.
    async fn open(&mut self, first: u32, port: u16) {
        for (stream, kind) in [(first, "error"), (first + 2, "data")] {
            let (port, request) = (port.to_string(), first.to_string());
            let fields = [("streamtype", kind), ("port", port.as_str()), ("requestid", request.as_str())];
            let frame = self.encoder.open(StreamId(stream), &fields);
            self.send(&frame).await;
        }
    }

    /// The next frame that is no answer to a question; none at the end. What accepts a stream is no frame here.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            match self.decoder.next(&mut self.arrived).unwrap() {
                Some(Frame::Ping { .. }) => {}
                Some(frame) => return Some(frame),
                None if self.stream.read_buf(&mut self.arrived).await.unwrap() == 0 => return None,
                None => {}
            }
        }
    }

    /// Reads until these streams have ended: what was said on each, and whether it was broken off.
    async fn ended(&mut self, streams: &[u32]) -> Vec<(Vec<u8>, bool)> {
        let mut said: BTreeMap<u32, (Vec<u8>, bool)> = BTreeMap::new();
        let mut open = streams.to_vec();
        while !open.is_empty() {
            let (stream, ends) = match self.next().await.expect("the session goes on") {
                Frame::Data { stream, data, last } => {
                    said.entry(stream.0).or_default().0.extend_from_slice(&data);
                    (stream, last)
                }
                Frame::Reset { stream } => {
                    said.entry(stream.0).or_default().1 = true;
                    (stream, true)
                }
                other => panic!("{other:?}"),
            };
            open.retain(|own| !ends || *own != stream.0);
        }
        streams.iter().map(|stream| said.remove(stream).unwrap()).collect()
    }
}

#[tokio::test]
async fn a_refused_and_a_broken_connection_end_themselves_alone() {
    let tasks = Tasks::new();
    let mut client = client(&tasks).await;
    let (echo, closed, breaks_off) = (echo(&tasks).await, closed().await, breaks_off(&tasks).await);
    client.open(1, echo).await;
    client.send(&frame::data(StreamId(3), b"before", false)).await;
    client.open(5, closed).await;
    let ended = client.ended(&[5]).await;
    assert!(String::from_utf8_lossy(&ended[0].0).contains("connect: connection refused IPv6"), "{ended:?}");
    client.open(9, breaks_off).await;
    client.send(&frame::data(StreamId(11), b"x", false)).await;
    assert_eq!(client.ended(&[11]).await, [(Vec::new(), true)]);
    client.send(&frame::data(StreamId(3), b", after", true)).await;
    let ended = client.ended(&[3, 1]).await;
    assert!(b"before, after".ends_with(&ended[0].0) && !ended[0].1, "{ended:?}");
    assert_eq!(ended[1], (Vec::new(), false));
}

#[tokio::test]
async fn a_pod_that_does_not_read_stops_nobody_as_long_as_there_is_room() {
    let tasks = Tasks::new();
    let mut client = client(&tasks).await;
    let (deaf, echo) = (deaf(&tasks).await, echo(&tasks).await);
    client.open(1, deaf).await;
    for _ in 0..32 {
        client.send(&frame::data(StreamId(3), &[0; 64 << 10], false)).await;
    }
    client.open(5, echo).await;
    client.send(&frame::data(StreamId(7), b"past it", true)).await;
    assert_eq!(client.ended(&[7]).await, [(b"past it".to_vec(), false)]);
}

#[tokio::test]
async fn thousands_of_streams_are_refused_and_the_first_ones_work() {
    let tasks = Tasks::new();
    let mut client = client(&tasks).await;
    let port = echo(&tasks).await;
    client.open(1, port).await;
    let (mut refused, most) = (0, u32::try_from(CONNECTIONS).unwrap());
    for number in 0..4000 {
        let request = format!("half {number}");
        let fields = [("streamtype", "error"), ("port", "80"), ("requestid", request.as_str())];
        let frame = client.encoder.open(StreamId(101 + 2 * number), &fields);
        // What comes back is read, lest both sides wait for each other.
        client.send(&frame).await;
        if number >= most - 1 {
            assert_eq!(client.next().await, Some(Frame::Reset { stream: StreamId(101 + 2 * number) }));
            refused += 1;
        }
    }
    assert_eq!(refused, 4000 - (most - 1));
    client.send(&frame::data(StreamId(3), b"still", true)).await;
    assert_eq!(client.ended(&[3]).await, [(b"still".to_vec(), false)]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_its_other_half_is_given_up() {
    let tasks = Tasks::new();
    let mut client = client(&tasks).await;
    let frame = client.encoder.open(StreamId(1), &[("streamtype", "error"), ("port", "80"), ("requestid", "7")]);
    client.send(&frame).await;
    let ended = client.ended(&[1]).await;
    assert_eq!(ended, [(b"(request=7) timed out waiting for streams".to_vec(), false)]);
}

#[tokio::test]
async fn what_is_no_frame_ends_the_session() {
    let tasks = Tasks::new();
    let mut client = client(&tasks).await;
    // A control frame whose length is a lie.
    client.send(&[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff]).await;
    assert_eq!(client.next().await, None);
}
