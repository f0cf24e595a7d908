use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use task::SimulatedClock;

use super::*;
use crate::scripted::{Answer, Scripted, exchange};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn event(message: &str, second: i64) -> Event {
    Event {
        metadata: ObjectMeta { name: Some(format!("web.{second}")), ..ObjectMeta::default() },
        involved_object: ObjectReference { name: Some("web".into()), ..ObjectReference::default() },
        reason: Some("Pulled".into()),
        message: Some(message.into()),
        count: Some(1),
        first_timestamp: Some(Time(at(second))),
        last_timestamp: Some(Time(at(second))),
        ..Event::default()
    }
}

/// Name, count, first second and message of what is sent, or nothing.
fn sent(correlator: &mut Correlator, message: &str, second: i64) -> Option<(String, i32, i64, String)> {
    let event = correlator.correlate(event(message, second), at(second))?.event;
    let first = event.first_timestamp.unwrap().0.as_second() - 1_000_000;
    Some((event.metadata.name.unwrap(), event.count.unwrap(), first, event.message.unwrap()))
}

#[test]
fn an_equal_event_raises_the_count_of_the_first() {
    let mut correlator = Correlator::default();
    assert_eq!(sent(&mut correlator, "a", 1).unwrap(), ("web.1".into(), 1, 1, "a".into()));
    assert_eq!(sent(&mut correlator, "b", 2).unwrap(), ("web.2".into(), 1, 2, "b".into()));
    assert_eq!(sent(&mut correlator, "a", 3).unwrap(), ("web.1".into(), 2, 1, "a".into()));
    assert_eq!(sent(&mut correlator, "a", 4).unwrap(), ("web.1".into(), 3, 1, "a".into()));
}

#[test]
fn the_tenth_different_message_within_ten_minutes_starts_a_combined_event() {
    let mut correlator = Correlator::default();
    for number in 1..10 {
        assert_eq!(sent(&mut correlator, &number.to_string(), number).unwrap().3, number.to_string());
    }
    let combined = |message: &str| format!("(combined from similar events): {message}");
    assert_eq!(sent(&mut correlator, "10", 10).unwrap(), ("web.10".into(), 1, 10, combined("10")));
    assert_eq!(sent(&mut correlator, "11", 11).unwrap(), ("web.10".into(), 2, 10, combined("11")));
    assert_eq!(sent(&mut correlator, "12", 700).unwrap(), ("web.700".into(), 1, 700, "12".into()));
}

#[test]
fn more_than_25_events_at_once_are_dropped_and_one_is_free_again_every_five_minutes() {
    let mut correlator = Correlator::default();
    let admitted = (0..40).filter(|_| sent(&mut correlator, "a", 0).is_some()).count();
    assert_eq!(admitted, 25);
    assert_eq!(sent(&mut correlator, "a", 299), None);
    assert_eq!(sent(&mut correlator, "a", 301).unwrap().1, 26);
    assert_eq!(sent(&mut correlator, "a", 302), None);
}

fn pod() -> Pod {
    let metadata = json!({"name": "web", "namespace": "shop", "uid": "u1", "resourceVersion": "7"});
    serde_json::from_value(json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata})).unwrap()
}

fn recorder(transport: &Scripted, tasks: &Tasks) -> Recorder {
    let client = Client::new(Arc::new(transport.clone()), "test");
    let source = Source { component: "kubelet".into(), host: "edge-1".into() };
    Recorder::spawn(&client, tasks, Arc::new(SimulatedClock::starting_at(at(0))), source)
}

async fn until_over(transport: &Scripted) -> Vec<(String, Value)> {
    while !transport.is_over() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    transport.sent()
}

fn stored(count: i32) -> Answer {
    let metadata = json!({"name": "web.kept", "namespace": "shop"});
    Answer::Json(
        200,
        json!({"kind": "Event", "apiVersion": "v1", "metadata": metadata, "involvedObject": {},
        "count": count, "firstTimestamp": "2026-01-01T00:00:00Z"}),
    )
}

#[tokio::test(start_paused = true)]
async fn an_event_is_created_with_all_that_describe_looks_for_and_repeated_by_patch() {
    let transport = Scripted::new(vec![
        exchange("POST /api/v1/namespaces/shop/events", stored(1)),
        exchange("PATCH /api/v1/namespaces/shop/events/web.kept", stored(2)),
    ]);
    let tasks = Tasks::new();
    let recorder = recorder(&transport, &tasks);
    let subject = reference_part(&pod(), "spec.containers{web}");
    recorder.event(&subject, EventType::Normal, "Pulled", "Container image \"web\" already present on machine");
    recorder.event(&subject, EventType::Normal, "Pulled", "Container image \"web\" already present on machine");
    let sent = until_over(&transport).await;
    let created = &sent[0].1;
    let subject = json!({"apiVersion": "v1", "kind": "Pod", "name": "web", "namespace": "shop", "uid": "u1",
        "resourceVersion": "7", "fieldPath": "spec.containers{web}"});
    assert_eq!(created["involvedObject"], subject);
    assert_eq!(created["source"], json!({"component": "kubelet", "host": "edge-1"}));
    assert_eq!(created["reportingComponent"], "kubelet");
    assert_eq!(created["reportingInstance"], "edge-1");
    assert_eq!(created["metadata"]["name"], format!("web.{:x}", at(0).as_nanosecond()));
    assert_eq!(created["count"], 1);
    assert_eq!(sent[1].1["count"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_repeat_of_an_expired_event_is_created_anew() {
    let gone = json!({"kind": "Status", "code": 404, "reason": "NotFound", "message": "gone"});
    let transport = Scripted::new(vec![
        exchange("POST /api/v1/namespaces/shop/events", stored(1)),
        exchange("PATCH /api/v1/namespaces/shop/events/web.kept", Answer::Json(404, gone)),
        exchange("POST /api/v1/namespaces/shop/events", stored(2)),
    ]);
    let tasks = Tasks::new();
    let recorder = recorder(&transport, &tasks);
    for _ in 0..2 {
        recorder.event(&reference(&pod()), EventType::Warning, "BackOff", "again");
    }
    assert_eq!(until_over(&transport).await[2].1["count"], 2);
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_server_delays_events_and_a_refusal_loses_only_its_own() {
    let refusal = json!({"kind": "Status", "code": 403, "reason": "Forbidden", "message": "no"});
    let transport = Scripted::new(vec![
        exchange("POST /api/v1/namespaces/shop/events", Answer::Unreachable),
        exchange("POST /api/v1/namespaces/shop/events", Answer::Unreachable),
        exchange("POST /api/v1/namespaces/shop/events", Answer::Json(403, refusal)),
        exchange("POST /api/v1/namespaces/shop/events", stored(1)),
    ]);
    let tasks = Tasks::new();
    let recorder = recorder(&transport, &tasks);
    recorder.event(&reference(&pod()), EventType::Normal, "First", "refused in the end");
    recorder.event(&reference(&pod()), EventType::Normal, "Second", "stored");
    let sent = until_over(&transport).await;
    let reasons: Vec<_> = sent.iter().map(|(_, body)| body["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["First", "First", "First", "Second"]);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_drops_events_instead_of_waiting() {
    let transport = Scripted::new(vec![]);
    let tasks = Tasks::new();
    let recorder = recorder(&transport, &tasks);
    for number in 0..BACKLOG + 5 {
        recorder.event(&reference(&pod()), EventType::Normal, "Flood", &number.to_string());
    }
    assert_eq!(recorder.dropped.load(Ordering::Relaxed), 5);
}

#[test]
fn the_uid_of_a_node_is_its_name() {
    let reference = node_reference("edge-1");
    assert_eq!((reference.uid.as_deref(), reference.namespace), (Some("edge-1"), None));
}
