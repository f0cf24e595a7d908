use proptest::prelude::*;

use super::*;

/// Feeds bytes in pieces and collects frames until the first error; neighbouring pieces of data are joined.
fn read(bytes: &[u8], step: usize) -> (Vec<Frame>, Option<SpdyError>) {
    let (mut decoder, mut arrived, mut frames) = (Decoder::new(), BytesMut::new(), Vec::new());
    for piece in bytes.chunks(step) {
        arrived.extend_from_slice(piece);
        loop {
            match decoder.next(&mut arrived) {
                Ok(Some(frame)) => join(&mut frames, frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

fn join(frames: &mut Vec<Frame>, frame: Frame) {
    if let (Some(Frame::Data { stream, data, last }), Frame::Data { stream: next, data: more, last: ends }) =
        (frames.last_mut(), &frame)
        && stream == next
        && !*last
    {
        *data = [data.as_ref(), more.as_ref()].concat().into();
        *last = *ends;
        return;
    }
    frames.push(frame);
}

fn conversation() -> Vec<u8> {
    let mut encoder = Encoder::new();
    let mut bytes = Vec::new();
    bytes.extend(encoder.open(StreamId(1), &[("streamtype", "error")]));
    bytes.extend(encoder.open(StreamId(3), &[("streamtype", "stdin")]));
    bytes.extend(data(StreamId(3), b"input", false));
    bytes.extend(ping(7));
    // Settings, which have no meaning here.
    bytes.extend(control(4, &[0; 4]));
    bytes.extend(data(StreamId(3), b"", true));
    bytes.extend(reset(StreamId(1), 5));
    bytes.extend(control(GOAWAY, &[0; 8]));
    bytes
}

#[test]
fn frames_are_the_same_however_the_bytes_are_cut() {
    let open = |stream, kind: &str| Frame::Open {
        stream: StreamId(stream),
        fields: vec![("streamtype".to_owned(), kind.to_owned())],
        last: false,
    };
    let data = |bytes: &'static [u8], last| Frame::Data { stream: StreamId(3), data: Bytes::from_static(bytes), last };
    let expected = vec![
        open(1, "error"),
        open(3, "stdin"),
        data(b"input", false),
        Frame::Ping { id: 7 },
        data(b"", true),
        Frame::Reset { stream: StreamId(1) },
        Frame::GoAway,
    ];
    for step in [1, 2, 7, 64, usize::MAX] {
        assert_eq!(read(&conversation(), step), (expected.clone(), None), "in pieces of {step}");
    }
}

#[test]
fn a_control_frame_beyond_the_limit_is_refused_at_its_header() {
    let frame = [0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff];
    assert_eq!(read(&frame, 8), (Vec::new(), Some(SpdyError::TooLong)));
}

#[test]
fn another_version_is_refused() {
    assert_eq!(read(&[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1], 64).1, Some(SpdyError::Malformed));
}

#[test]
fn a_claimed_length_makes_no_room() {
    let (mut decoder, mut arrived) = (Decoder::new(), BytesMut::from(&[0, 0, 0, 3, 0, 0xff, 0xff, 0xff, b'x'][..]));
    let first = decoder.next(&mut arrived).unwrap().unwrap();
    assert_eq!(first, Frame::Data { stream: StreamId(3), data: Bytes::from_static(b"x"), last: false });
    assert_eq!(decoder.next(&mut arrived), Ok(None));
}

proptest! {
    #[test]
    fn garbage_is_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), step in 1_usize..50) {
        prop_assert_eq!(read(&bytes, step), read(&bytes, 400));
    }

    #[test]
    fn a_damaged_conversation_is_read_alike_in_all_cuts(
        position in any::<prop::sample::Index>(), byte in any::<u8>(), step in 1_usize..50,
    ) {
        let mut bytes = conversation();
        let position = position.index(bytes.len());
        bytes[position] = byte;
        prop_assert_eq!(read(&bytes, step), read(&bytes, usize::MAX));
    }
}
