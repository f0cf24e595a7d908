//! The server's value and its one entrance.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use api::resources::{self, Resource, Verb};
use api::status::ApiError;
use api::user::UserInfo;
use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, HeaderValue};
use http::request::Parts;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use hyper::upgrade::OnUpgrade;
use store::Store;
use task::{SharedClock, Tasks};
use tokio_util::sync::CancellationToken;

use crate::admission::RegisteredCache;
use crate::aggregation::{self, Aggregation, Passed, Remote};
use crate::authn::{Issuer, StaticTokens};
use crate::authz::rbac::Policy;
use crate::authz::rbac::cache::PolicyCache;
use crate::authz::{self, Access, Decision, relations};
use crate::call::Call;
use crate::components::Components;
use crate::definitions::Definitions;
use crate::fairness::{Class, Fairness, Limits, Outside, Work};
use crate::metrics::Requests;
use crate::negotiate::{self, Form};
use crate::openapi::Documents;
use crate::query::Query;
use crate::request::{RequestInfo, ResourceRequest};
use crate::{Entropy, Network, NodeConnector, VersionInfo, body, discovery, object, proxy, respond, storage, verbs};

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A response body; that of a watch has no end.
pub type Body = BoxBody<Bytes, BoxError>;

/// What the server is made of.
pub struct Config {
    /// Keeps the objects.
    pub store: Arc<dyn Store>,
    /// For time stamps and ages.
    pub clock: SharedClock,
    /// For UIDs and generated names.
    pub entropy: Entropy,
    /// What `/version` says.
    pub version: VersionInfo,
    /// Reaches kubelets, for logs.
    pub nodes: Arc<dyn NodeConnector>,
    /// Bearer tokens from a file; usually none.
    pub tokens: StaticTokens,
    /// Signs the tokens of service accounts.
    pub issuer: Issuer,
    /// Where the addresses and ports of Services come from.
    pub services: Network,
    /// Where the server can be reached from everywhere in the cluster.
    pub advertise: SocketAddr,
}

/// Who makes a request, after authentication.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The user.
    pub user: UserInfo,
}

/// The API server; share it by `Arc`.
pub struct ApiServer {
    pub(crate) config: Config,
    /// Cancelled once the server stops: watches end.
    pub(crate) closing: CancellationToken,
    /// Whether the objects that every cluster has exist.
    pub(crate) started: AtomicBool,
    /// Held from the look at all Services to the write of one that was given an address or a port.
    pub(crate) assigning: tokio::sync::Mutex<()>,
    /// Held from the count of what is used of a quota to the write of what uses more of it.
    pub(crate) charging: tokio::sync::Mutex<()>,
    pub(crate) limits: Limits,
    pub(crate) components: Components,
    policy: PolicyCache,
    /// Whom users have set to be asked about writes.
    pub(crate) registered: RegisteredCache,
    /// OpenAPI documents that somebody has asked for.
    pub(crate) documents: Documents,
    pub(crate) fairness: Fairness,
    /// The kinds that came at run time.
    pub(crate) definitions: Definitions,
    /// Groups that other servers serve.
    pub(crate) aggregation: Aggregation,
    /// Connections that have changed their protocol and go through here.
    pub(crate) tunnels: Tasks,
    pub(crate) requests: Requests,
}

impl ApiServer {
    /// A server over a store; it listens nowhere until [`ApiServer::serve`].
    pub fn new(config: Config) -> Arc<Self> {
        Self::with(config, Limits::default())
    }

    /// The same with other limits.
    pub(crate) fn with(config: Config, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            config,
            limits,
            components: Components::default(),
            closing: CancellationToken::new(),
            started: AtomicBool::new(false),
            assigning: tokio::sync::Mutex::new(()),
            charging: tokio::sync::Mutex::new(()),
            policy: PolicyCache::default(),
            registered: RegisteredCache::default(),
            documents: Documents::default(),
            fairness: Fairness::new(limits),
            definitions: Definitions::default(),
            aggregation: Aggregation::default(),
            tunnels: Tasks::new(),
            requests: Requests::default(),
        })
    }

    /// Answers one request of an authenticated caller.
    pub async fn handle<B>(self: &Arc<Self>, caller: Caller, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (mut parts, body) = request.into_parts();
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let info = RequestInfo::parse(&parts.method, parts.uri.path(), &query);
        let remote = self.aggregation.of(&info);
        let is_ours = remote.is_none() && !info.is_proxied();
        let as_yaml = is_ours && negotiate::prefers_yaml(&parts.headers);
        let as_protobuf = is_ours && negotiate::wants_protobuf(&parts.headers);
        // What describes the server itself is for people always (`WriteRawJSON` upstream).
        let describes = matches!(parts.uri.path(), "/" | "/version" | "/version/");
        let for_people = is_ours && (describes || negotiate::is_read_by_people(&parts.headers, query.get("pretty")));
        if as_yaml || as_protobuf || for_people {
            // What is compressed could not be written in another form any more.
            parts.headers.remove(ACCEPT_ENCODING);
        }
        let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
        let class = self.fairness.classify(parts.extensions.get().copied(), &caller.user, &info);
        let label = class.as_ref().map(|class| class.label.clone());
        let asked = info.clone();
        let work = AssertUnwindSafe(Box::pin(self.dispatch(&caller.user, (info, query, class, remote), parts, body)));
        let response = match work.catch_unwind().await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => respond::error(&error),
            Err(_) => {
                tracing::error!(%method, path, "a request made the server panic");
                respond::error(&ApiError::internal("the request made the server fail"))
            }
        };
        let mut response = match (as_yaml, as_protobuf) {
            (true, _) => respond::as_yaml(response).await,
            (_, true) => respond::as_protobuf(response).await,
            _ if for_people => respond::indented(response).await,
            _ => response,
        };
        if let Some(label) = label {
            label.put(&mut response);
        }
        // Upstream's `WithCacheControl`: what one user may see is not kept for another.
        response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
        self.requests.count(&asked, response.status().as_u16());
        tracing::debug!(%method, path, user = caller.user.username, code = response.status().as_u16(), "request");
        response
    }

    /// The order of checks is upstream's: authorization, route, negotiation, body, verb. A seat is taken only once the
    /// body is there, so that slow ones hold none.
    async fn dispatch<B>(
        self: &Arc<Self>,
        user: &UserInfo,
        (info, query, class, remote): (RequestInfo, Query, Option<Class>, Option<Arc<Remote>>),
        mut parts: Parts,
        body: B,
    ) -> Result<Response<Body>, ApiError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.authorize(user, &info, &query).await?;
        let (outside, work) = (parts.extensions.get::<Outside>().copied(), Work::of(&info, &query));
        if let Some(remote) = remote {
            let permit = self.fairness.admit(outside, user, class, work).await?;
            let client = outside.map(|Outside(address)| address);
            let passed = Passed { user, parts, body: proxy::sent(body), client, permit };
            return Box::pin(aggregation::forward(self, &remote, passed)).await;
        }
        let request = match info {
            RequestInfo::Path { verb, path } if matches!(verb.as_str(), "get" | "head") => {
                let _permit = self.fairness.admit(outside, user, class, work).await?;
                return discovery::answer(self, &path, &query, &parts.headers).await;
            }
            RequestInfo::Path { .. } => return Ok(respond::no_such_path()),
            RequestInfo::Resource(request) => request,
        };
        let Some(row) = self.row(&request).await? else { return Ok(respond::no_such_path()) };
        let row = &*row;
        if !route(row, &request)? {
            return Ok(respond::no_such_path());
        }
        if request.is_proxied() {
            let permit = self.fairness.admit(outside, user, class, work).await?;
            let upgrade = parts.extensions.remove::<OnUpgrade>();
            let Parts { method, uri, headers, .. } = parts;
            let (server, user, row) = (Arc::clone(self), user.clone(), row.clone());
            let warnings = Mutex::default();
            let call = Call { server, user, request, query, headers, row, form: Form::Plain, upgrade, warnings };
            let client = outside.map(|Outside(address)| address);
            return proxy::answer(call, proxy::Ask { method, uri, body: proxy::sent(body), client, permit }).await;
        }
        let has_objects = row.verbs.contains(&Verb::Get);
        let form = if request.verb == "watch" {
            negotiate::stream_form(&parts.headers, has_objects)
        } else {
            negotiate::form(&parts.headers, has_objects)
        }?;
        let (bytes, under_way) = match verbs::takes_body(&request.verb) {
            true => {
                let under_way = self.fairness.receive(outside, user, body.size_hint().exact())?;
                (body::read(&parts.headers, body).await?, under_way)
            }
            false => (Bytes::new(), None),
        };
        let permit = self.fairness.admit(outside, user, class, work).await?;
        // From here on the seats keep the number of such requests small.
        drop(under_way);
        let upgrade = parts.extensions.get::<OnUpgrade>().cloned();
        let (server, user, headers) = (Arc::clone(self), user.clone(), parts.headers);
        let warnings = Mutex::default();
        let call = Call { server, user, request, query, headers, row: row.clone(), form, upgrade, warnings };
        let mut response = verbs::run(&call, bytes).await.unwrap_or_else(|error| call.refuse(&error));
        let own = Some(row.deprecation).filter(|warning| !warning.is_empty());
        if let Some(warning) = own.or_else(|| row.custom.as_ref()?.deprecation()) {
            respond::warn(&mut response, &[warning.to_owned()]);
        }
        Ok(permit.follow(response))
    }

    /// The row of a path, of a kind that is built in or came at run time.
    async fn row(&self, request: &ResourceRequest) -> Result<Option<Cow<'static, Resource>>, ApiError> {
        let ResourceRequest { group, version, resource, .. } = request;
        if let Some(row) = resources::find(group, version, resource) {
            return Ok(Some(Cow::Borrowed(row)));
        }
        let snapshot = self.kinds().await?;
        Ok(snapshot.find(group, version, resource).map(|row| Cow::Owned(Resource::clone(row))))
    }

    async fn authorize(&self, user: &UserInfo, info: &RequestInfo, query: &Query) -> Result<(), ApiError> {
        let access = self.access(user, info, query).await?;
        if access.allowed { Ok(()) } else { Err(authz::forbidden(user, info, &access.reason)) }
    }

    /// Whether a user may do something, and why: what the fixed rules do not permit, a role may.
    pub(crate) async fn access(&self, user: &UserInfo, info: &RequestInfo, query: &Query) -> Result<Access, ApiError> {
        let fixed = match authz::decide(user, info, query) {
            Decision::Allow => true,
            Decision::Deny => false,
            Decision::IfBoundTo(node) => self.is_bound(info, node).await?,
            Decision::IfNamedByPodOf(node) => self.is_named(info, node).await?,
        };
        if fixed {
            return Ok(Access { allowed: true, reason: String::new() });
        }
        if let Some(reason) = self.ask_policy(|policy| policy.permits(user, info.into())).await? {
            return Ok(Access { allowed: true, reason });
        }
        let reason = match user.node_name() {
            Some(node) => format!("no relationship found between node '{node}' and this object"),
            None => String::new(),
        };
        Ok(Access { allowed: false, reason })
    }

    /// Asks the roles and bindings as they are now.
    pub(crate) async fn ask_policy<T>(&self, question: impl FnOnce(&Policy) -> T) -> Result<T, ApiError> {
        self.policy.ask(self.config.store.as_ref(), question).await.map_err(storage::failed)
    }

    /// Whether the pod of a request is bound to the node; an absent pod is nobody's secret.
    async fn is_bound(&self, info: &RequestInfo, node: &str) -> Result<bool, ApiError> {
        let RequestInfo::Resource(request) = info else { return Ok(false) };
        let Some(pods) = resources::find("", "v1", "pods") else { return Ok(false) };
        match self.read(pods, &request.namespace, &request.name).await {
            Ok((pod, _)) => Ok(relations::is_bound(&pod, node)),
            Err(error) if error.code == 404 => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Whether a pod of the node needs the object of a request.
    async fn is_named(&self, info: &RequestInfo, node: &str) -> Result<bool, ApiError> {
        let RequestInfo::Resource(request) = info else { return Ok(false) };
        let Some(pods) = resources::find("", "v1", "pods") else { return Ok(false) };
        // Pods name claims, and these their volumes.
        let (resource, namespace, name) = if request.resource == "persistentvolumes" {
            let Some((namespace, name)) = self.claim_of_volume(&request.name).await? else { return Ok(false) };
            ("persistentvolumeclaims", namespace, name)
        } else {
            (&*request.resource, request.namespace.clone(), request.name.clone())
        };
        let prefix = storage::prefix(pods, &namespace);
        let range = store::Range { prefix, after: None, limit: None, at: None };
        let page = self.config.store.list(range).await.map_err(storage::failed)?;
        let needs = |entry: &store::Entry| {
            object::of_entry(entry)
                .is_ok_and(|pod| relations::is_bound(&pod, node) && relations::names(&pod, resource, &name))
        };
        Ok(page.entries.iter().any(needs))
    }

    /// Namespace and name of the claim that a volume is bound to.
    async fn claim_of_volume(&self, name: &str) -> Result<Option<(String, String)>, ApiError> {
        let Some(volumes) = resources::find("", "v1", "persistentvolumes") else { return Ok(None) };
        match self.read(volumes, "", name).await {
            Ok((volume, _)) => Ok(relations::claim_of(&volume).map(|(a, b)| (a.to_owned(), b.to_owned()))),
            Err(error) if error.code == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether a row serves the path of a request; 405 where it has no such verb.
fn route(row: &Resource, request: &ResourceRequest) -> Result<bool, ApiError> {
    let in_namespace = !request.namespace.is_empty();
    if request.too_deep || (in_namespace && !row.namespaced && (row.kind != "Namespace" || !row.group.is_empty())) {
        return Ok(false);
    }
    let is_taken = |verbs: &[Verb]| match request.is_proxied() {
        true => proxy::takes(&request.verb),
        false => verbs.iter().any(|verb| verb.word() == request.verb),
    };
    let verbs = match request.subresource.as_str() {
        "" => row.verbs,
        name => match row.subresource(name) {
            Some(subresource) => subresource.verbs,
            None => return Ok(false),
        },
    };
    let names_nothing = !request.named_by_path && matches!(request.verb.as_str(), "update" | "patch");
    let spans_namespaces = row.namespaced && !in_namespace && !matches!(request.verb.as_str(), "list" | "watch");
    if names_nothing || spans_namespaces || !is_taken(verbs) {
        return Err(ApiError::method_not_allowed());
    }
    Ok(true)
}
