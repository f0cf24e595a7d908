//! A node: what outlives its kubelet, and the kubelet itself.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::user::{NODES, UserInfo};
use kubelet::{Kubelet, KubeletConfig, Seams};
use net::SimulatedNetwork;
use runtime::simulated::{SimulatedImages, SimulatedRuntime};
use task::{SharedClock, Tasks};
use tempfile::TempDir;

use crate::wire::{Door, Weather, Wire};
use crate::witness::{Ledger, Witness};

/// What all nodes share.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) clock: SharedClock,
    pub(crate) door: Arc<Door>,
    pub(crate) weather: Arc<Weather>,
    pub(crate) ledger: Arc<Ledger>,
    /// Tasks that live as long as the simulation.
    pub(crate) tasks: Tasks,
}

/// A machine.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) runtime: SimulatedRuntime,
    pub(crate) images: SimulatedImages,
    pub(crate) network: Arc<SimulatedNetwork>,
    pub(crate) directory: TempDir,
    ground: Ground,
    agent: Option<Tasks>,
}

impl Node {
    pub(crate) fn new(name: &str, ground: &Ground) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (file, text) in [("proc/meminfo", "MemTotal: 8388608 kB\n"), ("etc/resolv.conf", "nameserver 192.0.2.1\n")]
        {
            let path = directory.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Self {
            name: name.to_owned(),
            runtime: SimulatedRuntime::new(Arc::clone(&ground.clock), &ground.tasks),
            images: SimulatedImages::new(),
            network: Arc::new(SimulatedNetwork::new("10.42.0.0/24".parse().unwrap())),
            directory,
            ground: ground.clone(),
            agent: None,
        }
    }

    /// Drops the kubelet as SIGKILL would.
    pub(crate) async fn kill_agent(&mut self) {
        if let Some(tasks) = self.agent.take() {
            tasks.shutdown().await;
        }
    }

    /// Tells the kubelet's tasks to end after a while; what is left of it is dropped by [`Node::start_agent`].
    pub(crate) fn kill_agent_soon(&self, delay: Duration) {
        if let Some(tasks) = self.agent.clone() {
            self.ground.tasks.spawn("killer", async move {
                tokio::time::sleep(delay).await;
                tasks.stop();
            });
        }
    }

    /// Starts the kubelet unless it runs.
    pub(crate) async fn start_agent(&mut self) {
        if self.agent.as_ref().is_some_and(|tasks| !tasks.is_stopping()) {
            return;
        }
        self.kill_agent().await;
        let tasks = Tasks::new();
        let Ground { clock, door, weather, ledger, .. } = &self.ground;
        let user = UserInfo::authenticated(&format!("system:node:{}", self.name), &[NODES]);
        let (ledger, weather) = (Arc::clone(ledger), Arc::clone(weather));
        let seams = Seams {
            transport: Some(Wire::new(door, user, &weather, &self.ground.tasks)),
            images: Arc::new(self.images.clone()),
            network: Arc::new(Witness {
                inner: Arc::clone(&self.network),
                ledger: Arc::clone(&ledger),
                weather: Arc::clone(&weather),
            }),
            runtime: Arc::new(Witness { inner: self.runtime.clone(), ledger, weather }),
            clock: Arc::clone(clock),
            tasks: tasks.clone(),
        };
        Kubelet::spawn(config(&self.name, self.directory.path()), seams).await.unwrap();
        self.agent = Some(tasks);
    }

    /// UIDs of pods that have files.
    pub(crate) fn pods_with_files(&self) -> Vec<String> {
        let names = |path: &str| {
            let entries = std::fs::read_dir(self.directory.path().join(path));
            entries.into_iter().flatten().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        };
        let logs = names("log").filter_map(|name| name.rsplit_once('_').map(|(_, uid)| uid.to_owned()));
        names("lib/pods").chain(names("run/pods")).chain(logs).collect()
    }
}

fn config(name: &str, root: &Path) -> KubeletConfig {
    KubeletConfig {
        node_name: name.to_owned(),
        root: root.join("lib"),
        run_dir: root.join("run"),
        log_root: root.join("log"),
        manifest_dir: None,
        pod_cidrs: vec!["10.42.0.0/24".to_owned()],
        cgroup_prefix: "kubepods".into(),
        max_pods: 110,
        longest_restart_backoff: std::time::Duration::from_secs(300),
        allowed_unsafe_sysctls: Vec::new(),
        eviction: Vec::new(),
        eviction_max_pod_grace: 0,
        reserved: Default::default(),
        node_ips: vec!["192.0.2.10".parse().unwrap()],
        kubelet_version: "v1.36.0+coracle".to_owned(),
        coracle_version: "0.1.0".to_owned(),
        kubelet_port: 10250,
        labels: Default::default(),
        taints: Vec::new(),
        cluster_dns: Vec::new(),
        cluster_domain: "cluster.local".to_owned(),
        resolv_conf: root.join("etc/resolv.conf"),
        hosts_file: root.join("etc/hosts"),
        proc: root.join("proc"),
        sys: root.join("sys"),
        etc: root.join("etc"),
    }
}
