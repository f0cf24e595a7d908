//! The kubelet's API on a port of its own: TLS, who asks, whether he may, and then [`crate::serve`].
//!
//! After `pkg/kubelet/server/{server,auth}.go`: a client shows a certificate of the cluster's authority or a bearer token,
//! which the API server knows (TokenReview), and the API server says what he may do with this node
//! (SubjectAccessReview). Nobody is served without a name, health included. It deliberately remembers no answers of the
//! API server: whoever loses a right has lost it here at once. Invariants: nothing of a request is looked at by the API
//! itself before its sender may make it; a client that is slow, or opens connections without end, harms no other.

mod access;
mod attributes;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use api::user::UserInfo;
use bytes::{Bytes, BytesMut};
use client::Body;
use http::header::AUTHORIZATION;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use task::Tasks;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::serve::{self, Refusal, plain};
use crate::shared::Shared;

/// A client that does not finish the handshake or its headers within this time is dropped.
const SLOW: Duration = Duration::from_secs(10);
/// How long to wait when no connection can be accepted, e.g. for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections at once.
const CONNECTIONS: usize = 512;
/// Requests of one connection at once.
const STREAMS: u32 = 100;
const HEADERS: usize = 100;
const HEADER_BYTES: u16 = 32 * 1024;
/// What a request may carry; nothing here needs more.
const BODY_LIMIT: usize = 1 << 20;

/// How the API is served.
pub struct Door {
    /// With client certificates that are verified if they are shown.
    pub tls: Arc<ServerConfig>,
    /// The user of a verified certificate.
    pub identify: fn(&CertificateDer<'_>) -> Option<UserInfo>,
}

/// Accepts connections until the tasks end.
pub(crate) async fn listen(shared: Arc<Shared>, listener: TcpListener, door: Door) {
    let (acceptor, places) = (TlsAcceptor::from(door.tls), Arc::new(Semaphore::new(CONNECTIONS)));
    let tasks: Tasks = shared.seams.tasks.clone();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the kubelet's API could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Whoever comes too many is not kept waiting.
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let (shared, acceptor, identify) = (Arc::clone(&shared), acceptor.clone(), door.identify);
        tasks.spawn("kubelet connection", async move {
            converse(shared, acceptor, stream, identify).await;
            drop(place);
        });
    }
}

async fn converse(
    shared: Arc<Shared>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    identify: fn(&CertificateDer<'_>) -> Option<UserInfo>,
) {
    // Small answers must not wait for an acknowledgement of earlier ones.
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = tokio::time::timeout(SLOW, acceptor.accept(stream)).await else { return };
    let certificates = stream.get_ref().1.peer_certificates();
    let user = certificates.and_then(|certificates| identify(certificates.first()?));
    let service = service_fn(move |request: Request<Incoming>| {
        let (shared, user) = (Arc::clone(&shared), user.clone());
        async move {
            let answer = answer(&shared, user, request).await;
            Ok::<_, Infallible>(answer.unwrap_or_else(|Refusal(code, message)| plain(code, message)))
        }
    });
    let connection = bounds().serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
    if let Err(error) = connection.await {
        tracing::debug!(error, "a connection to the kubelet's API failed");
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
        .keep_alive_interval(Duration::from_secs(30));
    builder
}

/// Answers a request of somebody with (or without) a client certificate.
async fn answer(
    shared: &Arc<Shared>,
    certified: Option<UserInfo>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let user = match certified {
        Some(user) => user,
        None => access::authenticate(shared, request.headers().get(AUTHORIZATION)).await?,
    };
    let wish = attributes::of(request.method(), request.uri().path());
    access::authorize(shared, &user, &wish).await?;
    let (mut parts, body) = request.into_parts();
    parts.headers.remove(AUTHORIZATION);
    let body = whole(body).await?;
    Ok(serve::handle(shared, &Request::from_parts(parts, body)).await)
}

async fn whole(mut body: Incoming) -> Result<Bytes, Refusal> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Refusal(StatusCode::BAD_REQUEST, format!("{error}\n")))?;
        let Ok(data) = frame.into_data() else { continue };
        bytes.extend_from_slice(&data);
        if bytes.len() > BODY_LIMIT {
            return Err(Refusal(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large\n".to_owned()));
        }
    }
    Ok(bytes.freeze())
}

#[cfg(test)]
mod tests;
