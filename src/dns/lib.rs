//! Cluster DNS: names of Services and pods for the pods of a node, and everybody else's names by way of the host's resolvers.
//!
//! Every node has one, started by the composition with the node's identity, on an address that its pods reach;
//! `control::dns` makes the Service `kube-system/kube-dns` lead there. [`answer`] decides on a [`Zone`], which is changed
//! one object at a time; sockets, the kept answers of others and the way to them are shells around it. Deliberately not
//! here: zone transfers, dynamic updates, DNSSEC of the cluster's own names, metrics, a configuration of its own. Invariant:
//! nothing that the cluster or the host's resolvers did not say is ever answered, and of what is not known yet nothing is
//! denied.

mod answer;
mod cache;
mod follow;
mod forward;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod message;
mod objects;
mod resolvers;
mod serve;
mod server;
#[cfg(test)]
mod tests;
mod upstream;
mod zone;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use client::Client;
use hickory_proto::rr::Name;
use task::Tasks;
use tokio::net::{TcpListener, UdpSocket};

pub use answer::{Answer, Ask, TTL, answer};
pub use message::{Flags, Known, Question, Read, Sections, Transport, read};
pub use objects::{EndpointSlice, Namespace, Service};
pub use resolvers::ResolvConf;
pub use zone::Zone;

/// How long to wait until an address that is somebody else's is tried again.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the DNS of a node needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// The cluster's domain, usually `cluster.local`.
    pub domain: String,
    /// Where it listens, by UDP and TCP; one address of each family that pods have.
    pub listen: Vec<SocketAddr>,
    /// The addresses that pods are told.
    pub told: Vec<IpAddr>,
    /// Where the host says whom it asks.
    pub resolv_conf: ResolvConf,
}

/// The cluster's domain is no name.
#[derive(Debug, thiserror::Error)]
#[error("{domain:?} cannot be the domain of a cluster")]
pub struct InvalidDomain {
    domain: String,
}

/// Where questions come from.
#[derive(Debug)]
pub struct Sockets {
    /// Datagrams.
    pub udp: UdpSocket,
    /// Connections.
    pub tcp: TcpListener,
}

impl Sockets {
    /// Both at one address.
    ///
    /// # Errors
    /// If the kernel refuses one.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let udp = UdpSocket::bind(address).await?;
        // The port that the kernel has chosen, if it was to choose.
        let tcp = TcpListener::bind(udp.local_addr()?).await?;
        Ok(Self { udp, tcp })
    }
}

/// A zone for this configuration.
///
/// # Errors
/// If the domain is no name.
pub fn zone(config: &Config) -> Result<Zone, InvalidDomain> {
    let invalid = || InvalidDomain { domain: config.domain.clone() };
    let domain = Name::from_ascii(config.domain.trim_end_matches('.')).map_err(|_| invalid())?;
    if domain.is_root() || domain.is_empty() {
        return Err(invalid());
    }
    Ok(Zone::new(domain, config.told.clone()))
}

/// Starts the DNS of a node: it follows the API and answers as soon as its address is free.
///
/// # Errors
/// If the domain is no name.
pub fn spawn(client: &Client, tasks: &Tasks, config: Config) -> Result<(), InvalidDomain> {
    let zone = Arc::new(RwLock::new(zone(&config)?));
    follow::feed(client, tasks, &zone);
    let addresses = config.listen.clone();
    let server = server_of(zone, config, tasks);
    for address in addresses {
        let (server, group) = (server.clone(), tasks.clone());
        tasks.spawn("dns-listen", async move { attend(listen(address).await, server, &group) });
    }
    Ok(())
}

async fn listen(address: SocketAddr) -> Sockets {
    let mut is_told = false;
    loop {
        match Sockets::bind(address).await {
            Ok(sockets) => {
                tracing::info!(%address, "names are answered");
                return sockets;
            }
            Err(error) if !is_told => {
                is_told = true;
                tracing::warn!(%address, %error, "no names are answered: is another program listening on all addresses?");
            }
            Err(_) => {}
        }
        tokio::time::sleep(PATIENCE).await;
    }
}

/// Answers on these sockets from a zone, until the task group ends.
pub fn serve(sockets: Sockets, zone: Arc<RwLock<Zone>>, config: Config, tasks: &Tasks) {
    attend(sockets, server_of(zone, config, tasks), tasks);
}

fn server_of(zone: Arc<RwLock<Zone>>, config: Config, tasks: &Tasks) -> server::Server {
    let mut own = config.told;
    own.extend(config.listen.iter().map(SocketAddr::ip));
    let resolvers = resolvers::Resolvers::new(config.resolv_conf, own);
    server::Server::new(zone, forward::Forwarder::new(resolvers, tasks.clone()))
}

fn attend(sockets: Sockets, server: server::Server, tasks: &Tasks) {
    tasks.spawn("dns-datagrams", serve::datagrams(sockets.udp, server.clone(), tasks.clone()));
    tasks.spawn("dns-connections", serve::connections(sockets.tcp, server, tasks.clone()));
}
