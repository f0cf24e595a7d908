//! What holds for any objects in any order, and for any bytes.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{empty_zone, name, read, zone_of};
use crate::message::{Known, Read, Sections, Transport};
use crate::{Ask, Zone, answer};

/// One of a few Services and slices, in some state.
fn object() -> impl Strategy<Value = Value> {
    let place = (0..2u8, 0..3u8).prop_map(|(namespace, name)| (format!("n{namespace}"), format!("s{name}")));
    let service = (place.clone(), 0..5u8).prop_map(|((namespace, name), state)| {
        let spec = match state {
            0 => json!({ "clusterIP": "None", "ports": [{ "name": "web", "port": 80 }] }),
            1 => json!({ "clusterIP": "None", "publishNotReadyAddresses": true }),
            2 => json!({ "type": "ExternalName", "externalName": "s0.n0.svc.cluster.local" }),
            3 => json!({}),
            _ => json!({ "clusterIP": format!("10.43.0.{}", name.len() + state as usize), "ports": [{ "name": "web", "port": 80 }] }),
        };
        json!({ "kind": "Service", "metadata": { "namespace": namespace, "name": name }, "spec": spec })
    });
    let endpoint = (0..4u8, any::<bool>(), any::<bool>()).prop_map(|(last, is_ready, has_name)| {
        let name = if has_name { json!(format!("h{last}")) } else { Value::Null };
        json!({ "addresses": [format!("10.42.0.{last}")], "hostname": name, "conditions": { "ready": is_ready } })
    });
    let slice = (place, 0..2u8, prop::collection::vec(endpoint, 0..3)).prop_map(|((namespace, service), number, all)| {
        let labels = json!({ "kubernetes.io/service-name": service });
        json!({
            "kind": "EndpointSlice", "metadata": { "namespace": namespace, "name": format!("e{number}"), "labels": labels },
            "endpoints": all, "ports": [{ "name": "web", "protocol": "TCP", "port": 8080 }],
        })
    });
    prop_oneof![service, slice]
}

fn is_same(a: &Value, b: &Value) -> bool {
    a["kind"] == b["kind"] && ["namespace", "name"].iter().all(|field| a["metadata"][field] == b["metadata"][field])
}

/// The answers to everything that may be asked about those objects.
fn answers(zone: &Zone) -> Vec<String> {
    let mut names = Vec::new();
    for namespace in ["n0", "n1"] {
        names.push(format!("{namespace}.svc.cluster.local."));
        for service in ["s0", "s1", "s2"] {
            let service = format!("{service}.{namespace}.svc.cluster.local.");
            let parts = ["_tcp", "_web._tcp", "h0", "h1", "h2", "h3", "10-42-0-0", "10-42-0-3"];
            names.extend(parts.iter().map(|part| format!("{part}.{service}")));
            names.push(service);
        }
    }
    names.extend((0..4).map(|last| format!("{last}.0.42.10.in-addr.arpa.")));
    names.extend((0..9).map(|last| format!("{last}.0.43.10.in-addr.arpa.")));
    let mut found = Vec::new();
    for asked in names {
        for kind in [RecordType::A, RecordType::SRV, RecordType::PTR] {
            let found_now = answer(zone, &name(&asked), &Ask { kind, turn: 0, most: 99 }).map(|answer| {
                // Serial numbers differ, and the order of the records of one name is nobody's business.
                let mut records: Vec<String> =
                    answer.records.iter().chain(&answer.additional).map(ToString::to_string).collect();
                records.sort();
                format!("{:?} {records:?} {:?}", answer.code, answer.beyond)
            });
            found.push(format!("{asked} {kind} {found_now:?}"));
        }
    }
    found
}

proptest! {
    /// Changes one after another lead where a look at all of what is there leads.
    #[test]
    fn it_does_not_matter_how_a_zone_came_about(changes in prop::collection::vec((object(), any::<bool>()), 0..25)) {
        let mut zone = empty_zone();
        zone.replace_services(Vec::new());
        zone.replace_slices(Vec::new());
        zone.replace_namespaces(Vec::new());
        let mut there: Vec<Value> = Vec::new();
        for (object, is_there) in changes {
            let is_service = object["kind"] == "Service";
            match (is_service, is_there) {
                (true, true) => zone.put_service(&read(&object)),
                (true, false) => zone.remove_service(&read(&object)),
                (false, true) => zone.put_slice(&read(&object)),
                (false, false) => zone.remove_slice(&read(&object)),
            }
            there.retain(|other| !is_same(other, &object));
            if is_there {
                there.push(object);
            }
        }
        prop_assert_eq!(answers(&zone), answers(&zone_of(&there)));
        zone.replace_services(Vec::new());
        zone.replace_slices(Vec::new());
        prop_assert!(zone.is_empty());
    }

    /// Names exist exactly if they have something or something is below them.
    #[test]
    fn a_name_with_names_below_it_exists(objects in prop::collection::vec(object(), 0..12)) {
        let zone = zone_of(&objects);
        let exists = |text: &str| {
            let found = answer(&zone, &name(text), &Ask { kind: RecordType::TXT, turn: 0, most: 9 }).unwrap();
            prop_assert!(found.code != ResponseCode::ServFail || text.starts_with('s'));
            Ok(found.code != ResponseCode::NXDomain)
        };
        for below in ["_web._tcp", "h0", "h3", "10-42-0-1"] {
            for service in ["s0.n0", "s1.n1"] {
                let longest = format!("{below}.{service}.svc.cluster.local.");
                let mut text = longest.as_str();
                let mut is_below = false;
                while text != "cluster.local." {
                    let is_there = exists(text)?;
                    prop_assert!(is_there || !is_below, "{text} does not exist, though there is something below it");
                    is_below |= is_there;
                    text = text.split_once('.').unwrap().1;
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_a_question_or_refused_or_ignored(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        for transport in [Transport::Udp, Transport::Tcp] {
            if let Read::Refused(answer) = crate::read(&bytes, transport) {
                let answer = Message::from_vec(&answer).unwrap();
                prop_assert_eq!(answer.metadata.message_type, MessageType::Response);
                prop_assert_eq!(answer.metadata.id.to_be_bytes(), [bytes[0], bytes[1]]);
            }
        }
    }

    #[test]
    fn an_answer_fits_and_says_when_something_is_missing(
        count in 0..400usize,
        size in prop::option::of(any::<u16>()),
        is_tcp in any::<bool>(),
    ) {
        let mut asked = question("a.example.", RecordType::A);
        if let Some(size) = size {
            let mut edns = Edns::new();
            edns.set_max_payload(size);
            asked.set_edns(edns);
        }
        let transport = if is_tcp { Transport::Tcp } else { Transport::Udp };
        let Read::Question(question) = crate::read(&asked.to_vec().unwrap(), transport) else { panic!() };
        let record = |_| Record::from_rdata(name("a.example."), 5, RData::A(A::new(192, 0, 2, 1)));
        let records: Vec<Record> = (0..count).map(record).collect();
        let sections = Sections { answers: &records, additionals: &records, ..Sections::default() };
        let bytes = question.reply(ResponseCode::NoError, sections, Known::default());
        let limit = match (is_tcp, size) {
            (true, _) => usize::from(u16::MAX),
            (false, size) => usize::from(size.unwrap_or(512).clamp(512, 4096)),
        };
        prop_assert!(bytes.len() <= limit);
        let answer = Message::from_vec(&bytes).unwrap();
        prop_assert_eq!(answer.edns.is_some(), size.is_some());
        prop_assert_eq!(answer.metadata.truncation, answer.answers.len() < count);
        prop_assert!(answer.answers.len() == count || answer.answers.len() >= (limit - 60) / 27 - 1);
        prop_assert!(answer.answers.len() < question.most_records() || !answer.metadata.truncation);
        prop_assert!(answer.additionals.is_empty() || answer.answers.len() == count);
    }
}

fn question(text: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(text), kind));
    message
}

fn code(message: &Message) -> Option<ResponseCode> {
    match crate::read(&message.to_vec().unwrap(), Transport::Udp) {
        Read::Refused(bytes) => Some(Message::from_vec(&bytes).unwrap().metadata.response_code),
        Read::Question(_) | Read::Ignored => None,
    }
}

#[test]
fn what_is_not_an_ordinary_question_is_refused_by_its_name() {
    let usual = question("a.example.", RecordType::A);
    assert_eq!(code(&usual), None);
    for op_code in [OpCode::Status, OpCode::Notify, OpCode::Update, OpCode::Unknown(9)] {
        let mut other = usual.clone();
        other.metadata.op_code = op_code;
        assert_eq!(code(&other), Some(ResponseCode::NotImp));
    }
    let mut two = usual.clone();
    two.add_query(Query::query(name("b.example."), RecordType::A));
    assert_eq!(code(&two), Some(ResponseCode::FormErr));
    let mut none = usual.clone();
    none.queries.clear();
    assert_eq!(code(&none), Some(ResponseCode::FormErr));
    let mut chaos = usual.clone();
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(code(&chaos), Some(ResponseCode::Refused));
    assert_eq!(code(&question("example.", RecordType::AXFR)), Some(ResponseCode::Refused));
    let mut newer = usual.clone();
    let mut edns = Edns::new();
    edns.set_version(1);
    newer.set_edns(edns);
    // The library calls the same number by the name that it has in TSIG.
    assert_eq!(code(&newer).map(u16::from), Some(u16::from(ResponseCode::BADVERS)));
    let mut answer = usual.clone();
    answer.metadata.message_type = MessageType::Response;
    assert!(matches!(crate::read(&answer.to_vec().unwrap(), Transport::Udp), Read::Ignored));
    // Cut short, and with a name that points at itself.
    let mut bytes = usual.to_vec().unwrap();
    bytes.pop();
    assert!(matches!(crate::read(&bytes, Transport::Udp), Read::Refused(_)));
    assert!(matches!(crate::read(&bytes[..11], Transport::Udp), Read::Ignored));
    let circle = [&bytes[..12], &[0xc0, 12, 0, 1, 0, 1]].concat();
    assert!(matches!(crate::read(&circle, Transport::Udp), Read::Refused(_)));
}
