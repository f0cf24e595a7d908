//! The node's half of the composition: runtime, images, network and kubelet.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use apiserver::authn::certificate_user;
use apiserver::pki::{Pki, Subject};
use apiserver::tls_config;
use client::events::{Recorder, Source};
use client::{Client, Informer, ListOptions, Scope};
use k8s_openapi::api::core::v1::Node;
use kubelet::{Door, Kubelet, KubeletConfig, Seams};
use net::{NativeNetwork, NativeNetworkConfig, NodeRoutes, PolicyTable, ServiceTable};
use runtime::{Images, LogLimits, NativeConfig, NativeImages, NativeRuntime, PidLimits, RegistryOptions};
use task::{SystemClock, Tasks};
use tokio::net::TcpListener;

use super::instance::Instance;
use super::names::Names;
use super::server::{Composition, KUBERNETES_VERSION, NodeFacts};

/// Largest packet of pods unless told otherwise.
pub(super) const MTU: u32 = 1500;
/// How long the start of a container may take inside its shim; the kubelet's `runtimeRequestTimeout`.
const START_DEADLINE: Duration = Duration::from_secs(120);
/// Where the kubelet's API is usually found.
pub(super) const KUBELET: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 10250);

/// The per-pod program, built by the build script.
static SHIM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/coracle-shim"));

/// Starts everything that runs pods.
pub(super) async fn start(
    server: &Composition,
    facts: &NodeFacts,
    transport: Arc<dyn client::Transport>,
    network_user: Arc<dyn client::Transport>,
    door: Door,
) -> anyhow::Result<Arc<Kubelet>> {
    let listener = listen(server.settings.kubelet_listen).await?;
    let (instance, settings) = (&server.instance, &server.settings);
    let images = images_of(instance)?;
    let runtime = native_runtime(instance, images.clone(), server.tasks.clone(), settings.handlers()?).await?;
    let network = NativeNetworkConfig {
        instance: instance.tag.clone(),
        pods: facts.pods,
        cluster: facts.cluster,
        state: instance.root.join("network"),
        mtu: settings.mtu.unwrap_or(MTU),
        api: facts.forward(),
    };
    let (services, policies) = (ServiceTable::all(&network, &facts.services), PolicyTable::all(&network));
    let routes = NodeRoutes::new(&network);
    let network = NativeNetwork::start(network).await.context("cannot prepare the pod network")?;
    let nodes = keep_routes(server, facts, transport.clone(), routes);
    let here = proxy::Here { name: facts.name.clone(), addresses: facts.addresses.clone(), zone: None };
    proxy::spawn_services(&Client::new(transport.clone(), "service-proxy"), &server.tasks, (here, &nodes), services);
    proxy::spawn_policies(&Client::new(network_user, "network-policies"), &server.tasks, &facts.name, policies);
    let names = Names::new(settings, facts);
    let config = KubeletConfig {
        node_name: facts.name.clone(),
        root: instance.root.clone(),
        run_dir: instance.run.clone(),
        log_root: instance.logs.clone(),
        manifest_dir: Some(settings.static_pods.clone().unwrap_or_else(|| instance.static_pods.clone())),
        pod_cidrs: facts.pods.iter().map(|range| range.to_string()).collect(),
        cgroup_prefix: PathBuf::from(instance.named("kubepods")),
        longest_restart_backoff: settings.longest_restart_backoff()?,
        max_pods: settings.max_pods.unwrap_or(110),
        reserved: settings.reserved()?,
        eviction: settings.eviction()?,
        eviction_max_pod_grace: settings.eviction_max_pod_grace_period.unwrap_or(0),
        node_ips: facts.addresses.clone(),
        kubelet_version: format!("{KUBERNETES_VERSION}+coracle-{}", env!("CARGO_PKG_VERSION")),
        coracle_version: env!("CARGO_PKG_VERSION").to_owned(),
        kubelet_port: listener.local_addr()?.port(),
        labels: settings.labels()?,
        taints: settings.taints()?,
        allowed_unsafe_sysctls: settings.allowed_unsafe_sysctls.clone(),
        cluster_dns: names.asked(),
        cluster_domain: names.domain(),
        resolv_conf: names.of_host(),
        hosts_file: PathBuf::from("/etc/hosts"),
        proc: PathBuf::from("/proc"),
        sys: PathBuf::from("/sys"),
        etc: PathBuf::from("/etc"),
    };
    names.start(&Client::new(transport.clone(), "dns"), &server.tasks)?;
    let seams = Seams {
        runtime: Arc::new(runtime),
        images,
        network: Arc::new(network),
        transport: Some(transport),
        clock: server.clock.clone(),
        tasks: server.tasks.clone(),
    };
    let kubelet = Kubelet::spawn(config, seams).await.context("cannot start the kubelet")?;
    tracing::info!(address = %listener.local_addr()?, "the kubelet's API is served");
    kubelet.listen(listener, door);
    Ok(kubelet)
}

/// Keeps the routes to the pods of other nodes; these nodes.
fn keep_routes(
    server: &Composition,
    facts: &NodeFacts,
    transport: Arc<dyn client::Transport>,
    routes: NodeRoutes,
) -> Informer<Node> {
    let client = Client::new(transport, &format!("coracle-routes/{}", facts.name));
    let source = Source { component: "route-controller".to_owned(), host: facts.name.clone() };
    let recorder = Recorder::spawn(&client, &server.tasks, server.clock.clone(), source);
    let nodes = Informer::spawn(&client, &server.tasks, Scope::Cluster, ListOptions::default());
    proxy::routes::spawn(&nodes, &server.tasks, (&facts.name, facts.cluster), recorder, routes);
    nodes
}

/// The kubelet's socket. Who has not said which port it is gets another one where the usual is taken, for instance by a
/// second instance on the host: clients find the port in the node's status.
async fn listen(asked: Option<SocketAddr>) -> anyhow::Result<TcpListener> {
    let address = asked.unwrap_or(KUBELET);
    match TcpListener::bind(address).await {
        Err(error) if asked.is_none() && error.kind() == std::io::ErrorKind::AddrInUse => {
            tracing::warn!(%address, "another program listens here: the kubelet's API takes another port");
            Ok(TcpListener::bind(SocketAddr::new(address.ip(), 0)).await?)
        }
        bound => {
            bound.with_context(|| format!("cannot listen on {address}; choose another port with --kubelet-listen"))
        }
    }
}

/// The certificate of the kubelet beside an authority, and whose certificates it takes.
pub(super) fn door(server: &Composition, facts: &NodeFacts, pki: &Pki) -> anyhow::Result<Door> {
    let mut addresses = facts.addresses.clone();
    addresses.extend([IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]);
    addresses.dedup();
    let common_name = format!("system:node:{}", facts.name);
    let names = vec![facts.name.clone(), "localhost".to_owned()];
    let credential =
        pki.credential("kubelet", &Subject::Server { common_name, names, addresses }, server.clock.now())?;
    Ok(Door { tls: tls_config(pki.certificate(), &credential)?, identify: certificate_user })
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
