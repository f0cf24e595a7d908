//! One connection to an API server, of either HTTP version.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::ServerName;
use task::Tasks;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::STREAMS;
use crate::transport::{Body, BoxError};

/// Until a connection must stand.
const CONNECT: Duration = Duration::from_secs(10);
/// Silence before a ping, and until its answer must be there; as client-go's `ReadIdleTimeout` and `PingTimeout`.
const PING_AFTER: Duration = Duration::from_secs(30);
const PING_ANSWER: Duration = Duration::from_secs(15);

/// Opens connections.
pub(super) struct Connector {
    pub(super) tls: Arc<rustls::ClientConfig>,
    pub(super) name: ServerName<'static>,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tasks: Tasks,
}

/// An open connection.
pub(super) enum Connection {
    /// Carries many requests at once.
    Two { sender: http2::SendRequest<Full<Bytes>>, streams: Arc<AtomicUsize> },
    /// Carries one request at a time.
    One { sender: http1::SendRequest<Full<Bytes>> },
}

/// What came of sending a request.
pub(super) enum Attempt {
    /// The head of an answer.
    Answered(Response<Body>),
    /// Nothing of the request was sent; here it is back.
    Unsent(Box<Request<Bytes>>),
    /// The server may or may not have seen it.
    Failed(BoxError),
}

impl Connector {
    pub(super) async fn connect(&self) -> Result<Connection, BoxError> {
        tokio::time::timeout(CONNECT, self.establish()).await?
    }

    async fn establish(&self) -> Result<Connection, BoxError> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(self.name.clone(), stream).await?;
        let two = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let stream = TokioIo::new(stream);
        if two {
            let (sender, driver) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(PING_AFTER)
                .keep_alive_timeout(PING_ANSWER)
                .handshake(stream)
                .await?;
            self.tasks.spawn("https-connection", report(driver));
            Ok(Connection::Two { sender, streams: Arc::default() })
        } else {
            let (sender, driver) = http1::handshake(stream).await?;
            self.tasks.spawn("https-connection", report(driver));
            Ok(Connection::One { sender })
        }
    }
}

/// The end of a connection is seen by its requests; here it is only noted.
async fn report(driver: impl Future<Output = hyper::Result<()>>) {
    if let Err(error) = driver.await {
        let error: &dyn std::error::Error = &error;
        tracing::debug!(error, "connection to the API server ended");
    }
}

impl Connection {
    pub(super) fn is_open(&self) -> bool {
        match self {
            Self::Two { sender, .. } => !sender.is_closed(),
            Self::One { sender } => !sender.is_closed(),
        }
    }

    pub(super) fn is_shared(&self) -> bool {
        matches!(self, Self::Two { .. })
    }

    pub(super) fn has_room(&self) -> bool {
        match self {
            Self::Two { streams, .. } => streams.load(Ordering::Relaxed) < STREAMS,
            Self::One { sender } => sender.is_ready(),
        }
    }

    /// A second handle on the same connection, if it can carry several requests.
    pub(super) fn share(&self) -> Option<Self> {
        match self {
            Self::Two { sender, streams } => Some(Self::Two { sender: sender.clone(), streams: Arc::clone(streams) }),
            Self::One { .. } => None,
        }
    }

    pub(super) async fn send(&mut self, request: Request<Bytes>) -> Attempt {
        match self {
            Self::Two { sender, streams } => {
                let stream = Stream::begin(streams);
                if sender.ready().await.is_err() {
                    return Attempt::Unsent(Box::new(request));
                }
                attempt(sender.try_send_request(request.map(Full::new)).await, Some(stream)).await
            }
            Self::One { sender } => {
                let uri = request.uri().clone();
                if sender.ready().await.is_err() {
                    return Attempt::Unsent(Box::new(request));
                }
                let mut request = request.map(Full::new);
                *request.uri_mut() = origin_form(&uri);
                match attempt(sender.try_send_request(request).await, None).await {
                    Attempt::Unsent(mut back) => {
                        *back.uri_mut() = uri;
                        Attempt::Unsent(back)
                    }
                    other => other,
                }
            }
        }
    }
}

/// HTTP/1.1 requests to an origin server name path and query only (RFC 9112, section 3.2.1).
fn origin_form(uri: &Uri) -> Uri {
    uri.path_and_query().map_or_else(Uri::default, |path| Uri::from(path.clone()))
}

async fn attempt(
    sent: Result<Response<Incoming>, TrySendError<Request<Full<Bytes>>>>,
    stream: Option<Stream>,
) -> Attempt {
    match sent {
        Ok(response) => Attempt::Answered(response.map(|body| Counted { body, _stream: stream }.boxed())),
        Err(mut error) => match error.take_message() {
            Some(request) => {
                let (parts, body) = request.into_parts();
                let Ok(body) = body.collect().await;
                Attempt::Unsent(Box::new(Request::from_parts(parts, body.to_bytes())))
            }
            None => Attempt::Failed(error.into_error().into()),
        },
    }
}

/// Counts as one request of its connection for as long as it lives.
struct Stream(Arc<AtomicUsize>);

impl Stream {
    fn begin(streams: &Arc<AtomicUsize>) -> Self {
        streams.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(streams))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body that counts as a request of its connection until it is dropped.
struct Counted {
    body: Incoming,
    _stream: Option<Stream>,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx).map_err(BoxError::from)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
