//! Connections that change their protocol: `exec`, `attach` and `portForward` of the kubelet's API.
//!
//! A request is answered by switching protocols; then one task has the connection, the command and everything between
//! them. Invariants: nothing is run before the connection has been switched; a client that is gone takes its command with
//! it; a client that does not read stops its own command, nobody else.
//!
//! ```text
//! client ◄──frames──► wire (websocket, spdy) ──Input──► talk ──► runtime's session
//!                                            ◄─Output──
//! ```
//!
//! Paths, parameters and wording follow `pkg/kubelet/server` and `k8s.io/kubelet/pkg/cri/streaming` upstream.

mod asked;
mod attach;
mod forward;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod spdy;
mod status;
mod talk;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::Body;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use runtime::{ContainerId, SandboxId, SessionSpec, Size, Wanted};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

pub(crate) use asked::Named;
use asked::Running;
pub(crate) use attach::attach;
pub(crate) use forward::port_forward;

use crate::serve::Refusal;
use crate::shared::Shared;

/// Pieces that wait in either direction.
const BACKLOG: usize = 2;

/// How long the client may take to take note of the switch.
const PATIENCE: Duration = Duration::from_secs(30);

/// The most sessions at a time.
pub(crate) const SESSIONS: usize = 512;

/// What the client says.
#[derive(Debug, PartialEq, Eq)]
enum Input {
    Stdin(Bytes),
    EndOfStdin,
    Resize(Size),
}

/// What the client is told.
#[derive(Debug, PartialEq, Eq)]
enum Output {
    Stdout(Bytes),
    Stderr(Bytes),
    /// How it ended, as `Status`; the last of all.
    Status(serde_json::Value),
}

/// The two ends of what passes between a wire and a command. Each end is closed by dropping it.
struct Line {
    input: mpsc::Sender<Input>,
    output: mpsc::Receiver<Output>,
    /// Told once the client is there with all it needs; dropped if it does not come so far.
    ready: oneshot::Sender<()>,
}

/// Runs a command in a container.
pub(crate) async fn exec(
    shared: &Arc<Shared>,
    request: &Request<Bytes>,
    named: Named<'_>,
) -> Result<Response<Body>, Refusal> {
    let query = request.uri().query().unwrap_or_default();
    let (args, streams) = (asked::command(query)?, asked::streams(query)?);
    let entry = asked::pod(shared, named)?;
    let Running { sandbox, id, .. } = asked::running(shared, &entry, named.container).await?;
    let runtime = Arc::clone(&shared.seams.runtime);
    converse(shared, request, ("exec", streams), move |from_client, to_client| async move {
        let opened = runtime.open_session(&sandbox, &id, SessionSpec { args: args.clone(), streams }).await;
        talk::talk(opened, &args, from_client, to_client).await;
    })
}

/// The running container that is meant.
pub(crate) async fn running(shared: &Shared, named: Named<'_>) -> Result<(SandboxId, ContainerId), Refusal> {
    let entry = asked::pod(shared, named)?;
    let Running { sandbox, id, .. } = asked::running(shared, &entry, named.container).await?;
    Ok((sandbox, id))
}

/// Switches the connection's protocol and has `talk` talk over it once the client is there with all it needs.
fn converse<F: Future<Output = ()> + Send>(
    shared: &Arc<Shared>,
    request: &Request<Bytes>,
    (name, streams): (&'static str, Wanted),
    talk: impl FnOnce(mpsc::Receiver<Input>, mpsc::Sender<Output>) -> F + Send + 'static,
) -> Result<Response<Body>, Refusal> {
    let upgrade = request.extensions().get::<OnUpgrade>().cloned();
    let upgrade = upgrade.ok_or_else(|| bad_request("the connection cannot be upgraded"))?;
    let (wire, response) = negotiate(request.headers())?;
    let held = can_upgrade(shared)?;
    shared.seams.tasks.spawn(name, async move {
        let _held = held;
        let Some(connection) = switched(upgrade).await else { return };
        let (input, from_client) = mpsc::channel(BACKLOG);
        let (to_client, output) = mpsc::channel(BACKLOG);
        let (ready, is_ready) = oneshot::channel();
        let line = Line { input, output, ready };
        let talking = async move {
            if is_ready.await.is_ok() {
                talk(from_client, to_client).await;
            }
        };
        match wire {
            Wire::WebSocket(dialect) => tokio::join!(websocket::carry(connection, dialect, line), talking),
            Wire::Spdy(dialect) => tokio::join!(spdy::carry(connection, (dialect, streams), line), talking),
        };
    });
    Ok(response)
}

/// Takes one of the places that sessions have on this node.
fn can_upgrade(shared: &Shared) -> Result<OwnedSemaphorePermit, Refusal> {
    Arc::clone(&shared.sessions).try_acquire_owned().map_err(|_| {
        let message =
            format!("this node has {SESSIONS} sessions of exec, attach and port-forward, and takes no more\n");
        Refusal(StatusCode::TOO_MANY_REQUESTS, message)
    })
}

/// How frames look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    WebSocket(websocket::Dialect),
    Spdy(spdy::Dialect),
}

/// Agrees on a protocol, or says why not.
fn negotiate(headers: &HeaderMap) -> Result<(Wire, Response<Body>), Refusal> {
    let upgrade = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if upgrade.eq_ignore_ascii_case("websocket") {
        let (dialect, fields) = websocket::shake_hands(headers, &websocket::DIALECTS, websocket::USUAL)?;
        return Ok((Wire::WebSocket(dialect), switching("websocket", fields)));
    }
    if upgrade.eq_ignore_ascii_case("SPDY/3.1") {
        let (dialect, fields) = spdy::shake_hands(headers)?;
        return Ok((Wire::Spdy(dialect), switching("SPDY/3.1", fields)));
    }
    Err(bad_request(&format!("unable to upgrade: missing upgrade headers in request: {upgrade:?}")))
}

/// The answer after which the connection speaks another protocol.
fn switching(protocol: &'static str, fields: HeaderMap) -> Response<Body> {
    let mut response = Response::new(crate::serve::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = fields;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(protocol));
    response
}

async fn switched(upgrade: OnUpgrade) -> Option<TokioIo<Upgraded>> {
    match tokio::time::timeout(PATIENCE, upgrade).await {
        Ok(Ok(connection)) => Some(TokioIo::new(connection)),
        Ok(Err(error)) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "a connection was not upgraded");
            None
        }
        Err(_) => None,
    }
}

fn bad_request(message: &str) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, format!("{message}\n"))
}
