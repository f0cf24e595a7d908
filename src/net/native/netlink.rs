//! A blocking netlink socket: one request, one acknowledgement.
//!
//! A socket belongs to the network namespace of the thread that opened it, for ever; see netlink(7).

use std::io;
use std::os::fd::OwnedFd;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
    Parseable,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::RouteMessage;
use rustix::net::sockopt::{
    set_socket_recv_buffer_size_force, set_socket_send_buffer_size_force, socket_recv_buffer_size,
    socket_send_buffer_size,
};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send};

use super::link::address_family;
use crate::range::Family;

/// `NLMSG_ERROR` of linux/netlink.h: an error, or with code 0 an acknowledgement.
const ERROR: u16 = 2;
/// `NLMSG_DONE` of linux/netlink.h: the last part of an answer of many.
const DONE: u16 = 3;
/// What an answer takes in the kernel beside its content.
const ANSWER: usize = 1024;
/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;

/// A socket to one of the kernel's netlink families.
#[derive(Debug)]
pub(super) struct Socket {
    descriptor: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// A socket for links, addresses, routes and neighbours.
    pub(super) fn route() -> io::Result<Self> {
        // No protocol is NETLINK_ROUTE, which is 0.
        Self::open(None)
    }

    /// A socket for nftables.
    pub(super) fn netfilter() -> io::Result<Self> {
        Self::open(Some(netlink::NETFILTER))
    }

    fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let descriptor =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        Ok(Self { descriptor, sequence: 1 })
    }

    /// The next sequence number.
    pub(super) fn next_sequence(&mut self) -> u32 {
        self.sequence += 1;
        self.sequence
    }

    /// Sends a change and waits for its acknowledgement.
    pub(super) fn change<M: NetlinkSerializable + std::fmt::Debug>(
        &mut self,
        message: impl Into<NetlinkPayload<M>>,
        flags: u16,
    ) -> io::Result<()> {
        let sequence = self.next_sequence();
        self.send(message.into(), flags | NLM_F_ACK, sequence)?;
        self.acknowledged(sequence)
    }

    /// Sends a question that has one answer.
    pub(super) fn ask<M: NetlinkSerializable + NetlinkDeserializable + std::fmt::Debug>(
        &mut self,
        message: impl Into<NetlinkPayload<M>>,
    ) -> io::Result<M> {
        let sequence = self.next_sequence();
        self.send(message.into(), 0, sequence)?;
        loop {
            let buffer = self.receive()?;
            let answer = NetlinkMessage::<M>::deserialize(&buffer).map_err(io::Error::other)?;
            if answer.header.sequence_number != sequence {
                continue;
            }
            match answer.payload {
                NetlinkPayload::InnerMessage(inner) => return Ok(inner),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                other => return Err(io::Error::other(format!("unexpected answer {other:?}"))),
            }
        }
    }

    /// All routes of a family; what this library does not understand is left out.
    pub(super) fn routes(&mut self, family: Family) -> io::Result<Vec<RouteMessage>> {
        let mut question = RouteMessage::default();
        question.header.address_family = address_family(family);
        let mut question = NetlinkMessage::from(RouteNetlinkMessage::GetRoute(question));
        question.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        question.header.sequence_number = self.next_sequence();
        question.finalize();
        let mut buffer = vec![0; question.buffer_len()];
        question.serialize(&mut buffer);
        let answers = self.dump(&buffer)?;
        Ok(answers.iter().filter_map(|body| RouteMessage::parse(body).ok()).collect())
    }

    fn send<M: NetlinkSerializable>(&self, payload: NetlinkPayload<M>, flags: u16, sequence: u32) -> io::Result<()> {
        let mut message = NetlinkMessage::new(Default::default(), payload);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = sequence;
        message.finalize();
        let mut buffer = vec![0; message.buffer_len()];
        message.serialize(&mut buffer);
        self.send_raw(&buffer)
    }

    /// Makes room for a datagram of this length and the answers to its messages, past the host's usual limit if need be
    /// (CAP_NET_ADMIN).
    pub(super) fn make_room(&self, length: usize, messages: u32) -> io::Result<()> {
        // The kernel's own books of a message count in.
        let wanted = length.saturating_mul(2);
        if wanted > socket_send_buffer_size(&self.descriptor)? {
            set_socket_send_buffer_size_force(&self.descriptor, wanted)?;
        }
        // What fails is answered with the whole of its message, as a buffer of its own.
        let answers = usize::try_from(messages).unwrap_or(usize::MAX).saturating_mul(ANSWER).saturating_add(wanted);
        if answers > socket_recv_buffer_size(&self.descriptor)? {
            set_socket_recv_buffer_size_force(&self.descriptor, answers)?;
        }
        Ok(())
    }

    /// Sends encoded messages as one datagram.
    pub(super) fn send_raw(&self, buffer: &[u8]) -> io::Result<()> {
        let sent = send(&self.descriptor, buffer, SendFlags::empty())?;
        if sent == buffer.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; 32 << 10];
        let (length, _) = recv(&self.descriptor, buffer.as_mut_slice(), RecvFlags::empty())?;
        buffer.truncate(length);
        Ok(buffer)
    }

    /// Sends an encoded question that has many answers, and returns them without their headers.
    pub(super) fn dump(&mut self, question: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        self.send_raw(question)?;
        let mut answers = Vec::new();
        loop {
            let buffer = self.receive()?;
            let mut rest = buffer.as_slice();
            while let Some(header) = rest.first_chunk::<HEADER>() {
                let length = usize::try_from(word(header, 0)).unwrap_or(HEADER).max(HEADER);
                let body = rest.get(HEADER..length).unwrap_or_default();
                match u16::from_ne_bytes([header[4], header[5]]) {
                    DONE => return Ok(answers),
                    ERROR => {
                        let code = body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                        return Err(io::Error::from_raw_os_error(-code));
                    }
                    _ => answers.push(body.to_vec()),
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }

    /// Waits for the acknowledgement of the message with this number; an error of an earlier one ends the wait too.
    pub(super) fn acknowledged(&self, sequence: u32) -> io::Result<()> {
        loop {
            let buffer = self.receive()?;
            let mut rest = buffer.as_slice();
            while let Some(header) = rest.first_chunk::<HEADER>() {
                let length = usize::try_from(word(header, 0)).unwrap_or(HEADER).max(HEADER);
                let kind = u16::from_ne_bytes([header[4], header[5]]);
                let code = rest.get(HEADER..HEADER + 4).and_then(<[u8]>::first_chunk).map(|c| i32::from_ne_bytes(*c));
                if let (ERROR, Some(code)) = (kind, code) {
                    if code != 0 {
                        return Err(io::Error::from_raw_os_error(-code));
                    }
                    if word(header, 8) == sequence {
                        return Ok(());
                    }
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

fn word(header: &[u8; HEADER], at: usize) -> u32 {
    u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}
