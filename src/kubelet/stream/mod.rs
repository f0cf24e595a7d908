//! Commands that a client talks with: `exec` of the kubelet's API.
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
use k8s_openapi::api::core::v1::ContainerStatus;
use runtime::{ContainerId, SandboxId, SessionSpec, Size, Wanted};
use tokio::sync::{mpsc, oneshot};

use crate::serve::Refusal;
use crate::shared::Shared;

/// Pieces that wait in either direction.
const BACKLOG: usize = 4;

/// How long the client may take to take note of the switch.
const PATIENCE: Duration = Duration::from_secs(30);

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
    (namespace, pod, container): (&str, &str, &str),
) -> Result<Response<Body>, Refusal> {
    let (args, streams) = asked(request.uri().query().unwrap_or_default())?;
    let (sandbox, id) = running(shared, namespace, pod, container).await?;
    let upgrade = request.extensions().get::<OnUpgrade>().cloned();
    let upgrade = upgrade.ok_or_else(|| bad_request("the connection cannot be upgraded"))?;
    let (wire, response) = negotiate(request.headers())?;
    let runtime = Arc::clone(&shared.seams.runtime);
    shared.seams.tasks.spawn("exec", async move {
        let Some(connection) = switched(upgrade).await else { return };
        let (input, from_client) = mpsc::channel(BACKLOG);
        let (to_client, output) = mpsc::channel(BACKLOG);
        let (ready, is_ready) = oneshot::channel();
        let line = Line { input, output, ready };
        let command = args.clone();
        let talking = async move {
            if is_ready.await.is_ok() {
                let opened = runtime.open_session(&sandbox, &id, SessionSpec { args, streams }).await;
                talk::talk(opened, &command, from_client, to_client).await;
            }
        };
        match wire {
            Wire::WebSocket(dialect) => tokio::join!(websocket::carry(connection, dialect, line), talking),
            Wire::Spdy(dialect) => tokio::join!(spdy::carry(connection, (dialect, streams), line), talking),
        };
    });
    Ok(response)
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
        let (dialect, fields) = websocket::shake_hands(headers)?;
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

/// Command and streams, as the parameters of the kubelet's API say (`remotecommand.NewOptions`).
fn asked(query: &str) -> Result<(Vec<String>, Wanted), Refusal> {
    let pairs = crate::logs::pairs(query);
    let flag = |name: &str| pairs.iter().any(|(key, value)| key == name && value == "1");
    let args: Vec<String> = pairs.iter().filter(|(key, _)| key == "command").map(|(_, value)| value.clone()).collect();
    let (stdin, stdout, stderr, tty) = (flag("input"), flag("output"), flag("error"), flag("tty"));
    if !stdin && !stdout && (!stderr || tty) {
        return Err(bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    if args.is_empty() {
        return Err(bad_request("you must specify at least 1 command"));
    }
    let streams = if tty { Wanted::Terminal { stdin } } else { Wanted::Pipes { stdin, stdout, stderr } };
    Ok((args, streams))
}

/// The running container of that name.
async fn running(
    shared: &Shared,
    namespace: &str,
    pod: &str,
    container: &str,
) -> Result<(SandboxId, ContainerId), Refusal> {
    let entry = shared.pod(namespace, pod);
    let entry = entry.ok_or_else(|| Refusal(StatusCode::NOT_FOUND, "pod does not exist\n".to_owned()))?;
    let lists = [
        &entry.status.container_statuses,
        &entry.status.init_container_statuses,
        &entry.status.ephemeral_container_statuses,
    ];
    let mut statuses = lists.into_iter().flatten().flatten();
    let status: Option<&ContainerStatus> = statuses.find(|status| status.name == container);
    let id = status.and_then(|status| status.container_id.as_deref()).and_then(|id| id.rsplit_once("://"));
    let missing = || {
        let message = format!("container not found ({container:?})\n");
        Refusal(StatusCode::INTERNAL_SERVER_ERROR, message)
    };
    let id = ContainerId(id.ok_or_else(missing)?.1.to_owned());
    let uid = entry.pod.metadata.uid.as_deref().unwrap_or_default();
    let sandboxes = shared.seams.runtime.list().await;
    let sandboxes = sandboxes
        .map_err(|error| Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", crate::shared::chain(&error))))?;
    let own = sandboxes.into_iter().filter(|sandbox| sandbox.spec.pod_uid == uid);
    let runs =
        |one: &runtime::ContainerStatus| one.id == id && matches!(one.state, runtime::ContainerState::Running { .. });
    let found = own.into_iter().find(|sandbox| sandbox.containers.iter().any(runs)).ok_or_else(missing)?;
    Ok((found.spec.id, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_read_from_the_parameters() {
        let (args, streams) = asked("command=sh&command=-c&command=a+%26%20b&input=1&output=1&tty=1").unwrap();
        assert_eq!((args.join("|").as_str(), streams), ("sh|-c|a & b", Wanted::Terminal { stdin: true }));
        let (_, streams) = asked("command=true&output=1&error=1").unwrap();
        assert_eq!(streams, Wanted::Pipes { stdin: false, stdout: true, stderr: true });
    }

    #[test]
    fn nothing_to_run_or_nobody_to_talk_with_is_refused() {
        for query in ["output=1", "command=true", "command=true&tty=1&error=1"] {
            assert_eq!(asked(query).unwrap_err().0, StatusCode::BAD_REQUEST, "{query}");
        }
    }
}
