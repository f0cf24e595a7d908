//! How many pods a second the scheduler places: 10,000 on 1,000 nodes. usage: scheduling [NODES] [PODS]
//!
//! First the decision alone, with what goes with it (the queue, the snapshot), for several sorts of pods; then the whole
//! scheduler with the real API server over the memory store, in process, until every pod is bound there. The target of the
//! latter is 2,000 a second on two cores.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement that fails has no other use")]
#![expect(clippy::disallowed_methods, reason = "it measures real time")]

use std::sync::Arc;
use std::time::Instant;

use api::selector::LabelSelector;
use api::user::UserInfo;
use apiserver::authn::{Issuer, SigningKeys, StaticTokens};
use apiserver::{ApiServer, Caller, Config, Entropy, NodeConnector, NodeError, VersionInfo};
use async_trait::async_trait;
use bytes::Bytes;
use client::{Body, Client, Informer, Key, ListOptions, Scope, Transport, TransportError};
use control::scheduler::{self, Asked, Circumstances, Cluster, Decision, Pending, decide};
use http::{Request, Response};
use http_body_util::Full;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use serde_json::{Value, json};
use task::{SharedClock, SystemClock, Tasks};

/// The sorts of pods of the first part.
const SORTS: [&str; 5] = ["plain", "of a ReplicaSet", "spread over zones", "apart if possible", "apart in tens"];

fn node(number: usize) -> Node {
    let (name, zone) = (format!("node-{number}"), format!("zone-{}", number % 10));
    let labels = json!({"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone});
    read(json!({
        "kind": "Node", "apiVersion": "v1", "metadata": {"name": name, "labels": labels},
        "status": {
            "allocatable": {"cpu": "32", "memory": "64Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }))
}

fn pod(number: usize, sort: &str) -> Pod {
    // A thousand apps of ten, which are to be apart; or five of two thousand.
    let app = if sort == "apart in tens" { number / 10 } else { number % 5 };
    let selector = json!({"matchLabels": {"app": format!("app-{app}")}});
    let by = |key: &str| json!({"labelSelector": selector, "topologyKey": key});
    let mut spec = json!({"containers": [{
        "name": "c", "image": "web", "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
    }]});
    match sort {
        "spread over zones" => {
            let mut constraint = by("topology.kubernetes.io/zone");
            (constraint["maxSkew"], constraint["whenUnsatisfiable"]) = (json!(1), json!("DoNotSchedule"));
            spec["topologySpreadConstraints"] = json!([constraint]);
        }
        "apart if possible" => {
            let weighted = json!([{"weight": 10, "podAffinityTerm": by("kubernetes.io/hostname")}]);
            spec["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] = weighted;
        }
        "apart in tens" => {
            let required = json!([by("kubernetes.io/hostname")]);
            spec["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] = required;
        }
        _ => {}
    }
    let metadata = json!({
        "name": format!("pod-{number}"), "namespace": "default", "labels": {"app": format!("app-{app}")},
    });
    read(json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec}))
}

fn read<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn main() {
    let mut numbers = std::env::args().skip(1).map(|number| number.parse().unwrap());
    let (nodes, pods) = (numbers.next().unwrap_or(1000), numbers.next().unwrap_or(10_000));
    for sort in SORTS {
        let rate = decided(nodes, pods, sort);
        println!("decisions a second, {pods} pods {sort} on {nodes} nodes: {rate:.0}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let rate = runtime.block_on(bound(nodes, pods));
    println!("bindings a second, {pods} pods plain on {nodes} nodes, by the API: {rate:.0}   target ≥ 2000");
}

/// Decisions a second.
#[expect(clippy::cast_precision_loss, reason = "some thousand")]
fn decided(nodes: usize, pods: usize, sort: &str) -> f64 {
    let (mut cluster, mut pending) = (Cluster::default(), Pending::default());
    for number in 0..nodes {
        let node = node(number);
        cluster.set_node(&node.metadata.name.clone().unwrap(), &Arc::new(node));
    }
    for number in 0..pods {
        let pod = pod(number, sort);
        pending.observe(&Key::of(&pod.metadata), &Arc::new(pod));
    }
    let family = |pod: &Pod| {
        let labels = serde_json::to_value(pod.metadata.labels.as_ref()).unwrap();
        (sort == "of a ReplicaSet").then(|| LabelSelector::from_labels(labels.as_object()))
    };
    let (begin, mut start, mut seed) = (Instant::now(), 0, 0);
    while let Some((key, waiting)) = pending.take() {
        let family = family(&waiting.pod);
        let asked = Asked { pod: &waiting.pod, needs: &waiting.needs, family: family.as_ref() };
        cluster.get_ready(asked.crowds());
        seed += 1;
        let verdict = decide(asked, &cluster, Circumstances { budgets: &Vec::new, start, seed });
        start = (start + verdict.examined) % nodes;
        let Decision::Bind { node, .. } = verdict.decision else { panic!("{key} fits nowhere") };
        cluster.assume(&waiting.pod, &waiting.needs, &node);
        // What the API shows of it a moment later.
        let mut bound = (*waiting.pod).clone();
        bound.spec.as_mut().unwrap().node_name = Some(node.clone());
        cluster.place(&Arc::new(bound), &node);
        pending.remove(&key);
    }
    pods as f64 / begin.elapsed().as_secs_f64()
}

/// Requests go straight to the server.
struct InProcess(Arc<ApiServer>);

#[async_trait]
impl Transport for InProcess {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, TransportError> {
        let user = UserInfo::authenticated("test", &["system:masters"]);
        Ok(self.0.handle(Caller { user }, request.map(Full::new)).await)
    }
}

struct NoNodes;

#[async_trait]
impl NodeConnector for NoNodes {
    async fn send(&self, node: &str, _: Request<Bytes>) -> Result<Response<apiserver::Body>, NodeError> {
        Err(NodeError { node: node.to_owned(), source: "there is none".into() })
    }
}

async fn server(clock: &SharedClock, tasks: &Tasks) -> Client {
    let server = ApiServer::new(Config {
        store: Arc::new(store::MemoryStore::new(Arc::clone(clock), store::HistoryLimits::default())),
        clock: Arc::clone(clock),
        entropy: Entropy::seeded(1),
        version: VersionInfo::of_release("test"),
        nodes: Arc::new(NoNodes),
        tokens: StaticTokens::default(),
        issuer: Issuer::new("cluster.local", SigningKeys::generate().unwrap()),
        services: apiserver::Network::default(),
        advertise: std::net::SocketAddr::from(([192, 0, 2, 1], 6443)),
    });
    server.start(tasks).await.unwrap();
    Client::new(Arc::new(InProcess(server)), "test")
}

/// Bindings a second, from the moment in which the scheduler starts until the API shows all pods bound.
#[expect(clippy::cast_precision_loss, reason = "some thousand")]
async fn bound(nodes: usize, pods: usize) -> f64 {
    let (clock, tasks): (SharedClock, Tasks) = (Arc::new(SystemClock), Tasks::new());
    let client = server(&clock, &tasks).await;
    client
        .create(&read::<k8s_openapi::api::core::v1::ServiceAccount>(json!({
            "kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": "default", "namespace": "default"},
        })))
        .await
        .unwrap();
    for number in 0..nodes {
        let node = node(number);
        client.create(&node).await.unwrap();
        client.replace_status(&node).await.unwrap();
    }
    for number in 0..pods {
        client.create(&pod(number, "plain")).await.unwrap();
    }
    let watched = scheduler::Watched {
        pods: Informer::<Pod>::spawn(&client, &tasks, Scope::Cluster, ListOptions::default()),
        nodes: Informer::<Node>::spawn(&client, &tasks, Scope::Cluster, ListOptions::default()),
        namespaces: Informer::<Namespace>::spawn(&client, &tasks, Scope::Cluster, ListOptions::default()),
    };
    let all = watched.pods.clone();
    all.synced().await;
    let (begin, mut changes) = (Instant::now(), all.subscribe());
    scheduler::spawn(&client, &clock, &tasks, watched);
    let mut waiting: std::collections::HashSet<Key> = all.snapshot().iter().map(|pod| Key::of(&pod.metadata)).collect();
    while !waiting.is_empty() {
        for key in changes.batch().await {
            if all.get(&key).is_some_and(|pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())) {
                waiting.remove(&key);
            }
        }
    }
    let rate = pods as f64 / begin.elapsed().as_secs_f64();
    tasks.shutdown().await;
    rate
}
