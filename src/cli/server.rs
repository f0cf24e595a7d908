//! `coracle server`: control plane and node in one process.
//!
//! The order of the start: settings and host checks, the instance's lock, store, authority, API server, listener,
//! controllers, then the node. On a signal the order is reversed; pods are left alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use api::user::{MASTERS, NODES, UserInfo};
use apiserver::authn::{Issuer, SecretToken, SigningKeys, StaticTokens};
use apiserver::pki::{Kubeconfig, Pki, Subject, write_private};
use apiserver::{ApiServer, Component, Config, Entropy, FRONT_PROXY, FrontProxy, Kubelets, VersionInfo, tls_config};
use clap::Args;
use client::Client;
use control::autoapply::{self, Places};
use control::certificates::{Authority, Reserved};
use control::{Clients, Controllers, ControllersConfig, nodeipam, tokens};
use kubelet::Kubelet;
use net::{Family, Forward, Ranges};
use task::{SharedClock, SystemClock, Tasks};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::addresses::Addresses;
use super::bridge::{ToApiServer, ToKubelets};
use super::cluster::Cluster;
use super::instance::Instance;
use super::logs::LogOptions;
use super::names::Names;
use super::settings::Settings;
use super::{Root, doctor, node, snapshot};

/// The Kubernetes version whose API is served.
pub(super) const KUBERNETES_VERSION: &str = "v1.36.0";

/// Heap arenas that all threads share: more cost memory, and nothing here allocates on many threads at once.
const ARENAS: i32 = 2;
/// How often memory that a burst of work has left free goes back to the kernel.
const TRIM_EVERY: Duration = Duration::from_secs(60);

/// Flags of `coracle server`.
#[derive(Debug, Args)]
pub(super) struct ServerArguments {
    #[command(flatten)]
    root: Root,
    /// Configuration file with the flags' names as keys [default: /etc/coracle/config.yaml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

impl ServerArguments {
    /// Runs until a signal ends it.
    pub(super) fn run(self, logs: &LogOptions) -> anyhow::Result<()> {
        let instance = self.root.instance()?;
        let settings = self.settings.with_file(self.config.as_deref(), &instance.config_file())?;
        logs.start()?;
        doctor::require_host()?;
        let _taken = instance.take()?;
        block_on(Composition { instance, settings, clock: Arc::new(SystemClock), tasks: Tasks::new() }.run())
    }
}

/// Runs what pods need: with few heap arenas, many descriptors and two threads.
pub(super) fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    oci::sys::heap::limit_arenas(ARENAS);
    match runtime::raise_open_files() {
        Ok(limit) => tracing::debug!(limit, "limit of open files"),
        Err(error) => tracing::warn!(%error, "the limit of open files could not be raised"),
    }
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(work)
}

/// What the parts of the composition share, of a server or an agent.
pub(super) struct Composition {
    pub(super) instance: Instance,
    pub(super) settings: Settings,
    pub(super) clock: SharedClock,
    pub(super) tasks: Tasks,
}

/// What is known of the node before it exists.
pub(super) struct NodeFacts {
    pub(super) name: String,
    /// Not empty; the primary one first.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) pods: Ranges,
    /// Addresses of the pods of all nodes.
    pub(super) cluster: Ranges,
    pub(super) services: Ranges,
    /// Where the API server can be reached, if it listens on all addresses on that of the node.
    pub(super) advertise: SocketAddr,
}

impl NodeFacts {
    /// How the Service of the API server leads to it; none from where nobody but this host reaches it.
    pub(super) fn forward(&self) -> Option<Forward> {
        const PORT: u16 = 443;
        match (self.services.v4.gateway(), self.advertise) {
            (IpAddr::V4(first), SocketAddr::V4(to)) if !to.ip().is_loopback() => {
                Some(Forward { from: SocketAddrV4::new(first, PORT), to })
            }
            _ => None,
        }
    }
}

impl Composition {
    async fn run(self) -> anyhow::Result<()> {
        let started = self.clock.now();
        let listen = self.settings.listen.unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 6443)));
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("cannot listen on {listen}; choose another port with --listen"))?;
        let listen = listener.local_addr()?;
        let facts = self.facts(listen)?;

        let store = Arc::new(snapshot::open_store(&self.instance, self.clock.clone())?);
        let entropy = Entropy::system();
        let pki = Arc::new(Pki::open(&self.instance.root.join("pki"), self.clock.now(), &entropy)?);
        let to_kubelets = Arc::new(self.to_kubelets(store.clone(), &pki)?);
        let server = ApiServer::new(Config {
            store: store.clone(),
            clock: self.clock.clone(),
            entropy: entropy.clone(),
            version: VersionInfo::of_release(env!("CARGO_PKG_VERSION")),
            nodes: to_kubelets.clone(),
            tokens: self.tokens()?,
            issuer: self.issuer()?,
            services: facts.services.to_string().parse().context("--service-cidr")?,
            advertise: facts.advertise,
        });
        server.start(&self.tasks).await.context("cannot make the objects that every cluster has")?;
        server.aggregate(self.front_proxy(&pki, &entropy)?, &self.tasks);
        self.write_kubeconfig(&pki, listen)?;
        let tls = self.server_tls(&pki, &facts)?;
        // Draining goes on after the listener's tasks have been told to end, so it belongs to a group of its own.
        let (connections, drain) = (Tasks::new(), Tasks::new());
        let serving = drain.spawn("api listener", server.clone().serve(listener, tls, connections.clone()));
        tracing::info!(address = %listen, kubeconfig = %self.instance.kubeconfig_path().display(), "API is served");

        snapshot::serve(&self.instance, &store, &self.tasks)?;
        self.start_controllers(&server, &pki, &facts)?;
        self.publish(&server, &facts);
        if !self.settings.disable_agent.unwrap_or(false) {
            let user = UserInfo::authenticated(&format!("system:node:{}", facts.name), &[NODES]);
            let transport = ToApiServer::connect(&server, user);
            let network = ToApiServer::connect(&server, UserInfo::authenticated(apiserver::authz::NETWORK, &[]));
            let door = node::door(&self, &facts, &pki)?;
            let kubelet = node::start(&self, &facts, transport, network, door).await?;
            to_kubelets.connect(&facts.name, kubelet.clone());
            announce_ready(&self, kubelet, started);
        }
        trim_heap(&self.tasks);
        wait_for_signal().await?;
        tracing::info!("shutting down; pods go on");
        self.tasks.shutdown().await;
        connections.stop();
        let _ = serving.await;
        store.close().await.context("the last changes were not written")
    }

    fn facts(&self, listen: SocketAddr) -> anyhow::Result<NodeFacts> {
        let settings = &self.settings;
        let Addresses { pods, cluster, services } = settings.addresses()?;
        let name = node_name(settings)?;
        let said = settings.node_ips()?.first().copied();
        let address = said.or_else(|| outward_address(Family::V4)).unwrap_or(pods.v4.gateway());
        let addresses = addresses_of_node(settings, address, &cluster)?;
        let reached = if listen.ip().is_unspecified() { address } else { listen.ip() };
        let advertise = SocketAddr::new(reached, listen.port());
        Ok(NodeFacts { name, addresses, pods, cluster, services, advertise })
    }

    /// The way to kubelets, with an identity that may do everything there.
    fn to_kubelets(&self, store: Arc<dyn store::Store>, pki: &Pki) -> anyhow::Result<ToKubelets> {
        let subject = Subject::client("kube-apiserver-kubelet-client", &[MASTERS]);
        let credential = pki.credential("apiserver-kubelet-client", &subject, self.clock.now())?;
        Ok(ToKubelets::new(Kubelets::new(store, pki.certificate(), &credential, self.tasks.clone())?))
    }

    /// By what servers of other API groups know this one: of an authority of its own, lest whoever gets a certificate of
    /// the cluster's speak for its users.
    fn front_proxy(&self, pki: &Pki, entropy: &Entropy) -> anyhow::Result<FrontProxy> {
        let own = Pki::open(&self.instance.root.join("pki/front-proxy"), self.clock.now(), entropy)?;
        let credential = own.credential("client", &Subject::client(FRONT_PROXY, &[]), self.clock.now())?;
        let (authority, clients) = (own.certificate().to_owned(), pki.certificate().to_owned());
        Ok(FrontProxy { authority, credential, clients })
    }

    fn tokens(&self) -> anyhow::Result<StaticTokens> {
        let Some(path) = &self.settings.token_auth_file else { return Ok(StaticTokens::default()) };
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        StaticTokens::parse(&text).with_context(|| format!("{}", path.display()))
    }

    /// Who signs the tokens of service accounts, with keys kept beside the authority.
    fn issuer(&self) -> anyhow::Result<Issuer> {
        let keys = SigningKeys::open(&self.instance.root.join("pki/service-accounts.pem"), self.clock.now())?;
        Ok(Issuer::new(self.settings.cluster_domain.as_deref().unwrap_or("cluster.local"), keys))
    }

    /// What the API server is known by.
    fn known_as(&self, facts: &NodeFacts) -> Subject {
        let further = [facts.advertise.ip(), facts.services.v4.gateway()];
        let mut subject = Subject::api_server(&facts.name, &[&*facts.addresses, &further].concat());
        if let Subject::Server { names, addresses, .. } = &mut subject {
            let domain = self.settings.cluster_domain.iter().filter(|domain| *domain != "cluster.local");
            names.extend(domain.map(|domain| format!("kubernetes.default.svc.{domain}")));
            for further in &self.settings.tls_san {
                match further.parse() {
                    Ok(address) => addresses.push(address),
                    Err(_) => names.push(further.clone()),
                }
            }
        }
        subject
    }

    /// What no node may be known by that joins: of the server's own node, too, there is one.
    fn reserved(&self, facts: &NodeFacts) -> Reserved {
        let Subject::Server { mut names, .. } = self.known_as(facts) else { return Reserved::default() };
        if self.settings.disable_agent.unwrap_or(false) {
            // An agent of its own may run on this host. What else has that name keeps it.
            let own = names.iter().rposition(|name| *name == facts.name);
            own.map(|own| names.remove(own));
        }
        let mut addresses = vec![facts.advertise.ip(), facts.services.v4.gateway()];
        addresses.extend(self.settings.tls_san.iter().filter_map(|name| name.parse::<IpAddr>().ok()));
        Reserved { addresses, names }
    }

    fn server_tls(&self, pki: &Pki, facts: &NodeFacts) -> anyhow::Result<Arc<rustls::ServerConfig>> {
        let subject = self.known_as(facts);
        let credential = pki.credential("apiserver", &subject, self.clock.now())?;
        Ok(tls_config(pki.certificate(), &credential)?)
    }

    fn write_kubeconfig(&self, pki: &Pki, listen: SocketAddr) -> anyhow::Result<()> {
        let subject = Subject::client("kubernetes-admin", &[MASTERS]);
        let credential = pki.credential("admin", &subject, self.clock.now())?;
        let host = if listen.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { listen.ip() };
        let text = Kubeconfig {
            server: &format!("https://{}", SocketAddr::new(host, listen.port())),
            cluster: "coracle",
            user: "kubernetes-admin",
            authority: pki.certificate(),
            credential: &credential,
        }
        .render();
        let own = self.instance.kubeconfig_path();
        for path in std::iter::once(&own).chain(&self.settings.write_kubeconfig) {
            write_private(path, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    fn start_controllers(&self, server: &Arc<ApiServer>, pki: &Arc<Pki>, facts: &NodeFacts) -> anyhow::Result<()> {
        let client = |component: &str| {
            let user = UserInfo::authenticated(&format!("system:{component}"), &[]);
            Client::new(ToApiServer::connect(server, user), component)
        };
        let kubelet = self.settings.kubelet_listen.unwrap_or(node::KUBELET);
        let (authority, clock, issuer) = (Arc::clone(pki), Arc::clone(&self.clock), Arc::clone(server));
        let reserved = self.reserved(facts);
        let ranges = facts.cluster.to_string().parse::<nodeipam::Ranges>().ok();
        let has_node = !self.settings.disable_agent.unwrap_or(false);
        let own = if has_node { facts.pods.to_string() } else { String::new() };
        let config = ControllersConfig {
            root_ca: pki.certificate().to_owned(),
            authority: Authority { sign: Arc::new(move |order| Ok(authority.issue(order, clock.now())?)), reserved },
            node_grace: self.settings.node_grace()?,
            pods: ranges.map(|all| all.without(&own)),
            issue: Arc::new(move |order: &tokens::Order| {
                let tokens::Order { namespace, secret, account, account_uid } = order.clone();
                Ok(issuer.secret_token(SecretToken { namespace, secret, account, account_uid })?)
            }),
            load_balancers: self.settings.load_balancers([facts.advertise.port(), kubelet.port()].into())?,
            local_storage: self.settings.local_storage()?,
            dns: Names::new(&self.settings, facts).service(),
        };
        let clients = Clients { scheduler: client("kube-scheduler"), controllers: client("kube-controller-manager") };
        Controllers::spawn(&clients, &self.clock, &self.tasks, config);
        self.keep_manifests(server);
        server.hosts(Component::Scheduler);
        server.hosts(Component::ControllerManager);
        Ok(())
    }

    /// Tells nodes that join what all of them know.
    fn publish(&self, server: &Arc<ApiServer>, facts: &NodeFacts) {
        let user = UserInfo::authenticated("system:apiserver", &[MASTERS]);
        let client = Client::new(ToApiServer::connect(server, user), "coracle-server");
        let (dns, domain) = (self.settings.cluster_dns.clone(), self.settings.cluster_domain.clone());
        Cluster { pods: facts.cluster, services: facts.services, dns, domain }.publish(client, &self.tasks);
    }

    /// Applies what is in the folder of manifests, with an administrator's rights, as only root writes there.
    fn keep_manifests(&self, server: &Arc<ApiServer>) {
        let folder = self.settings.manifests.clone().unwrap_or_else(|| self.instance.manifests.clone());
        let user = UserInfo::authenticated("system:coracle:manifests", &[MASTERS]);
        let client = Client::new(ToApiServer::connect(server, user), "coracle-manifests");
        let places = Places { folder, record: self.instance.root.join("manifests.json") };
        autoapply::spawn(&client, &self.clock, &self.tasks, places);
    }
}

/// The name of this host's node.
pub(super) fn node_name(settings: &Settings) -> anyhow::Result<String> {
    let name = match &settings.node_name {
        Some(name) => name.clone(),
        None => rustix::system::uname().nodename().to_string_lossy().to_lowercase(),
    };
    let problems = api::names::dns1123_subdomain(&name);
    ensure!(problems.is_empty(), "node name {name:?}: {}; choose another with --node-name", problems.join("; "));
    Ok(name)
}

/// Logs once that the node is ready, and how long the start took.
pub(super) fn announce_ready(composition: &Composition, kubelet: Arc<Kubelet>, started: jiff::Timestamp) {
    let clock = composition.clock.clone();
    composition.tasks.spawn("ready announcement", async move {
        kubelet.registered().await;
        let elapsed = clock.now().duration_since(started);
        tracing::info!(elapsed_ms = elapsed.as_millis(), "node is ready");
    });
}

/// Gives free memory back now and then.
pub(super) fn trim_heap(tasks: &Tasks) {
    tasks.spawn("heap trim", async {
        let mut timer = tokio::time::interval(TRIM_EVERY);
        loop {
            timer.tick().await;
            task::blocking(oci::sys::heap::trim).await;
        }
    });
}

/// The address that packets of a family to the world would carry; none without a route. Connecting a UDP socket sends
/// nothing.
fn outward_address(family: Family) -> Option<IpAddr> {
    // Reserved for documentation by RFC 5737 and RFC 3849: they follow the default route.
    let (any, world): (IpAddr, IpAddr) = match family {
        Family::V4 => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into()),
        Family::V6 => (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((world, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_unspecified())
}

/// The addresses of a node whose primary one is known: those that were said, or where pods have both families, also the
/// one of the other family, if there is one.
pub(super) fn addresses_of_node(settings: &Settings, primary: IpAddr, cluster: &Ranges) -> anyhow::Result<Vec<IpAddr>> {
    let said = settings.node_ips()?;
    if !said.is_empty() {
        return Ok(said);
    }
    let other = if primary.is_ipv4() { Family::V6 } else { Family::V4 };
    let second = cluster.v6.and_then(|_| outward_address(other));
    Ok([Some(primary), second].into_iter().flatten().collect())
}

/// Waits until this process is told to end.
pub(super) async fn wait_for_signal() -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
