//! The maps and rules by which packets are let through or not, on the wire.

use super::super::nfnetlink::{INET, Messages};
use super::expressions::{
    CREATE, DELETE_ELEMENTS, End, META_PROTOCOL, NEW_ELEMENTS, NEW_SET, PORT, Part, TRANSPORT_HEADER, VERDICT,
};
use super::spread::VERDICTS;
use crate::policies::Ports;

/// `NFT_REG32_00`, and by addition those that follow.
const FIRST: u32 = 8;
/// `NFT_SET_MAP`.
const IS_MAP: u32 = 8;
/// `NFT_JUMP`, `NFT_RETURN`, `NF_ACCEPT`.
const JUMP: i32 = -3;
const RETURN: i32 = -5;
const ACCEPT: i32 = 1;
/// `NFT_CT_STATE`, and the bits of established and related connections: `NF_CT_STATE_BIT`.
const CONNECTION_STATE: u32 = 0;
const KNOWN: u32 = 2 | 4;
/// `NFT_CMP_EQ`, `NFT_CMP_NEQ`.
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
/// `NFT_RANGE_EQ`.
const WITHIN: u32 = 0;
/// The number that a map must have, and by which none of these is looked up.
const UNUSED: u32 = 1000;

impl Messages {
    /// `address : verdict`
    pub(super) fn add_verdict_map(&mut self, table: &str, map: &str) {
        self.message(NEW_SET, CREATE, INET, |b| {
            b.text(1, table);
            b.text(2, map);
            b.number(3, IS_MAP);
            b.key_of(&[Part::Address]);
            b.number(6, VERDICTS);
            b.number(10, UNUSED);
        });
    }

    /// Adds an element that jumps to a chain, or removes it.
    pub(super) fn jump_element(&mut self, table: &str, map: &str, key: &[u8], chain: Option<&str>) {
        let (kind, flags) = if chain.is_some() { (NEW_ELEMENTS, CREATE) } else { (DELETE_ELEMENTS, 0) };
        self.message(kind, flags, INET, |b| {
            b.text(1, table);
            b.text(2, map);
            b.nested(3, |b| {
                b.nested(1, |b| {
                    b.data(1, key);
                    if chain.is_some() {
                        b.nested(2, |b| b.verdict(JUMP, chain));
                    }
                });
            });
        });
    }

    /// Whether the kernel knows the connection, or what it belongs to.
    pub(super) fn is_of_known_connection(&mut self) {
        self.expression("ct", |b| {
            b.number(1, FIRST);
            b.number(2, CONNECTION_STATE);
        });
        self.expression("bitwise", |b| {
            b.number(1, FIRST);
            b.number(2, FIRST);
            b.number(3, 4);
            b.data(4, &KNOWN.to_ne_bytes());
            b.data(5, &[0; 4]);
        });
        self.expression("cmp", |b| {
            b.number(1, FIRST);
            b.number(2, NOT_EQUAL);
            b.data(3, &[0; 4]);
        });
    }

    /// Whether an address of the packet is in a group.
    pub(super) fn address_is_in_group(&mut self, end: End, group: &str) {
        self.load_address(end, FIRST);
        self.expression("lookup", |b| {
            b.text(1, group);
            b.number(2, FIRST);
        });
    }

    /// Goes where a map says of an address of the packet.
    pub(super) fn go_by_address(&mut self, map: &str, end: End) {
        self.load_address(end, FIRST);
        self.expression("lookup", |b| {
            b.text(1, map);
            b.number(2, FIRST);
            b.number(3, VERDICT);
        });
    }

    /// Whether a packet is for one of some ports.
    pub(super) fn is_for_ports(&mut self, ports: Ports) {
        self.meta(META_PROTOCOL, FIRST);
        self.expression("cmp", |b| {
            b.number(1, FIRST);
            b.number(2, EQUAL);
            b.data(3, &[ports.protocol.number()]);
        });
        let Some((first, last)) = ports.range else { return };
        self.load(TRANSPORT_HEADER, PORT, 2, FIRST);
        if first == last {
            self.expression("cmp", |b| {
                b.number(1, FIRST);
                b.number(2, EQUAL);
                b.data(3, &first.to_be_bytes());
            });
        } else {
            self.expression("range", |b| {
                b.number(1, FIRST);
                b.number(2, WITHIN);
                b.data(3, &first.to_be_bytes());
                b.data(4, &last.to_be_bytes());
            });
        }
    }

    pub(super) fn accept(&mut self) {
        self.decide(ACCEPT, None);
    }

    /// Back to where the chain was jumped to from.
    pub(super) fn give_back(&mut self) {
        self.decide(RETURN, None);
    }
}
