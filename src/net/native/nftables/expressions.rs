//! The objects and expressions of nf_tables that our table is made of: linux/netfilter/nf_tables.h.

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::super::nfnetlink::{INET, IPV4, IPV6, Messages, NFTABLES, Netfilter};
use crate::range::{Family, Range};

const NEW_TABLE: u16 = NFTABLES << 8;
const DELETE_TABLE: u16 = NFTABLES << 8 | 2;
pub(super) const NEW_CHAIN: u16 = NFTABLES << 8 | 3;
const NEW_RULE: u16 = NFTABLES << 8 | 6;
pub(super) const NEW_SET: u16 = NFTABLES << 8 | 9;
pub(super) const NEW_ELEMENTS: u16 = NFTABLES << 8 | 12;
pub(super) const DELETE_ELEMENTS: u16 = NFTABLES << 8 | 14;

/// `NLM_F_CREATE`, `NLM_F_APPEND`.
pub(super) const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// `NFT_REG32_00`, the first of sixteen registers of four bytes.
pub(super) const REGISTER: u32 = 8;
/// `NFT_REG_VERDICT`.
pub(super) const VERDICT: u32 = 0;
/// `NF_DROP`.
const DROP: u32 = 0;
/// `NFT_META_IIFNAME`, `NFT_META_NFPROTO`, `NFT_META_L4PROTO`.
const META_IN_NAME: u32 = 6;
const META_NFPROTO: u32 = 15;
pub(super) const META_PROTOCOL: u32 = 16;
/// `NFT_PAYLOAD_NETWORK_HEADER`.
const NETWORK_HEADER: u32 = 1;
/// `NFT_PAYLOAD_TRANSPORT_HEADER`, and the place of the destination port there, for TCP, UDP and SCTP alike.
pub(super) const TRANSPORT_HEADER: u32 = 2;
pub(super) const PORT: u32 = 2;
/// `IPPROTO_TCP`.
pub(super) const TCP: u8 = 6;
/// `NFT_NAT_DNAT`.
const DNAT: u32 = 1;
/// `NFT_FIB_RESULT_ADDRTYPE`, `NFTA_FIB_F_DADDR`, and `RTN_LOCAL` of linux/rtnetlink.h.
const ADDRESS_TYPE: u32 = 3;
const OF_DESTINATION: u32 = 2;
const LOCAL: u32 = 2;
/// `NFT_SET_MAP`.
const IS_MAP: u32 = 8;

/// Which address of a packet.
#[derive(Clone, Copy)]
pub(super) enum End {
    Source,
    Destination,
}

pub(super) const SOURCE: End = End::Source;
pub(super) const DESTINATION: End = End::Destination;

impl End {
    /// Its place in the header: RFC 791 §3.1, RFC 8200 §3.
    fn offset(self, family: Family) -> u32 {
        match (self, family) {
            (Self::Source, Family::V4) => 12,
            (Self::Destination, Family::V4) => 16,
            (Self::Source, Family::V6) => 8,
            (Self::Destination, Family::V6) => 24,
        }
    }
}

/// A part of the keys or values of a set. Each begins with a register, and an address of IPv6 fills four.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Address,
    Protocol,
    Service,
    /// A number of four bytes.
    Mark,
}

impl Part {
    /// Number of nft(8) for its type, by which it shows the part.
    fn kind(self, family: Family) -> u32 {
        match (self, family) {
            (Self::Address, Family::V4) => 7,
            (Self::Address, Family::V6) => 8,
            (Self::Protocol, _) => 12,
            (Self::Service, _) => 13,
            (Self::Mark, _) => 19,
        }
    }

    /// How many registers it fills.
    fn words(self, family: Family) -> u32 {
        if self == Self::Address { u32::from(family.bits()) / 32 } else { 1 }
    }
}

/// The bytes of an address.
pub(in crate::native) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(own) => own.octets().to_vec(),
        IpAddr::V6(own) => own.octets().to_vec(),
    }
}

/// How a register is compared: `NFT_CMP_EQ`, `NFT_CMP_NEQ`.
#[derive(Clone, Copy)]
pub(super) enum Compare {
    Equal = 0,
    NotEqual = 1,
}

/// Where a chain is hooked in.
#[derive(Clone, Copy)]
pub(super) struct Hook {
    /// `filter` or `nat`.
    kind: &'static str,
    /// `NF_INET_*`.
    number: u32,
    /// `NF_IP_PRI_*`.
    priority: i32,
}

impl Hook {
    /// Before connections are looked at.
    pub(super) const RAW: Self = Self { kind: "filter", number: 0, priority: -300 };
    /// New connections that arrive.
    pub(super) const ARRIVING: Self = Self { kind: "nat", number: 0, priority: -100 };
    /// New connections of the host itself.
    pub(super) const LEAVING: Self = Self { kind: "nat", number: 3, priority: -100 };
    /// What the host takes in, passes on and sends, once addresses have been translated.
    pub(super) const TAKEN: Self = Self { kind: "filter", number: 1, priority: 0 };
    pub(super) const FORWARDED: Self = Self { kind: "filter", number: 2, priority: 0 };
    pub(super) const SENT: Self = Self { kind: "filter", number: 3, priority: 0 };
    /// What the host passes on, before others look at it.
    pub(super) const FILTERED: Self = Self { kind: "filter", number: 2, priority: -5 };
    /// New connections on their way out.
    pub(super) const PASSED: Self = Self { kind: "nat", number: 4, priority: 100 };
}

/// What a set or map holds.
#[derive(Clone, Copy)]
pub(super) struct SetForm {
    pub(super) id: u32,
    key: &'static [Part],
    value: &'static [Part],
}

impl SetForm {
    /// `address . protocol . port : address . port`
    pub(super) const ADDRESS_PORTS: Self =
        Self { id: 1, key: &[Part::Address, Part::Protocol, Part::Service], value: &[Part::Address, Part::Service] };
    /// `protocol . port : address . port`
    pub(super) const PORTS: Self =
        Self { id: 2, key: &[Part::Protocol, Part::Service], value: &[Part::Address, Part::Service] };
    /// `address`
    pub(super) const ADDRESSES: Self = Self { id: 4, key: &[Part::Address], value: &[] };
    /// `address . address`
    pub(super) const PAIRS: Self = Self { id: 3, key: &[Part::Address, Part::Address], value: &[] };
}

impl Messages {
    pub(super) fn add_table(&mut self, table: &str) {
        self.message(NEW_TABLE, CREATE, INET, |b| b.text(1, table));
    }

    pub(super) fn delete_table(&mut self, table: &str) {
        self.message(DELETE_TABLE, 0, INET, |b| b.text(1, table));
    }

    /// Makes a table anew, empty.
    pub(super) fn replace_table(&mut self, table: &str) {
        // Created first, so that the removal finds it in any case.
        self.add_table(table);
        self.delete_table(table);
        self.add_table(table);
    }

    /// Commits a large batch: its last message changes nothing and is answered.
    pub(super) fn commit_large(mut self, netfilter: &Netfilter, table: &str) -> io::Result<()> {
        self.acknowledge_last();
        self.add_table(table);
        self.commit(netfilter)
    }

    pub(super) fn add_chain(&mut self, table: &str, chain: &str, hook: Hook) {
        self.message(NEW_CHAIN, CREATE, INET, |b| {
            b.text(1, table);
            b.text(3, chain);
            b.nested(4, |b| {
                b.number(1, hook.number);
                b.bytes(2, &hook.priority.to_be_bytes());
            });
            b.text(7, hook.kind);
        });
    }

    /// A rule about packets of the family.
    pub(super) fn add_rule(&mut self, table: &str, chain: &str, expressions: impl FnOnce(&mut Self)) {
        self.message(NEW_RULE, CREATE | APPEND, INET, |b| {
            b.text(1, table);
            b.text(2, chain);
            b.nested(4, |b| {
                b.is_of_family();
                expressions(b);
            });
        });
    }

    pub(super) fn add_set(&mut self, table: &str, set: &str, form: SetForm) {
        self.message(NEW_SET, CREATE, INET, |b| {
            b.text(1, table);
            b.text(2, set);
            b.number(3, if form.value.is_empty() { 0 } else { IS_MAP });
            b.key_of(form.key);
            b.value_of(form.value);
            b.number(10, form.id);
        });
    }

    /// Type and length of the keys of a set.
    pub(super) fn key_of(&mut self, parts: &[Part]) {
        let (kind, size) = self.form_of(parts);
        self.number(4, kind);
        self.number(5, size);
    }

    /// Type and length of the values of a map.
    pub(super) fn value_of(&mut self, parts: &[Part]) {
        if !parts.is_empty() {
            let (kind, size) = self.form_of(parts);
            self.number(6, kind);
            self.number(7, size);
        }
    }

    fn form_of(&self, parts: &[Part]) -> (u32, u32) {
        let family = self.family();
        let kind = parts.iter().fold(0, |all, part| all << 6 | part.kind(family));
        (kind, parts.iter().map(|part| 4 * part.words(family)).sum())
    }

    /// Adds an element, or removes it by its key.
    pub(super) fn element(&mut self, table: &str, set: &str, key: &[u8], value: Option<&[u8]>, present: bool) {
        let (kind, flags) = if present { (NEW_ELEMENTS, CREATE) } else { (DELETE_ELEMENTS, 0) };
        self.message(kind, flags, INET, |b| {
            b.text(1, table);
            b.text(2, set);
            b.nested(3, |b| {
                b.nested(1, |b| {
                    b.data(1, key);
                    if let Some(value) = value.filter(|_| present) {
                        b.data(2, value);
                    }
                });
            });
        });
    }

    /// `NFTA_DATA_VALUE` inside an attribute.
    pub(super) fn data(&mut self, kind: u16, bytes: &[u8]) {
        self.nested(kind, |b| b.bytes(1, bytes));
    }

    /// `NFTA_LIST_ELEM` with name and data of an expression.
    pub(super) fn expression(&mut self, name: &str, data: impl FnOnce(&mut Self)) {
        self.nested(1, |b| {
            b.text(1, name);
            b.nested(2, data);
        });
    }

    pub(super) fn masquerade(&mut self) {
        self.expression("masq", |_| {});
    }

    pub(super) fn drop_packet(&mut self) {
        self.expression("immediate", |b| {
            b.number(1, VERDICT);
            b.nested(2, |b| b.nested(2, |b| b.number(1, DROP)));
        });
    }

    fn is_of_family(&mut self) {
        self.meta(META_NFPROTO, REGISTER);
        self.compare(Compare::Equal, &[self.family_number()]);
    }

    /// The kernel's number of the family.
    fn family_number(&self) -> u8 {
        match self.family() {
            Family::V4 => IPV4,
            Family::V6 => IPV6,
        }
    }

    /// Whether a packet comes in by a link with such a name.
    pub(super) fn comes_by(&mut self, prefix: &str) {
        self.meta(META_IN_NAME, REGISTER);
        self.compare(Compare::Equal, prefix.as_bytes());
    }

    /// Whether an address of the packet is in a range of its family.
    pub(super) fn address_in(&mut self, end: End, range: &Range, how: Compare) {
        self.load_address(end, REGISTER);
        let mask = octets(range.mask());
        self.expression("bitwise", |b| {
            b.number(1, REGISTER);
            b.number(2, REGISTER);
            b.number(3, u32::from(range.family().bits()) / 8);
            b.data(4, &mask);
            b.data(5, &vec![0; mask.len()]);
        });
        self.compare(how, &octets(range.network()));
    }

    /// Loads an address of the packet, and tells which register follows.
    pub(super) fn load_address(&mut self, end: End, register: u32) -> u32 {
        let (family, words) = (self.family(), Part::Address.words(self.family()));
        self.load(NETWORK_HEADER, end.offset(family), 4 * words, register);
        register + words
    }

    /// Whether source and destination are one of a set of pairs.
    pub(super) fn addresses_in(&mut self, set: &str, form: SetForm) {
        let next = self.load_address(SOURCE, REGISTER);
        self.load_address(DESTINATION, next);
        self.look_up(set, form);
    }

    /// Whether a packet is for the host itself.
    pub(super) fn is_for_host(&mut self) {
        self.expression("fib", |b| {
            b.number(1, REGISTER);
            b.number(2, ADDRESS_TYPE);
            b.number(3, OF_DESTINATION);
        });
        self.compare(Compare::Equal, &LOCAL.to_ne_bytes());
    }

    /// Whether a packet is for a TCP port of an address.
    pub(super) fn is_for(&mut self, target: impl Into<SocketAddr>) {
        let target = target.into();
        self.load_address(DESTINATION, REGISTER);
        self.compare(Compare::Equal, &octets(target.ip()));
        self.meta(META_PROTOCOL, REGISTER);
        self.compare(Compare::Equal, &[TCP]);
        self.load(TRANSPORT_HEADER, PORT, 2, REGISTER);
        self.compare(Compare::Equal, &target.port().to_be_bytes());
    }

    /// Sends a connection somewhere else.
    pub(super) fn change_destination(&mut self, to: impl Into<SocketAddr>) {
        let to = to.into();
        let port = REGISTER + Part::Address.words(self.family());
        for (register, bytes) in [(REGISTER, octets(to.ip())), (port, to.port().to_be_bytes().to_vec())] {
            self.expression("immediate", |b| {
                b.number(1, register);
                b.data(2, &bytes);
            });
        }
        self.destination_from_registers();
    }

    /// Sends a connection where a map of [`SetForm::ADDRESS_PORTS`] says, if it says anything.
    pub(super) fn change_destination_by_address(&mut self, map: &str) {
        let next = self.load_address(DESTINATION, REGISTER);
        self.meta(META_PROTOCOL, next);
        self.load(TRANSPORT_HEADER, PORT, 2, next + 1);
        self.look_up(map, SetForm::ADDRESS_PORTS);
        self.destination_from_registers();
    }

    /// Sends a connection where a map of [`SetForm::PORTS`] says, if it says anything.
    pub(super) fn change_destination_by_port(&mut self, map: &str) {
        self.meta(META_PROTOCOL, REGISTER);
        self.load(TRANSPORT_HEADER, PORT, 2, REGISTER + 1);
        self.look_up(map, SetForm::PORTS);
        self.destination_from_registers();
    }

    /// Sends a connection to the address and the port that the first registers hold.
    pub(super) fn destination_from_registers(&mut self) {
        let port = REGISTER + Part::Address.words(self.family());
        let family = u32::from(self.family_number());
        self.expression("nat", |b| {
            b.number(1, DNAT);
            b.number(2, family);
            b.number(3, REGISTER);
            b.number(5, port);
        });
    }

    fn look_up(&mut self, set: &str, form: SetForm) {
        self.expression("lookup", |b| {
            b.text(1, set);
            b.number(2, REGISTER);
            if !form.value.is_empty() {
                b.number(3, REGISTER);
            }
            b.number(4, form.id);
        });
    }

    pub(super) fn meta(&mut self, key: u32, register: u32) {
        self.expression("meta", |b| {
            b.number(1, register);
            b.number(2, key);
        });
    }

    /// Loads a part of a header.
    pub(super) fn load(&mut self, header: u32, offset: u32, length: u32, register: u32) {
        self.expression("payload", |b| {
            b.number(1, register);
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
}
