//! Routes to the pods of other nodes, by the addresses of these nodes.
//!
//! For nodes on one network: packets travel as the pods sent them, without translation or encapsulation. What was made is
//! on record before it is made, so that nothing else is ever removed; if the record is damaged, what has our mark and leads
//! to pods of the cluster counts as made by us. A route to the same pods that somebody else has made is left alone and serves
//! as well. A node that no network of this host reaches gets no route, which is told.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteScope, RouteType,
};
use rustix::io::Errno;
use task::blocking;

use super::link::{ROUTE_PROTOCOL, address_family};
use super::netlink::Socket;
use super::record::{self, Found};
use super::{NativeNetworkConfig, kernel};
use crate::NetworkError;
use crate::range::{Family, Range};

/// Where packets for pods go.
type Routes = BTreeMap<Range, IpAddr>;

/// Pods that cannot be reached from here.
#[derive(Debug, thiserror::Error)]
#[error("{via} is on no network of this host, so its pods {pods} are not reached directly")]
pub struct MissingRoute {
    /// Addresses of the pods.
    pub pods: Range,
    /// The address of their node.
    pub via: IpAddr,
    #[source]
    source: io::Error,
}

/// The routes of one node to the pods of others. They stay when the agent ends.
#[derive(Debug, Clone)]
pub struct NodeRoutes {
    config: Arc<NativeNetworkConfig>,
    /// Calls come one after another.
    turn: Arc<Mutex<()>>,
}

impl NodeRoutes {
    /// Those of a network.
    pub fn new(config: &NativeNetworkConfig) -> Self {
        Self { config: Arc::new(config.clone()), turn: Arc::default() }
    }

    /// Makes these all the routes that there are of ours, also those that the kernel has dropped since; what cannot be
    /// reached is returned.
    ///
    /// # Errors
    /// When the kernel refuses a step or the record cannot be kept.
    pub async fn apply(&self, wanted: BTreeMap<Range, IpAddr>) -> Result<Vec<MissingRoute>, NetworkError> {
        let this = self.clone();
        blocking(move || {
            let _turn = this.turn.lock().unwrap_or_else(PoisonError::into_inner);
            apply(&this.config, &wanted)
        })
        .await
    }
}

fn apply(config: &NativeNetworkConfig, wanted: &Routes) -> Result<Vec<MissingRoute>, NetworkError> {
    let known = read(config, |pods| config.cluster.iter().any(|cluster| pods.is_within(&cluster)))?;
    if known.is_empty() && wanted.is_empty() {
        return Ok(Vec::new());
    }
    let mut host = Socket::route().map_err(kernel("netlink socket"))?;
    for (pods, via) in known.iter().filter(|(pods, via)| wanted.get(pods) != Some(via)) {
        remove(&mut host, *pods, *via).map_err(kernel("removal of a route to another node's pods"))?;
    }
    if known != *wanted {
        write(config, wanted)?;
    }
    let mut missing = Vec::new();
    for (&pods, &via) in wanted {
        // Whatever is wrong with one must not keep the others from being made.
        if let Err(source) = make(&mut host, pods, via) {
            missing.push(MissingRoute { pods, via, source });
        }
    }
    Ok(missing)
}

/// Removes all that are on record. Whoever resets a host does not know the pods of the cluster: if the record is damaged, all
/// with our mark go, and other instances on the host make theirs again.
pub(super) fn remove_all(config: &NativeNetworkConfig) -> Result<(), NetworkError> {
    let known = read(config, |_| true)?;
    if known.is_empty() {
        return Ok(());
    }
    let removed = || {
        let mut host = Socket::route()?;
        known.into_iter().try_for_each(|(pods, via)| remove(&mut host, pods, via))
    };
    removed().map_err(kernel("removal of routes to other nodes' pods"))?;
    write(config, &Routes::new())
}

/// Makes a route, also in the place of one of ours that leads elsewhere.
fn make(host: &mut Socket, pods: Range, via: IpAddr) -> io::Result<()> {
    let message = || RouteNetlinkMessage::NewRoute(route(pods, via));
    let Err(error) = host.change(message(), NLM_F_CREATE | NLM_F_EXCL) else {
        tracing::info!(%pods, %via, "route to the pods of another node");
        return Ok(());
    };
    let Some(stale) = standing(host, pods).filter(|stale| *stale != via) else {
        return if is(&error, Errno::EXIST) { Ok(()) } else { Err(error) };
    };
    tracing::warn!(%pods, %via, %stale, "a route to the pods of another node led elsewhere");
    let replaced = host.change(message(), NLM_F_CREATE | NLM_F_REPLACE);
    if replaced.is_err() {
        // Nowhere is better than to somebody else.
        remove(host, pods, stale)?;
    }
    replaced
}

/// Where the route to these pods leads that is there, if it is one of ours.
fn standing(host: &mut Socket, pods: Range) -> Option<IpAddr> {
    let mut question = RouteMessage::default();
    question.header.address_family = address_family(pods.family());
    question.header.destination_prefix_length = pods.family().bits();
    // The entry of the table, and not what came of it.
    question.header.flags = RouteFlags::FibMatch;
    question.attributes = vec![RouteAttribute::Destination(pods.network().into())];
    // An error says that there is none.
    let Ok(RouteNetlinkMessage::NewRoute(found)) = host.ask(RouteNetlinkMessage::GetRoute(question)) else {
        return None;
    };
    own(&found).filter(|(found, _)| *found == pods).map(|(_, via)| via)
}

/// What a route leads to and by whom, if it has our mark and is one between nodes.
pub(super) fn own(found: &RouteMessage) -> Option<(Range, IpAddr)> {
    if found.header.protocol != ROUTE_PROTOCOL || found.header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let (mut to, mut via) = (None, None);
    for attribute in &found.attributes {
        match attribute {
            RouteAttribute::Destination(address) => to = plain(address),
            RouteAttribute::Gateway(address) => via = plain(address),
            _ => {}
        }
    }
    let pods = format!("{}/{}", to?, found.header.destination_prefix_length).parse().ok()?;
    Some((pods, via?))
}

fn plain(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(own) => Some(IpAddr::V4(*own)),
        RouteAddress::Inet6(own) => Some(IpAddr::V6(*own)),
        _ => None,
    }
}

fn remove(host: &mut Socket, pods: Range, via: IpAddr) -> io::Result<()> {
    match host.change(RouteNetlinkMessage::DelRoute(route(pods, via)), 0) {
        Err(error) if is(&error, Errno::SRCH) => Ok(()),
        other => other,
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

pub(super) fn route(pods: Range, via: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = address_family(pods.family());
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = ROUTE_PROTOCOL;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.header.destination_prefix_length = pods.prefix();
    message.attributes = vec![RouteAttribute::Destination(pods.network().into()), RouteAttribute::Gateway(via.into())];
    message
}

/// What is on record; if that is damaged, what has our mark and leads to pods that may be the cluster's.
fn read(config: &NativeNetworkConfig, is_ours: impl Fn(&Range) -> bool) -> Result<Routes, NetworkError> {
    match record::read::<BTreeMap<String, IpAddr>>(&config.routes_record())? {
        Found::Whole(known) => {
            Ok(known.into_iter().filter_map(|(pods, via)| Some((pods.parse().ok()?, via))).collect())
        }
        Found::Nothing => Ok(Routes::new()),
        Found::Damaged => {
            let mut found = Routes::new();
            for family in [Family::V4, Family::V6] {
                let all = || Socket::route()?.routes(family);
                let all = all().map_err(kernel("look-up of routes to other nodes' pods"))?;
                found.extend(all.iter().filter_map(own).filter(|(pods, _)| is_ours(pods)));
            }
            write(config, &found)?;
            Ok(found)
        }
    }
}

fn write(config: &NativeNetworkConfig, routes: &Routes) -> Result<(), NetworkError> {
    let text: BTreeMap<String, IpAddr> = routes.iter().map(|(pods, via)| (pods.to_string(), *via)).collect();
    record::write(&config.routes_record(), &text)
}
