//! A registry that errs: it serves what it is told to, right or wrong.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::TestImage;
use crate::image::Digest;

/// What is answered, by path and the number of times that it has been asked for.
type Handler = Arc<dyn Fn(&str, &HeaderMap, usize) -> Answer + Send + Sync>;

pub(super) enum Answer {
    Whole(Response<Full<Bytes>>),
    /// Raw bytes, after which the connection is closed.
    Broken(Vec<u8>),
}

impl Answer {
    pub(super) fn status(status: StatusCode, headers: &[(&'static str, &str)], body: &[u8]) -> Self {
        let mut response = Response::new(Full::new(Bytes::copy_from_slice(body)));
        *response.status_mut() = status;
        for (name, value) in headers {
            response.headers_mut().insert(*name, value.parse().unwrap());
        }
        Self::Whole(response)
    }

    pub(super) fn ok(body: &[u8]) -> Self {
        Self::status(StatusCode::OK, &[], body)
    }

    /// The first bytes of a longer body.
    pub(super) fn broken(body: &[u8], sent: usize) -> Self {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        Self::Broken([head.as_bytes(), &body[..sent]].concat())
    }
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
            body.map_or_else(|| Answer::status(StatusCode::NOT_FOUND, &[], b""), |body| Answer::ok(body))
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
    let raw: Arc<Mutex<Option<Vec<u8>>>> = Arc::default();
    let broken = Arc::clone(&raw);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let path = request.uri().path_and_query().unwrap().as_str().to_owned();
        let mut seen = requests.lock().unwrap();
        let count = seen.iter().filter(|(asked, _)| *asked == path).count();
        seen.push((path.clone(), request.headers().clone()));
        drop(seen);
        let answer = match handler(&path, request.headers(), count) {
            Answer::Whole(response) => Ok(response),
            Answer::Broken(bytes) => {
                *broken.lock().unwrap() = Some(bytes);
                Err(std::io::Error::other("breaks off"))
            }
        };
        async { answer }
    });
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let parts = connection.without_shutdown().await;
    let _ = TokioExecutor::new();
    let _: Result<(), Infallible> = Ok(());
    if let Ok(parts) = parts {
        let mut stream = parts.io.into_inner();
        let bytes = raw.lock().unwrap().take();
        if let Some(bytes) = bytes {
            let _ = stream.write_all(&bytes).await;
        }
    }
}
