//! The cluster: control plane and nodes, each of which can be taken down and brought up again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::user::UserInfo;
use apiserver::authn::{Issuer, SigningKeys, StaticTokens};
use apiserver::{ApiServer, Config, Entropy, NodeConnector, NodeError, VersionInfo};
use async_trait::async_trait;
use bytes::Bytes;
use client::Client;
use control::balancer::LoadBalancers;
use control::certificates::Authority;
use control::localpath::LocalStorage;
use control::{Clients, Controllers, ControllersConfig};
use http::{Request, Response};
use store::{HistoryLimits, MemoryStore, Store};
use task::{Clock, SharedClock, SimulatedClock, Tasks};
use tokio::sync::watch;

use crate::admin::Admin;
use crate::historian;
use crate::node::{Ground, Node};
use crate::wire::{Weather, Wire};
use crate::witness::Ledger;

/// Shows a later time at every look, as a real clock does: names of events are made of the time.
struct TickingClock(SimulatedClock, AtomicU64);

impl Clock for TickingClock {
    fn now(&self) -> jiff::Timestamp {
        self.0.now() + Duration::from_nanos(self.1.fetch_add(1, Ordering::Relaxed))
    }
}

/// Nobody reads logs here.
struct NoNodes;

#[async_trait]
impl NodeConnector for NoNodes {
    async fn send(&self, node: &str, _: Request<Bytes>) -> Result<Response<apiserver::Body>, NodeError> {
        Err(NodeError { node: node.to_owned(), source: "there is no way".into() })
    }
}

/// Everything there is.
pub(crate) struct Cluster {
    pub(crate) ground: Ground,
    pub(crate) admin: Admin,
    pub(crate) nodes: Vec<Node>,
    store: Arc<dyn Store>,
    entropy: Entropy,
    server: Option<Tasks>,
    controllers: Option<Tasks>,
}

impl Cluster {
    /// A cluster of two nodes, all up.
    pub(crate) async fn start(seed: u64) -> Self {
        let start = "2026-11-20T15:00:00Z".parse().unwrap();
        let clock: SharedClock = Arc::new(TickingClock(SimulatedClock::starting_at(start), AtomicU64::new(0)));
        // A short history, so that whoever was away must list again.
        let limits = HistoryLimits { bytes: 1 << 20, age: Duration::from_secs(30) };
        let ground = Ground {
            door: Arc::new(watch::Sender::new(None)),
            weather: Weather::stormy(seed),
            ledger: Arc::new(Ledger::default()),
            tasks: Tasks::new(),
            clock: Arc::clone(&clock),
        };
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(clock, limits));
        historian::spawn(&store, &ground).await;
        let mut cluster = Self {
            admin: Admin(Arc::clone(&ground.door)),
            nodes: ["edge-1", "edge-2"].iter().map(|name| Node::new(name, &ground)).collect(),
            store,
            entropy: Entropy::seeded(seed),
            server: None,
            controllers: None,
            ground,
        };
        cluster.mend().await;
        cluster
    }

    /// Brings up whatever is down.
    pub(crate) async fn mend(&mut self) {
        self.start_server().await;
        self.start_controllers();
        for node in &mut self.nodes {
            node.start_agent().await;
        }
    }

    /// Ends everything.
    pub(crate) async fn end(&mut self) {
        for node in &mut self.nodes {
            node.kill_agent().await;
        }
        self.kill_controllers().await;
        self.kill_server().await;
        self.ground.tasks.shutdown().await;
    }

    /// Drops the API server; the store stays.
    pub(crate) async fn kill_server(&mut self) {
        self.ground.door.send_replace(None);
        if let Some(tasks) = self.server.take() {
            tasks.shutdown().await;
        }
    }

    pub(crate) async fn start_server(&mut self) {
        if self.server.is_some() {
            return;
        }
        let tasks = Tasks::new();
        let server = ApiServer::new(Config {
            store: Arc::clone(&self.store),
            clock: Arc::clone(&self.ground.clock),
            entropy: self.entropy.clone(),
            version: VersionInfo::of_release("test"),
            nodes: Arc::new(NoNodes),
            tokens: StaticTokens::default(),
            issuer: Issuer::new("cluster.local", SigningKeys::generate().unwrap()),
            services: apiserver::Network::default(),
            advertise: std::net::SocketAddr::from(([192, 0, 2, 1], 6443)),
        });
        server.start(&tasks).await.unwrap();
        self.ground.door.send_replace(Some(server));
        self.server = Some(tasks);
    }

    pub(crate) async fn kill_controllers(&mut self) {
        if let Some(tasks) = self.controllers.take() {
            tasks.shutdown().await;
        }
    }

    pub(crate) fn start_controllers(&mut self) {
        if self.controllers.is_some() {
            return;
        }
        let tasks = Tasks::new();
        let Ground { door, weather, clock, .. } = &self.ground;
        let client = |name: &str| {
            let user = UserInfo::authenticated(&format!("system:{name}"), &[]);
            Client::new(Wire::new(door, user, weather, &self.ground.tasks), name)
        };
        let clients = Clients { scheduler: client("kube-scheduler"), controllers: client("kube-controller-manager") };
        let sign = Arc::new(|_: &_| Err("no certificates are issued here".into()));
        let issue = Arc::new(|_: &_| Err("no tokens are issued here".into()));
        let config = ControllersConfig {
            root_ca: "the CA".to_owned(),
            authority: Authority { sign, reserved: Default::default() },
            node_grace: control::node::GRACE,
            pods: None,
            issue,
            load_balancers: LoadBalancers::Off,
            local_storage: LocalStorage::Off,
            dns: None,
        };
        Controllers::spawn(&clients, clock, &tasks, config);
        self.controllers = Some(tasks);
    }
}
