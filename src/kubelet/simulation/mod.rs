//! A kubelet on simulated seams and virtual time: for tests only.
//!
//! The runtime, images and network are the seams' own simulators; the API server is `api`, a store of objects with merge
//! patch, list and watch and nothing else. Time is tokio's, paused: an hour of back-off takes no time.

mod agents;
mod api;
mod chaos;
mod lifecycle;
mod pulls;
mod scenarios;
mod silence;
mod sizes;
mod statics;
mod talking;
mod volumes;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use client::{Client, Transport};
use http::Request;
use http_body_util::BodyExt;
use net::{Ranges, SimulatedNetwork};
use runtime::simulated::{Program, SimulatedImages, SimulatedRuntime};
use serde_json::{Value, json};
use task::{Clock, SharedClock, SimulatedClock, Tasks};
use tempfile::TempDir;

use crate::node::Capacity;
use crate::shared::Shared;
use crate::{Kubelet, KubeletConfig, Seams};
use api::SimulatedApi;

/// Longest simulated wait for anything.
const PATIENCE: Duration = Duration::from_secs(7200);

/// Shows a later time at every look, as a real clock does: names of events are made of the time.
struct TickingClock(SimulatedClock, AtomicU64);

impl Clock for TickingClock {
    fn now(&self) -> jiff::Timestamp {
        self.0.now() + Duration::from_nanos(self.1.fetch_add(1, Ordering::Relaxed))
    }
}

/// A node and all that it stands on.
pub(crate) struct World {
    pub(crate) api: Arc<SimulatedApi>,
    pub(crate) runtime: SimulatedRuntime,
    pub(crate) images: SimulatedImages,
    pub(crate) network: Arc<SimulatedNetwork>,
    pub(crate) directory: TempDir,
    pub(crate) clock: SharedClock,
    kubelet: Option<(Arc<Kubelet>, Tasks)>,
    with_api: bool,
    pub(crate) cluster_dns: Vec<std::net::IpAddr>,
    /// What must be left of the node; nothing unless a test says so, since its disk is the real one.
    pub(crate) eviction_hard: Vec<&'static str>,
}

impl World {
    pub(crate) fn new() -> Self {
        let start = "2026-11-20T15:00:00Z".parse().expect("a valid time");
        let clock: SharedClock = Arc::new(TickingClock(SimulatedClock::starting_at(start), AtomicU64::new(0)));
        let outer = Tasks::new();
        let range: Ranges = "10.42.0.0/24".parse().expect("a valid range");
        Self {
            api: SimulatedApi::new(Arc::clone(&clock)),
            runtime: SimulatedRuntime::new(Arc::clone(&clock), &outer),
            images: SimulatedImages::new(),
            network: Arc::new(SimulatedNetwork::new(range)),
            directory: tempfile::tempdir().expect("a temporary directory"),
            clock,
            kubelet: None,
            with_api: true,
            cluster_dns: vec!["10.43.0.10".parse().expect("a valid address")],
            eviction_hard: Vec::new(),
        }
    }

    pub(crate) fn without_api() -> Self {
        Self { with_api: false, ..Self::new() }
    }

    fn config(&self) -> KubeletConfig {
        let root = self.directory.path();
        for (file, text) in [("proc/meminfo", "MemTotal: 8388608 kB\n"), ("etc/resolv.conf", "nameserver 192.0.2.1\n")]
        {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            std::fs::write(path, text).expect("a file");
        }
        KubeletConfig {
            node_name: "edge".to_owned(),
            root: root.join("lib"),
            run_dir: root.join("run"),
            log_root: root.join("log"),
            manifest_dir: Some(root.join("manifests")),
            pod_cidrs: vec!["10.42.0.0/24".to_owned()],
            cgroup_prefix: "kubepods".into(),
            longest_restart_backoff: Duration::from_secs(300),
            max_pods: 110,
            reserved: Default::default(),
            eviction_max_pod_grace: 0,
            eviction: self.eviction_hard.iter().map(|text| text.parse().expect("a threshold")).collect(),
            node_ips: vec!["192.0.2.10".parse().expect("an address")],
            kubelet_version: "v1.36.0+coracle".to_owned(),
            coracle_version: "0.1.0".to_owned(),
            kubelet_port: 10250,
            labels: Default::default(),
            taints: Vec::new(),
            allowed_unsafe_sysctls: vec!["kernel.msg*".to_owned()],
            cluster_dns: self.cluster_dns.clone(),
            cluster_domain: "cluster.local".to_owned(),
            resolv_conf: root.join("etc/resolv.conf"),
            hosts_file: root.join("etc/hosts"),
            proc: root.join("proc"),
            sys: root.join("sys"),
            etc: root.join("etc"),
        }
    }

    /// What the parts of a kubelet share that nobody has started, with another way to the API server.
    pub(crate) fn shared_with(&self, client: Client) -> Arc<Shared> {
        let config = self.config();
        std::fs::create_dir_all(&config.root).expect("a directory");
        let capacity = Capacity::read(&config).expect("a capacity");
        let seams = self.seams(&Tasks::new());
        Arc::new(Shared::new(config, seams, Some(client), None, capacity))
    }

    fn seams(&self, tasks: &Tasks) -> Seams {
        let transport: Arc<dyn Transport> = Arc::clone(&self.api) as _;
        Seams {
            runtime: Arc::new(self.runtime.clone()),
            images: Arc::new(self.images.clone()),
            network: Arc::clone(&self.network) as _,
            transport: self.with_api.then_some(transport),
            clock: Arc::clone(&self.clock),
            tasks: tasks.clone(),
        }
    }

    /// Starts the agent, or starts it again: the one before is gone like a killed process.
    pub(crate) async fn start_agent(&mut self) {
        if let Some((_, tasks)) = self.kubelet.take() {
            tasks.shutdown().await;
        }
        let tasks = Tasks::new();
        let kubelet = Kubelet::spawn(self.config(), self.seams(&tasks)).await.expect("the kubelet starts");
        self.kubelet = Some((kubelet, tasks));
    }

    /// Says what a container does, attempt by attempt.
    pub(crate) fn program(&self, container: &str, attempts: &[Program]) {
        self.runtime.program(container, attempts.to_vec());
    }

    /// Binds a pod with this spec to the node.
    pub(crate) fn create(&self, name: &str, spec: Value) {
        let mut spec = spec;
        spec["nodeName"] = json!("edge");
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default"},
            "spec": spec, "status": {"phase": "Pending", "qosClass": "BestEffort"},
        });
        self.api.create("/api/v1/namespaces/default/pods", pod);
    }

    pub(crate) fn delete(&self, name: &str, grace: i64) {
        self.api.delete(&pod_path(name), Some(grace));
    }

    pub(crate) fn pod(&self, name: &str) -> Option<Value> {
        self.api.get(&pod_path(name))
    }

    /// Waits until something holds.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let wait = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            panic!("never happened: {what}; pods: {:#?}", self.api.list("/api/v1/pods"));
        }
    }

    /// Waits until a pod's object says something.
    pub(crate) async fn until_pod(&self, name: &str, what: &str, holds: impl Fn(&Value) -> bool) {
        self.until(what, |world| world.pod(name).is_some_and(|pod| holds(&pod))).await;
    }

    pub(crate) async fn until_gone(&self, name: &str) {
        self.until("the pod is gone", |world| world.pod(name).is_none()).await;
    }

    /// Reasons of all events about objects of a kind so far, in order.
    pub(crate) fn events(&self, kind: &str) -> Vec<String> {
        let events = self.api.list("/api/v1/namespaces/default/events");
        let mut events: Vec<(u64, String)> = events
            .iter()
            .filter(|event| event["involvedObject"]["kind"] == kind)
            .map(|event| {
                let revision = event["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok());
                (revision.unwrap_or(0), event["reason"].as_str().unwrap_or_default().to_owned())
            })
            .collect();
        events.sort();
        events.into_iter().map(|(_, reason)| reason).collect()
    }

    /// Messages of all events with a reason so far, in order.
    pub(crate) fn messages(&self, reason: &str) -> Vec<String> {
        let events = self.api.list("/api/v1/namespaces/default/events");
        let own = events.iter().filter(|event| event["reason"] == reason);
        own.map(|event| event["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Asks the kubelet's API.
    pub(crate) async fn ask(&self, path: &str) -> (u16, String) {
        let (kubelet, _) = self.kubelet.as_ref().expect("the agent runs");
        let request = Request::get(path).body(Bytes::new()).expect("a valid request");
        let response = kubelet.handle(request).await;
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (code, String::from_utf8_lossy(&body).into_owned())
    }

    /// Seconds since the beginning of the simulation.
    pub(crate) fn elapsed(&self) -> i64 {
        self.clock.now().as_second() - 1_795_186_800
    }
}

fn pod_path(name: &str) -> String {
    format!("/api/v1/namespaces/default/pods/{name}")
}
