//! The maps and rules by which Services lead to their endpoints, on the wire.
//!
//! Registers are those of four bytes, [`FIRST`] and the three after it, in which keys and values of maps stand one after
//! another. A number that the kernel makes itself is in the machine's byte order.

use super::super::nfnetlink::{INET, Messages, NFTABLES};
use super::expressions::{
    CREATE, Compare, DELETE_ELEMENTS, DESTINATION, META_PROTOCOL, NEW_CHAIN, NEW_ELEMENTS, NEW_SET, PORT, Part, SOURCE,
    TCP, TRANSPORT_HEADER, VERDICT,
};
use super::services::By;

/// `NFT_MSG_DELCHAIN`.
const DELETE_CHAIN: u16 = NFTABLES << 8 | 5;
/// `NFT_MSG_DELRULE`, `NFT_MSG_DELSET`.
const DELETE_RULE: u16 = NFTABLES << 8 | 8;
const DELETE_SET: u16 = NFTABLES << 8 | 11;
/// `NFT_REG32_00`, and by addition those that follow.
const FIRST: u32 = 8;
/// `NFT_DATA_VERDICT`.
pub(super) const VERDICTS: u32 = 0xffff_ff00;
/// `NFT_SET_MAP`, `NFT_SET_TIMEOUT`, `NFT_SET_EVAL`.
const IS_MAP: u32 = 8;
const HAS_TIMEOUT: u32 = 0x10;
const IS_WRITTEN_BY_RULES: u32 = 0x20;
/// `NFT_JUMP`, `NFT_GOTO` and `NF_DROP`.
const JUMP: i32 = -3;
const GOTO: i32 = -4;
const DROP: i32 = 0;
/// `NFT_NG_RANDOM`.
const RANDOM: u32 = 1;
/// `NFT_DYNSET_OP_UPDATE`.
const UPDATE: u32 = 1;
/// `NFT_REJECT_TCP_RST`, `NFT_REJECT_ICMPX_UNREACH`, `NFT_REJECT_ICMPX_PORT_UNREACH`.
const RESET: u32 = 1;
const UNREACHABLE: u32 = 2;
const NO_SUCH_PORT: u8 = 1;
/// `NFT_CT_STATUS` and `IPS_DST_NAT` of nf_conntrack_common.h.
const CONNECTION_STATUS: u32 = 2;
const IS_TRANSLATED: u32 = 1 << 5;
/// How many clients of an endpoint are remembered at most.
const REMEMBERED: u32 = 65_535;
/// The number that a set must have, and by which none of these is looked up.
const CLIENTS: u32 = 1000;
/// Elements of one message; its length is limited to 64 KiB.
const AT_ONCE: usize = 400;

/// A set or map of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Map {
    /// `address . protocol . port : verdict`
    Spread,
    /// `protocol . port : verdict`, ports of all addresses of the host.
    SpreadPorts,
    /// `address . protocol . port . number : address . port`
    Endpoints,
    /// `protocol . port . number : address . port`
    EndpointsOfPorts,
    /// The same four, looked at first, for pods of this node and the host itself.
    Near,
    NearPorts,
    NearEndpoints,
    NearEndpointsOfPorts,
    /// `address . protocol . port : verdict`, where not all may connect.
    Guarded,
    /// `address . address`: endpoints, twice.
    Hairpins,
    /// `address` of endpoints that are no pods of this node.
    Remote,
    /// `address . protocol . port` where nobody answers.
    Refused,
    /// `protocol . port` of the host where nobody answers.
    RefusedPorts,
}

impl Map {
    pub(super) const ALL: [Self; 13] = [
        Self::Spread,
        Self::SpreadPorts,
        Self::Endpoints,
        Self::EndpointsOfPorts,
        Self::Near,
        Self::NearPorts,
        Self::NearEndpoints,
        Self::NearEndpointsOfPorts,
        Self::Guarded,
        Self::Hairpins,
        Self::Remote,
        Self::Refused,
        Self::RefusedPorts,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Spread => "spread",
            Self::SpreadPorts => "spread-ports",
            Self::Endpoints => "endpoints",
            Self::EndpointsOfPorts => "endpoints-of-ports",
            Self::Near => "near",
            Self::NearPorts => "near-ports",
            Self::NearEndpoints => "near-endpoints",
            Self::NearEndpointsOfPorts => "near-endpoints-of-ports",
            Self::Guarded => "guarded",
            Self::Hairpins => "hairpins",
            Self::Remote => "remote",
            Self::Refused => "refused",
            Self::RefusedPorts => "refused-ports",
        }
    }

    fn number(self) -> u32 {
        u32::try_from(Self::ALL.iter().position(|map| *map == self).unwrap_or(0) + 1).unwrap_or(1)
    }

    /// The parts of keys, and the parts of values.
    fn parts(self) -> (&'static [Part], &'static [Part]) {
        const TARGET: &[Part] = &[Part::Address, Part::Service];
        match self {
            Self::Spread | Self::Near | Self::Guarded | Self::Refused => {
                (&[Part::Address, Part::Protocol, Part::Service], &[])
            }
            Self::SpreadPorts | Self::NearPorts | Self::RefusedPorts => (&[Part::Protocol, Part::Service], &[]),
            Self::Endpoints | Self::NearEndpoints => {
                (&[Part::Address, Part::Protocol, Part::Service, Part::Mark], TARGET)
            }
            Self::EndpointsOfPorts | Self::NearEndpointsOfPorts => {
                (&[Part::Protocol, Part::Service, Part::Mark], TARGET)
            }
            Self::Hairpins => (&[Part::Address, Part::Address], &[]),
            Self::Remote => (&[Part::Address], &[]),
        }
    }
}

/// What an element leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// It is there.
    None,
    Bytes(Vec<u8>),
    Goto(String),
    Jump(String),
    Drop,
}

impl Messages {
    pub(super) fn add_map(&mut self, table: &str, map: Map) {
        let (key, value) = map.parts();
        let is_verdicts = matches!(map, Map::Spread | Map::SpreadPorts | Map::Near | Map::NearPorts | Map::Guarded);
        self.message(NEW_SET, CREATE, INET, |b| {
            b.text(1, table);
            b.text(2, map.name());
            b.number(3, if value.is_empty() && !is_verdicts { 0 } else { IS_MAP });
            b.key_of(key);
            if is_verdicts {
                b.number(6, VERDICTS);
            } else {
                b.value_of(value);
            }
            b.number(10, map.number());
        });
    }

    /// A set of clients, written by rules.
    pub(super) fn add_clients(&mut self, table: &str, set: &str) {
        self.message(NEW_SET, CREATE, INET, |b| {
            b.text(1, table);
            b.text(2, set);
            b.number(3, HAS_TIMEOUT | IS_WRITTEN_BY_RULES);
            b.key_of(&[Part::Address]);
            b.nested(9, |b| b.number(1, REMEMBERED));
            b.number(10, CLIENTS);
        });
    }

    pub(super) fn delete_set(&mut self, table: &str, set: &str) {
        self.message(DELETE_SET, 0, INET, |b| {
            b.text(1, table);
            b.text(2, set);
        });
    }

    /// Removes all rules of a chain.
    pub(super) fn flush_chain(&mut self, table: &str, chain: &str) {
        self.message(DELETE_RULE, 0, INET, |b| {
            b.text(1, table);
            b.text(2, chain);
        });
    }

    /// A chain that only maps lead to.
    pub(super) fn add_plain_chain(&mut self, table: &str, chain: &str) {
        self.message(NEW_CHAIN, CREATE, INET, |b| {
            b.text(1, table);
            b.text(3, chain);
        });
    }

    /// Removes a chain to which nothing leads, with its rules.
    pub(super) fn delete_chain(&mut self, table: &str, chain: &str) {
        self.message(DELETE_CHAIN, 0, INET, |b| {
            b.text(1, table);
            b.text(3, chain);
        });
    }

    /// Adds elements, or removes them by their keys.
    pub(super) fn elements(&mut self, table: &str, map: Map, elements: &[(&[u8], &Value)], present: bool) {
        let (kind, flags) = if present { (NEW_ELEMENTS, CREATE) } else { (DELETE_ELEMENTS, 0) };
        for some in elements.chunks(AT_ONCE) {
            self.message(kind, flags, INET, |b| {
                b.text(1, table);
                b.text(2, map.name());
                b.nested(3, |b| some.iter().for_each(|(key, value)| b.one_element(key, value, present)));
            });
        }
    }

    fn one_element(&mut self, key: &[u8], value: &Value, present: bool) {
        self.nested(1, |b| {
            b.data(1, key);
            match value {
                Value::None => {}
                _ if !present => {}
                Value::Bytes(bytes) => b.data(2, bytes),
                Value::Drop => b.nested(2, |b| b.verdict(DROP, None)),
                Value::Jump(chain) => b.nested(2, |b| b.verdict(JUMP, Some(chain))),
                Value::Goto(chain) => b.nested(2, |b| b.verdict(GOTO, Some(chain))),
            }
        });
    }

    pub(super) fn verdict(&mut self, code: i32, chain: Option<&str>) {
        self.nested(2, |b| {
            b.bytes(1, &code.to_be_bytes());
            if let Some(chain) = chain {
                b.text(2, chain);
            }
        });
    }

    /// Loads the key by which the frontend of a packet is found, and tells which register follows.
    fn load_frontend(&mut self, by: By) -> u32 {
        let first = match by {
            By::Port | By::NearPort => FIRST,
            By::Address | By::NearAddress => self.load_address(DESTINATION, FIRST),
        };
        self.meta(META_PROTOCOL, first);
        self.load(TRANSPORT_HEADER, PORT, 2, first + 1);
        first + 2
    }

    /// Goes where [`Map::Spread`] or its like says.
    pub(super) fn spread(&mut self, by: By) {
        self.load_frontend(by);
        self.find(by.spread(), Some(VERDICT));
    }

    /// Turns away who is not admitted.
    pub(super) fn guard(&mut self) {
        self.load_frontend(By::Address);
        self.find(Map::Guarded, Some(VERDICT));
    }

    /// Leads a connection to one of a number of endpoints.
    pub(super) fn lead_to_one_of(&mut self, by: By, count: u32) {
        let number = self.load_frontend(by);
        self.dice(count, number);
        self.find(by.endpoints(), Some(FIRST));
        self.destination_from_registers();
    }

    /// Whether a packet is for something in [`Map::Refused`].
    pub(super) fn is_refused(&mut self) {
        self.load_frontend(By::Address);
        self.find(Map::Refused, None);
    }

    /// Whether a packet is for something in [`Map::RefusedPorts`].
    pub(super) fn is_refused_port(&mut self) {
        self.load_frontend(By::Port);
        self.find(Map::RefusedPorts, None);
    }

    /// Whether source and destination are in [`Map::Hairpins`].
    pub(super) fn is_hairpin(&mut self) {
        let next = self.load_address(SOURCE, FIRST);
        self.load_address(DESTINATION, next);
        self.find(Map::Hairpins, None);
    }

    /// Whether a connection was led to an endpoint elsewhere.
    pub(super) fn is_led_away(&mut self) {
        self.load_address(DESTINATION, FIRST);
        self.find(Map::Remote, None);
        self.expression("ct", |b| {
            b.number(1, FIRST);
            b.number(2, CONNECTION_STATUS);
        });
        self.expression("bitwise", |b| {
            b.number(1, FIRST);
            b.number(2, FIRST);
            b.number(3, 4);
            b.data(4, &IS_TRANSLATED.to_ne_bytes());
            b.data(5, &[0; 4]);
        });
        self.expression("cmp", |b| {
            b.number(1, FIRST);
            b.number(2, 1);
            b.data(3, &[0; 4]);
        });
    }

    /// Looks up the key that begins in the first register, and what it leads to.
    fn find(&mut self, map: Map, into: Option<u32>) {
        self.expression("lookup", |b| {
            b.text(1, map.name());
            b.number(2, FIRST);
            if let Some(into) = into {
                b.number(3, into);
            }
            b.number(4, map.number());
        });
    }

    /// A number below `count`.
    fn dice(&mut self, count: u32, into: u32) {
        self.expression("numgen", |b| {
            b.number(1, into);
            b.number(2, count);
            b.number(3, RANDOM);
        });
    }

    /// True of one packet in `count`.
    pub(super) fn is_chosen_of(&mut self, count: u32) {
        self.dice(count, FIRST);
        self.expression("cmp", |b| {
            b.number(1, FIRST);
            b.number(2, Compare::Equal as u32);
            b.data(3, &[0; 4]);
        });
    }

    pub(super) fn go_to(&mut self, chain: &str) {
        self.decide(GOTO, Some(chain));
    }

    /// What becomes of a packet.
    pub(super) fn decide(&mut self, verdict: i32, chain: Option<&str>) {
        self.expression("immediate", |b| {
            b.number(1, VERDICT);
            b.nested(2, |b| b.verdict(verdict, chain));
        });
    }

    /// Remembers the sender for some time.
    pub(super) fn remember(&mut self, set: &str, seconds: u32) {
        self.load_address(SOURCE, FIRST);
        self.expression("dynset", |b| {
            b.text(1, set);
            b.number(3, UPDATE);
            b.number(4, FIRST);
            b.bytes(6, &(u64::from(seconds) * 1000).to_be_bytes());
        });
    }

    /// Whether it is TCP (or not).
    pub(super) fn is_tcp(&mut self, how: Compare) {
        self.meta(META_PROTOCOL, FIRST);
        self.expression("cmp", |b| {
            b.number(1, FIRST);
            b.number(2, how as u32);
            b.data(3, &[TCP]);
        });
    }

    /// Answers a packet of TCP with a reset. An error of ICMP that comes while the program is still in connect(2), as it
    /// does from the same host, would be forgotten.
    pub(super) fn reset(&mut self) {
        self.expression("reject", |b| {
            b.number(1, RESET);
            b.bytes(2, &[0]);
        });
    }

    pub(super) fn refuse(&mut self) {
        self.expression("reject", |b| {
            b.number(1, UNREACHABLE);
            b.bytes(2, &[NO_SUCH_PORT]);
        });
    }
}
