//! Questions of anybody to the cluster's DNS: each is answered by a whole message that fits, refused, or ignored.

use std::sync::LazyLock;

use dns::{Ask, Known, Question, Read, Sections, Transport, Zone};
use hickory_proto::op::{Message, MessageType};
use hickory_proto::rr::Name;
use serde_json::json;

use crate::memory::{Bound, bounded};

pub(crate) const WORDS: &[&str] = &[
    "\u{3}web",
    "\u{7}default",
    "\u{3}svc",
    "\u{3}pod",
    "\u{7}cluster\u{5}local\0",
    "\u{4}_tcp",
    "\u{5}_http",
    "\u{4}host",
    "\u{7}in-addr\u{4}arpa\0",
    "\u{b}dns-version",
    "\0\u{1}\0\u{1}",
    "\0\u{21}\0\u{1}",
    "\0\u{c}\0\u{1}",
    "\0\0\u{29}\u{4}\0\0\0\0\0\0\0",
];

/// A message of at most six records, whose names unfold to 255 bytes each.
const BOUND: Bound = Bound { base: 32 << 10, held: 64, ever: 256 };

static ZONE: LazyLock<Zone> = LazyLock::new(|| {
    let mut zone = Zone::new(Name::from_ascii("cluster.local.").expect("a name"), vec![]);
    let object = |value| serde_json::from_value(value).expect("an object");
    let service = |name: &str, spec| json!({ "metadata": { "namespace": "default", "name": name }, "spec": spec });
    let port = json!([{ "name": "http", "port": 80 }]);
    zone.replace_services(vec![
        object(service("web", json!({ "clusterIP": "10.43.0.7", "ports": port }))),
        object(service("peers", json!({ "clusterIP": "None" }))),
        object(service("outside", json!({ "type": "ExternalName", "externalName": "www.example.com" }))),
    ]);
    let labels = json!({ "kubernetes.io/service-name": "peers" });
    let endpoints: Vec<_> = (0..200)
        .map(|last| json!({ "addresses": [format!("10.42.0.{last}")], "hostname": format!("h{last}") }))
        .collect();
    let metadata = json!({ "namespace": "default", "name": "peers-1", "labels": labels });
    let slice = json!({ "metadata": metadata, "endpoints": endpoints, "ports": port });
    zone.replace_slices(vec![serde_json::from_value(slice).expect("a slice")]);
    zone
});

pub(crate) fn check(data: &[u8]) {
    for transport in [Transport::Udp, Transport::Tcp] {
        match bounded(data.len(), BOUND, || dns::read(data, transport)) {
            Read::Ignored => {}
            Read::Refused(answer) => {
                assert!(answer.len() <= 512);
                whole(data, &answer);
            }
            Read::Question(question) => {
                let most = match transport {
                    Transport::Udp => 4096,
                    Transport::Tcp => 65535,
                };
                let answer = answered(&question);
                assert!(answer.len() <= most);
                let message = whole(data, &answer);
                assert_eq!(message.queries.as_slice(), std::slice::from_ref(&question.query));
                // Byte by byte: whoever asks may compare the spelling.
                assert!(message.queries[0].name().eq_case(question.query.name()));
            }
        }
    }
}

fn answered(question: &Question) -> Vec<u8> {
    let ask = Ask { kind: question.query.query_type(), turn: 3, most: question.most_records() };
    let Some(answer) = dns::answer(&ZONE, question.query.name(), &ask) else { return question.failed() };
    let sections =
        Sections { answers: &answer.records, authorities: &answer.authority, additionals: &answer.additional };
    question.reply(answer.code, sections, Known::default())
}

/// What is sent is a message, and an answer to this one.
fn whole(asked: &[u8], answer: &[u8]) -> Message {
    assert_eq!(asked[..2], answer[..2], "the number of the question");
    let message = Message::from_vec(answer).expect("a whole message");
    assert_eq!(message.metadata.message_type, MessageType::Response);
    message
}
