//! A transport for tests that plays a script: each request must be the next expected one and gets its canned answer.
//!
//! For tests of what a part sends and how it takes the answers. Tests of what comes out in the end compose the real API
//! server instead; this deliberately keeps no objects.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::Value;

use crate::transport::{Body, BoxError, Transport, TransportError};

/// One expected request and its answer.
#[derive(Debug)]
pub struct Exchange {
    /// Method and the start of path and query, e.g. `GET /api/v1/pods?watch=true`.
    pub request: String,
    /// The expected body, or null to accept any.
    pub body: Value,
    /// What to answer.
    pub answer: Answer,
}

/// What to answer.
#[derive(Debug)]
pub enum Answer {
    /// A status code and a JSON body.
    Json(u16, Value),
    /// Watch frames, after which the server ends the watch.
    Frames(Vec<Value>),
    /// Watch frames, after which the watch stays open and silent.
    OpenFrames(Vec<Value>),
    /// Watch frames, after which the connection breaks.
    BrokenFrames(Vec<Value>),
    /// The server is not reached.
    Unreachable,
}

/// An exchange of `request` (see [`Exchange::request`]) with an answer, whatever the request's body.
pub fn exchange(request: &str, answer: Answer) -> Exchange {
    Exchange { request: request.to_owned(), body: Value::Null, answer }
}

/// Plays a script.
#[derive(Debug, Clone)]
pub struct Scripted {
    script: Arc<Mutex<Play>>,
}

#[derive(Debug)]
struct Play {
    remaining: VecDeque<Exchange>,
    sent: Vec<(String, Value)>,
}

impl Scripted {
    /// A transport that plays `script`; requests after its end wait for ever.
    pub fn new(script: Vec<Exchange>) -> Self {
        Self { script: Arc::new(Mutex::new(Play { remaining: script.into(), sent: Vec::new() })) }
    }

    /// Every request so far: method with path and query, and body.
    pub fn sent(&self) -> Vec<(String, Value)> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner).sent.clone()
    }

    /// Whether every expected request has come.
    pub fn is_over(&self) -> bool {
        self.script.lock().unwrap_or_else(PoisonError::into_inner).remaining.is_empty()
    }

    fn play(&self, request: &Request<Bytes>) -> Option<Answer> {
        let line = format!("{} {}", request.method(), request.uri());
        let body = serde_json::from_slice(request.body()).unwrap_or(Value::Null);
        let mut play = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        play.sent.push((line.clone(), body.clone()));
        let expected = play.remaining.pop_front()?;
        assert!(line.starts_with(&expected.request), "got {line}, expected {}", expected.request);
        assert!(expected.body.is_null() || expected.body == body, "{line}: got {body}, expected {}", expected.body);
        Some(expected.answer)
    }
}

#[async_trait]
impl Transport for Scripted {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, TransportError> {
        let (code, body) = match self.play(&request) {
            Some(Answer::Json(code, value)) => (code, full(&value)),
            Some(Answer::Frames(frames)) => (200, stream(frames, Ending::Orderly)),
            Some(Answer::OpenFrames(frames)) => (200, stream(frames, Ending::Never)),
            Some(Answer::BrokenFrames(frames)) => (200, stream(frames, Ending::Broken)),
            Some(Answer::Unreachable) => {
                return Err(TransportError { server: "script".to_owned(), source: "as the script says".into() });
            }
            None => std::future::pending().await,
        };
        let mut response = Response::new(body);
        *response.status_mut() = http::StatusCode::from_u16(code).expect("scripts name valid status codes");
        Ok(response)
    }
}

#[derive(Debug, Clone, Copy)]
enum Ending {
    Orderly,
    Never,
    Broken,
}

fn full(value: &Value) -> Body {
    Full::new(Bytes::from(value.to_string())).map_err(BoxError::from).boxed()
}

fn stream(frames: Vec<Value>, ending: Ending) -> Body {
    let state = (VecDeque::from(frames), ending);
    let frames = futures_util::stream::unfold(state, |(mut frames, ending)| async move {
        if let Some(frame) = frames.pop_front() {
            let bytes = Bytes::from(format!("{frame}\n"));
            return Some((Ok(http_body::Frame::data(bytes)), (frames, ending)));
        }
        match ending {
            Ending::Orderly => None,
            Ending::Never => std::future::pending().await,
            Ending::Broken => Some((Err(BoxError::from("as the script says")), (frames, Ending::Orderly))),
        }
    });
    BodyExt::boxed(StreamBody::new(frames))
}
