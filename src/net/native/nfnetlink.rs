//! The wire format of nfnetlink: messages and their attributes, see linux/netfilter/nfnetlink.h. Attributes are
//! big-endian unless the part of the kernel that reads them says otherwise.

use std::io;
use std::sync::{Mutex, PoisonError};

use super::netlink::Socket;
use crate::range::Family;

/// `NFPROTO_INET`: tables for IPv4 and IPv6.
pub(super) const INET: u8 = 1;
/// `NFPROTO_IPV4`, the same as `AF_INET`.
pub(super) const IPV4: u8 = 2;
/// `NFPROTO_IPV6`, the same as `AF_INET6`.
pub(super) const IPV6: u8 = 10;
/// `NFPROTO_UNSPEC`, of batch delimiters.
const UNSPECIFIED: u8 = 0;

/// `NFNL_SUBSYS_NFTABLES`.
pub(super) const NFTABLES: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
/// `NLM_F_DUMP`.
const DUMP: u16 = 0x300;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

/// One socket to netfilter, which is opened when it is needed and stays open: whoever closes one waits until the kernel has
/// freed what earlier changes removed, some ten milliseconds (`nft_rcv_nl_event` of net/netfilter/nf_tables_api.c).
#[derive(Debug, Default)]
pub(super) struct Netfilter {
    socket: Mutex<Option<Socket>>,
}

impl Netfilter {
    /// Speaks with the kernel. A socket on which that failed may have answers left, and is not used again.
    pub(super) fn talk<T>(&self, talk: impl FnOnce(&mut Socket) -> io::Result<T>) -> io::Result<T> {
        let mut place = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let mut socket = match place.take() {
            Some(socket) => socket,
            None => Socket::netfilter()?,
        };
        let heard = talk(&mut socket)?;
        *place = Some(socket);
        Ok(heard)
    }
}

/// Messages in the making.
pub(super) struct Messages {
    buffer: Vec<u8>,
    sequence: u32,
    /// `NLM_F_ACK`, or nothing.
    acknowledge: u16,
    /// Of which packets rules are, and addresses in sets.
    family: Family,
}

impl Messages {
    /// Like [`Messages::batch`], of any length: only what follows [`Messages::acknowledge_last`] is acknowledged, for the
    /// socket would not hold more answers. Failures are answered in any case.
    pub(super) fn large_batch() -> Self {
        Self { acknowledge: 0, ..Self::batch() }
    }

    pub(super) fn acknowledge_last(&mut self) {
        self.acknowledge = ACKNOWLEDGE;
    }

    /// Messages to nf_tables that take effect together or not at all.
    pub(super) fn batch() -> Self {
        let mut batch = Self { buffer: Vec::new(), sequence: 0, acknowledge: ACKNOWLEDGE, family: Family::V4 };
        batch.begin(BATCH_BEGIN, REQUEST, (UNSPECIFIED, NFTABLES), |_| {});
        batch
    }

    /// What follows is about packets and addresses of a family; without that about IPv4.
    pub(super) fn about(&mut self, family: Family) {
        self.family = family;
    }

    pub(super) fn family(&self) -> Family {
        self.family
    }

    /// One question that has any number of answers.
    pub(super) fn question(kind: u16, family: u8, body: impl FnOnce(&mut Self)) -> Vec<u8> {
        let mut question = Self { buffer: Vec::new(), sequence: 0, acknowledge: ACKNOWLEDGE, family: Family::V4 };
        question.begin(kind, REQUEST | DUMP, (family, 0), body);
        question.buffer
    }

    /// One change.
    pub(super) fn change(kind: u16, family: u8, body: impl FnOnce(&mut Self)) -> Vec<u8> {
        let mut change = Self { buffer: Vec::new(), sequence: 0, acknowledge: ACKNOWLEDGE, family: Family::V4 };
        change.message(kind, 0, family, body);
        change.buffer
    }

    /// Adds a message that is acknowledged.
    pub(super) fn message(&mut self, kind: u16, flags: u16, family: u8, body: impl FnOnce(&mut Self)) {
        self.begin(kind, REQUEST | self.acknowledge | flags, (family, 0), body);
    }

    fn begin(&mut self, kind: u16, flags: u16, (family, resource): (u8, u16), body: impl FnOnce(&mut Self)) {
        self.sequence += 1;
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 4]);
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.buffer.extend_from_slice(&flags.to_ne_bytes());
        self.buffer.extend_from_slice(&self.sequence.to_ne_bytes());
        self.buffer.extend_from_slice(&0_u32.to_ne_bytes());
        // struct nfgenmsg; the resource id of a batch delimiter names the subsystem.
        self.buffer.extend_from_slice(&[family, 0]);
        self.buffer.extend_from_slice(&resource.to_be_bytes());
        body(self);
        let length = u32::try_from(self.buffer.len() - start).expect("a message is some kilobytes long");
        self.buffer[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    pub(super) fn attribute(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 2]);
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        body(self);
        let length = u16::try_from(self.buffer.len() - start).expect("an attribute is at most some kilobytes long");
        self.buffer[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.buffer.resize(self.buffer.len().next_multiple_of(4), 0);
    }

    pub(super) fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        self.attribute(kind | NESTED, body);
    }

    pub(super) fn bytes(&mut self, kind: u16, bytes: &[u8]) {
        self.attribute(kind, |b| b.buffer.extend_from_slice(bytes));
    }

    /// Attributes as they came from the kernel.
    pub(super) fn raw(&mut self, attributes: &[u8]) {
        self.buffer.extend_from_slice(attributes);
    }

    pub(super) fn text(&mut self, kind: u16, text: &str) {
        self.attribute(kind, |b| {
            b.buffer.extend_from_slice(text.as_bytes());
            b.buffer.push(0);
        });
    }

    pub(super) fn number(&mut self, kind: u16, number: u32) {
        self.bytes(kind, &number.to_be_bytes());
    }

    /// Sends a batch and waits until it has taken effect.
    pub(super) fn commit(mut self, netfilter: &Netfilter) -> io::Result<()> {
        let last = self.sequence;
        self.begin(BATCH_END, REQUEST, (UNSPECIFIED, NFTABLES), |_| {});
        netfilter.talk(|socket| {
            socket.make_room(self.buffer.len(), self.sequence)?;
            socket.send_raw(&self.buffer)?;
            socket.acknowledged(last)
        })
    }
}
