//! The controllers with the real API server over the memory store, in process.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed; each test program uses its own part"
)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::resources::certificate::order::Order;
use api::user::UserInfo;
use apiserver::authn::{Issuer, SecretToken, SigningKeys, StaticTokens};
use apiserver::pki::Pki;
use apiserver::{ApiServer, Caller, Config, Entropy, NodeConnector, NodeError, VersionInfo};
use async_trait::async_trait;
use bytes::Bytes;
use client::{Body, Client, Informer, Key, ListOptions, Object, Scope, Transport, TransportError};
use control::certificates::{Authority, Reserved};
use control::localpath::LocalStorage;
use control::{Clients, Controllers, ControllersConfig, tokens};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use task::{SharedClock, SystemClock, Tasks};

pub(crate) const MASTERS: &str = "system:masters";

/// Requests go straight to the server.
struct InProcess {
    server: Arc<ApiServer>,
    user: UserInfo,
}

#[async_trait]
impl Transport for InProcess {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, TransportError> {
        let user = self.user.clone();
        Ok(self.server.handle(Caller { user }, request.map(Full::new)).await)
    }
}

/// Kubelets that know nothing but directories of claims.
#[derive(Clone, Default)]
pub(crate) struct Disks {
    /// Node and directory.
    pub(crate) made: Arc<Mutex<BTreeSet<(String, String)>>>,
    /// How many of the next requests get no answer.
    pub(crate) deaf: Arc<AtomicU32>,
    /// A node that never answers.
    pub(crate) silent: Arc<Mutex<Option<String>>>,
}

#[async_trait]
impl NodeConnector for Disks {
    async fn send(&self, node: &str, request: Request<Bytes>) -> Result<Response<apiserver::Body>, NodeError> {
        let fail = |why: &str| NodeError { node: node.to_owned(), source: why.into() };
        let path = request.uri().path().to_owned();
        let directory = path.strip_prefix("/storage/").ok_or_else(|| fail("there is none"))?.to_owned();
        if self.deaf.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(fail("it is deaf"));
        }
        if self.silent.lock().unwrap().as_deref() == Some(node) {
            return std::future::pending().await;
        }
        let place = (node.to_owned(), directory.clone());
        let mut made = self.made.lock().unwrap();
        let _ = if request.method() == http::Method::DELETE { made.remove(&place) } else { made.insert(place) };
        let answer = serde_json::json!({"path": format!("/disks/{directory}")}).to_string();
        let body = Full::new(Bytes::from(answer)).map_err(|never: std::convert::Infallible| match never {}).boxed();
        Ok(Response::new(body))
    }
}

/// A server with controllers.
pub(crate) struct Cluster {
    pub(crate) pki: Arc<Pki>,
    pub(crate) client: Client,
    pub(crate) tasks: Tasks,
    pub(crate) server: Arc<ApiServer>,
    pub(crate) clock: SharedClock,
    pub(crate) disks: Disks,
}

/// One in real time.
pub(crate) async fn cluster() -> Cluster {
    cluster_with(Arc::new(SystemClock), 1).await
}

/// One with a clock and randomness of its own.
pub(crate) async fn cluster_with(clock: SharedClock, seed: u64) -> Cluster {
    cluster_of(clock, seed, LocalStorage::Off).await
}

/// One with a class for nodes' own disks, or without.
pub(crate) async fn cluster_of(clock: SharedClock, seed: u64, local_storage: LocalStorage) -> Cluster {
    let disks = Disks::default();
    let store = store::MemoryStore::new(Arc::clone(&clock), store::HistoryLimits::default());
    let server = ApiServer::new(Config {
        store: Arc::new(store),
        clock: Arc::clone(&clock),
        entropy: Entropy::seeded(seed),
        version: VersionInfo::of_release("test"),
        nodes: Arc::new(disks.clone()),
        tokens: StaticTokens::default(),
        issuer: Issuer::new("cluster.local", SigningKeys::generate().unwrap()),
        services: apiserver::Network::default(),
        advertise: std::net::SocketAddr::from(([192, 0, 2, 1], 6443)),
    });
    let tasks = Tasks::new();
    server.start(&tasks).await.unwrap();
    let connect = |name: &str, groups: &[&str]| {
        let transport = InProcess { server: Arc::clone(&server), user: UserInfo::authenticated(name, groups) };
        Client::new(Arc::new(transport), name)
    };
    let client = connect("test", &[MASTERS]);
    // With the rights that they have in a cluster.
    let clients = Clients {
        scheduler: connect("system:kube-scheduler", &[]),
        controllers: connect("system:kube-controller-manager", &[]),
    };
    let folder = tempfile::tempdir().unwrap();
    let pki = Arc::new(Pki::open(folder.path(), clock.now(), &Entropy::system()).unwrap());
    let (authority, now) = (Arc::clone(&pki), Arc::clone(&clock));
    let sign = Arc::new(move |order: &Order| Ok(authority.issue(order, now.now())?));
    let issuer = Arc::clone(&server);
    let issue = Arc::new(move |order: &tokens::Order| {
        let tokens::Order { namespace, secret, account, account_uid } = order.clone();
        Ok(issuer.secret_token(SecretToken { namespace, secret, account, account_uid })?)
    });
    let config = ControllersConfig {
        root_ca: "the CA".to_owned(),
        authority: Authority {
            sign,
            reserved: Reserved { addresses: vec![[192, 0, 2, 1].into()], names: vec!["kubernetes".to_owned()] },
        },
        node_grace: control::node::GRACE,
        pods: "10.42.0.0/16".parse().ok(),
        issue,
        load_balancers: control::balancer::LoadBalancers::On { reserved: [6443].into() },
        local_storage,
        dns: Some(std::net::Ipv4Addr::new(10, 43, 0, 10)),
    };
    Controllers::spawn(&clients, &clock, &tasks, config);
    Cluster { pki, client, tasks, server, clock, disks }
}

impl Cluster {
    /// The code of the answer to somebody who is no administrator.
    pub(crate) async fn code_for(&self, user: &str, method: &str, path: &str, body: &Value) -> u16 {
        let request = Request::builder().method(method).uri(path).body(Full::new(Bytes::from(body.to_string())));
        let user = UserInfo::authenticated(user, &[]);
        self.server.handle(Caller { user }, request.unwrap()).await.status().as_u16()
    }
}

pub(crate) fn read<K: Object>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// The first state of an object that satisfies `is_it`; `None` stands for its absence.
pub(crate) async fn until<K: Object>(
    cluster: &Cluster,
    key: Key,
    is_it: impl Fn(Option<&K>) -> bool,
) -> Option<Arc<K>> {
    let tasks = cluster.tasks.child();
    let scope = if key.namespace.is_empty() { Scope::Cluster } else { Scope::namespace(&key.namespace) };
    let informer: Informer<K> = Informer::spawn(&cluster.client, &tasks, scope, ListOptions::default());
    informer.synced().await;
    let mut dirty = informer.subscribe();
    let found = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let object = informer.get(&key);
            if is_it(object.as_deref()) {
                return object;
            }
            dirty.next().await;
        }
    });
    let found = found.await.unwrap_or_else(|_| panic!("{key} did not come to what was expected"));
    tasks.stop();
    found
}
