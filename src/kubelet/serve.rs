//! The kubelet's API: logs, commands, pods, figures, health.
//!
//! Called in process by the API server, and by [`crate::server`], whose business authentication and authorization are.
//! Paths and wording follow `pkg/kubelet/server` upstream.

mod run;
mod storage;
mod system;
mod told;

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use client::{Body, BoxError};
use http::{Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use k8s_openapi::List;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use runtime::{ContainerId, RuntimeError};
use task::chain;
use tokio::sync::mpsc;

use crate::logs::{self, Ending, Query};
use crate::metrics;
use crate::pod::{PodDirs, parts};
use crate::shared::{Entry, Shared};
use crate::stream::{self, Named};

/// Pieces of a log that wait for a slow client.
const BACKLOG: usize = 4;

/// A refusal, in plain text as upstream.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) StatusCode, pub(crate) String);

/// Answers a request.
pub(crate) async fn handle(shared: &Arc<Shared>, request: &Request<Bytes>) -> Response<Body> {
    let path = request.uri().path();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    if !takes(parts[0], request.method()) {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed\n".to_owned());
    }
    match parts.as_slice() {
        ["attach" | "exec" | "portForward", named @ ..] => {
            let answer = session(shared, request, parts[0], named).await;
            answer.unwrap_or_else(|Refusal(code, message)| plain(code, message))
        }
        ["healthz"] => told::health(shared, None).await,
        ["healthz", part] => told::health(shared, Some(part)).await,
        ["configz"] => told::settings(shared),
        ["runningpods"] => told::running(shared).await,
        ["run", named @ ..] => {
            let answer = run_named(shared, named, request.uri().query().unwrap_or_default()).await;
            answer.unwrap_or_else(|Refusal(code, message)| plain(code, message))
        }
        // What upstream says where the runtime has no such call.
        ["checkpoint", namespace, pod, container] => {
            let text = format!("checkpointing of {namespace}/{pod}/{container} failed (this runtime does not do it)\n");
            plain(StatusCode::NOT_FOUND, text)
        }
        ["logs", ..] => system::logs(shared, path).await,
        ["storage", name] => storage::answer(shared, request.method(), name).await,
        ["pods"] => pods(shared),
        ["stats", "summary"] => measured("application/json", metrics::summary(shared).await),
        ["metrics"] => measured(metrics::TEXT, Ok(metrics::own(shared).await)),
        ["metrics", "resource"] => measured(metrics::TEXT, metrics::resource(shared).await),
        ["metrics", "cadvisor"] => measured(metrics::TEXT, metrics::cadvisor(shared).await),
        ["metrics", "probes"] => measured(metrics::TEXT, Ok(metrics::probes(shared))),
        ["containerLogs", namespace, pod, container] => {
            let query = request.uri().query().unwrap_or_default();
            let answer = container_logs(shared, (namespace, pod, container), query).await;
            answer.unwrap_or_else(|Refusal(code, message)| plain(code, message))
        }
        _ => plain(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
    }
}

/// Whether a path has such a method.
fn takes(first: &str, method: &Method) -> bool {
    match first {
        "attach" | "exec" | "portForward" => matches!(*method, Method::GET | Method::POST),
        "run" | "checkpoint" => method == Method::POST,
        "storage" => matches!(*method, Method::PUT | Method::DELETE),
        _ => matches!(*method, Method::GET | Method::HEAD),
    }
}

/// A pod's UID may follow its name.
async fn run_named(shared: &Arc<Shared>, named: &[&str], query: &str) -> Result<Response<Body>, Refusal> {
    let named = match named {
        [namespace, pod, container] => Named { namespace, pod, uid: None, container },
        [namespace, pod, uid, container] => Named { namespace, pod, uid: Some(uid), container },
        _ => return Err(Refusal(StatusCode::NOT_FOUND, "404 page not found\n".to_owned())),
    };
    run::run(shared, named, query).await
}

/// Something for which the connection changes its protocol. A pod's UID may follow its name.
async fn session(
    shared: &Arc<Shared>,
    request: &Request<Bytes>,
    what: &str,
    named: &[&str],
) -> Result<Response<Body>, Refusal> {
    let named = match (what, named) {
        ("portForward", [namespace, pod]) => Named { namespace, pod, uid: None, container: "" },
        ("portForward", [namespace, pod, uid]) => Named { namespace, pod, uid: Some(uid), container: "" },
        ("attach" | "exec", [namespace, pod, container]) => Named { namespace, pod, uid: None, container },
        ("attach" | "exec", [namespace, pod, uid, container]) => Named { namespace, pod, uid: Some(uid), container },
        _ => return Err(Refusal(StatusCode::NOT_FOUND, "404 page not found\n".to_owned())),
    };
    match what {
        "portForward" => stream::port_forward(shared, request, named).await,
        "attach" => stream::attach(shared, request, named).await,
        _ => stream::exec(shared, request, named).await,
    }
}

pub(crate) fn plain(code: StatusCode, text: String) -> Response<Body> {
    respond(code, "text/plain; charset=utf-8", full(text.into()))
}

/// The body of an answer that has none.
pub(crate) fn empty() -> Body {
    full(Bytes::new())
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed()
}

fn respond(code: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}

fn pods(shared: &Shared) -> Response<Body> {
    let items = shared.pods().into_iter().map(|Entry { pod, status, .. }| {
        let mut pod: Pod = (*pod).clone();
        pod.status = Some(status);
        pod
    });
    json_text(&List::<Pod> { items: items.collect(), ..List::default() })
}

fn json_text(document: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_vec(document) {
        Ok(text) => respond(StatusCode::OK, "application/json", full(text.into())),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, chain(&error)),
    }
}

fn measured(content_type: &'static str, text: Result<String, RuntimeError>) -> Response<Body> {
    match text {
        Ok(text) => respond(StatusCode::OK, content_type, full(text.into())),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", chain(&error))),
    }
}

async fn container_logs(
    shared: &Arc<Shared>,
    (namespace, name, container): (&str, &str, &str),
    query: &str,
) -> Result<Response<Body>, Refusal> {
    let query = Query::parse(query, shared.now()).map_err(|error| Refusal(StatusCode::BAD_REQUEST, chain(&error)))?;
    let not_found = |message| Refusal(StatusCode::NOT_FOUND, message);
    let entry = shared.pod(namespace, name).ok_or_else(|| not_found(format!("pod {name:?} does not exist\n")))?;
    if !has_container(&entry.pod, container) {
        return Err(not_found(format!("container {container:?} not found in pod {name:?}\n")));
    }
    let attempt = attempt(&entry, name, container, query.previous)
        .map_err(|message| Refusal(StatusCode::BAD_REQUEST, message))?;
    let log = log_path(shared, &entry.pod, container, attempt.number);
    let looked_for = log.clone();
    if matches!(task::blocking(move || logs::is_missing(&looked_for)).await, Ok(true)) {
        let path = log.display();
        let message =
            format!("failed to try resolving symlinks in path \"{path}\": lstat {path}: no such file or directory\n");
        return Err(Refusal(StatusCode::BAD_REQUEST, message));
    }
    let ending = match attempt.running {
        Some(id) if query.follow => ending(shared, &entry.pod, id).await,
        _ => None,
    };
    let (sender, receiver) = mpsc::channel(BACKLOG);
    shared.seams.tasks.spawn("container log", logs::stream(log, query, ending, sender));
    Ok(respond(StatusCode::OK, "text/plain; charset=utf-8", stream_body(receiver)))
}

fn has_container(pod: &Pod, name: &str) -> bool {
    parts::container(pod, name).is_some()
}

fn stream_body(receiver: mpsc::Receiver<io::Result<Bytes>>) -> Body {
    BodyExt::boxed(Pieces(receiver))
}

/// A body of what a channel yields.
struct Pieces(mpsc::Receiver<io::Result<Bytes>>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data).map_err(BoxError::from)))
    }
}

fn log_path(shared: &Shared, pod: &Pod, container: &str, attempt: u32) -> PathBuf {
    PodDirs::of(pod, &shared.config).log(container, attempt)
}

/// Which life of a container is asked for.
struct Attempt {
    number: u32,
    /// The container, if that life goes on.
    running: Option<ContainerId>,
}

/// After `kubelet.validateContainerLogStatus` upstream. The attempts count up, so that the file follows from the status.
fn attempt(entry: &Entry, pod: &str, container: &str, previous: bool) -> Result<Attempt, String> {
    let waits = |reason: &str| format!("container {container:?} in pod {pod:?} is waiting to start: {reason}");
    let PodStatus { container_statuses, init_container_statuses, ephemeral_container_statuses, .. } = &entry.status;
    let statuses = [container_statuses, init_container_statuses, ephemeral_container_statuses];
    let mut statuses = statuses.into_iter().flatten().flatten();
    let status: &ContainerStatus = statuses
        .find(|status| status.name == container)
        .ok_or_else(|| format!("container {container:?} in pod {pod:?} is not available"))?;
    let state = status.state.clone().unwrap_or_default();
    let last = status.last_state.as_ref().and_then(|last| last.terminated.as_ref());
    let last = last.filter(|last| last.container_id.is_some());
    let current = u32::try_from(status.restart_count).unwrap_or(0);
    // One whose hook has not ended is shown as waiting, though it has a log.
    let hooking = state.waiting.is_some()
        && status.container_id.is_some()
        && last.is_none_or(|last| last.container_id != status.container_id);
    let before = if state.waiting.is_some() && !hooking { current } else { current.saturating_sub(1) };
    if previous {
        let none = format!("previous terminated container {container:?} in pod {pod:?} not found");
        return last.map(|_| Attempt { number: before, running: None }).ok_or(none);
    }
    if state.running.is_some() || hooking {
        let id = status.container_id.as_deref().and_then(|id| id.rsplit_once("://"));
        return Ok(Attempt { number: current, running: id.map(|(_, id)| ContainerId(id.to_owned())) });
    }
    if let Some(ended) = &state.terminated {
        return match (ended.container_id.is_some(), last) {
            (true, _) => Ok(Attempt { number: current, running: None }),
            (false, Some(_)) => Ok(Attempt { number: before, running: None }),
            (false, None) => Err(format!("container {container:?} in pod {pod:?} is terminated")),
        };
    }
    if last.is_some() {
        return Ok(Attempt { number: before, running: None });
    }
    match state.waiting.and_then(|waiting| waiting.reason).as_deref() {
        Some("ErrImagePull") => Err(waits("image can't be pulled")),
        Some("ImagePullBackOff") => Err(waits("trying and failing to pull image")),
        Some(reason) => Err(waits(reason)),
        None => Err(format!("container {container:?} in pod {pod:?} is waiting to start - no logs yet")),
    }
}

/// How to learn of the end of a running container; none if it has ended meanwhile.
async fn ending(shared: &Shared, pod: &Pod, container: ContainerId) -> Option<Ending> {
    let runtime = Arc::clone(&shared.seams.runtime);
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let sandboxes = runtime.list().await.ok()?;
    let own = sandboxes.into_iter().filter(|sandbox| sandbox.spec.pod_uid == uid);
    let sandbox = own.into_iter().find(|sandbox| sandbox.containers.iter().any(|one| one.id == container))?;
    Some(Ending { runtime, sandbox: sandbox.spec.id, container, directories: shared.directories.clone() })
}
