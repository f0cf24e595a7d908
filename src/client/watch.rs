//! A running watch: the frames of a body without end.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::marker::PhantomData;
use std::time::Duration;

use api::status::ApiError;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::error::ClientError;
use crate::options::{ListOptions, Query};
use crate::transport::Body;

/// One frame of a watch.
#[derive(Debug, Clone, PartialEq)]
pub enum WatchEvent<K> {
    /// The object is new to the selection.
    Added(K),
    /// The object has changed.
    Modified(K),
    /// The object left the selection; its last state.
    Deleted(K),
    /// Nothing happened up to this revision.
    Bookmark(String),
}

/// How a watch is asked for.
pub(crate) struct WatchStart {
    path: String,
    revision: String,
    timeout: Duration,
}

impl WatchStart {
    /// Watches end after five to ten minutes, differently for different watchers, as client-go's reflector asks
    /// (`k8s.io/client-go/tools/cache/reflector.go`, `minWatchTimeout`).
    pub(crate) fn new(agent: &str, path: &str, revision: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        (agent, path, revision).hash(&mut hasher);
        let timeout = Duration::from_secs(300 + hasher.finish() % 300);
        Self { path: path.to_owned(), revision: revision.to_owned(), timeout }
    }

    pub(crate) fn path(&self, options: &ListOptions) -> String {
        let mut query = Query::default();
        query.add("watch", "true");
        query.add("allowWatchBookmarks", "true");
        query.add("resourceVersion", &self.revision);
        query.add("timeoutSeconds", &self.timeout.as_secs().to_string());
        query.add("labelSelector", &options.labels);
        query.add("fieldSelector", &options.fields);
        format!("{}{}", self.path, query.as_str())
    }

    /// When a watch that the server should have ended by then counts as lost.
    pub(crate) fn silence(&self) -> Duration {
        self.timeout + Duration::from_secs(30)
    }
}

/// A running watch; dropping it ends it.
pub struct Watch<K> {
    request: String,
    body: Body,
    frames: Framer,
    silence: Duration,
    kind: PhantomData<fn() -> K>,
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct MetadataOnly {
    metadata: ObjectMeta,
}

impl<K: DeserializeOwned> Watch<K> {
    pub(crate) fn new(request: String, body: Body, silence: Duration) -> Self {
        Self { request, body, frames: Framer::default(), silence, kind: PhantomData }
    }

    /// The next event, or none when the server has ended the watch. Cancel safe. After an error the watch is over.
    pub async fn next(&mut self) -> Option<Result<WatchEvent<K>, ClientError>> {
        loop {
            if let Some(frame) = self.frames.next() {
                return Some(self.decode(&frame));
            }
            let Ok(received) = tokio::time::timeout(self.silence, self.body.frame()).await else {
                return Some(Err(ClientError::Silent { request: self.request.clone() }));
            };
            match received? {
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        self.frames.push(&data);
                    }
                }
                Err(source) => return Some(Err(ClientError::Body { request: self.request.clone(), source })),
            }
        }
    }

    fn decode(&self, bytes: &Bytes) -> Result<WatchEvent<K>, ClientError> {
        let unreadable = |source| ClientError::Decode { request: self.request.clone(), source };
        let frame: Frame<'_> = serde_json::from_slice(bytes).map_err(unreadable)?;
        let object = frame.object.get();
        let typed = || serde_json::from_str::<K>(object).map_err(unreadable);
        match frame.kind {
            "ADDED" => typed().map(WatchEvent::Added),
            "MODIFIED" => typed().map(WatchEvent::Modified),
            "DELETED" => typed().map(WatchEvent::Deleted),
            "BOOKMARK" => {
                let MetadataOnly { metadata } = serde_json::from_str(object).map_err(unreadable)?;
                Ok(WatchEvent::Bookmark(metadata.resource_version.unwrap_or_default()))
            }
            _ => {
                let status: serde_json::Value = serde_json::from_str(object).map_err(unreadable)?;
                let code = status["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(500);
                Err(ApiError::from_value(code, &status).into())
            }
        }
    }
}

/// Cuts a stream of JSON objects into objects, whether or not there is white space between them. Every byte is looked
/// at once, however the stream is cut into chunks.
#[derive(Debug, Default)]
struct Framer {
    buffer: BytesMut,
    seen: usize,
    depth: usize,
    quoted: bool,
    escaped: bool,
}

impl Framer {
    fn push(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
    }

    fn next(&mut self) -> Option<Bytes> {
        while let Some(&byte) = self.buffer.get(self.seen) {
            self.seen += 1;
            if self.step(byte) {
                let frame = self.buffer.split_to(self.seen).freeze();
                self.seen = 0;
                return Some(frame);
            }
        }
        None
    }

    /// Whether this byte ends an object.
    fn step(&mut self, byte: u8) -> bool {
        match (self.quoted, byte) {
            (true, _) if self.escaped => self.escaped = false,
            (true, b'\\') => self.escaped = true,
            (_, b'"') => self.quoted = !self.quoted,
            (false, b'{') => self.depth += 1,
            (false, b'}') => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn braces_and_quotes_inside_strings_do_not_end_a_frame() {
        let mut framer = Framer::default();
        framer.push(br#"{"a":"}\"}{"}{"b":{}}"#);
        assert_eq!(framer.next().unwrap(), br#"{"a":"}\"}{"}"#.as_slice());
        assert_eq!(framer.next().unwrap(), br#"{"b":{}}"#.as_slice());
        assert_eq!(framer.next(), None);
    }

    proptest! {
        #[test]
        fn frames_do_not_depend_on_how_the_stream_is_cut(
            texts in proptest::collection::vec(".{0,12}", 1..6), separator in "[ \n]{0,2}", cut in 1_usize..9
        ) {
            let frames: Vec<_> = texts.iter().map(|text| serde_json::json!({"x": {"y": text}})).collect();
            let stream: String = frames.iter().map(|frame| format!("{frame}{separator}")).collect();
            let mut framer = Framer::default();
            let mut found = Vec::new();
            for chunk in stream.as_bytes().chunks(cut) {
                framer.push(chunk);
                while let Some(frame) = framer.next() {
                    found.push(serde_json::from_slice::<serde_json::Value>(&frame).unwrap());
                }
            }
            prop_assert_eq!(found, frames);
        }
    }
}
