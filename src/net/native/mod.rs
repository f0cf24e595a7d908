//! The native network: rtnetlink and nfnetlink over sockets of our own.
//!
//! Steps are ordered so that a crash between any two is repaired: an address is recorded before its link is made, every
//! step replaces what is there, and [`Network::retain`] gives back what no sandbox owns any more. If the record is damaged,
//! the addresses of links rest, and a sandbox that is attached again has that of its own link. Changes of host settings are
//! recorded with their former value before they are made, and [`reset`] restores them.

mod conntrack;
mod forwarding;
mod link;
mod netlink;
mod nfnetlink;
mod nftables;
mod policies;
mod record;
mod routes;
mod services;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use oci::sys::NetNs;
use rustix::thread::LinkNameSpaceType;
use task::blocking;

use self::conntrack::Which;
use self::link::Pair;
use self::netlink::Socket;
use self::nfnetlink::Netfilter;
use self::nftables::{Published, Table};
pub use self::policies::PolicyTable;
use self::record::Found;
pub use self::routes::{MissingRoute, NodeRoutes};
pub use self::services::ServiceTable;
use crate::pool::Pool;
use crate::range::{Family, Ranges};
use crate::{Attach, Attachment, Network, NetworkError, Protocol};

/// What the names of all links of sandboxes begin with.
const LINK_PREFIX: &str = "cor";
/// Largest name of a link: `IFNAMSIZ` − 1.
const LINK_NAME: usize = 15;

/// What the native network needs to know.
#[derive(Debug, Clone)]
pub struct NativeNetworkConfig {
    /// Tag of this instance in names that the host sees; empty for the default one.
    pub instance: String,
    /// Addresses of this node's pods.
    pub pods: Ranges,
    /// Addresses of the pods of all nodes, who see each other's own.
    pub cluster: Ranges,
    /// Folder for the address record and former host settings.
    pub state: PathBuf,
    /// Largest packet of pods.
    pub mtu: u32,
    /// How pods reach the API server by the address of its Service; none if it listens where they cannot reach it.
    pub api: Option<Forward>,
}

/// Connections to one address that go to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// What clients connect to.
    pub from: SocketAddrV4,
    /// Who answers, with an address of this host.
    pub to: SocketAddrV4,
}

impl NativeNetworkConfig {
    /// Our nftables table about a family.
    fn table(&self, family: Family) -> Table {
        self.table_of("", family)
    }

    /// Our nftables table of Services; tags of instances have no dots.
    fn service_table(&self, family: Family) -> Table {
        self.table_of(".services", family)
    }

    /// Our nftables table of network policies.
    fn policy_table(&self, family: Family) -> Table {
        self.table_of(".policies", family)
    }

    fn table_of(&self, what: &str, family: Family) -> Table {
        let dash = if self.instance.is_empty() { "" } else { "-" };
        let end = match family {
            Family::V4 => "",
            Family::V6 => ".v6",
        };
        Table { name: format!("coracle{dash}{}{what}{end}", self.instance), family }
    }

    /// All tables about a family.
    fn tables(&self, family: Family) -> [Table; 3] {
        [self.table(family), self.service_table(family), self.policy_table(family)]
    }

    /// Name of the host's link of a sandbox: derived from instance and sandbox, so unique on the host.
    fn link_name(&self, sandbox: &str) -> String {
        let mut name = format!("{LINK_PREFIX}{:016x}", fnv1a(&[self.instance.as_bytes(), &[0], sandbox.as_bytes()]));
        name.truncate(LINK_NAME);
        name
    }

    fn record(&self) -> PathBuf {
        self.state.join("addresses.json")
    }

    fn routes_record(&self) -> PathBuf {
        self.state.join("routes.json")
    }

    fn range_record(&self) -> PathBuf {
        self.state.join("range")
    }

    /// The ranges with which the network was started, as far as they are known.
    fn started_ranges(&self) -> Ranges {
        let recorded = fs::read_to_string(self.range_record()).ok();
        recorded.and_then(|text| text.trim().parse().ok()).unwrap_or(self.pods)
    }
}

/// 64-bit FNV-1a, a stable hash for names.
fn fnv1a(parts: &[&[u8]]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.iter());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Connects sandboxes on this host.
#[derive(Debug)]
pub struct NativeNetwork {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: NativeNetworkConfig,
    netfilter: Netfilter,
    pool: Mutex<Pool>,
}

impl NativeNetwork {
    /// Prepares the host (forwarding, the node's address in the range, our table) and reads the record.
    ///
    /// # Errors
    /// When the kernel refuses a step or the record cannot be read.
    pub async fn start(config: NativeNetworkConfig) -> Result<Self, NetworkError> {
        blocking(move || {
            fs::create_dir_all(&config.state).map_err(|source| record::failed(&config.state, source))?;
            let pool = match record::read(&config.record())? {
                Found::Whole(pool) => pool,
                Found::Nothing => Pool::default(),
                Found::Damaged => find_links(&config)?,
            };
            let netfilter = Netfilter::default();
            prepare_host(&netfilter, &config, &pool)?;
            Ok(Self { inner: Arc::new(Inner { config, netfilter, pool: Mutex::new(pool) }) })
        })
        .await
    }
}

#[async_trait]
impl Network for NativeNetwork {
    async fn attach(&self, request: Attach) -> Result<Attachment, NetworkError> {
        let inner = self.inner.clone();
        blocking(move || inner.attach(&request)).await
    }

    async fn detach(&self, sandbox: &str) -> Result<(), NetworkError> {
        let (inner, sandbox) = (self.inner.clone(), sandbox.to_owned());
        blocking(move || inner.give_back(&[sandbox])).await
    }

    async fn retain(&self, live: &[String]) -> Result<(), NetworkError> {
        let (inner, live) = (self.inner.clone(), live.to_vec());
        blocking(move || {
            let dead: Vec<String> = inner.pool().sandboxes().filter(|s| !live.contains(s)).cloned().collect();
            inner.give_back(&dead)
        })
        .await
    }

    fn attachment(&self, sandbox: &str) -> Option<Attachment> {
        self.inner.pool().get_connected(sandbox).map(|addresses| Attachment { addresses })
    }

    fn link(&self, sandbox: &str) -> Option<String> {
        self.attachment(sandbox).map(|_| self.inner.config.link_name(sandbox))
    }
}

impl Inner {
    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attach(&self, request: &Attach) -> Result<Attachment, NetworkError> {
        let mut host = Socket::route().map_err(kernel("netlink socket"))?;
        let addresses = {
            let mut pool = self.pool();
            pool.reclaim(&request.sandbox, &self.config.link_name(&request.sandbox), &self.config.pods);
            let taken =
                pool.take(&request.sandbox, &self.config.pods, |link| !link::exists(&mut host, link).unwrap_or(true));
            let Some(addresses) = taken else {
                return Err(NetworkError::Exhausted { range: self.config.pods.to_string() });
            };
            pool.take_ports(&request.sandbox, &request.ports)?;
            self.save(&pool)?;
            addresses
        };
        let name = self.config.link_name(&request.sandbox);
        let pair = Pair { name, addresses: addresses.clone(), mtu: self.config.mtu };
        pair.connect(&mut host, &request.namespace)?;
        if !request.ports.is_empty() {
            link::answer_loopback(&pair.name).map_err(kernel("loopback by the host's link"))?;
        }
        inside(request.namespace.clone(), move |socket| pair.configure_inside(socket))?;
        let mut pool = self.pool();
        if let Some((addresses, ports)) = pool.published(&request.sandbox) {
            self.publish(&Published::each(&addresses, ports))?;
        }
        if pool.connect(&request.sandbox) {
            self.save(&pool)?;
        }
        Ok(Attachment { addresses })
    }

    fn publish(&self, published: &[Published<'_>]) -> Result<(), NetworkError> {
        nftables::publish(&self.netfilter, &self.config, published, true)
            .map_err(kernel("host ports of the sandbox"))?;
        for one in published {
            for port in one.ports().filter(|port| port.protocol == Protocol::Udp) {
                let (protocol, address, port) = (port.protocol.number(), port.host_ip, port.host_port);
                let family = Family::of(one.address);
                forget(&self.netfilter, Which::To { protocol, address, port, family });
            }
        }
        Ok(())
    }

    fn unpublish(&self, published: &[Published<'_>]) -> Result<(), NetworkError> {
        match nftables::publish(&self.netfilter, &self.config, published, false) {
            // Somebody has removed the table, or emptied it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.map_err(kernel("removal of host ports"))?,
        }
        published.iter().for_each(|one| forget(&self.netfilter, Which::AnsweredBy(one.address)));
        Ok(())
    }

    fn give_back(&self, sandboxes: &[String]) -> Result<(), NetworkError> {
        let mut pool = self.pool();
        for sandbox in sandboxes.iter().filter(|sandbox| pool.get_connected(sandbox).is_some()) {
            if let Some((addresses, ports)) = pool.published(sandbox) {
                self.unpublish(&Published::each(&addresses, ports))?;
            }
        }
        let given = sandboxes.iter().filter(|name| pool.give_back(name, self.config.link_name(name))).count();
        if given == 0 { Ok(()) } else { self.save(&pool) }
    }

    /// Called with the pool locked, so that a newer record is never replaced by an older one.
    fn save(&self, pool: &Pool) -> Result<(), NetworkError> {
        record::write(&self.config.record(), pool)
    }
}

/// The addresses of links that sandboxes of this instance may have, on record from now on as resting.
fn find_links(config: &NativeNetworkConfig) -> Result<Pool, NetworkError> {
    let found = || link::sandboxes(&mut Socket::route()?);
    let mut pool = Pool::default();
    for (address, link) in found().map_err(kernel("look-up of the sandboxes' links"))? {
        if config.pods.v4.contains(IpAddr::V4(address)) && link.starts_with(LINK_PREFIX) {
            tracing::info!(%address, link, "an address rests while the link is there");
            pool.rest(address, link);
        }
    }
    record::write(&config.record(), &pool)?;
    Ok(pool)
}

/// That old connections go on is worth a warning only.
fn forget(netfilter: &Netfilter, which: Which) {
    if let Err(error) = conntrack::forget(netfilter, which) {
        tracing::warn!(?which, %error, "connections that the kernel remembers go on");
    }
}

/// Runs `work` with a socket of another namespace, on a thread that ends with it: a thread of the runtime must never
/// change its namespace.
fn inside(
    namespace: NetNs,
    work: impl FnOnce(&mut Socket) -> Result<(), NetworkError> + Send,
) -> Result<(), NetworkError> {
    let visit = move || {
        rustix::thread::move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&namespace),
            Some(LinkNameSpaceType::Network),
        )
        .map_err(|error| kernel("entering the sandbox's network namespace")(error.into()))?;
        let mut socket = Socket::route().map_err(kernel("netlink socket of the sandbox"))?;
        work(&mut socket)
    };
    std::thread::scope(|scope| match scope.spawn(visit).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

fn prepare_host(netfilter: &Netfilter, config: &NativeNetworkConfig, pool: &Pool) -> Result<(), NetworkError> {
    forwarding::turn_on(config)?;
    let mut host = Socket::route().map_err(kernel("netlink socket"))?;
    link::bring_up(&mut host, 1).map_err(kernel("loopback"))?;
    settle_links(config, pool, &mut host)?;
    if config.pods.v6.is_none() {
        leave_ipv6(netfilter, config, &mut host)?;
    }
    let path = config.range_record();
    fs::write(&path, config.pods.to_string()).map_err(|source| record::failed(&path, source))?;
    for pods in config.pods.iter() {
        link::set_gateway(&mut host, pods.gateway(), true).map_err(kernel("address of the node"))?;
    }
    let published: Vec<_> = pool.all_published().collect();
    let published: Vec<_> = published.iter().flat_map(|(at, ports)| Published::each(at, ports)).collect();
    let is_ours = |one: &Published<'_>| config.pods.of(Family::of(one.address)).is_some();
    let published: Vec<_> = published.into_iter().filter(is_ours).collect();
    nftables::replace(netfilter, config, &published).map_err(kernel("nftables table"))
}

/// Makes the host's ends of the links that are there as they must be now: an agent of before may have been another one, or
/// have had addresses of other families.
fn settle_links(config: &NativeNetworkConfig, pool: &Pool, host: &mut Socket) -> Result<(), NetworkError> {
    for (sandbox, mut addresses) in pool.all_connected() {
        let name = config.link_name(sandbox);
        addresses.retain(|address| config.pods.of(Family::of(*address)).is_some());
        let pair = Pair { name, addresses, mtu: config.mtu };
        let settled = pair.settle(host);
        if settled.is_err() && link::exists(host, &pair.name).map_err(kernel("look-up of a sandbox's link"))? {
            return settled;
        }
    }
    Ok(())
}

/// Removes what was there for IPv6 when pods had both families. Pods do not reach each other by it any more when policies go.
fn leave_ipv6(netfilter: &Netfilter, config: &NativeNetworkConfig, host: &mut Socket) -> Result<(), NetworkError> {
    let Some(former) = config.started_ranges().v6 else { return Ok(()) };
    forwarding::restore(config, Family::V6).map_err(kernel("restoring of the host's forwarding"))?;
    nftables::remove(netfilter, &config.tables(Family::V6))
        .map_err(kernel("removal of the nftables tables of IPv6"))?;
    link::set_gateway(host, former.gateway(), false).map_err(kernel("removal of the node's address"))
}

/// Makes the host as it was before [`NativeNetwork::start`]; goes on after failures and returns them all. Pods must be
/// gone.
pub async fn reset(config: NativeNetworkConfig) -> Vec<NetworkError> {
    blocking(move || {
        let gateways = || {
            let mut host = Socket::route()?;
            config.started_ranges().iter().try_for_each(|range| link::set_gateway(&mut host, range.gateway(), false))
        };
        let netfilter = Netfilter::default();
        let remove = |family| nftables::remove(&netfilter, &config.tables(family));
        let restore = |family| forwarding::restore(&config, family);
        let steps = [
            remove(Family::V4).map_err(kernel("removal of the nftables tables")),
            remove(Family::V6).map_err(kernel("removal of the nftables tables of IPv6")),
            routes::remove_all(&config),
            gateways().map_err(kernel("removal of the node's addresses")),
            restore(Family::V4).map_err(kernel("restoring of the host's forwarding")),
            restore(Family::V6).map_err(kernel("restoring of the host's forwarding")),
        ];
        steps.into_iter().filter_map(Result::err).collect()
    })
    .await
}

fn kernel(step: &'static str) -> impl FnOnce(io::Error) -> NetworkError {
    move |source| NetworkError::Kernel { step, source }
}
