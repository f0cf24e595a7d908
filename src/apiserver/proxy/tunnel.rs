//! A change of protocol through this server: after 101 from the backend its connection and the client's are one.
//!
//! A task owns both, and ends with either of them or with the server; whoever is left sees the end of the stream.

use api::status::ApiError;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::exchange::{self, Backend, Wire, in_words};
use super::rewrite::{self, Passage};
use super::{Ask, Sent, outgoing};
use crate::Body;
use crate::call::Call;
use crate::fairness::Permit;
use crate::server::{ApiServer, BoxError};

/// Sends a request to change protocols, and if the backend does, joins the two connections.
pub(super) async fn open(
    call: Call,
    ask: Ask,
    backend: &Backend,
    passage: &Passage,
) -> Result<Response<Body>, ApiError> {
    let failed = |problem: String| ApiError::new(500, "", format!("error dialing backend: {problem}"));
    let Call { server, headers, upgrade: client, .. } = call;
    let host = super::host(&headers);
    let client = client.ok_or_else(|| ApiError::internal("the connection cannot change its protocol"))?;
    let (request, permit) = outgoing(headers, ask, passage)?;
    let stream = exchange::dial(backend).await.map_err(failed)?;
    let joined = join_or_refuse(&server, client, stream, request, permit).await?;
    match joined {
        Joined::Yes(response) => Ok(response),
        Joined::No(response) => rewrite::answer(response, passage, &backend.authority(), &host),
    }
}

/// The same on a connection that is there, for a backend that knows where it is.
pub(crate) async fn join_over(
    server: &ApiServer,
    client: OnUpgrade,
    stream: Box<dyn Wire>,
    request: Request<Sent>,
    permit: Permit,
) -> Result<Response<Body>, ApiError> {
    match join_or_refuse(server, client, stream, request, permit).await? {
        Joined::Yes(response) => Ok(response),
        Joined::No(mut response) => {
            rewrite::bare(response.headers_mut());
            Ok(response)
        }
    }
}

/// Whether a backend has changed its protocol.
enum Joined {
    Yes(Response<Body>),
    No(Response<Body>),
}

async fn join_or_refuse(
    server: &ApiServer,
    client: OnUpgrade,
    stream: Box<dyn Wire>,
    request: Request<Sent>,
    permit: Permit,
) -> Result<Joined, ApiError> {
    let broken = |error: hyper::Error| ApiError::new(500, "", in_words(&error));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // The connection lives in a task, because it goes on after this answer.
    let driven = Held::new(server.tunnels.spawn("proxied connection", connection.with_upgrades()));
    let mut response = sender.send_request(request).await.map_err(broken)?;
    match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => {}
        code if code.as_u16() < 400 => {
            return Err(ApiError::new(500, "", format!("invalid upgrade response: status code {}", code.as_u16())));
        }
        // The body ends the task, as does the client's leaving: both close the connection.
        _ => {
            let response = response.map(|body| driven.with(body.map_err(BoxError::from)));
            return Ok(Joined::No(permit.follow(response)));
        }
    }
    let upgraded = hyper::upgrade::on(&mut response);
    let closing = server.closing.clone();
    server.tunnels.spawn("proxied protocol", async move {
        let _held = (permit, driven);
        closing.run_until_cancelled(join(client, upgraded)).await;
    });
    Ok(Joined::Yes(response.map(|_| crate::respond::empty())))
}

/// Ends a task with its owner.
pub(super) struct Held<T>(tokio::task::JoinHandle<T>);

impl<T: Send + Sync + 'static> Held<T> {
    pub(super) fn new(task: tokio::task::JoinHandle<T>) -> Self {
        Self(task)
    }

    /// A body that is the owner.
    pub(super) fn with(
        self,
        body: impl http_body::Body<Data = Bytes, Error = BoxError> + Send + Sync + 'static,
    ) -> Body {
        body.map_frame(move |frame| {
            let _held = &self;
            frame
        })
        .boxed()
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Carries bytes both ways until one side ends.
pub(super) async fn join(client: OnUpgrade, backend: OnUpgrade) {
    let (client, backend) = match tokio::try_join!(client, backend) {
        Ok(both) => both,
        Err(error) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "a connection was not upgraded");
            return;
        }
    };
    let (mut from_client, mut to_client) = tokio::io::split(TokioIo::new(client));
    let (mut from_backend, mut to_backend) = tokio::io::split(TokioIo::new(backend));
    tokio::select! {
        _ = tokio::io::copy(&mut from_client, &mut to_backend) => {}
        _ = tokio::io::copy(&mut from_backend, &mut to_client) => {}
    }
}
