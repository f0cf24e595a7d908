//! Our own nftables table, rendered whole as one atomic batch; nobody else's rules are ever touched.
//!
//! The wire format is nf_tables over nfnetlink: linux/netfilter/nf_tables.h and nfnetlink.h. Attributes are big-endian.
//!
//! ```text
//! table inet <name> {
//!   chain postrouting { type nat hook postrouting priority srcnat;
//!     ip saddr <pods> ip daddr != <pods> masquerade }
//!   chain prerouting { type nat hook prerouting priority dstnat;
//!     ip saddr <pods> ip daddr <service> tcp dport <port> dnat to <API server> }
//!   chain output { type nat hook output priority dstnat;
//!     ip daddr <service> tcp dport <port> dnat to <API server> }
//! }
//!
//! The second chain minds the senders, so that several instances on one host may have the same service addresses.
//! ```

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use super::Forward;
use super::netlink::Socket;
use crate::range::Range;

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
/// `NFPROTO_INET`: tables for IPv4 and IPv6.
const INET: u8 = 1;
/// `NFPROTO_UNSPEC`, of batch delimiters.
const UNSPECIFIED: u8 = 0;

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;

const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

/// `NF_INET_PRE_ROUTING`, `NF_INET_LOCAL_OUT`, `NF_INET_POST_ROUTING`.
const PRE_ROUTING: u32 = 0;
const LOCAL_OUT: u32 = 3;
const POST_ROUTING: u32 = 4;
/// `NF_IP_PRI_NAT_DST`.
const DESTINATION_NAT: i32 = -100;
/// `NF_IP_PRI_NAT_SRC`.
const SOURCE_NAT: i32 = 100;
/// `NFT_REG_1`.
const REGISTER: u32 = 1;
/// `NFT_META_NFPROTO`.
const META_NFPROTO: u32 = 15;
/// `NFPROTO_IPV4`.
const IPV4: u8 = 2;
/// `NFT_PAYLOAD_NETWORK_HEADER`.
const NETWORK_HEADER: u32 = 1;
/// Offsets in the IPv4 header, RFC 791.
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;
/// `NFT_REG_2`.
const SECOND_REGISTER: u32 = 2;
/// `NFT_META_L4PROTO`.
const META_PROTOCOL: u32 = 16;
/// `NFT_PAYLOAD_TRANSPORT_HEADER`, and the place of the destination port there.
const TRANSPORT_HEADER: u32 = 2;
const PORT: u32 = 2;
/// `IPPROTO_TCP`.
const TCP: u8 = 6;
/// `NFT_NAT_DNAT`.
const DNAT: u32 = 1;

/// How a register is compared: `NFT_CMP_EQ`, `NFT_CMP_NEQ`.
#[derive(Clone, Copy)]
enum Compare {
    Equal = 0,
    NotEqual = 1,
}

/// Replaces the table with one that hides the pods' addresses from everybody outside their range and leads the pods of
/// this instance, and the host itself, to the API server.
pub(super) fn replace(table: &str, pods: &Range, api: Option<&Forward>) -> io::Result<()> {
    let mut batch = Batch::new();
    // Created first, so that the removal finds it in any case.
    batch.add_table(table);
    batch.message(DELETE_TABLE, 0, INET, |b| b.text(1, table));
    batch.add_table(table);
    batch.add_chain(table, "postrouting", POST_ROUTING, SOURCE_NAT);
    batch.add_rule(table, "postrouting", |b| {
        b.address_in(SOURCE, pods, Compare::Equal);
        b.address_in(DESTINATION, pods, Compare::NotEqual);
        b.expression("masq", |_| {});
    });
    if let Some(forward) = api {
        batch.add_chain(table, "prerouting", PRE_ROUTING, DESTINATION_NAT);
        batch.add_rule(table, "prerouting", |b| {
            b.address_in(SOURCE, pods, Compare::Equal);
            b.is_for(forward.from);
            b.change_destination(forward.to);
        });
        batch.add_chain(table, "output", LOCAL_OUT, DESTINATION_NAT);
        batch.add_rule(table, "output", |b| {
            b.is_for(forward.from);
            b.change_destination(forward.to);
        });
    }
    batch.commit()
}

/// Removes the table, if it is there.
pub(super) fn remove(table: &str) -> io::Result<()> {
    let mut batch = Batch::new();
    batch.add_table(table);
    batch.message(DELETE_TABLE, 0, INET, |b| b.text(1, table));
    batch.commit()
}

/// Messages that take effect together or not at all.
struct Batch {
    buffer: Vec<u8>,
    sequence: u32,
}

impl Batch {
    fn new() -> Self {
        let mut batch = Self { buffer: Vec::new(), sequence: 0 };
        batch.message(BATCH_BEGIN, 0, UNSPECIFIED, |_| {});
        batch
    }

    fn add_table(&mut self, table: &str) {
        self.message(NEW_TABLE, CREATE, INET, |b| b.text(1, table));
    }

    /// A chain for address translation.
    fn add_chain(&mut self, table: &str, chain: &str, hook: u32, priority: i32) {
        self.message(NEW_CHAIN, CREATE, INET, |b| {
            b.text(1, table);
            b.text(3, chain);
            b.nested(4, |b| {
                b.number(1, hook);
                b.attribute(2, |b| b.buffer.extend_from_slice(&priority.to_be_bytes()));
            });
            b.text(7, "nat");
        });
    }

    /// A rule about IPv4 packets.
    fn add_rule(&mut self, table: &str, chain: &str, expressions: impl FnOnce(&mut Self)) {
        self.message(NEW_RULE, CREATE | APPEND, INET, |b| {
            b.text(1, table);
            b.text(2, chain);
            b.nested(4, |b| {
                b.is_ipv4();
                expressions(b);
            });
        });
    }

    fn message(&mut self, kind: u16, flags: u16, family: u8, body: impl FnOnce(&mut Self)) {
        self.sequence += 1;
        let start = self.buffer.len();
        let acknowledge = if family == UNSPECIFIED { 0 } else { ACKNOWLEDGE };
        self.buffer.extend_from_slice(&[0; 4]);
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.buffer.extend_from_slice(&(REQUEST | flags | acknowledge).to_ne_bytes());
        self.buffer.extend_from_slice(&self.sequence.to_ne_bytes());
        self.buffer.extend_from_slice(&0_u32.to_ne_bytes());
        // struct nfgenmsg; the resource id of a batch delimiter names the subsystem.
        let resource = if family == UNSPECIFIED { SUBSYSTEM } else { 0 };
        self.buffer.extend_from_slice(&[family, 0]);
        self.buffer.extend_from_slice(&resource.to_be_bytes());
        body(self);
        let length = u32::try_from(self.buffer.len() - start).expect("a batch is a few hundred bytes long");
        self.buffer[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    fn attribute(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 2]);
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        body(self);
        let length = u16::try_from(self.buffer.len() - start).expect("an attribute is a few hundred bytes long");
        self.buffer[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.buffer.resize(self.buffer.len().next_multiple_of(4), 0);
    }

    fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        self.attribute(kind | NESTED, body);
    }

    fn text(&mut self, kind: u16, text: &str) {
        self.attribute(kind, |b| {
            b.buffer.extend_from_slice(text.as_bytes());
            b.buffer.push(0);
        });
    }

    fn number(&mut self, kind: u16, number: u32) {
        self.attribute(kind, |b| b.buffer.extend_from_slice(&number.to_be_bytes()));
    }

    /// `NFTA_DATA_VALUE` inside an attribute.
    fn data(&mut self, kind: u16, bytes: &[u8]) {
        self.nested(kind, |b| b.attribute(1, |b| b.buffer.extend_from_slice(bytes)));
    }

    /// `NFTA_LIST_ELEM` with name and data of an expression.
    fn expression(&mut self, name: &str, data: impl FnOnce(&mut Self)) {
        self.nested(1, |b| {
            b.text(1, name);
            b.nested(2, data);
        });
    }

    fn is_ipv4(&mut self) {
        self.expression("meta", |b| {
            b.number(1, REGISTER);
            b.number(2, META_NFPROTO);
        });
        self.compare(Compare::Equal, &[IPV4]);
    }

    /// Whether the address at `offset` of the IPv4 header is in a range.
    fn address_in(&mut self, offset: u32, range: &Range, how: Compare) {
        self.load(NETWORK_HEADER, offset, 4);
        self.expression("bitwise", |b| {
            b.number(1, REGISTER);
            b.number(2, REGISTER);
            b.number(3, 4);
            b.data(4, &range.mask().octets());
            b.data(5, &Ipv4Addr::UNSPECIFIED.octets());
        });
        self.compare(how, &range.network().octets());
    }

    /// Whether a packet is for a TCP port of an address.
    fn is_for(&mut self, target: SocketAddrV4) {
        self.load(NETWORK_HEADER, DESTINATION, 4);
        self.compare(Compare::Equal, &target.ip().octets());
        self.expression("meta", |b| {
            b.number(1, REGISTER);
            b.number(2, META_PROTOCOL);
        });
        self.compare(Compare::Equal, &[TCP]);
        self.load(TRANSPORT_HEADER, PORT, 2);
        self.compare(Compare::Equal, &target.port().to_be_bytes());
    }

    /// Sends a connection somewhere else.
    fn change_destination(&mut self, to: SocketAddrV4) {
        for (register, bytes) in [(REGISTER, to.ip().octets().as_slice()), (SECOND_REGISTER, &to.port().to_be_bytes())]
        {
            self.expression("immediate", |b| {
                b.number(1, register);
                b.data(2, bytes);
            });
        }
        self.expression("nat", |b| {
            b.number(1, DNAT);
            b.number(2, u32::from(IPV4));
            b.number(3, REGISTER);
            b.number(5, SECOND_REGISTER);
        });
    }

    /// Loads a part of a header.
    fn load(&mut self, header: u32, offset: u32, length: u32) {
        self.expression("payload", |b| {
            b.number(1, REGISTER);
            b.number(2, header);
            b.number(3, offset);
            b.number(4, length);
        });
    }

    fn compare(&mut self, how: Compare, with: &[u8]) {
        self.expression("cmp", |b| {
            b.number(1, REGISTER);
            b.number(2, how as u32);
            b.data(3, with);
        });
    }

    fn commit(mut self) -> io::Result<()> {
        let last = self.sequence;
        self.message(BATCH_END, 0, UNSPECIFIED, |_| {});
        let socket = Socket::netfilter()?;
        socket.send_raw(&self.buffer)?;
        socket.acknowledged(last)
    }
}
