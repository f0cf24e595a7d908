//! `proxy` of pods, services and nodes: a request of any method goes on to whoever serves there, and the answer comes back.
//!
//! After `pkg/registry/core/{pod,service,node}` and `k8s.io/apimachinery/pkg/util/proxy` upstream. It deliberately keeps
//! no connections: each request has one of its own, which lives as long as its answer. Invariants: a client's credentials
//! for this server go no further; nothing is reached but what an object names, and never an address that means the host
//! itself or its link; bodies pass piece by piece, whoever does not read slows only himself.
//!
//! ```text
//! request ─► locate ─► Place ─┬─ kubelet ────► NodeConnector ─┐
//!            (objects)        └─ dial, TLS ──► exchange ──────┴─► rewrite: Location, links of HTML ─► answer
//!                                                 └─ 101 ─► tunnel, until either side ends
//! ```

mod address;
mod exchange;
mod html;
mod kubelets;
mod locate;
mod rewrite;
mod tls;
mod tunnel;

use std::net::IpAddr;
use std::sync::Arc;

use api::status::ApiError;
use api::user::UserInfo;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::{HeaderValue, LOCATION};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use serde_json::{Value, json};

use crate::admission::{self, Subject};
use crate::body::Kind;
use crate::call::Call;
use crate::fairness::Permit;
use crate::query::Query;
use crate::request::{RequestInfo, ResourceRequest};
use crate::server::{ApiServer, Body, BoxError};
use crate::{authz, body, respond};
pub(crate) use exchange::{Wire, dial_secured, send_over};
pub use kubelets::Kubelets;
use locate::Place;
pub(crate) use locate::{behind, endpoints_behind};
use rewrite::Passage;
pub(crate) use rewrite::{asks_for_upgrade, bare, prepare};
pub(crate) use tls::anyone;
pub(crate) use tunnel::join_over;

/// The body of a request on its way through.
pub(crate) type Sent = UnsyncBoxBody<Bytes, BoxError>;

/// What of a request is passed on beside its headers.
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) body: Sent,
    /// Where the client is, if not in this process.
    pub(crate) client: Option<IpAddr>,
    /// Held as long as the answer takes.
    pub(crate) permit: Permit,
}

/// Whether a verb can be sent through: all of upstream's `ConnectMethods`, by the words of authorization.
pub(crate) fn takes(verb: &str) -> bool {
    matches!(verb, "get" | "create" | "update" | "patch" | "delete" | "options")
}

/// Passes a request on and its answer back.
pub(crate) fn answer(call: Call, ask: Ask) -> BoxFuture<'static, Result<Response<Body>, ApiError>> {
    async move { pass(call, ask).await }.boxed()
}

async fn pass(mut call: Call, ask: Ask) -> Result<Response<Body>, ApiError> {
    let passage = Passage::new(&ask.uri, &call.request);
    let (subject, mut options) = options(&call, &passage);
    admission::beside(&call, subject, &mut options, false).await?;
    let place = locate::locate(&call.server, &call.row, &call.request).await?;
    call.upgrade = call.upgrade.filter(|_| rewrite::asks_for_upgrade(&call.headers));
    if call.upgrade.is_none() && passage.lacks_slash() && (ask.method == Method::GET || ask.method == Method::HEAD) {
        return redirected(&passage);
    }
    rewrite::prepare(&mut call.headers, &ask.uri, ask.client, call.upgrade.is_some());
    match place {
        Place::Kubelet { node } => to_kubelet(call, ask, &node, &passage).await,
        Place::Backend(backend) if call.upgrade.is_some() => tunnel::open(call, ask, &backend, &passage).await,
        Place::Backend(backend) => {
            let forwarded = passage.forwarded_uri();
            rewrite::insert(&mut call.headers, "x-forwarded-uri", &forwarded);
            let host = host(&call.headers);
            let (request, permit) = outgoing(call.headers, ask, &passage)?;
            let response = exchange::send(&backend, request)
                .await
                .map_err(|problem| ApiError::unavailable(format!("error trying to reach service: {problem}")))?;
            let response = rewrite::answer(response, &passage, &backend.authority(), &host)?;
            Ok(permit.follow(response))
        }
    }
}

/// What is to be passed on, as an object that others are asked about. What they change of it is not heeded.
fn options(call: &Call, passage: &Passage) -> (Subject, Value) {
    let kind = match call.row.plural {
        "pods" => "PodProxyOptions",
        "services" => "ServiceProxyOptions",
        _ => "NodeProxyOptions",
    };
    let options = json!({ "kind": kind, "apiVersion": "v1", "path": passage.path().trim_matches('/') });
    (Subject { operation: "CONNECT", kind: Kind { group: "", version: "v1", kind, custom: None } }, options)
}

/// Browsers resolve relative links against a path that ends with a slash (kubernetes issue 4958).
fn redirected(passage: &Passage) -> Result<Response<Body>, ApiError> {
    let mut response = respond::full(301, respond::TEXT, Bytes::new());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().remove(http::header::CONTENT_TYPE);
    let location = HeaderValue::from_str(&passage.with_slash()).map_err(ApiError::internal)?;
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

/// The request as it is sent, and what is held meanwhile.
fn outgoing(headers: HeaderMap, ask: Ask, passage: &Passage) -> Result<(Request<Sent>, Permit), ApiError> {
    let mut request = Request::new(ask.body);
    *request.method_mut() = ask.method;
    *request.uri_mut() = passage.target().parse().map_err(ApiError::internal)?;
    *request.headers_mut() = headers;
    Ok((request, ask.permit))
}

/// The kubelet's own API takes no large bodies, and the way to it carries whole ones.
async fn to_kubelet(call: Call, ask: Ask, node: &str, passage: &Passage) -> Result<Response<Body>, ApiError> {
    let Call { server, user, request, headers, upgrade, .. } = call;
    if upgrade.is_some() {
        may_create(&server, &user, &request).await?;
    }
    let host = host(&headers);
    let (request, permit) = outgoing(headers, ask, passage)?;
    let (parts, body) = request.into_parts();
    let mut request = Request::from_parts(parts, Bytes::new());
    *request.body_mut() = body::whole(body, body::LIMIT as usize).await?;
    if let Some(upgrade) = upgrade {
        request.extensions_mut().insert(upgrade);
    }
    let response = server.config.nodes.send(node, request).await.map_err(|error| {
        let cause = task::chain(&error);
        ApiError::unavailable(format!("error trying to reach service: {cause}"))
    })?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response);
    }
    Ok(permit.follow(rewrite::answer(response, passage, "", &host)?))
}

/// Who may only `get` a node's proxy must not run commands there, which a WebSocket opened by GET does.
async fn may_create(server: &Arc<ApiServer>, user: &UserInfo, request: &ResourceRequest) -> Result<(), ApiError> {
    let info = RequestInfo::Resource(ResourceRequest { verb: "create".to_owned(), ..request.clone() });
    let access = server.access(user, &info, &Query::default()).await?;
    if access.allowed { Ok(()) } else { Err(authz::forbidden(user, &info, &access.reason)) }
}

/// Under which name the client has reached us.
fn host(headers: &HeaderMap) -> String {
    let host = headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
    host.unwrap_or_default().to_owned()
}

/// A body of any kind, as what is sent.
pub(crate) fn sent<B>(body: B) -> Sent
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(Into::into).boxed_unsync()
}
