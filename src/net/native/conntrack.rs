//! Connections that the kernel remembers and that must not go on as they are, over ctnetlink
//! (linux/netfilter/nfnetlink_conntrack.h).
//!
//! An address is translated by the first packet of a connection only. So a sender of UDP that never pauses would not reach
//! a host port that has come, nor notice one that has gone; upstream's portmap plugin removes such connections as well.
//! What the kernel was asked to filter is compared here again, for kernels before 5.8 do not filter.

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::netlink::Socket;
use super::nfnetlink::{IPV4, IPV6, Messages, Netfilter};
use super::nftables::octets;
use crate::Protocol;
use crate::range::Family;

/// `NFNL_SUBSYS_CTNETLINK` with `IPCTNL_MSG_CT_GET` and `IPCTNL_MSG_CT_DELETE`.
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;

/// `CTA_TUPLE_ORIG`, `CTA_TUPLE_REPLY`, `CTA_ID`, `CTA_FILTER`.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;
const FILTER: u16 = 25;
/// `CTA_TUPLE_IP` with `CTA_IP_V4_SRC` and `CTA_IP_V4_DST`, and `CTA_IP_V6_SRC` and `CTA_IP_V6_DST`.
const ADDRESSES: u16 = 1;
const SOURCES: [u16; 2] = [1, 3];
const DESTINATIONS: [u16; 2] = [2, 4];
/// `CTA_TUPLE_PROTO` with `CTA_PROTO_NUM`, `CTA_PROTO_SRC_PORT` and `CTA_PROTO_DST_PORT`.
const TRANSPORT: u16 = 2;
const PROTOCOL: u16 = 1;
const SOURCE_PORT: u16 = 2;
const PORT: u16 = 3;
/// `CTA_FILTER_FLAG_*` of net/netfilter/nf_conntrack_netlink.c.
const BY_SOURCE: u32 = 1;
const BY_DESTINATION: u32 = 1 << 1;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_PORT: u32 = 1 << 5;
/// `NLA_TYPE_MASK`.
const KIND: u16 = 0x3fff;
/// Length of `struct nfgenmsg`.
const HEADER: usize = 4;

/// Which connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// Those that an address answers.
    AnsweredBy(IpAddr),
    /// Those that were begun with a port, of one address or any of a family.
    To { protocol: u8, address: Option<IpAddr>, port: u16, family: Family },
    /// Those of them that an address answers.
    Through { protocol: u8, address: Option<IpAddr>, port: u16, by: IpAddr },
}

/// A connection, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) protocol: u8,
    /// To whom it was begun.
    pub(super) to: SocketAddr,
    /// Who answers.
    pub(super) by: SocketAddr,
}

/// Forgets connections; the next packet of each begins a new one. Returns how many there were.
pub(super) fn forget(netfilter: &Netfilter, which: Which) -> io::Result<usize> {
    netfilter.talk(|socket| forget_by(socket, which))
}

fn forget_by(socket: &mut Socket, which: Which) -> io::Result<usize> {
    let family = number(which.family());
    let question = Messages::question(GET, family, |b| which.ask(b));
    forget_answers(socket, family, &question, |body| which.is(body))
}

/// Like [`forget`], of all connections by a protocol those of which this is so.
pub(super) fn forget_if(
    netfilter: &Netfilter,
    (family, protocol): (Family, Protocol),
    is_stale: impl Fn(&Flow) -> bool,
) -> io::Result<usize> {
    let question = Messages::question(GET, number(family), |b| {
        let any = vec![0; usize::from(family.bits() / 8)];
        b.nested(ORIGINAL, |b| {
            b.nested(ADDRESSES, |b| b.bytes(of(DESTINATIONS, family), &any));
            b.nested(TRANSPORT, |b| b.bytes(PROTOCOL, &[protocol.number()]));
        });
        filter(b, [BY_PROTOCOL, 0]);
    });
    let is_it = |body: &[u8]| Flow::read(body, family).is_some_and(|flow| is_stale(&flow));
    netfilter.talk(|socket| forget_answers(socket, number(family), &question, is_it))
}

fn forget_answers(
    socket: &mut Socket,
    family: u8,
    question: &[u8],
    is_it: impl Fn(&[u8]) -> bool,
) -> io::Result<usize> {
    let mut forgotten = 0;
    for message in socket.dump(question)? {
        let Some(body) = message.get(HEADER..) else { continue };
        let Some(original) = attribute(body, ORIGINAL).filter(|_| is_it(body)) else { continue };
        let id = attribute(body, ID);
        let change = Messages::change(DELETE, family, |b| {
            b.nested(ORIGINAL, |b| b.raw(original));
            if let Some(id) = id {
                b.bytes(ID, id);
            }
        });
        socket.send_raw(&change)?;
        match socket.acknowledged(1) {
            // It has ended meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.map(|()| forgotten += 1)?,
        }
    }
    Ok(forgotten)
}

/// The attribute of a family.
fn of(kinds: [u16; 2], family: Family) -> u16 {
    match family {
        Family::V4 => kinds[0],
        Family::V6 => kinds[1],
    }
}

fn number(family: Family) -> u8 {
    match family {
        Family::V4 => IPV4,
        Family::V6 => IPV6,
    }
}

/// By what the kernel chooses, of both ways.
fn filter(b: &mut Messages, [original, reply]: [u32; 2]) {
    b.nested(FILTER, |b| {
        for (kind, flags) in [(ORIGINAL, original), (REPLY, reply)] {
            b.bytes(kind, &flags.to_ne_bytes());
        }
    });
}

impl Flow {
    /// None if it has no ports.
    fn read(body: &[u8], family: Family) -> Option<Self> {
        let place = |way: u16, address: u16, port: u16| {
            let address = part(body, [way, ADDRESSES, address])?;
            let address = match family {
                Family::V4 => IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
                Family::V6 => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
            };
            let port: [u8; 2] = part(body, [way, TRANSPORT, port])?.try_into().ok()?;
            Some(SocketAddr::new(address, u16::from_be_bytes(port)))
        };
        let protocol = *part(body, [ORIGINAL, TRANSPORT, PROTOCOL])?.first()?;
        let (to, by) = (of(DESTINATIONS, family), of(SOURCES, family));
        Some(Self { protocol, to: place(ORIGINAL, to, PORT)?, by: place(REPLY, by, SOURCE_PORT)? })
    }
}

impl Which {
    fn family(self) -> Family {
        match self {
            Self::AnsweredBy(address) | Self::Through { by: address, .. } => Family::of(address),
            Self::To { family, .. } => family,
        }
    }

    fn ask(self, b: &mut Messages) {
        let flags = match self {
            // The kernel is not asked for more, as this one compares it all.
            Self::AnsweredBy(address) | Self::Through { by: address, .. } => {
                let source = of(SOURCES, Family::of(address));
                b.nested(REPLY, |b| b.nested(ADDRESSES, |b| b.bytes(source, &octets(address))));
                [0, BY_SOURCE]
            }
            Self::To { protocol, address, port, family } => {
                let any = vec![0; usize::from(family.bits() / 8)];
                b.nested(ORIGINAL, |b| {
                    b.nested(ADDRESSES, |b| b.bytes(of(DESTINATIONS, family), &address.map_or(any, octets)));
                    b.nested(TRANSPORT, |b| {
                        b.bytes(PROTOCOL, &[protocol]);
                        b.bytes(PORT, &port.to_be_bytes());
                    });
                });
                let address = if address.is_some() { BY_DESTINATION } else { 0 };
                [BY_PROTOCOL | BY_PORT | address, 0]
            }
        };
        filter(b, flags);
    }

    fn is(self, body: &[u8]) -> bool {
        let part = |path: [u16; 3]| part(body, path);
        match self {
            Self::AnsweredBy(address) => {
                part([REPLY, ADDRESSES, of(SOURCES, Family::of(address))]) == Some(&octets(address)[..])
            }
            Self::Through { protocol, address, port, by } => {
                let family = Family::of(by);
                Self::AnsweredBy(by).is(body) && Self::To { protocol, address, port, family }.is(body)
            }
            Self::To { protocol, address, port, family } => {
                let place = [ORIGINAL, ADDRESSES, of(DESTINATIONS, family)];
                part([ORIGINAL, TRANSPORT, PROTOCOL]) == Some(&[protocol])
                    && part([ORIGINAL, TRANSPORT, PORT]) == Some(&port.to_be_bytes())
                    && address.is_none_or(|own| part(place) == Some(&octets(own)[..]))
            }
        }
    }
}

/// The content of an attribute inside others.
fn part(body: &[u8], path: [u16; 3]) -> Option<&[u8]> {
    path.iter().try_fold(body, |inside, kind| attribute(inside, *kind))
}

/// The content of the first attribute of a kind.
fn attribute(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    while let Some([a, b, c, d]) = attributes.first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([*a, *b]));
        if u16::from_ne_bytes([*c, *d]) & KIND == kind {
            return attributes.get(4..length);
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_in_whatever_order_and_broken_ones_are_nothing() {
        let mut body = vec![5, 0, 7, 0, 1, 0, 0, 0];
        body.extend([8, 0, 1, 0x80, 9, 9, 9, 9]);
        assert_eq!(attribute(&body, 1), Some(&[9, 9, 9, 9][..]));
        assert_eq!(attribute(&body, 7), Some(&[1][..]));
        assert_eq!(attribute(&body, 2), None);
        for broken in [&[0, 0, 1, 0][..], &[200, 0, 1, 0, 1], &[3, 0, 1]] {
            assert_eq!(attribute(broken, 1), None);
        }
    }
}
