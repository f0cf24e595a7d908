//! One request to one backend on a connection of its own.
//!
//! Nobody but the answer's body drives the connection: dropping it, as when the client has gone, closes the connection,
//! and no task is left behind. Errors are worded as Go words them, because users see them.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use task::{chain, errno_text};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Sent, tls};
use crate::Body;
use crate::server::BoxError;

/// How long a connection may take to come about; that of Go's default transport.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Backend {
    /// Whether TLS is spoken there.
    pub(super) tls: bool,
    pub(super) at: SocketAddr,
}

impl Backend {
    /// As it stands in addresses.
    pub(super) fn authority(&self) -> String {
        let is_usual = self.at.port() == if self.tls { 443 } else { 80 };
        match (is_usual, self.at) {
            (false, at) => at.to_string(),
            (true, SocketAddr::V4(at)) => at.ip().to_string(),
            (true, SocketAddr::V6(at)) => format!("[{}]", at.ip()),
        }
    }
}

/// A connection of either kind.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Opens a connection.
pub(super) async fn dial(backend: &Backend) -> Result<Box<dyn Wire>, String> {
    let dialled = async {
        let stream = TcpStream::connect(backend.at).await;
        let failed = |error: io::Error| format!("dial tcp {}: connect: {}", backend.at, errno_text(&error));
        let stream = stream.map_err(failed)?;
        // Small pieces must not wait for an acknowledgement of earlier ones.
        let _ = stream.set_nodelay(true);
        if !backend.tls {
            return Ok(Box::new(stream) as Box<dyn Wire>);
        }
        let secured = tls::secure(stream, backend.at.ip()).await.map_err(|error| tls_text(&error))?;
        Ok(Box::new(secured) as Box<dyn Wire>)
    };
    let late = |_| Err(format!("dial tcp {}: i/o timeout", backend.at));
    tokio::time::timeout(PATIENCE, dialled).await.unwrap_or_else(late)
}

/// Sends a request and returns when the head of the answer is there.
pub(super) async fn send(backend: &Backend, request: Request<Sent>) -> Result<Response<Body>, String> {
    send_over(dial(backend).await?, request).await
}

/// Opens a connection to somebody who proves to have a name.
pub(crate) async fn dial_secured(
    at: SocketAddr,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
) -> Result<Box<dyn Wire>, String> {
    let dialled = async {
        let stream = TcpStream::connect(at).await;
        let stream = stream.map_err(|error| format!("dial tcp {at}: connect: {}", errno_text(&error)))?;
        let _ = stream.set_nodelay(true);
        let secured = TlsConnector::from(tls).connect(name, stream).await;
        Ok(Box::new(secured.map_err(|error| tls_text(&error))?) as Box<dyn Wire>)
    };
    let late = |_| Err(format!("dial tcp {at}: i/o timeout"));
    tokio::time::timeout(PATIENCE, dialled).await.unwrap_or_else(late)
}

/// Sends a request on a connection that is its own, and returns when the head of the answer is there.
pub(crate) fn send_over(
    stream: Box<dyn Wire>,
    request: Request<Sent>,
) -> BoxFuture<'static, Result<Response<Body>, String>> {
    Box::pin(async move {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| in_words(&error))?;
        drive(Box::pin(sender.send_request(request)), Box::pin(connection)).await.map_err(|error| in_words(&error))
    })
}

/// Waits for the head of an answer; its body drives the connection on.
pub(super) async fn drive(
    sending: BoxFuture<'_, hyper::Result<Response<Incoming>>>,
    mut connection: BoxFuture<'static, hyper::Result<()>>,
) -> hyper::Result<Response<Body>> {
    let response = {
        let mut sending = sending;
        tokio::select! {
            response = &mut sending => response,
            _ = &mut connection => sending.await,
        }
    };
    Ok(response?.map(|body| Driven { connection: Mutex::new(Some(connection)), body }.boxed()))
}

/// A body and the connection that it comes by.
struct Driven {
    /// None once it has ended. A connection may be moved between threads but not shared; locking is never needed.
    connection: Mutex<Option<BoxFuture<'static, hyper::Result<()>>>>,
    body: Incoming,
}

impl http_body::Body for Driven {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let connection = this.connection.get_mut().unwrap_or_else(PoisonError::into_inner);
        if connection.as_mut().is_some_and(|connection| connection.as_mut().poll(context).is_ready()) {
            *connection = None;
        }
        Pin::new(&mut this.body).poll_frame(context).map_err(BoxError::from)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An error of an exchange in the words of Go's `net/http`.
pub(super) fn in_words(error: &hyper::Error) -> String {
    if error.is_incomplete_message() || error.is_canceled() { "EOF".to_owned() } else { chain(error) }
}

fn tls_text(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        // What a server of plain HTTP answers to a greeting is no record of TLS.
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)) => {
            "tls: failed to verify certificate: x509: certificate signed by unknown authority".to_owned()
        }
        Some(rustls::Error::InvalidMessage(_)) => "http: server gave HTTP response to HTTPS client".to_owned(),
        Some(inner) => format!("tls: {inner}"),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        None => errno_text(error),
    }
}
