//! Our own nftables table, rendered whole as one atomic batch; nobody else's rules are ever touched.
//!
//! The wire format is nf_tables over nfnetlink: linux/netfilter/nf_tables.h and nfnetlink.h. Attributes are big-endian.
//!
//! ```text
//! table inet <name> {
//!   chain postrouting { type nat hook postrouting priority srcnat;
//!     ip saddr <pods> ip daddr != <pods> masquerade }
//! }
//! ```

use std::io;
use std::net::Ipv4Addr;

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

/// `NF_INET_POST_ROUTING`.
const POST_ROUTING: u32 = 4;
/// `NF_IP_PRI_NAT_SRC`.
const SOURCE_NAT: u32 = 100;
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
const CHAIN: &str = "postrouting";

/// How a register is compared: `NFT_CMP_EQ`, `NFT_CMP_NEQ`.
#[derive(Clone, Copy)]
enum Compare {
    Equal = 0,
    NotEqual = 1,
}

/// Replaces the table with one that hides the pods' addresses from everybody outside their range.
pub(super) fn replace(table: &str, pods: &Range) -> io::Result<()> {
    let mut batch = Batch::new();
    // Created first, so that the removal finds it in any case.
    batch.add_table(table);
    batch.message(DELETE_TABLE, 0, INET, |b| b.text(1, table));
    batch.add_table(table);
    batch.message(NEW_CHAIN, CREATE, INET, |b| {
        b.text(1, table);
        b.text(3, CHAIN);
        b.nested(4, |b| {
            b.number(1, POST_ROUTING);
            b.number(2, SOURCE_NAT);
        });
        b.text(7, "nat");
    });
    batch.message(NEW_RULE, CREATE | APPEND, INET, |b| {
        b.text(1, table);
        b.text(2, CHAIN);
        b.nested(4, |b| {
            b.is_ipv4();
            b.address_in(SOURCE, pods, Compare::Equal);
            b.address_in(DESTINATION, pods, Compare::NotEqual);
            b.expression("masq", |_| {});
        });
    });
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
        self.expression("payload", |b| {
            b.number(1, REGISTER);
            b.number(2, NETWORK_HEADER);
            b.number(3, offset);
            b.number(4, 4);
        });
        self.expression("bitwise", |b| {
            b.number(1, REGISTER);
            b.number(2, REGISTER);
            b.number(3, 4);
            b.data(4, &range.mask().octets());
            b.data(5, &Ipv4Addr::UNSPECIFIED.octets());
        });
        self.compare(how, &range.network().octets());
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
