//! The kubelet as a whole: start-up in order, and its API.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use client::events::{Recorder, Source};
use client::{Body, Client, Informer, ListOptions, Scope};
use http::{Request, Response};
use runtime::SandboxStatus;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::admission::isolation::check_allowed;
use crate::config::{KubeletConfig, Seams};
use crate::eviction;
use crate::logs::links;
use crate::metrics;
use crate::node::{self, Capacity};
use crate::pods::{self, Sources};
use crate::serve;
use crate::server::{self, Door};
use crate::shared::Shared;
use crate::sources::{self, Manifests};
use crate::volumes;

/// The node agent.
pub struct Kubelet {
    shared: Arc<Shared>,
    registered: watch::Receiver<bool>,
}

/// Why the kubelet cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A directory cannot be made or read.
    #[error("cannot prepare {path}")]
    Directory {
        path: String,
        #[source]
        source: io::Error,
    },
    /// A kernel parameter that pods may set belongs to the whole host.
    #[error("{0}")]
    Sysctl(String),
    /// The host cannot be measured.
    #[error("cannot measure the host")]
    Facts(#[from] node::FactError),
    /// The runtime does not say what exists.
    #[error("cannot list sandboxes")]
    Runtime(#[from] runtime::RuntimeError),
    /// The network does not take over what exists.
    #[error("cannot take over the pod network")]
    Network(#[from] net::NetworkError),
}

impl Kubelet {
    /// Starts the kubelet: takes over what runs, registers the node, and goes on until the task group ends.
    ///
    /// # Errors
    /// When the host cannot be measured, or what exists cannot be listed.
    pub async fn spawn(config: KubeletConfig, seams: Seams) -> Result<Arc<Self>, StartError> {
        check_allowed(&config.allowed_unsafe_sysctls).map_err(StartError::Sysctl)?;
        let capacity = prepare(&config).await?;
        let client = seams
            .transport
            .clone()
            .map(|transport| Client::new(transport, &format!("coracle-kubelet/{}", config.node_name)));
        let source = Source { component: "kubelet".to_owned(), host: config.node_name.clone() };
        let recorder =
            client.as_ref().map(|client| Recorder::spawn(client, &seams.tasks, Arc::clone(&seams.clock), source));
        let (registering, registered) = watch::channel(false);
        let shared = Arc::new(Shared::new(config, seams, client.clone(), recorder, capacity));
        let tasks = shared.seams.tasks.clone();
        if let Err(error) = volumes::keep_in_memory(&shared).await {
            // Each pod tries again, and says so if it has to wait for it.
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "no file system in memory for secrets");
        }
        let sources = take_over(&shared).await?;
        if let Some(client) = client {
            tasks.spawn("node", node::keep(Arc::clone(&shared), client, sources.nodes.clone(), registering));
        }
        tasks.spawn("cpu usage", metrics::watch(Arc::clone(&shared)));
        tasks.spawn("volume usage", volumes::usage::watch(Arc::clone(&shared)));
        tasks.spawn("eviction", eviction::watch(Arc::clone(&shared)));
        tasks.spawn("pods", pods::run(Arc::clone(&shared), sources));
        Ok(Arc::new(Self { shared, registered }))
    }

    /// Waits until the node is registered and ready; for ever without an API server.
    pub async fn registered(&self) {
        if self.registered.clone().wait_for(|registered| *registered).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Serves the kubelet's API to whoever may use it, until the task group ends.
    pub fn listen(&self, listener: TcpListener, door: Door) {
        let tasks = &self.shared.seams.tasks;
        tasks.spawn("kubelet listener", server::listen(Arc::clone(&self.shared), listener, door));
    }

    /// Answers a request to the kubelet's API. Whoever calls has checked that the client may ask.
    pub async fn handle(&self, request: Request<Bytes>) -> Response<Body> {
        serve::handle(&self.shared, &request).await
    }
}

/// Makes the directories and measures the host.
async fn prepare(config: &KubeletConfig) -> Result<Capacity, StartError> {
    let config = config.clone();
    let prepare = move || {
        for directory in [&config.root.join("pods"), &config.run_dir.join("pods"), &config.log_root] {
            let refuse = |source| StartError::Directory { path: directory.display().to_string(), source };
            std::fs::create_dir_all(directory).map_err(refuse)?;
        }
        Ok(Capacity::read(&config)?)
    };
    task::blocking(prepare).await
}

/// Leads collectors to the logs of containers that run, also where an earlier run died before it did, and to no other ones.
async fn link_logs(shared: &Shared, sandboxes: &[SandboxStatus]) {
    let folder = links::folder(&shared.config.log_root);
    let each = sandboxes.iter().flat_map(|sandbox| sandbox.containers.iter().map(|one| (&sandbox.spec, one)));
    let wanted =
        each.map(|(pod, one)| (links::name([&pod.name, &pod.namespace, &one.name, &one.id.0]), one.log_path.clone()));
    let (wanted, logs): (Vec<_>, _) = (wanted.collect(), shared.config.log_root.clone());
    let linked = task::blocking(move || {
        links::sweep(&logs)?;
        wanted.iter().try_for_each(|(name, log)| links::make(&folder, name, log))
    });
    if let Err(error) = linked.await {
        tracing::warn!(%error, "logs not linked");
    }
}

/// Finds what an earlier run left, tells the network what lives, and opens the sources.
async fn take_over(shared: &Arc<Shared>) -> Result<Sources, StartError> {
    let sandboxes = shared.seams.runtime.list().await?;
    let live: Vec<String> = sandboxes.iter().map(|sandbox| sandbox.spec.id.0.clone()).collect();
    shared.seams.network.retain(&live).await?;
    link_logs(shared, &sandboxes).await;
    let pods = shared.config.root.join("pods");
    let path = pods.display().to_string();
    let found = task::blocking(move || sources::find(&pods, &sandboxes)).await;
    let found = found.map_err(|source| StartError::Directory { path, source })?;
    let node = &shared.config.node_name;
    let api = shared.client.as_ref().map(|client| {
        let mine = ListOptions::fields(&format!("spec.nodeName={node}"));
        Informer::spawn(client, &shared.seams.tasks, Scope::Cluster, mine)
    });
    let nodes = shared.client.as_ref().map(|client| {
        let own = ListOptions::fields(&format!("metadata.name={node}"));
        Informer::spawn(client, &shared.seams.tasks, Scope::Cluster, own)
    });
    let manifests = shared.config.manifest_dir.clone().map(|directory| {
        let directories = shared.directories.clone();
        Manifests::new(directory, node.clone(), directories)
    });
    Ok(Sources { api, nodes, manifests, found })
}
