//! Connections: TLS, HTTP/1.1 and HTTP/2 on one port, authentication, shutdown.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use rustls::server::{ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use task::Tasks;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::authn;
use crate::fairness::{Counted, Limits, Outside, Tally};
use crate::pki::Credential;
use crate::respond;
use crate::server::{ApiServer, Body, BoxError, Caller};
use api::status::ApiError;
use api::user::UserInfo;

/// A client that does not finish the handshake or its headers within this time is dropped.
const SLOW: Duration = Duration::from_secs(10);
/// How long requests in flight may go on when the server stops.
const DRAIN: Duration = Duration::from_secs(3);
/// How long to wait when no connection can be accepted, e.g. for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const HEADER_BYTES: u16 = 32 * 1024;
const HEADERS: usize = 100;
/// Streams that a client opened and reset before they were accepted (CVE-2023-44487).
const PENDING_RESETS: usize = 20;
/// Streams that a client made the server reset (CVE-2025-8671).
const PROVOKED_RESETS: usize = 256;
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

/// TLS with an optional client certificate of this authority (PEM), for HTTP/2 and HTTP/1.1. The authority's own
/// certificate is shown as well: who knows nothing of it but its fingerprint gets to know it by that.
///
/// # Errors
/// If the authority or the credential is unusable.
pub fn tls_config(authority: &str, credential: &Credential) -> Result<Arc<ServerConfig>, TlsConfigError> {
    let key = certified_key(authority, credential)?;
    tls_config_by(authority, Arc::new(SingleCertAndKey::from(key)))
}

/// The same with certificates that somebody else keeps fresh.
///
/// # Errors
/// If the authority is unusable.
pub fn tls_config_by(
    authority: &str,
    certificates: Arc<dyn ResolvesServerCert>,
) -> Result<Arc<ServerConfig>, TlsConfigError> {
    let pem = |what| TlsConfigError::Pem { what };
    let root = CertificateDer::from_pem_slice(authority.as_bytes()).map_err(|_| pem("certificate authority"))?;
    let mut roots = RootCertStore::empty();
    roots.add(root).map_err(|_| pem("certificate authority"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(TlsConfigError::Verifier)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsConfigError::Certificate)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// What a server shows: its certificate, then its authority's.
///
/// # Errors
/// If the authority or the credential is unusable.
pub fn certified_key(authority: &str, credential: &Credential) -> Result<CertifiedKey, TlsConfigError> {
    let pem = |what| TlsConfigError::Pem { what };
    let root = CertificateDer::from_pem_slice(authority.as_bytes()).map_err(|_| pem("certificate authority"))?;
    let (certificate, key) = credential.to_der().ok_or(pem("server's credential"))?;
    CertifiedKey::from_der(vec![certificate, root], key, &rustls::crypto::ring::default_provider())
        .map_err(TlsConfigError::Certificate)
}

impl ApiServer {
    /// Accepts connections until the tasks are told to end; then watches end, and requests in flight have a moment.
    ///
    /// Run it as `tasks.spawn` of another group or by itself: a task of `tasks` would be cut off before it drains.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, tls: Arc<ServerConfig>, tasks: Tasks) {
        let (acceptor, graceful) = (TlsAcceptor::from(tls), GracefulShutdown::new());
        let (connections, callers) = (Tasks::new(), Callers::default());
        loop {
            let accepted = tokio::select! {
                () = tasks.stopping() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    let address = address.ip().to_canonical();
                    let Some(counted) = callers.count(address, self.limits) else { continue };
                    let (server, acceptor, watcher) = (Arc::clone(&self), acceptor.clone(), graceful.watcher());
                    connections.spawn("api-connection", async move {
                        server.converse(acceptor, stream, address, watcher).await;
                        drop(counted);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "no connection could be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        self.closing.cancel();
        self.tunnels.stop();
        let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
        connections.shutdown().await;
    }

    async fn converse(
        self: Arc<Self>,
        acceptor: TlsAcceptor,
        stream: TcpStream,
        address: IpAddr,
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
        let (server, asked) = (Arc::clone(&self), Arc::new(AtomicBool::new(false)));
        let has_asked = Arc::clone(&asked);
        let service = service_fn(move |mut request: Request<Incoming>| {
            let (server, user) = (Arc::clone(&server), user.clone());
            has_asked.store(true, Ordering::Relaxed);
            request.extensions_mut().insert(Outside(address));
            async move { Ok::<_, std::convert::Infallible>(server.authenticated(user.as_ref(), request).await) }
        });
        let connection = bounds().serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let mut connection = Box::pin(watcher.watch(connection));
        let ended = match tokio::time::timeout(SLOW, &mut connection).await {
            Ok(ended) => ended,
            Err(_) if asked.load(Ordering::Relaxed) => connection.await,
            // Neither the preface of HTTP/2 nor its first request has a time limit of its own.
            Err(_) => return,
        };
        if let Err(error) = ended {
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
        if request.headers().len() > HEADERS {
            return respond::error(&ApiError::new(431, "", "the request has too many header fields"));
        }
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

/// What one connection may do.
fn bounds() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(SLOW)
        .max_headers(HEADERS)
        .max_buf_size(HEADER_BYTES.into());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEADER_BYTES.into())
        .max_concurrent_streams(STREAMS)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(PROVOKED_RESETS)
        .keep_alive_interval(Duration::from_secs(30));
    builder
}

/// Who is connected.
#[derive(Default)]
struct Callers {
    addresses: Arc<Tally<IpAddr>>,
    from_afar: Arc<Tally<()>>,
}

impl Callers {
    /// Counts a connection as long as the answer is held; none if there are too many.
    fn count(&self, address: IpAddr, limits: Limits) -> Option<(Counted<IpAddr>, Option<Counted<()>>)> {
        let counted = self.addresses.count(subnet(address), limits.connections_of_address)?;
        let from_afar = match address.is_loopback() {
            true => None,
            false => Some(self.from_afar.count((), limits.connections_from_afar)?),
        };
        Some((counted, from_afar))
    }
}

/// The address, or the network in which its owner can choose addresses freely.
fn subnet(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) if !address.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
        other => other,
    }
}

/// The user of the client certificate, if there is one.
fn peer(stream: &TlsStream<TcpStream>) -> Option<UserInfo> {
    let (_, session) = stream.get_ref();
    session.peer_certificates()?.first().and_then(authn::certificate_user)
}
