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
//! addresses. Answers to what the host sent to a host port of 127.0.0.1 reach the pod's link with the address of the node
//! and become 127.0.0.1 later than `loopback`; so what is caught there was made up by a pod (CVE-2020-8558).

mod expressions;
mod filters;
pub(super) mod policies;
pub(super) mod services;
mod spread;

use std::io;
use std::net::Ipv4Addr;

use self::expressions::{Compare, DESTINATION, Hook, SOURCE, SetForm};
use super::nfnetlink::{Messages, Netfilter};
use super::{Forward, LINK_PREFIX};
use crate::PortMapping;
use crate::range::Range;

const PORTS: &str = "ports";
const PORTS_ANYWHERE: &str = "ports-anywhere";
const HAIRPINS: &str = "hairpins";

/// The host ports of a pod.
#[derive(Debug, Clone, Copy)]
pub(super) struct Published<'a> {
    /// Its address.
    pub(super) address: Ipv4Addr,
    /// Not empty.
    pub(super) ports: &'a [PortMapping],
}

/// Replaces the table with one that hides the addresses of this node's pods from everybody who is none of the cluster's,
/// leads the pods of this instance, and the host itself, to the API server, and has these host ports.
pub(super) fn replace(
    netfilter: &Netfilter,
    table: &str,
    (pods, cluster): (&Range, &Range),
    api: Option<&Forward>,
    published: &[Published<'_>],
) -> io::Result<()> {
    let mut batch = Messages::batch();
    batch.replace_table(table);
    batch.add_set(table, PORTS, SetForm::ADDRESS_PORTS);
    batch.add_set(table, PORTS_ANYWHERE, SetForm::PORTS);
    batch.add_set(table, HAIRPINS, SetForm::PAIRS);
    render_loopback(&mut batch, table, (pods, cluster));
    batch.add_chain(table, "prerouting", Hook::ARRIVING);
    batch.add_chain(table, "output", Hook::LEAVING);
    if let Some(forward) = api {
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
    for chain in ["prerouting", "output"] {
        batch.add_rule(table, chain, |b| {
            b.is_for_host();
            b.change_destination_by_address(PORTS);
        });
        batch.add_rule(table, chain, |b| {
            b.is_for_host();
            b.change_destination_by_port(PORTS_ANYWHERE);
        });
    }
    for one in published {
        render_ports(&mut batch, table, one, true);
    }
    batch.commit(netfilter)
}

/// What hides addresses: of pods from the outside, of a pod from itself, and the host's loopback from pods.
fn render_loopback(batch: &mut Messages, table: &str, (pods, cluster): (&Range, &Range)) {
    let loopback = Range::loopback();
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

/// Adds host ports of a pod to the table, or removes them; all of them or none.
pub(super) fn publish(netfilter: &Netfilter, table: &str, published: &Published<'_>, present: bool) -> io::Result<()> {
    let mut batch = Messages::batch();
    render_ports(&mut batch, table, published, present);
    batch.commit(netfilter)
}

fn render_ports(batch: &mut Messages, table: &str, published: &Published<'_>, present: bool) {
    let pod = published.address.octets();
    for port in published.ports {
        let value = [&pod[..], &padded(port.container_port)].concat();
        let service = [[port.protocol.number(), 0, 0, 0], padded(port.host_port)].concat();
        match port.host_ip {
            None => batch.element(table, PORTS_ANYWHERE, &service, Some(&value), present),
            Some(address) => {
                let key = [&address.octets()[..], &service].concat();
                batch.element(table, PORTS, &key, Some(&value), present);
            }
        }
    }
    batch.element(table, HAIRPINS, &[pod, pod].concat(), None, present);
}

/// A port as part of a key or value, each of which fills four bytes.
fn padded(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

/// Removes the table, if it is there.
pub(super) fn remove(netfilter: &Netfilter, table: &str) -> io::Result<()> {
    let mut batch = Messages::batch();
    batch.add_table(table);
    batch.delete_table(table);
    batch.commit(netfilter)
}
