use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use proptest::prelude::*;

use super::*;

fn request() -> impl Strategy<Value = Request> {
    let text = "[a-z0-9]{0,64}";
    prop_oneof![
        (text, any::<i32>(), any::<u64>()).prop_map(|(container, signal, grace_ms)| Request::Stop {
            container,
            signal,
            grace_ms
        }),
        text.prop_map(|container| Request::Remove { container }),
        any::<u64>().prop_map(|request| Request::KillExec { request }),
        Just(Request::List),
        Just(Request::Shutdown),
    ]
}

fn failure() -> impl Strategy<Value = Failure> {
    prop_oneof![
        Just(Failure::NoContainer),
        Just(Failure::Invalid),
        (".{0,40}", any::<i32>()).prop_map(|(step, errno)| Failure::Step { step, errno }),
        any::<i32>().prop_map(|errno| Failure::Execute { errno }),
    ]
}

fn record() -> impl Strategy<Value = ContainerRecord> {
    let outcome = prop_oneof![any::<i32>().prop_map(Outcome::Code), any::<i32>().prop_map(Outcome::Signal)];
    let state = prop_oneof![
        any::<u32>().prop_map(|pid| RunState::Running { pid }),
        (outcome, any::<bool>(), any::<i64>()).prop_map(|(outcome, oom_killed, finished_at)| RunState::Exited {
            outcome,
            oom_killed,
            finished_at
        }),
    ];
    ("[a-f0-9]{64}", any::<u64>(), any::<i64>(), state, any::<Option<i32>>()).prop_map(
        |(container, sequence, started_at, state, log_errno)| ContainerRecord {
            container,
            sequence,
            started_at,
            state,
            log_errno,
        },
    )
}

fn from_shim() -> impl Strategy<Value = FromShim> {
    let reply = prop_oneof![
        Just(Reply::Done),
        failure().prop_map(Reply::Failed),
        record().prop_map(|container| Reply::Started { container, warnings: Vec::new() }),
        (any::<u64>(), proptest::collection::vec(record(), 0..8))
            .prop_map(|(sequence, containers)| Reply::Containers { sequence, containers }),
    ];
    prop_oneof![
        (any::<u16>(), any::<u32>()).prop_map(|(version, pid)| FromShim::Hello { version, pid }),
        failure().prop_map(FromShim::SetUpFailed),
        (any::<u64>(), reply).prop_map(|(id, reply)| FromShim::Reply { id, reply }),
        any::<u64>().prop_map(|sequence| FromShim::Changed { sequence }),
    ]
}

/// Feeds `bytes` in pieces of `step` bytes and collects the messages until the first error.
fn collect(bytes: &[u8], step: usize) -> (Vec<FromShim>, bool) {
    let mut frames = Frames::new();
    let mut messages = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min(step).min(frames.wanted()));
        rest = after;
        if frames.push(piece, []).is_err() {
            return (messages, false);
        }
        match frames.take() {
            Ok(Some((message, _))) => messages.push(message),
            Ok(None) => {}
            Err(_) => return (messages, false),
        }
    }
    (messages, true)
}

proptest! {
    #[test]
    fn every_request_survives_the_wire(id in any::<u64>(), request in request()) {
        let message = ToShim::Request { id, request };
        let frame = encode(&message, 0).unwrap();
        prop_assert_eq!(decode::<ToShim>(&frame[HEADER..]).unwrap(), message);
    }

    #[test]
    fn messages_arrive_whole_and_in_order_however_the_bytes_are_cut(
        messages in proptest::collection::vec(from_shim(), 0..6),
        step in 1_usize..50,
    ) {
        let bytes: Vec<u8> = messages.iter().flat_map(|message| encode(message, 0).unwrap()).collect();
        prop_assert_eq!(collect(&bytes, step), (messages, true));
    }

    #[test]
    fn garbage_is_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), step in 1_usize..50) {
        let _ = collect(&bytes, step);
        let _ = decode::<ToShim>(&bytes);
        let _ = decode::<FromShim>(&bytes);
    }

    #[test]
    fn a_damaged_message_is_an_error_or_another_message(
        message in from_shim(), position in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut frame = encode(&message, 0).unwrap();
        let position = position.index(frame.len() - HEADER) + HEADER;
        frame[position] = byte;
        let _ = decode::<FromShim>(&frame[HEADER..]);
    }
}

#[test]
fn a_frame_beyond_the_limit_is_refused_before_its_payload() {
    let mut frames = Frames::new();
    let too_long = u32::try_from(MAX_FRAME + 1).unwrap().to_le_bytes();
    assert!(matches!(frames.push(&too_long, []), Ok(())));
    assert!(matches!(frames.push(&[0], []), Err(FrameError::TooLong { .. })));
}

#[test]
fn bytes_after_the_message_are_refused() {
    let mut frame = encode(&FromShim::Changed { sequence: 1 }, 0).unwrap();
    frame.push(0);
    assert!(matches!(decode::<FromShim>(&frame[HEADER..]), Err(FrameError::Trailing { count: 1 })));
}

#[test]
fn descriptors_arrive_with_the_frame_that_announced_them() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let first = encode(&FromShim::Changed { sequence: 1 }, 0).unwrap();
    let second = encode(&FromShim::Changed { sequence: 2 }, 2).unwrap();
    assert_eq!(send(ours.as_fd(), &first, &[]).unwrap(), first.len());
    assert_eq!(send(ours.as_fd(), &second, &[ours.as_fd(), theirs.as_fd()]).unwrap(), second.len());
    let mut frames = Frames::new();
    let mut next = || loop {
        assert_eq!(receive(theirs.as_fd(), &mut frames).unwrap(), Received::Some);
        if let Some((message, descriptors)) = frames.take::<FromShim>().unwrap() {
            break (message, descriptors.len());
        }
    };
    assert_eq!(next(), (FromShim::Changed { sequence: 1 }, 0));
    assert_eq!(next(), (FromShim::Changed { sequence: 2 }, 2));
}

#[test]
fn a_frame_without_the_descriptors_it_announced_is_refused() {
    let frame = encode(&FromShim::Changed { sequence: 1 }, 1).unwrap();
    let mut frames = Frames::new();
    frames.push(&frame[..HEADER], Vec::<OwnedFd>::new()).unwrap();
    frames.push(&frame[HEADER..], Vec::<OwnedFd>::new()).unwrap();
    assert!(matches!(frames.take::<FromShim>(), Err(FrameError::Descriptors { count: 0 })));
}
