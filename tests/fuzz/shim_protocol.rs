//! What agent and shim say to each other: frames, messages, scripts.
//!
//! The input is a stream as it would arrive on the socket, read as messages of either side.

use std::fs::File;
use std::os::fd::OwnedFd;

use oci::container::Script;
use oci::protocol::{
    ContainerRecord, Frames, FromShim, HEADER, MAX_DESCRIPTORS, MAX_FRAME, Request, ToShim, decode, encode,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::memory::{Bound, bounded};

pub(crate) const WORDS: &[&str] = &["\u{1}\0\0\0\0", "\0\0\0\u{4}\0", "\u{1}\0\0\u{4}\0", "\u{7f}", "\0"];

/// How much arrives at once in each of the readings that are compared.
const PIECES: [usize; 4] = [usize::MAX, 1, 3, 7];
/// Frames that announce more descriptors than this are read without any, and refused.
const DESCRIPTORS: usize = 8;
/// A step of a script takes one byte at least and about a hundred in memory; serde makes room for at most 1 MiB ahead.
const SCRIPT: Bound = Bound { base: 4 << 20, held: 512, ever: 1024 };
const STREAM: Bound = Bound { base: 8 << 20, held: 512, ever: 1024 };

pub(crate) fn check(data: &[u8]) {
    let requests = stream::<ToShim>(data);
    for message in &requests {
        match message {
            ToShim::Request { request: Request::Start(start), .. } => script(&start.script),
            ToShim::Request { request: Request::Exec(exec), .. } => script(&exec.script),
            _ => {}
        }
    }
    stream::<FromShim>(data);
    script(data);
    if let Ok(record) = bounded(data.len(), SCRIPT, || decode::<ContainerRecord>(data)) {
        survives(&record);
    }
    lengths_are_checked_first(data);
}

/// The same stream in several cuts gives the same messages and the same end.
fn stream<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(data: &[u8]) -> Vec<T> {
    let mut readings = PIECES.map(|most| bounded(data.len(), STREAM, || read::<T>(data, most))).into_iter();
    let (messages, end) = readings.next().expect("there is one for each size");
    for (others, other_end) in readings {
        assert_eq!((&messages, &end), (&others, &other_end), "the cut of the stream matters");
    }
    for message in &messages {
        survives(message);
    }
    messages
}

fn read<T: DeserializeOwned>(mut data: &[u8], most: usize) -> (Vec<T>, Option<String>) {
    let null = File::open("/dev/null").expect("every host has it");
    let mut frames = Frames::new();
    let mut messages = Vec::new();
    let mut announced = descriptors(data, &null);
    loop {
        match frames.take() {
            Ok(Some((message, given))) => {
                assert!(given.len() <= DESCRIPTORS);
                messages.push(message);
                announced = descriptors(data, &null);
            }
            Ok(None) => {}
            Err(error) => return (messages, Some(error.to_string())),
        }
        let wanted = frames.wanted();
        assert!((1..=MAX_FRAME).contains(&wanted), "{wanted} bytes are asked for");
        let (piece, rest) = data.split_at(wanted.min(most).min(data.len()));
        if piece.is_empty() {
            return (messages, None);
        }
        if let Err(error) = frames.push(piece, std::mem::take(&mut announced)) {
            return (messages, Some(error.to_string()));
        }
        data = rest;
    }
}

/// The descriptors that travel with the first byte of the frame that `data` begins with.
fn descriptors(data: &[u8], null: &File) -> Vec<OwnedFd> {
    let count = usize::from(data.get(4).copied().unwrap_or_default());
    let count = if count <= DESCRIPTORS { count } else { 0 };
    (0..count).map(|_| null.try_clone().expect("a few descriptors are free").into()).collect()
}

fn survives<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(message: &T) {
    let frame = encode(message, 0).expect("what was read fits into a frame");
    assert_eq!(&decode::<T>(&frame[HEADER..]).expect("what was encoded is a message"), message);
}

fn script(bytes: &[u8]) {
    let Ok(script) = bounded(bytes.len(), SCRIPT, || Script::from_bytes(bytes)) else { return };
    assert_eq!(script.version, Script::VERSION);
    let again = script.to_bytes().expect("what was read can be written");
    assert_eq!(Script::from_bytes(&again).as_ref(), Ok(&script));
    assert!(script.steps.iter().all(|step| !step.name().is_empty()));
}

/// A frame that is too long, or has too many descriptors, is refused at its header, before room is made for it.
fn lengths_are_checked_first(data: &[u8]) {
    let Some(header) = data.first_chunk::<HEADER>() else { return };
    let [a, b, c, d, count] = *header;
    let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    let bound = Bound { base: 1 << 10, held: 0, ever: 0 };
    let (pushed, wanted) = bounded(HEADER, bound, || {
        let mut frames = Frames::new();
        (frames.push(header, None).is_ok(), frames.wanted())
    });
    assert_eq!(pushed, length <= MAX_FRAME, "a frame of {length} bytes and {count} of {MAX_DESCRIPTORS} descriptors");
    assert!(!pushed || wanted == length);
}
