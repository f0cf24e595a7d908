//! Connections: TLS, HTTP/1.1 and HTTP/2 on one port, authentication, shutdown.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use task::Tasks;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::authn;
use crate::pki::Credential;
use crate::respond;
use crate::server::{ApiServer, Body, BoxError, Caller};
use api::user::UserInfo;

/// A client that does not finish the handshake or its headers within this time is dropped.
const SLOW: Duration = Duration::from_secs(10);
/// How long requests in flight may go on when the server stops.
const DRAIN: Duration = Duration::from_secs(3);
/// How long to wait when no connection can be accepted, e.g. for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const HEADER_BYTES: u32 = 64 * 1024;
/// Upstream's limit of concurrent streams of one connection is 100 for strangers and 1000 for others.
const STREAMS: u32 = 250;

/// Why a TLS configuration cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsConfigError {
    /// The certificates are not what they should be.
    #[error("the {what} is no usable PEM text")]
    Pem { what: &'static str },
    /// Client certificates could not be verified.
    #[error("the authority of client certificates is unusable")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    /// TLS does not take the certificate or the key.
    #[error("the server's certificate is unusable")]
    Certificate(#[source] rustls::Error),
}

/// TLS with an optional client certificate of this authority (PEM), for HTTP/2 and HTTP/1.1.
///
/// # Errors
/// If the authority or the credential is unusable.
pub fn tls_config(authority: &str, credential: &Credential) -> Result<Arc<ServerConfig>, TlsConfigError> {
    let pem = |what| TlsConfigError::Pem { what };
    let root = CertificateDer::from_pem_slice(authority.as_bytes()).map_err(|_| pem("certificate authority"))?;
    let mut roots = RootCertStore::empty();
    roots.add(root).map_err(|_| pem("certificate authority"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(TlsConfigError::Verifier)?;
    let (certificate, key) = credential.to_der().ok_or(pem("server's credential"))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsConfigError::Certificate)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate], key)
        .map_err(TlsConfigError::Certificate)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

impl ApiServer {
    /// Accepts connections until the tasks are told to end; then watches end, and requests in flight have a moment.
    ///
    /// Run it as `tasks.spawn` of another group or by itself: a task of `tasks` would be cut off before it drains.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, tls: Arc<ServerConfig>, tasks: Tasks) {
        let (acceptor, graceful) = (TlsAcceptor::from(tls), GracefulShutdown::new());
        let connections = Tasks::new();
        loop {
            let accepted = tokio::select! {
                () = tasks.stopping() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (server, acceptor) = (Arc::clone(&self), acceptor.clone());
                    let watcher = graceful.watcher();
                    connections.spawn("api-connection", server.converse(acceptor, stream, watcher));
                }
                Err(error) => {
                    tracing::warn!(%error, "no connection could be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        self.closing.cancel();
        let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
        connections.shutdown().await;
    }

    async fn converse(
        self: Arc<Self>,
        acceptor: TlsAcceptor,
        stream: TcpStream,
        watcher: hyper_util::server::graceful::Watcher,
    ) {
        // Small answers must not wait for an acknowledgement of earlier ones.
        let _ = stream.set_nodelay(true);
        let stream = match tokio::time::timeout(SLOW, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%error, "TLS handshake failed");
                return;
            }
            Err(_) => return,
        };
        let user = peer(&stream);
        let server = Arc::clone(&self);
        let service = service_fn(move |request: Request<Incoming>| {
            let (server, user) = (Arc::clone(&server), user.clone());
            async move { Ok::<_, std::convert::Infallible>(server.authenticated(user.as_ref(), request).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(SLOW).max_headers(100);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(HEADER_BYTES)
            .max_concurrent_streams(STREAMS)
            .keep_alive_interval(Duration::from_secs(30));
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        if let Err(error) = watcher.watch(connection.into_owned()).await {
            tracing::debug!(error, "connection failed");
        }
    }

    /// Finds out who makes a request and answers it.
    pub(crate) async fn authenticated<B>(
        self: Arc<Self>,
        peer: Option<&UserInfo>,
        mut request: Request<B>,
    ) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let user = match self.authenticate(peer, request.headers()).await {
            Ok(user) => user,
            Err(error) => return respond::error(&error),
        };
        request.headers_mut().remove(AUTHORIZATION);
        match self.acting(user, request.headers_mut()).await {
            Ok(user) => self.handle(Caller { user }, request).await,
            Err(error) => respond::error(&error),
        }
    }
}

/// The user of the client certificate, if there is one.
fn peer(stream: &TlsStream<TcpStream>) -> Option<UserInfo> {
    let (_, session) = stream.get_ref();
    session.peer_certificates()?.first().and_then(authn::certificate_user)
}
