//! The node's half of the composition: runtime, images, network and kubelet.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use kubelet::{Kubelet, KubeletConfig, Seams};
use net::{NativeNetwork, NativeNetworkConfig};
use runtime::{Images, LogLimits, NativeConfig, NativeImages, NativeRuntime, PidLimits, RegistryOptions};
use task::{SystemClock, Tasks};

use super::instance::Instance;
use super::server::{KUBERNETES_VERSION, NodeFacts, Server};

/// Largest packet of pods unless told otherwise.
pub(super) const MTU: u32 = 1500;
/// How long the start of a container may take inside its shim; the kubelet's `runtimeRequestTimeout`.
const START_DEADLINE: Duration = Duration::from_secs(120);
/// Port of the kubelet's API.
const KUBELET_PORT: u16 = 10250;

/// The per-pod program, built by the build script.
static SHIM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/coracle-shim"));

/// Starts everything that runs pods.
pub(super) async fn start(
    server: &Server,
    facts: &NodeFacts,
    transport: Arc<dyn client::Transport>,
) -> anyhow::Result<Arc<Kubelet>> {
    let (instance, settings) = (&server.instance, &server.settings);
    let images = images_of(instance)?;
    let runtime = native_runtime(instance, images.clone(), server.tasks.clone(), settings.handlers()?).await?;
    let network = NativeNetwork::start(NativeNetworkConfig {
        instance: instance.tag.clone(),
        range: facts.pods,
        state: instance.root.join("network"),
        mtu: settings.mtu.unwrap_or(MTU),
        api: facts.forward(),
    });
    let network = network.await.context("cannot prepare the pod network")?;
    let config = KubeletConfig {
        node_name: facts.name.clone(),
        root: instance.root.clone(),
        run_dir: instance.run.clone(),
        log_root: instance.logs.clone(),
        manifest_dir: Some(settings.static_pods.clone().unwrap_or_else(|| instance.static_pods.clone())),
        pod_cidr: Some(facts.pods.to_string()),
        cgroup_prefix: PathBuf::from(instance.named("kubepods")),
        longest_restart_backoff: settings.longest_restart_backoff()?,
        max_pods: settings.max_pods.unwrap_or(110),
        reserved: settings.reserved()?,
        eviction_hard: settings.eviction_hard()?,
        node_ips: vec![facts.address],
        kubelet_version: format!("{KUBERNETES_VERSION}+coracle-{}", env!("CARGO_PKG_VERSION")),
        coracle_version: env!("CARGO_PKG_VERSION").to_owned(),
        kubelet_port: KUBELET_PORT,
        labels: settings.labels()?,
        taints: Vec::new(),
        allowed_unsafe_sysctls: settings.allowed_unsafe_sysctls.clone(),
        cluster_dns: settings.cluster_dns.clone(),
        cluster_domain: settings.cluster_domain.clone().unwrap_or_else(|| "cluster.local".to_owned()),
        resolv_conf: PathBuf::from("/etc/resolv.conf"),
        hosts_file: PathBuf::from("/etc/hosts"),
        proc: PathBuf::from("/proc"),
        sys: PathBuf::from("/sys"),
        etc: PathBuf::from("/etc"),
    };
    let seams = Seams {
        runtime: Arc::new(runtime),
        images,
        network: Arc::new(network),
        transport: Some(transport),
        clock: server.clock.clone(),
        tasks: server.tasks.clone(),
    };
    Kubelet::spawn(config, seams).await.context("cannot start the kubelet")
}

/// The sandboxes of an instance whose server does not run.
pub(super) async fn runtime_of(instance: &Instance, tasks: &Tasks) -> anyhow::Result<NativeRuntime> {
    native_runtime(instance, images_of(instance)?, tasks.clone(), BTreeMap::new()).await
}

fn images_of(instance: &Instance) -> anyhow::Result<Arc<dyn Images>> {
    let images =
        NativeImages::open(&instance.root, RegistryOptions::default()).context("cannot open the image store")?;
    Ok(Arc::new(images))
}

async fn native_runtime(
    instance: &Instance,
    images: Arc<dyn Images>,
    tasks: Tasks,
    handlers: BTreeMap<String, PathBuf>,
) -> anyhow::Result<NativeRuntime> {
    let config = NativeConfig {
        root: instance.root.join("runtime"),
        shim: SHIM,
        images,
        clock: Arc::new(SystemClock),
        tasks,
        logs: LogLimits::default(),
        pids: PidLimits::of_host(),
        start_deadline: START_DEADLINE,
        handlers,
    };
    NativeRuntime::start(config).await.context("cannot start the container runtime")
}
