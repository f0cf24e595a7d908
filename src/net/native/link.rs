//! The routed veth pair of a sandbox, as rtnetlink messages.
//!
//! ```text
//! host                                              sandbox
//! cor… (ee:ee:ee:ee:ee:ee) ────────────────────── eth0 (0a:58:<address>)  <address>/32
//! route <address>/32 dev cor…                       route default via 169.254.1.1 dev eth0 onlink
//! neighbour <address> lladdr 0a:58:… permanent      neighbour 169.254.1.1 lladdr ee:ee:… permanent
//! ```
//!
//! An IPv6 address is led the same way, as a /128 and by way of fe80::1.
//!
//! Both ends know each other by permanent neighbour entries and generate no addresses of their own, so the first
//! packet passes without ARP, neighbour discovery or duplicate address detection. Every step replaces what is there
//! and may be repeated. The kernel removes all of it with the sandbox's namespace.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use oci::sys::NetNs;

use super::netlink::Socket;
use crate::NetworkError;
use crate::range::{Family, Range};

/// Link-layer address of the host's end, the same on every pair: the pairs never meet.
const HOST_END: [u8; 6] = [0xee; 6];
/// Next hops of the sandboxes; link-local and never sent to, since they are permanent neighbours.
const NEXT_HOP: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const NEXT_HOP_6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// Name of the link inside the sandbox.
const INSIDE: &str = "eth0";
/// Routing protocol number of our routes, so that they can be told from others: see rtnetlink(7), `RTPROT_*`.
pub(super) const ROUTE_PROTOCOL: RouteProtocol = RouteProtocol::Other(67);

/// A pair to be made.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    /// Name of the host's end.
    pub(super) name: String,
    /// The sandbox's addresses, that of IPv4 first.
    pub(super) addresses: Vec<IpAddr>,
    /// Largest packet.
    pub(super) mtu: u32,
}

impl Pair {
    /// Link-layer address of the sandbox's end, derived from its IPv4 address.
    fn inside_end(&self) -> [u8; 6] {
        let v4 = self.addresses.iter().find_map(|address| match address {
            IpAddr::V4(own) => Some(own.octets()),
            IpAddr::V6(_) => None,
        });
        let [a, b, c, d] = v4.unwrap_or_default();
        [0x0a, 0x58, a, b, c, d]
    }

    /// Makes the host's half; the calling thread is in the host's namespace.
    pub(super) fn connect(&self, host: &mut Socket, sandbox: &NetNs) -> Result<(), NetworkError> {
        match host.change(RouteNetlinkMessage::NewLink(self.veth(sandbox)), NLM_F_CREATE | NLM_F_EXCL) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other.map_err(step("creation of the link pair"))?,
        }
        self.settle(host)
    }

    /// Makes the host's end as it must be; the calling thread is in the host's namespace.
    pub(super) fn settle(&self, host: &mut Socket) -> Result<(), NetworkError> {
        let index = index_of(host, &self.name).map_err(step("look-up of the host's link"))?;
        generate_no_addresses(host, index).map_err(step("IPv6 settings of the host's link"))?;
        let has_ipv6 = self.addresses.iter().any(IpAddr::is_ipv6);
        believe_nobody(&self.name, has_ipv6).map_err(step("IPv6 settings of the host's link"))?;
        bring_up(host, index).map_err(step("the host's link"))?;
        for address in &self.addresses {
            let neighbour = neighbour(index, *address, self.inside_end());
            host.change(RouteNetlinkMessage::NewNeighbour(neighbour), NLM_F_CREATE | NLM_F_REPLACE)
                .map_err(step("neighbour entry of the sandbox"))?;
            let route = route(Destination::Host(*address), index, RouteScope::Link);
            host.change(RouteNetlinkMessage::NewRoute(route), NLM_F_CREATE | NLM_F_REPLACE)
                .map_err(step("route to the sandbox"))?;
        }
        Ok(())
    }

    /// Makes the sandbox's half; the calling thread is in the sandbox's namespace.
    pub(super) fn configure_inside(&self, inside: &mut Socket) -> Result<(), NetworkError> {
        bring_up(inside, 1).map_err(step("loopback of the sandbox"))?;
        let index = index_of(inside, INSIDE).map_err(step("look-up of the sandbox's link"))?;
        generate_no_addresses(inside, index).map_err(step("IPv6 settings of the sandbox's link"))?;
        for address in &self.addresses {
            inside
                .change(RouteNetlinkMessage::NewAddress(host_address(index, *address)), NLM_F_CREATE | NLM_F_REPLACE)
                .map_err(step("address of the sandbox"))?;
        }
        bring_up(inside, index).map_err(step("link of the sandbox"))?;
        for address in &self.addresses {
            lead_out(inside, index, Family::of(*address))?;
        }
        Ok(())
    }

    fn veth(&self, sandbox: &NetNs) -> LinkMessage {
        let mut peer = self.end(INSIDE, self.inside_end());
        peer.attributes.push(LinkAttribute::NetNsFd(sandbox.as_fd().as_raw_fd()));
        let mut link = self.end(&self.name, HOST_END);
        link.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        link
    }

    fn end(&self, name: &str, link_layer: [u8; 6]) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Address(link_layer.to_vec()),
            LinkAttribute::Mtu(self.mtu),
        ];
        link
    }
}

/// Leads what a sandbox sends to the host's end.
fn lead_out(inside: &mut Socket, index: u32, family: Family) -> Result<(), NetworkError> {
    let next_hop = match family {
        Family::V4 => IpAddr::V4(NEXT_HOP),
        Family::V6 => IpAddr::V6(NEXT_HOP_6),
    };
    inside
        .change(RouteNetlinkMessage::NewNeighbour(neighbour(index, next_hop, HOST_END)), NLM_F_CREATE | NLM_F_REPLACE)
        .map_err(step("neighbour entry of the next hop"))?;
    let mut default = route(Destination::Everybody(family), index, RouteScope::Universe);
    default.header.flags = RouteFlags::Onlink;
    default.attributes.push(RouteAttribute::Gateway(next_hop.into()));
    inside
        .change(RouteNetlinkMessage::NewRoute(default), NLM_F_CREATE | NLM_F_REPLACE)
        .map_err(step("default route of the sandbox"))
}

/// Lets what comes by a link be for 127.0.0.1, as the answers to host ports of that address are once they have been
/// translated back; see `route_localnet` in the kernel's ip-sysctl.rst. The calling thread is in the link's namespace.
pub(super) fn answer_loopback(name: &str) -> io::Result<()> {
    std::fs::write(format!("/proc/sys/net/ipv4/conf/{name}/route_localnet"), "1")
}

/// Keeps who is at the other end of a link from leading the host elsewhere. Whoever may send raw packets, as pods may by
/// default, may pretend to be a router, and would get what the host sends by IPv6 (CVE-2020-10749). See `accept_ra`,
/// `accept_redirects` and `disable_ipv6` in the kernel's ip-sysctl.rst; where there is no IPv6, there are none of them. The
/// calling thread is in the link's namespace.
fn believe_nobody(name: &str, has_ipv6: bool) -> io::Result<()> {
    let disabled = if has_ipv6 { "0" } else { "1" };
    for (setting, value) in [("accept_ra", "0"), ("accept_redirects", "0"), ("disable_ipv6", disabled)] {
        match std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/{setting}"), value) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

/// Whether a link exists in the namespace of the socket.
pub(super) fn exists(socket: &mut Socket, name: &str) -> io::Result<bool> {
    match index_of(socket, name) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => Ok(false),
        Err(error) => Err(error),
    }
}

/// IPv4 addresses that routes of ours lead to by a link, with the names of the links.
pub(super) fn sandboxes(host: &mut Socket) -> io::Result<Vec<(Ipv4Addr, String)>> {
    let routes = host.routes(Family::V4)?;
    let ours = routes
        .iter()
        .filter(|route| route.header.protocol == ROUTE_PROTOCOL && route.header.destination_prefix_length == 32);
    let mut found = Vec::new();
    for route in ours {
        let (mut to, mut by) = (None, None);
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(address)) => to = Some(*address),
                RouteAttribute::Oif(index) => by = Some(*index),
                _ => {}
            }
        }
        if let (Some(to), Some(by)) = (to, by)
            && let Some(name) = name_of(host, by)?
        {
            found.push((to, name));
        }
    }
    Ok(found)
}

/// Adds or removes the node's own address in the pod range, on the loopback link: an offline host has no other.
pub(super) fn set_gateway(host: &mut Socket, address: IpAddr, present: bool) -> io::Result<()> {
    let message = host_address(1, address);
    if present {
        return host.change(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE);
    }
    match host.change(RouteNetlinkMessage::DelAddress(message), 0) {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok(()),
        other => other,
    }
}

/// Lets the host send to addresses of Services, with the node's own as the sender, also if no other route leads anywhere.
/// It goes with that address. A route of IPv6 by the loopback link would refuse everything (`ip6_route_info_create` of the
/// kernel's net/ipv6/route.c): there the host needs a route of its own that leads there, such as a default route.
pub(super) fn set_service_route(host: &mut Socket, services: &Range, gateway: IpAddr, whose: Whose) -> io::Result<()> {
    if services.family() == Family::V6 {
        return Ok(());
    }
    let mut message = service_route(services);
    message.attributes.push(RouteAttribute::PrefSource(gateway.into()));
    match whose {
        Whose::Own => host.change(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE),
        Whose::Anybody => match host.change(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        },
    }
}

/// Who has said where Services are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Whose {
    /// The settings of the host: a route there is ours.
    Own,
    /// An object: a route of the host that is there already stays.
    Anybody,
}

/// Undoes [`set_service_route`]; one that is not there is well.
pub(super) fn remove_service_route(host: &mut Socket, services: &Range) -> io::Result<()> {
    if services.family() == Family::V6 {
        return Ok(());
    }
    match host.change(RouteNetlinkMessage::DelRoute(service_route(services)), 0) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(()),
        other => other,
    }
}

fn service_route(services: &Range) -> RouteMessage {
    let mut message = route(Destination::Host(services.network()), 1, RouteScope::Link);
    message.header.destination_prefix_length = services.prefix();
    message
}

/// Keeps the kernel from giving the link an IPv6 link-local address; a link without IPv6 needs nothing.
fn generate_no_addresses(socket: &mut Socket, index: u32) -> io::Result<()> {
    let mut link = LinkMessage::default();
    link.header.index = index;
    let generate = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    link.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![generate])]));
    match socket.change(RouteNetlinkMessage::SetLink(link), 0) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) => Ok(()),
        other => other,
    }
}

/// Brings a link up.
pub(super) fn bring_up(socket: &mut Socket, index: u32) -> io::Result<()> {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    socket.change(RouteNetlinkMessage::SetLink(link), 0)
}

fn index_of(socket: &mut Socket, name: &str) -> io::Result<u32> {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    match socket.ask(RouteNetlinkMessage::GetLink(link))? {
        RouteNetlinkMessage::NewLink(link) => Ok(link.header.index),
        other => Err(io::Error::other(format!("unexpected answer {other:?}"))),
    }
}

/// None if the link has gone.
fn name_of(socket: &mut Socket, index: u32) -> io::Result<Option<String>> {
    let mut link = LinkMessage::default();
    link.header.index = index;
    let found = match socket.ask(RouteNetlinkMessage::GetLink(link)) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => return Ok(None),
        other => other?,
    };
    let RouteNetlinkMessage::NewLink(link) = found else { return Ok(None) };
    Ok(link.attributes.into_iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name),
        _ => None,
    }))
}

/// Without duplicate address detection: nobody else is on the link.
fn host_address(index: u32, address: IpAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = address_family(Family::of(address));
    message.header.prefix_len = Family::of(address).bits();
    message.header.index = index;
    if address.is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    message
}

fn neighbour(index: u32, address: IpAddr, link_layer: [u8; 6]) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = address_family(Family::of(address));
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    let destination = match address {
        IpAddr::V4(own) => NeighbourAddress::Inet(own),
        IpAddr::V6(own) => NeighbourAddress::Inet6(own),
    };
    message.attributes =
        vec![NeighbourAttribute::Destination(destination), NeighbourAttribute::LinkLayerAddress(link_layer.to_vec())];
    message
}

/// Whom a route leads to.
enum Destination {
    Host(IpAddr),
    Everybody(Family),
}

fn route(destination: Destination, index: u32, scope: RouteScope) -> RouteMessage {
    let mut message = RouteMessage::default();
    let family = match destination {
        Destination::Host(address) => Family::of(address),
        Destination::Everybody(family) => family,
    };
    message.header.address_family = address_family(family);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = ROUTE_PROTOCOL;
    message.header.scope = scope;
    message.header.kind = RouteType::Unicast;
    message.attributes.push(RouteAttribute::Oif(index));
    if let Destination::Host(address) = destination {
        message.header.destination_prefix_length = family.bits();
        message.attributes.push(RouteAttribute::Destination(address.into()));
    }
    message
}

/// The kernel's number of a family.
pub(super) fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

fn step(step: &'static str) -> impl FnOnce(io::Error) -> NetworkError {
    move |source| NetworkError::Kernel { step, source }
}
