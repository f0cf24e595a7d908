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

use api::resources::Resource;
use api::status::ApiError;
use api::user::UserInfo;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::{HeaderValue, LOCATION};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::upgrade::OnUpgrade;

use crate::fairness::Permit;
use crate::query::Query;
use crate::request::{RequestInfo, ResourceRequest};
use crate::server::{ApiServer, Body, BoxError};
use crate::{authz, body, respond};
pub use kubelets::Kubelets;
use locate::Place;
pub(crate) use locate::behind;
use rewrite::Passage;

/// The body of a request on its way through.
pub(crate) type Sent = UnsyncBoxBody<Bytes, BoxError>;

/// A request to be passed on; it is authorized and routed.
pub(crate) struct Ask {
    pub(crate) user: UserInfo,
    pub(crate) request: ResourceRequest,
    /// The row of the object that the path names.
    pub(crate) row: Resource,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Sent,
    /// The connection itself, if the client wants it to speak another protocol and it can.
    pub(crate) upgrade: Option<OnUpgrade>,
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
pub(crate) fn answer(server: Arc<ApiServer>, ask: Ask) -> BoxFuture<'static, Result<Response<Body>, ApiError>> {
    async move { pass(&server, ask).await }.boxed()
}

async fn pass(server: &Arc<ApiServer>, mut ask: Ask) -> Result<Response<Body>, ApiError> {
    let place = locate::locate(server, &ask.row, &ask.request).await?;
    let passage = Passage::new(&ask.uri, &ask.request);
    ask.upgrade = ask.upgrade.filter(|_| rewrite::asks_for_upgrade(&ask.headers));
    if ask.upgrade.is_none() && passage.lacks_slash() && (ask.method == Method::GET || ask.method == Method::HEAD) {
        return redirected(&passage);
    }
    rewrite::prepare(&mut ask.headers, &ask.uri, ask.client, ask.upgrade.is_some());
    match place {
        Place::Kubelet { node } => to_kubelet(server, ask, &node, &passage).await,
        Place::Backend(backend) if ask.upgrade.is_some() => tunnel::open(server, ask, &backend, &passage).await,
        Place::Backend(backend) => {
            let forwarded = passage.forwarded_uri();
            rewrite::insert(&mut ask.headers, "x-forwarded-uri", &forwarded);
            let host = host(&ask.headers);
            let (request, permit) = outgoing(ask, &passage)?;
            let response = exchange::send(&backend, request)
                .await
                .map_err(|problem| ApiError::unavailable(format!("error trying to reach service: {problem}")))?;
            let response = rewrite::answer(response, &passage, &backend.authority(), &host)?;
            Ok(permit.follow(response))
        }
    }
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
fn outgoing(ask: Ask, passage: &Passage) -> Result<(Request<Sent>, Permit), ApiError> {
    let mut request = Request::new(ask.body);
    *request.method_mut() = ask.method;
    *request.uri_mut() = passage.target().parse().map_err(ApiError::internal)?;
    *request.headers_mut() = ask.headers;
    Ok((request, ask.permit))
}

/// The kubelet's own API takes no large bodies, and the way to it carries whole ones.
async fn to_kubelet(
    server: &Arc<ApiServer>,
    mut ask: Ask,
    node: &str,
    passage: &Passage,
) -> Result<Response<Body>, ApiError> {
    if ask.upgrade.is_some() {
        may_create(server, &ask.user, &ask.request).await?;
    }
    let (host, upgrade) = (host(&ask.headers), ask.upgrade.take());
    let (request, permit) = outgoing(ask, passage)?;
    let (parts, body) = request.into_parts();
    let mut request = Request::from_parts(parts, Bytes::new());
    *request.body_mut() = body::whole(body, body::LIMIT as usize).await?;
    if let Some(upgrade) = upgrade {
        request.extensions_mut().insert(upgrade);
    }
    let response = server.config.nodes.send(node, request).await.map_err(|error| {
        let cause = crate::proxy::exchange::chain(&error);
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
