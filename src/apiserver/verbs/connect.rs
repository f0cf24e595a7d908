//! `GET` and `POST` of `pods/x/exec`, `attach` and `portforward`: the client's connection is handed to the node's kubelet, which speaks with the client
//! itself (`pkg/registry/core/pod/rest/subresources.go`, `strategy.go`).
//!
//! Who may `get` the subresource and has no right to `create` it must not run anything: reading rights would be enough for
//! a WebSocket otherwise (`AuthorizePodWebsocketUpgradeCreatePermission` upstream).

use api::status::ApiError;
use bytes::Bytes;
use http::{Request, Response, header};
use serde_json::{Value, json};

use super::log::container;
use crate::admission::{self, Subject};
use crate::body::Kind;
use crate::call::Call;
use crate::object::meta;
use crate::query::encode;
use crate::request::RequestInfo;
use crate::{Body, authz};

/// Parameters of a command, and what the kubelet calls them.
const FLAGS: [(&str, &str); 4] = [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")];

/// Fields that belong to the change of protocol.
const HANDED_ON: [header::HeaderName; 5] = [
    header::CONNECTION,
    header::UPGRADE,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_PROTOCOL,
];

/// By which clients of SPDY say what they speak on top of it.
const STREAM_PROTOCOL: &str = "x-stream-protocol-version";

pub(super) async fn connect(call: &Call) -> Result<Response<Body>, ApiError> {
    may_create(call).await?;
    let (subject, mut options) = options(call);
    admission::beside(call, subject, &mut options, false).await?;
    let (pod, _) = call.server.read(&call.row, call.namespace(), call.name()).await?;
    let path = match call.request.subresource.as_str() {
        "portforward" => ports_path(call),
        part => {
            let container = container(&pod, call.query.get("container").filter(|name| !name.is_empty()))?;
            container_path(call, part, container)
        }
    };
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if node.is_empty() {
        return Err(ApiError::bad_request(format!("pod {} does not have a host assigned", meta(&pod, "name"))));
    }
    let upgrade = call.upgrade.clone().filter(|_| asks_for_upgrade(call));
    let upgrade = upgrade.ok_or_else(|| ApiError::bad_request("Upgrade request required"))?;
    let mut request = Request::builder().method(method(call)).uri(path);
    for name in HANDED_ON.iter().map(header::HeaderName::as_str).chain([STREAM_PROTOCOL]) {
        for value in call.headers.get_all(name) {
            request = request.header(name, value);
        }
    }
    let request = request.extension(upgrade).body(Bytes::new());
    let request = request.map_err(|error| ApiError::internal(format!("cannot ask the kubelet: {error}")))?;
    // What is no change of protocol is the kubelet's refusal, which clients show as it is.
    call.server.config.nodes.send(node, request).await.map_err(|error| {
        tracing::debug!(node, error = &error as &dyn std::error::Error, "a kubelet is unreachable");
        let cause = &error.source;
        ApiError::internal(format!("{error}: {cause}"))
    })
}

/// What the connection is to be for, as an object that others are asked about. What they change of it is not heeded.
fn options(call: &Call) -> (Subject, Value) {
    let kind = match call.request.subresource.as_str() {
        "exec" => "PodExecOptions",
        "attach" => "PodAttachOptions",
        _ => "PodPortForwardOptions",
    };
    let mut options = json!({ "kind": kind, "apiVersion": "v1" });
    if kind == "PodPortForwardOptions" {
        let ports =
            call.query.all("ports").flat_map(|list| list.split(',')).filter_map(|port| port.parse::<u16>().ok());
        options["ports"] = json!(ports.collect::<Vec<_>>());
    } else {
        for (flag, _) in FLAGS.into_iter().filter(|(flag, _)| call.query.flag(flag)) {
            options[flag] = json!(true);
        }
        if let Some(container) = call.query.get("container").filter(|name| !name.is_empty()) {
            options["container"] = json!(container);
        }
    }
    if kind == "PodExecOptions" {
        options["command"] = json!(call.query.all("command").collect::<Vec<_>>());
    }
    (Subject { operation: "CONNECT", kind: Kind { group: "", version: "v1", kind, custom: None } }, options)
}

async fn may_create(call: &Call) -> Result<(), ApiError> {
    let mut request = call.request.clone();
    "create".clone_into(&mut request.verb);
    let info = RequestInfo::Resource(request);
    let access = call.server.access(&call.user, &info, &call.query).await?;
    if access.allowed { Ok(()) } else { Err(authz::forbidden(&call.user, &info, &access.reason)) }
}

fn method(call: &Call) -> http::Method {
    if call.request.verb == "get" { http::Method::GET } else { http::Method::POST }
}

fn asks_for_upgrade(call: &Call) -> bool {
    let values = call.headers.get_all(header::CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    let mut tokens = values.flat_map(|value| value.split(','));
    call.headers.contains_key(header::UPGRADE) && tokens.any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}

/// A command's, or that of the container's own.
fn container_path(call: &Call, part: &str, container: &str) -> String {
    let mut path = format!("/{part}/{}/{}/{}?", encode(call.namespace()), encode(call.name()), encode(container));
    for (flag, name) in FLAGS {
        if call.query.flag(flag) {
            path.push_str(&format!("{name}=1&"));
        }
    }
    if part == "exec" {
        let commands: Vec<String> = call.query.all("command").map(|word| format!("command={}", encode(word))).collect();
        path.push_str(&commands.join("&"));
    }
    path
}

/// Ports that are not named here are named in the connection.
fn ports_path(call: &Call) -> String {
    let path = format!("/portForward/{}/{}", encode(call.namespace()), encode(call.name()));
    let ports: Vec<&str> = call.query.all("ports").collect();
    if ports.is_empty() { path } else { format!("{path}?port={}", encode(&ports.join(","))) }
}
