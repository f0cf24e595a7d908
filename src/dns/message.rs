//! Questions and answers on the wire.
//!
//! [`read`] takes the bytes of anybody and gives a question that this server answers, or at once the bytes of a refusal;
//! [`Question::reply`] writes an answer that fits. Both are pure. Messages are DNS's (RFC 1035), with EDNS (RFC 6891).
//! Invariant: whatever is sent is a whole message of at most the size that the asker takes, and says TC when something of
//! the answer had to be left out (RFC 2181 §9).

use hickory_proto::ProtoError;
use hickory_proto::op::{
    Edns, EmitAndCount, Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode, emit_message_parts,
};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, BinEncoder};

/// What every asker takes over UDP (RFC 1035 §2.3.4).
const LEAST: u16 = 512;
/// The most that is sent over UDP, whatever the asker says that he takes.
const MOST: u16 = 4096;
/// What this server takes over UDP, and the usual size in the world (DNS flag day 2020).
pub(crate) const TAKEN: u16 = 1232;
/// Bytes of an OPT record without options.
const OPT: u16 = 11;
/// Bytes of the smallest record: a pointer, type, class, TTL, length and an address.
const SMALLEST: u16 = 16;

/// How a question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// RFC 768.
    Udp,
    /// RFC 7766.
    Tcp,
}

/// A question to be answered: exactly one, of class IN.
#[derive(Debug, Clone)]
pub struct Question {
    /// Name and type.
    pub query: Query,
    /// What of it is passed on, and decides what is answered.
    pub flags: Flags,
    /// Whether somebody else is to be asked on the asker's behalf.
    pub wants_recursion: bool,
    id: u16,
    has_edns: bool,
    limit: u16,
}

/// The asker's stand on DNSSEC (RFC 4035 §3.2, RFC 6840 §5.7): whoever differs in it gets other answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Flags {
    /// DO: signatures are wanted.
    pub dnssec: bool,
    /// CD: data that fails validation is wanted as well.
    pub unchecked: bool,
    /// AD: whether data was validated is wanted.
    pub authentic: bool,
}

/// What bytes are.
#[derive(Debug)]
pub enum Read {
    /// A question.
    Question(Box<Question>),
    /// To be answered at once with these bytes.
    Refused(Vec<u8>),
    /// Not to be answered: an answer, which an answer would make a conversation of, or no message at all.
    Ignored,
}

/// The sections of an answer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sections<'a> {
    /// What was asked for.
    pub answers: &'a [Record],
    /// Who knows more, or says that there is nothing.
    pub authorities: &'a [Record],
    /// What will be asked for next; left out without a word where it does not fit.
    pub additionals: &'a [Record],
}

/// Reads a message.
pub fn read(bytes: &[u8], transport: Transport) -> Read {
    let Ok(header) = Header::read(&mut BinDecoder::new(bytes)) else { return Read::Ignored };
    let (metadata, counts) = (header.metadata, header.counts);
    if metadata.message_type != MessageType::Query {
        return Read::Ignored;
    }
    let refusal = |code| refused(&metadata, code, None, None);
    if metadata.op_code != OpCode::Query {
        return refusal(ResponseCode::NotImp);
    }
    // No other section of a question holds anything but OPT, and a SOA for IXFR: what is longer is not worth reading.
    if counts.queries != 1 || counts.answers > 1 || counts.authorities > 1 || counts.additionals > 2 {
        return refusal(ResponseCode::FormErr);
    }
    let Ok(message) = Message::from_vec(bytes) else { return refusal(ResponseCode::FormErr) };
    let Some(query) = message.queries.into_iter().next() else { return refusal(ResponseCode::FormErr) };
    let refusal = |code| refused(&metadata, code, Some(&query), message.edns.as_ref());
    match message.edns.as_ref().map(Edns::version) {
        None | Some(0) => {}
        Some(_) => return refusal(ResponseCode::BADVERS),
    }
    let is_transfer = matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR);
    if query.query_class() != DNSClass::IN || is_transfer {
        return refusal(ResponseCode::Refused);
    }
    let flags = Flags {
        dnssec: message.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok),
        unchecked: metadata.checking_disabled,
        authentic: metadata.authentic_data,
    };
    Read::Question(Box::new(Question {
        flags,
        wants_recursion: metadata.recursion_desired,
        id: metadata.id,
        has_edns: message.edns.is_some(),
        limit: limit(message.edns.as_ref(), transport),
        query,
    }))
}

fn limit(edns: Option<&Edns>, transport: Transport) -> u16 {
    match (transport, edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, None) => LEAST,
        (Transport::Udp, Some(edns)) => edns.max_payload().clamp(LEAST, MOST),
    }
}

fn refused(asked: &Metadata, code: ResponseCode, query: Option<&Query>, edns: Option<&Edns>) -> Read {
    let mut metadata = Metadata::new(asked.id, MessageType::Response, asked.op_code);
    metadata.recursion_desired = asked.recursion_desired;
    metadata.response_code = code;
    match write(&metadata, query, Sections::default(), edns.map(|_| own_edns(false)).as_ref(), LEAST) {
        Ok(bytes) => Read::Refused(bytes),
        Err(_) => Read::Ignored,
    }
}

fn own_edns(dnssec: bool) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(TAKEN);
    edns.set_dnssec_ok(dnssec);
    edns
}

impl Question {
    /// How many records may fit into the answer, and one more, lest what does not fit goes unnoticed.
    pub fn most_records(&self) -> usize {
        usize::from(self.limit / SMALLEST) + 1
    }

    /// The answer with this code and these sections, cut where it is too long; `metadata` has what else is known of it.
    pub fn reply(&self, code: ResponseCode, sections: Sections<'_>, known: Known) -> Vec<u8> {
        let mut metadata = Metadata::new(self.id, MessageType::Response, OpCode::Query);
        metadata.response_code = code;
        metadata.recursion_desired = self.wants_recursion;
        metadata.recursion_available = true;
        metadata.checking_disabled = self.flags.unchecked;
        metadata.authoritative = known.authoritative;
        metadata.authentic_data = known.authentic && (self.flags.authentic || self.flags.dnssec);
        let edns = self.has_edns.then(|| own_edns(self.flags.dnssec));
        let written = write(&metadata, Some(&self.query), sections, edns.as_ref(), self.limit);
        written.unwrap_or_else(|error| {
            // Records that the library has read or that were made here can be written: only a name can be too long.
            tracing::warn!(error = &error as &dyn std::error::Error, "an answer could not be written");
            metadata.response_code = ResponseCode::ServFail;
            write(&metadata, Some(&self.query), Sections::default(), None, self.limit).unwrap_or_default()
        })
    }

    /// The answer that there can be none now.
    pub fn failed(&self) -> Vec<u8> {
        self.reply(ResponseCode::ServFail, Sections::default(), Known::default())
    }
}

/// What is known of an answer as a whole.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known {
    /// It is about names of this server's own.
    pub authoritative: bool,
    /// Who was asked has validated it.
    pub authentic: bool,
}

/// The last section, and an end of the reservation of what comes behind it.
struct Last<'a> {
    records: &'a [Record],
    limit: u16,
}

impl EmitAndCount for Last<'_> {
    fn emit(&mut self, encoder: &mut BinEncoder<'_>) -> Result<usize, ProtoError> {
        let count = match encoder.emit_all(self.records.iter()) {
            Err(ProtoError::NotAllRecordsWritten { count, .. }) => count,
            all => all?,
        };
        encoder.set_max_size(self.limit);
        Ok(count)
    }
}

fn write(
    metadata: &Metadata,
    query: Option<&Query>,
    sections: Sections<'_>,
    edns: Option<&Edns>,
    limit: u16,
) -> Result<Vec<u8>, ProtoError> {
    let mut bytes = Vec::with_capacity(usize::from(LEAST));
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(if edns.is_some() { limit - OPT } else { limit });
    emit_message_parts(
        metadata,
        &mut query.into_iter(),
        &mut sections.answers.iter(),
        &mut sections.authorities.iter(),
        &mut Last { records: sections.additionals, limit },
        edns,
        None,
        &mut encoder,
    )?;
    Ok(bytes)
}

/// A question to somebody else, with recursion.
pub(crate) fn ask(name: &Name, kind: RecordType, flags: Flags, with_edns: bool) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.metadata.checking_disabled = flags.unchecked;
    message.metadata.authentic_data = flags.authentic;
    message.add_query(Query::query(name.clone(), kind));
    if with_edns {
        message.set_edns(own_edns(flags.dnssec));
    }
    message
}

/// Reads somebody else's answer. One question at most: the library makes room for as many as the header promises.
pub(crate) fn parse(bytes: &[u8]) -> Option<Message> {
    let header = Header::read(&mut BinDecoder::new(bytes)).ok()?;
    if header.counts.queries > 1 {
        return None;
    }
    Message::from_vec(bytes).ok()
}

/// Whether a message answers a question; what does not is somebody's forgery or an answer to an earlier one.
pub(crate) fn answers(answer: &Message, question: &Message) -> bool {
    let is_refusal = answer.queries.is_empty() && answer.metadata.response_code == ResponseCode::FormErr;
    answer.metadata.message_type == MessageType::Response
        && answer.metadata.id == question.metadata.id
        && (answer.queries == question.queries || is_refusal)
}
