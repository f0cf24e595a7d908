//! `coracle agent`: a node of a cluster whose control plane is elsewhere.
//!
//! The order of the start: settings and host checks, the instance's lock, who we are ([`Identity`]), the node's place in the
//! cluster ([`Place`]), then the node as in `coracle server`. All that is written to the API is written as
//! `system:node:NAME`. What was learnt is kept, so that pods go on and start again while the server is out of reach.

mod identity;
mod lifetime;
mod place;
mod transport;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use apiserver::authn::certificate_user;
use apiserver::tls_config_by;
use clap::Args;
use client::{Client, Impersonating};
use kubelet::Door;
use task::{SystemClock, Tasks};

use self::identity::Identity;
use self::place::Place;
use self::transport::{Rotating, Serving};
use super::logs::LogOptions;
use super::server::{self, Composition, NodeFacts};
use super::settings::Settings;
use super::token::JoinToken;
use super::{Root, doctor, node};

/// Flags of `coracle agent`.
#[derive(Debug, Args)]
pub(super) struct AgentArguments {
    #[command(flatten)]
    root: Root,
    /// Configuration file with the flags' names as keys [default: /etc/coracle/config.yaml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address of the API server, as its certificate has it
    #[arg(long, value_name = "https://HOST:PORT")]
    server: String,
    /// File with a token of `coracle token create`; not needed while the node's certificate is good
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

impl AgentArguments {
    /// Runs until a signal ends it.
    pub(super) fn run(self, logs: &LogOptions) -> anyhow::Result<()> {
        let instance = self.root.instance()?;
        let settings = self.settings.with_file(self.config.as_deref(), &instance.config_file())?;
        let foreign = settings.of_control_plane();
        ensure!(foreign.is_empty(), "settings of the server, which an agent has none of: {}", foreign.join(", "));
        let token = self.token_file.as_deref().map(JoinToken::read).transpose()?;
        logs.start()?;
        doctor::require_host()?;
        let _taken = instance.take()?;
        let composition = Composition { instance, settings, clock: Arc::new(SystemClock), tasks: Tasks::new() };
        server::block_on(Agent { composition, server: self.server, token }.run())
    }
}

struct Agent {
    composition: Composition,
    server: String,
    token: Option<JoinToken>,
}

impl Agent {
    async fn run(mut self) -> anyhow::Result<()> {
        let tasks = self.composition.tasks.clone();
        let mut ended = std::pin::pin!(server::wait_for_signal());
        tokio::select! {
            signal = &mut ended => return signal,
            started = self.start() => started?,
        }
        server::trim_heap(&tasks);
        ended.await?;
        tracing::info!("shutting down; pods go on");
        tasks.shutdown().await;
        Ok(())
    }

    async fn start(&mut self) -> anyhow::Result<()> {
        let started = self.composition.clock.now();
        let name = server::node_name(&self.composition.settings)?;
        let folder = self.composition.instance.root.join("agent");
        let (clock, tasks) = (self.composition.clock.clone(), self.composition.tasks.clone());
        let identity =
            Identity { folder: folder.clone(), server: self.server.clone(), name: name.clone(), clock, tasks };
        let identity = Arc::new(identity.open(self.token.take()).await?);
        let transport = Arc::new(Rotating::new(identity.enrol().await?));
        let client = Client::new(transport.clone(), &format!("coracle-agent/{name}"));

        let at = self.api_server().await?;
        let address = self.address(at)?;
        let taints = self.composition.settings.taints()?;
        let own = place::Own { name: &name, address, taints: &taints };
        let Place { pods, cluster } = Place::find(&folder, &client, &self.composition.tasks, &own).await?;
        let settings = &mut self.composition.settings;
        (settings.cluster_dns, settings.cluster_domain) = (cluster.dns.clone(), cluster.domain.clone());
        let (cluster, services) = (cluster.pods, cluster.services);
        let addresses = server::addresses_of_node(settings, address, &cluster)?;
        let facts = NodeFacts { name, addresses, pods, cluster, services, advertise: at };
        tracing::info!(node = facts.name, %address, pods = %facts.pods, server = self.server, "the node has joined");

        let network = Impersonating::of(apiserver::authz::NETWORK, transport.clone());
        let serving = Arc::new(Serving::default());
        let door = Door { tls: tls_config_by(identity.authority(), serving.clone())?, identify: certificate_user };
        let kubelet = node::start(&self.composition, &facts, transport.clone(), network, door).await?;
        identity.keep_fresh(&transport, serving, facts.addresses);
        server::announce_ready(&self.composition, kubelet, started);
        Ok(())
    }

    /// An address of the API server.
    async fn api_server(&self) -> anyhow::Result<SocketAddr> {
        let place = self.server.strip_prefix("https://").context("--server is no https URL")?;
        let place = place.split('/').next().unwrap_or_default();
        let place = if place.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
            place.to_owned()
        } else {
            format!("{place}:443")
        };
        let found = tokio::net::lookup_host(&place).await.with_context(|| format!("cannot look up {place}"))?;
        let found: Vec<SocketAddr> = found.collect();
        let usual = found.iter().find(|address| address.is_ipv4()).or(found.first());
        usual.copied().with_context(|| format!("{place} has no address"))
    }

    /// The node's address: the one by which it speaks to the server.
    fn address(&self, server: SocketAddr) -> anyhow::Result<IpAddr> {
        if let Some(address) = self.composition.settings.node_ips()?.first() {
            return Ok(*address);
        }
        // Connecting a UDP socket sends nothing.
        let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(any)?;
        let own = socket.connect(server).and_then(|()| socket.local_addr());
        let own = own.context("no route leads to the server; say the node's address by --node-ip")?.ip();
        if own.is_loopback() {
            bail!("the server is on this host; say the address by which it is reached from others by --node-ip");
        }
        Ok(own)
    }
}
