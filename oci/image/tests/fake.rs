//! A registry that errs: it serves what it is told to, right or wrong.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::TestImage;
use crate::image::Digest;

/// What is answered, by path and the number of times that it has been asked for.
type Handler = Arc<dyn Fn(&str, &HeaderMap, usize) -> Answer + Send + Sync>;

pub(super) type Answer = Response<BoxBody<Bytes, io::Error>>;

pub(super) fn status(status: StatusCode, headers: &[(&'static str, &str)], body: &[u8]) -> Answer {
    let body = Full::new(Bytes::copy_from_slice(body)).map_err(|never: Infallible| match never {});
    let mut response = Response::new(body.boxed());
    *response.status_mut() = status;
    for (name, value) in headers {
        response.headers_mut().insert(*name, value.parse().unwrap());
    }
    response
}

pub(super) fn ok(body: &[u8]) -> Answer {
    status(StatusCode::OK, &[], body)
}

/// A body of which the rest comes when it is let.
pub(super) fn held(body: &[u8], sent: usize, rest: Arc<Notify>) -> Answer {
    let (first, last) = (Bytes::copy_from_slice(&body[..sent]), Bytes::copy_from_slice(&body[sent..]));
    let last = stream::once(async move {
        rest.notified().await;
        Ok(Frame::data(last))
    });
    let first = stream::once(async move { Ok::<_, io::Error>(Frame::data(first)) });
    let pieces = StreamExt::chain(first, last);
    let mut response = status(StatusCode::OK, &[], b"").map(|_| BodyExt::boxed(StreamBody::new(pieces)));
    response.headers_mut().insert(CONTENT_LENGTH, body.len().into());
    response
}

/// The beginning of a longer body, after which the connection breaks.
pub(super) fn broken(code: StatusCode, headers: &[(&'static str, &str)], body: &[u8], sent: usize) -> Answer {
    let first = Bytes::copy_from_slice(&body[..sent]);
    let pieces = stream::unfold(0, move |step| {
        let first = first.clone();
        async move {
            // Lets the server flush before it breaks.
            tokio::task::yield_now().await;
            match step {
                0 => Some((Ok(Frame::data(first)), 1)),
                1 => Some((Err(io::Error::other("breaks off")), 2)),
                _ => None,
            }
        }
    });
    let mut response = status(code, headers, b"").map(|_| BodyExt::boxed(StreamBody::new(pieces)));
    response.headers_mut().insert(CONTENT_LENGTH, body.len().into());
    response
}

/// The server; ends with it.
pub(super) struct Fake {
    pub(super) address: String,
    requests: Arc<Mutex<Vec<(String, HeaderMap)>>>,
    _tasks: JoinSet<()>,
}

impl Fake {
    pub(super) async fn start(handler: impl Fn(&str, &HeaderMap, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests: Arc<Mutex<Vec<(String, HeaderMap)>>> = Arc::default();
        let handler: Handler = Arc::new(handler);
        let mut tasks = JoinSet::new();
        let seen = Arc::clone(&requests);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&handler), Arc::clone(&seen)));
            }
        });
        Self { address, requests, _tasks: tasks }
    }

    /// Serves an image as it should be, but for the paths that `wrong` answers.
    pub(super) async fn serve(
        image: &TestImage,
        wrong: impl Fn(&str, &HeaderMap, usize) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        let mut right: HashMap<String, Vec<u8>> = HashMap::new();
        for blob in image.blobs() {
            right.insert(format!("/v2/app/blobs/{}", Digest::of(blob)), blob.clone());
        }
        right.insert(format!("/v2/app/manifests/{}", Digest::of(&image.manifest)), image.manifest.clone());
        right.insert("/v2/app/manifests/v1".to_owned(), image.manifest.clone());
        Self::start(move |path, headers, count| {
            if let Some(answer) = wrong(path, headers, count) {
                return answer;
            }
            let body = right.get(path);
            body.map_or_else(|| status(StatusCode::NOT_FOUND, &[], b""), |body| ok(body))
        })
        .await
    }

    /// The headers of all requests for a path.
    pub(super) fn requests(&self, path: &str) -> Vec<HeaderMap> {
        let requests = self.requests.lock().unwrap();
        requests.iter().filter(|(asked, _)| asked == path).map(|(_, headers)| headers.clone()).collect()
    }
}

async fn serve(stream: tokio::net::TcpStream, handler: Handler, requests: Arc<Mutex<Vec<(String, HeaderMap)>>>) {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let path = request.uri().path_and_query().unwrap().as_str().to_owned();
        let mut seen = requests.lock().unwrap();
        let count = seen.iter().filter(|(asked, _)| *asked == path).count();
        seen.push((path.clone(), request.headers().clone()));
        drop(seen);
        let answer = handler(&path, request.headers(), count);
        async { Ok::<_, Infallible>(answer) }
    });
    // A connection that breaks is what some tests want.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
