//! Our own nftables table, rendered whole as one atomic batch and then changed by elements; nobody else's rules are ever
//! touched.
//!
//! ```text
//! table inet <name> {
//!   map ports          { ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service }   host ports of one address
//!   map ports-anywhere { inet_proto . inet_service : ipv4_addr . inet_service }               host ports of all addresses
//!   set hairpins       { ipv4_addr . ipv4_addr }                                              pods with host ports, twice
//!   chain postrouting { type nat hook postrouting priority srcnat;
//!     ip saddr <pods> ip daddr != <pods of all nodes> masquerade
//!     ip saddr . ip daddr @hairpins masquerade
//!     ip saddr 127.0.0.0/8 ip daddr <pods> masquerade }
//!   chain prerouting { type nat hook prerouting priority dstnat;
//!     ip saddr <pods> ip daddr <service> tcp dport <port> dnat to <API server>
//!     fib daddr type local dnat to ip daddr . meta l4proto . th dport map @ports
//!     fib daddr type local dnat to meta l4proto . th dport map @ports-anywhere }
//!   chain output { type nat hook output priority dstnat;
//!     ip daddr <service> tcp dport <port> dnat to <API server>
//!     (the same two) }
//!   chain loopback { type filter hook prerouting priority raw;
//!     iifname "cor*" ip daddr 127.0.0.0/8 drop }
//! }
//! ```
//!
//! The first rule of `prerouting` minds the senders, so that several instances on one host may have the same service
//! addresses. Where pods have both families there is such a table of each; that of IPv6 has `.v6` at the end of its name and
//! `ip6` and `ipv6_addr` for the above, and nothing leads to the API server or to ports of ::1, which IPv6 does not route.
//! Answers to what the host sent to a host port of 127.0.0.1 reach the pod's link with the address of the node
//! and become 127.0.0.1 later than `loopback`; so what is caught there was made up by a pod (CVE-2020-8558).

mod expressions;
mod filters;
pub(super) mod policies;
pub(super) mod services;
mod spread;

use std::io;
use std::net::IpAddr;

pub(super) use self::expressions::octets;
use self::expressions::{Compare, DESTINATION, Hook, SOURCE, SetForm};
use super::nfnetlink::{Messages, Netfilter};
use super::{LINK_PREFIX, NativeNetworkConfig};
use crate::PortMapping;
use crate::range::{Family, Range};

const PORTS: &str = "ports";
const PORTS_ANYWHERE: &str = "ports-anywhere";
const HAIRPINS: &str = "hairpins";

/// A table of ours, about packets and addresses of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) family: Family,
}

/// The host ports of a pod, at one of its addresses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Published<'a> {
    pub(super) address: IpAddr,
    /// Not empty.
    all: &'a [PortMapping],
}

impl<'a> Published<'a> {
    /// At each address of a pod.
    pub(super) fn each(addresses: &[IpAddr], all: &'a [PortMapping]) -> Vec<Self> {
        addresses.iter().map(|address| Self { address: *address, all }).collect()
    }

    /// Those of the address's family.
    pub(super) fn ports(&self) -> impl Iterator<Item = &'a PortMapping> + use<'a> {
        let family = Family::of(self.address);
        self.all.iter().filter(move |port| port.host_ip.is_none_or(|host| Family::of(host) == family))
    }
}

/// Replaces the tables with ones that hide the addresses of this node's pods from everybody who is none of the cluster's,
/// lead the pods of this instance, and the host itself, to the API server, and have these host ports.
pub(super) fn replace(
    netfilter: &Netfilter,
    config: &NativeNetworkConfig,
    published: &[Published<'_>],
) -> io::Result<()> {
    let mut batch = Messages::large_batch();
    for pods in config.pods.iter() {
        let Table { name: table, family } = config.table(pods.family());
        batch.about(family);
        batch.replace_table(&table);
        render(&mut batch, &table, config, &pods);
        for one in published.iter().filter(|one| Family::of(one.address) == family) {
            render_ports(&mut batch, &table, one, true);
        }
    }
    batch.commit_large(netfilter, &config.table(Family::V4).name)
}

fn render(batch: &mut Messages, table: &str, config: &NativeNetworkConfig, pods: &Range) {
    let family = pods.family();
    let cluster = config.cluster.of(family).unwrap_or(*pods);
    batch.add_set(table, PORTS, SetForm::ADDRESS_PORTS);
    batch.add_set(table, PORTS_ANYWHERE, SetForm::PORTS);
    batch.add_set(table, HAIRPINS, SetForm::PAIRS);
    render_loopback(batch, table, (pods, &cluster));
    batch.add_chain(table, "prerouting", Hook::ARRIVING);
    batch.add_chain(table, "output", Hook::LEAVING);
    if let Some(forward) = config.api.filter(|_| family == Family::V4) {
        batch.add_rule(table, "prerouting", |b| {
            b.address_in(SOURCE, pods, Compare::Equal);
            b.is_for(forward.from);
            b.change_destination(forward.to);
        });
        batch.add_rule(table, "output", |b| {
            b.is_for(forward.from);
            b.change_destination(forward.to);
        });
    }
    let is_for_host = |b: &mut Messages| {
        b.is_for_host();
        if family == Family::V6 {
            b.address_in(DESTINATION, &Range::loopback(family), Compare::NotEqual);
        }
    };
    for chain in ["prerouting", "output"] {
        batch.add_rule(table, chain, |b| {
            is_for_host(b);
            b.change_destination_by_address(PORTS);
        });
        batch.add_rule(table, chain, |b| {
            is_for_host(b);
            b.change_destination_by_port(PORTS_ANYWHERE);
        });
    }
}

/// What hides addresses: of pods from the outside, of a pod from itself, and the host's loopback from pods.
fn render_loopback(batch: &mut Messages, table: &str, (pods, cluster): (&Range, &Range)) {
    let loopback = Range::loopback(pods.family());
    batch.add_chain(table, "loopback", Hook::RAW);
    batch.add_rule(table, "loopback", |b| {
        b.comes_by(LINK_PREFIX);
        b.address_in(DESTINATION, &loopback, Compare::Equal);
        b.drop_packet();
    });
    batch.add_chain(table, "postrouting", Hook::PASSED);
    batch.add_rule(table, "postrouting", |b| {
        b.address_in(SOURCE, pods, Compare::Equal);
        b.address_in(DESTINATION, cluster, Compare::NotEqual);
        b.masquerade();
    });
    batch.add_rule(table, "postrouting", |b| {
        b.addresses_in(HAIRPINS, SetForm::PAIRS);
        b.masquerade();
    });
    batch.add_rule(table, "postrouting", |b| {
        b.address_in(SOURCE, &loopback, Compare::Equal);
        b.address_in(DESTINATION, pods, Compare::Equal);
        b.masquerade();
    });
}

/// Adds host ports of a pod to the tables, or removes them; all of them or none. A pod of before may have an address of a
/// family that the network no longer has, and that has no table.
pub(super) fn publish(
    netfilter: &Netfilter,
    config: &NativeNetworkConfig,
    published: &[Published<'_>],
    present: bool,
) -> io::Result<()> {
    let mut batch = Messages::large_batch();
    for one in published.iter().filter(|one| config.pods.of(Family::of(one.address)).is_some()) {
        let Table { name, family } = config.table(Family::of(one.address));
        batch.about(family);
        render_ports(&mut batch, &name, one, present);
    }
    batch.commit_large(netfilter, &config.table(Family::V4).name)
}

fn render_ports(batch: &mut Messages, table: &str, published: &Published<'_>, present: bool) {
    let pod = octets(published.address);
    for port in published.ports() {
        let value = [&pod[..], &padded(port.container_port)].concat();
        let service = [[port.protocol.number(), 0, 0, 0], padded(port.host_port)].concat();
        match port.host_ip {
            None => batch.element(table, PORTS_ANYWHERE, &service, Some(&value), present),
            Some(address) => {
                let key = [&octets(address)[..], &service].concat();
                batch.element(table, PORTS, &key, Some(&value), present);
            }
        }
    }
    batch.element(table, HAIRPINS, &[&pod[..], &pod].concat(), None, present);
}

/// A port as part of a key or value, each of which fills four bytes.
fn padded(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

/// Removes tables, if they are there.
pub(super) fn remove(netfilter: &Netfilter, tables: &[Table]) -> io::Result<()> {
    let mut batch = Messages::batch();
    for table in tables {
        batch.add_table(&table.name);
        batch.delete_table(&table.name);
    }
    batch.commit(netfilter)
}
