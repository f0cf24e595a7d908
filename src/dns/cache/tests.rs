use hickory_proto::rr::rdata::{A, SOA};

use super::*;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn key(text: &str) -> Key {
    Key { name: name(text), kind: RecordType::A, flags: Flags::default() }
}

fn address(text: &str, ttl: u32) -> Record {
    Record::from_rdata(name(text), ttl, RData::A(A::new(192, 0, 2, 1)))
}

fn with(text: &str, ttl: u32) -> Message {
    let mut message = crate::message::ask(&name(text), RecordType::A, Flags::default(), false).into_response();
    message.add_answer(address(text, ttl));
    message
}

/// That there is nothing, with the TTL and the minimum of a SOA record.
fn without(code: ResponseCode, soa: Option<(u32, u32)>) -> Message {
    let mut message = with("a.example.", 60);
    message.answers.clear();
    message.metadata.response_code = code;
    if let Some((ttl, minimum)) = soa {
        let soa = SOA::new(name("ns.example."), name("root.example."), 1, 2, 3, 4, minimum);
        message.add_authority(Record::from_rdata(name("example."), ttl, RData::SOA(soa)));
    }
    message
}

fn seconds(message: &Message) -> Option<u64> {
    lifetime(message, RecordType::A).map(|lifetime| lifetime.as_secs())
}

#[test]
fn what_there_is_is_kept_for_its_shortest_ttl() {
    assert_eq!(seconds(&with("a.example.", 60)), Some(60));
    assert_eq!(seconds(&with("a.example.", 0)), None);
    assert_eq!(seconds(&with("a.example.", 100_000)), Some(3600));
    assert_eq!(seconds(&with("a.example.", 1 << 31)), None);
    let mut two = with("a.example.", 60);
    two.add_answer(address("a.example.", 7));
    assert_eq!(seconds(&two), Some(7));
}

#[test]
fn that_there_is_nothing_is_kept_as_the_zone_says() {
    assert_eq!(seconds(&without(ResponseCode::NXDomain, Some((20, 900)))), Some(20));
    assert_eq!(seconds(&without(ResponseCode::NXDomain, Some((900, 10)))), Some(10));
    assert_eq!(seconds(&without(ResponseCode::NoError, Some((900, 900)))), Some(30));
    assert_eq!(seconds(&without(ResponseCode::NXDomain, None)), None);
    assert_eq!(seconds(&without(ResponseCode::ServFail, Some((20, 20)))), None);
    let mut cut = with("a.example.", 60);
    cut.metadata.truncation = true;
    assert_eq!(seconds(&cut), None);
}

#[test]
fn kept_answers_age_and_end() {
    let (mut cache, now) = (Cache::default(), Instant::now());
    cache.put(key("a.example."), &with("a.example.", 60), now);
    let after = |cache: &mut Cache, seconds| {
        cache.get(&key("a.example."), now + Duration::from_secs(seconds)).map(|message| message.answers[0].ttl)
    };
    assert_eq!((after(&mut cache, 0), after(&mut cache, 59)), (Some(60), Some(1)));
    let other = Key { flags: Flags { dnssec: true, ..Flags::default() }, ..key("a.example.") };
    assert!(cache.get(&other, now).is_none());
    assert_eq!(after(&mut cache, 60), None);
    assert_eq!((cache.bytes, cache.order.len(), cache.entries.len()), (0, 0, 0));
}

#[test]
fn what_was_not_used_for_longest_makes_room() {
    let now = Instant::now();
    let names: Vec<String> = (0..20).map(|number| format!("n{number:02}.example.")).collect();
    let each = cost(&key(&names[0]), with(&names[0], 60).to_vec().unwrap().len());
    let mut cache = Cache::with_capacity(10 * each);
    for (number, name) in names.iter().enumerate() {
        cache.put(key(name), &with(name, 60), now);
        assert!(cache.bytes <= cache.capacity);
        // The first is used all the time.
        assert!(cache.get(&key(&names[0]), now).is_some(), "after {number}");
    }
    let kept: Vec<bool> = names.iter().map(|name| cache.get(&key(name), now).is_some()).collect();
    let expected: Vec<bool> = (0..20).map(|number| number == 0 || number >= 11).collect();
    assert_eq!(kept, expected);
    cache.clear();
    assert_eq!((cache.bytes, cache.entries.len()), (0, 0));
}
