//! Answers of name servers, which are as much to be trusted as the network: what is passed on is a whole message to the
//! question that was asked, fits, and holds nothing that was not in the answer.

use dns::fuzz::relayed;
use dns::{Question, Read, Transport};
use hickory_proto::op::{Edns, Message, Query};
use hickory_proto::rr::{Name, Record, RecordType};

use crate::memory::{Bound, bounded};

pub(crate) const WORDS: &[&str] = &[
    "\u{3}www\u{7}example\u{3}com\0",
    "\0\u{1}\0\u{1}\0\0\0<\0\u{4}",
    "\0\u{5}\0\u{1}\0\0\0<",
    "\0\u{6}\0\u{1}",
    "\0\u{10}\0\u{1}",
    "\0A\0\u{1}",
    "\0\0)\u{4}\0\0\0\0\0\0\0",
    "\u{1}\0\0",
];

/// A record of twelve bytes may hold a name that unfolds to 255 bytes; all is read, kept, read again and written twice.
const BOUND: Bound = Bound { base: 64 << 10, held: 2048, ever: 8192 };

pub(crate) fn check(data: &[u8]) {
    for (kind, transport, has_edns) in [
        (RecordType::A, Transport::Udp, false),
        (RecordType::TXT, Transport::Udp, true),
        (RecordType::HTTPS, Transport::Tcp, true),
    ] {
        let question = question(kind, transport, has_edns);
        let Some((straight, kept)) = bounded(data.len(), BOUND, || relayed(&question, data)) else { return };
        let original = Message::from_vec(data).expect("it was read before");
        passes(&question, transport, &original, &straight);
        if let Some(kept) = kept {
            assert_eq!(kept, straight, "another answer out of the cache");
        }
    }
}

fn question(kind: RecordType, transport: Transport, has_edns: bool) -> Question {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii("WWW.example.com.").expect("a name"), kind));
    if has_edns {
        let mut edns = Edns::new();
        edns.set_max_payload(1232);
        message.set_edns(edns);
    }
    match dns::read(&message.to_vec().expect("a message"), transport) {
        Read::Question(question) => *question,
        other => panic!("{other:?}"),
    }
}

fn passes(question: &Question, transport: Transport, original: &Message, bytes: &[u8]) {
    if transport == Transport::Udp {
        assert!(bytes.len() <= 1232);
    }
    let passed = Message::from_vec(bytes).expect("a whole message");
    assert_eq!(passed.queries.as_slice(), std::slice::from_ref(&question.query));
    let sections = [
        (&passed.answers, &original.answers),
        (&passed.authorities, &original.authorities),
        (&passed.additionals, &original.additionals),
    ];
    for (here, there) in sections {
        assert!(here.len() <= there.len());
        let is_same = |(one, other): (&Record, &Record)| one.name == other.name && one.data == other.data;
        assert!(here.iter().zip(there).all(is_same), "{here:?} instead of {there:?}");
    }
    assert!(passed.answers.len() == original.answers.len() || passed.metadata.truncation);
}
