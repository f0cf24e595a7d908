//! Routes to the pods of other nodes, by the addresses of these nodes.
//!
//! For nodes on one network: packets travel as the pods sent them, without translation or encapsulation. What was made is
//! on record before it is made, so that nothing else is ever removed; a route to the same pods that somebody else has made
//! is left alone and serves as well. A node that no network of this host reaches gets no route, which is told.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteScope, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;
use task::blocking;

use super::link::ROUTE_PROTOCOL;
use super::netlink::Socket;
use super::{NativeNetworkConfig, kernel, record};
use crate::NetworkError;
use crate::range::Range;

/// Where packets for pods go.
type Routes = BTreeMap<Range, Ipv4Addr>;

/// Pods that cannot be reached from here.
#[derive(Debug, thiserror::Error)]
#[error("{via} is on no network of this host, so its pods {pods} are not reached directly")]
pub struct MissingRoute {
    /// Addresses of the pods.
    pub pods: Range,
    /// The address of their node.
    pub via: Ipv4Addr,
    #[source]
    source: io::Error,
}

/// The routes of one node to the pods of others. They stay when the agent ends.
#[derive(Debug, Clone)]
pub struct NodeRoutes {
    record: Arc<PathBuf>,
    /// Calls come one after another.
    turn: Arc<Mutex<()>>,
}

impl NodeRoutes {
    /// Those of a network.
    pub fn new(config: &NativeNetworkConfig) -> Self {
        Self { record: Arc::new(config.routes_record()), turn: Arc::default() }
    }

    /// Makes these all the routes that there are of ours, also those that the kernel has dropped since; what cannot be
    /// reached is returned.
    ///
    /// # Errors
    /// When the kernel refuses a step or the record cannot be kept.
    pub async fn apply(&self, wanted: BTreeMap<Range, Ipv4Addr>) -> Result<Vec<MissingRoute>, NetworkError> {
        let this = self.clone();
        blocking(move || {
            let _turn = this.turn.lock().unwrap_or_else(PoisonError::into_inner);
            apply(&this.record, &wanted)
        })
        .await
    }
}

fn apply(path: &Path, wanted: &Routes) -> Result<Vec<MissingRoute>, NetworkError> {
    let known = read(path).map_err(|source| record(path, source))?;
    if known.is_empty() && wanted.is_empty() {
        return Ok(Vec::new());
    }
    let mut host = Socket::route().map_err(kernel("netlink socket"))?;
    for (pods, via) in known.iter().filter(|(pods, via)| wanted.get(pods) != Some(via)) {
        remove(&mut host, *pods, *via).map_err(kernel("removal of a route to another node's pods"))?;
    }
    if known != *wanted {
        write(path, wanted).map_err(|source| record(path, source))?;
    }
    let mut missing = Vec::new();
    for (&pods, &via) in wanted {
        match host.change(RouteNetlinkMessage::NewRoute(route(pods, via)), NLM_F_CREATE | NLM_F_EXCL) {
            Ok(()) => tracing::info!(%pods, %via, "route to the pods of another node"),
            Err(error) if is(&error, Errno::EXIST) => {}
            // Whatever is wrong with one must not keep the others from being made.
            Err(source) => missing.push(MissingRoute { pods, via, source }),
        }
    }
    Ok(missing)
}

/// Removes all that are on record.
pub(super) fn remove_all(path: &Path) -> io::Result<()> {
    let known = read(path)?;
    if known.is_empty() {
        return Ok(());
    }
    let mut host = Socket::route()?;
    known.into_iter().try_for_each(|(pods, via)| remove(&mut host, pods, via))?;
    write(path, &Routes::new())
}

fn remove(host: &mut Socket, pods: Range, via: Ipv4Addr) -> io::Result<()> {
    match host.change(RouteNetlinkMessage::DelRoute(route(pods, via)), 0) {
        Err(error) if is(&error, Errno::SRCH) => Ok(()),
        other => other,
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

fn route(pods: Range, via: Ipv4Addr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = ROUTE_PROTOCOL;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.header.destination_prefix_length = pods.prefix();
    message.attributes = vec![
        RouteAttribute::Destination(RouteAddress::Inet(pods.network())),
        RouteAttribute::Gateway(RouteAddress::Inet(via)),
    ];
    message
}

fn read(path: &Path) -> io::Result<Routes> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Routes::new()),
        other => other?,
    };
    let known: BTreeMap<String, Ipv4Addr> = serde_json::from_slice(&text)?;
    Ok(known.into_iter().filter_map(|(pods, via)| Some((pods.parse().ok()?, via))).collect())
}

fn write(path: &Path, routes: &Routes) -> io::Result<()> {
    let text: BTreeMap<String, Ipv4Addr> = routes.iter().map(|(pods, via)| (pods.to_string(), *via)).collect();
    let fresh = path.with_extension("new");
    fs::write(&fresh, serde_json::to_vec(&text)?)?;
    fs::rename(&fresh, path)
}
