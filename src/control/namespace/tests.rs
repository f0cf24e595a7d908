use std::sync::Arc;

use client::scripted::{Answer, Exchange, Scripted, exchange};
use client::{ListOptions, Scope};
use jiff::Timestamp;
use task::SimulatedClock;

use super::*;

fn resource(name: &str) -> Resource {
    Resource { name: name.into(), root: "/api/v1".into(), plural: name.into(), by_collection: true }
}

/// Whether an object is being deleted, and its finalizers.
type Shown<'a> = (bool, &'a [&'a str]);

fn contents(objects: &[(&str, &[Shown<'_>])]) -> Contents {
    let objects = objects.iter().map(|(name, objects)| {
        let remaining = |(is_deleting, finalizers): &Shown<'_>| Remaining {
            name: "x".into(),
            is_deleting: *is_deleting,
            finalizers: finalizers.iter().map(|name| (*name).to_owned()).collect(),
        };
        (resource(name), objects.iter().map(remaining).collect())
    });
    Contents { objects: objects.collect(), ..Contents::default() }
}

fn deleted(contents: &Contents) -> Vec<String> {
    decide(contents).delete.into_iter().map(|resource| resource.name).collect()
}

#[test]
fn pods_go_first_and_everything_else_waits_until_they_are_gone() {
    let both: &[Shown<'_>] = &[(false, &[])];
    assert_eq!(deleted(&contents(&[("configmaps", both), ("pods", both), ("secrets", both)])), ["pods"]);
    assert_eq!(deleted(&contents(&[("configmaps", both), ("pods", &[(true, &[])])])), [""; 0]);
    assert_eq!(deleted(&contents(&[("configmaps", both), ("secrets", both)])), ["configmaps", "secrets"]);
}

#[test]
fn only_a_certainly_empty_namespace_is_finalized() {
    assert!(decide(&contents(&[])).is_empty);
    assert!(!decide(&contents(&[("pods", &[(true, &[])])])).is_empty);
    assert!(!decide(&Contents { failures: vec!["secrets: no".into()], ..Contents::default() }).is_empty);
    assert!(!decide(&Contents { undiscovered: vec!["example.com/v1: no".into()], ..Contents::default() }).is_empty);
}

#[test]
fn conditions_name_what_is_in_the_way() {
    let verdict = decide(&contents(&[("configmaps", &[(true, &["example.com/keep"]), (true, &["example.com/keep"])])]));
    let said: Vec<_> = verdict.conditions.iter().filter(|c| c.1).map(|c| (c.2, c.3.as_str())).collect();
    assert_eq!(
        said,
        [
            ("SomeResourcesRemain", "Some resources are remaining: configmaps has 2 resource instances"),
            (
                "SomeFinalizersRemain",
                "Some content in the namespace has finalizers remaining: example.com/keep in 2 resource instances"
            ),
        ]
    );
}

#[test]
fn a_condition_keeps_its_transition_time_until_its_status_changes() {
    let (then, now) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(60).unwrap());
    let first = decide::conditions(&[], &decide(&contents(&[])), then);
    assert_eq!(decide::conditions(&first, &decide(&contents(&[])), now), first);
    let changed = decide::conditions(&first, &decide(&contents(&[("pods", &[(true, &[])])])), now);
    let times: Vec<_> = changed.iter().map(|c| c.last_transition_time.as_ref().unwrap().0.as_second()).collect();
    assert_eq!(times, [0, 0, 0, 60, 0]);
}

fn ok(request: &str, body: Value) -> Exchange {
    exchange(request, Answer::Json(200, body))
}

fn discovery() -> Vec<Exchange> {
    let all = json!(["create", "delete", "deletecollection", "get", "list"]);
    vec![
        ok(
            "GET /api/v1",
            json!({"resources": [
                {"name": "configmaps", "namespaced": true, "verbs": all},
                {"name": "bindings", "namespaced": true, "verbs": ["create"]},
                {"name": "pods/status", "namespaced": true, "verbs": ["get"]},
                {"name": "nodes", "namespaced": false, "verbs": all},
            ]}),
        ),
        ok(
            "GET /apis",
            json!({"groups": [{"name": "coordination.k8s.io",
            "preferredVersion": {"groupVersion": "coordination.k8s.io/v1"}}]}),
        ),
        ok(
            "GET /apis/coordination.k8s.io/v1",
            json!({"resources": [
                {"name": "leases", "namespaced": true, "verbs": ["delete", "list"]},
            ]}),
        ),
    ]
}

#[tokio::test(start_paused = true)]
async fn contents_of_all_kinds_are_deleted_then_the_namespace_is_finalized() {
    let maps = "/api/v1/namespaces/gone/configmaps";
    let leases = "/apis/coordination.k8s.io/v1/namespaces/gone/leases";
    let namespace = json!({"kind": "Namespace", "apiVersion": "v1", "spec": {"finalizers": ["kubernetes"]},
        "metadata": {"name": "gone", "uid": "u1", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let one = json!({"items": [{"metadata": {"name": "a"}}]});
    let none = json!({"items": []});
    let mut script =
        vec![ok("GET /api/v1/namespaces?limit", json!({"metadata": {"resourceVersion": "5"}, "items": [namespace]}))];
    script.push(exchange("GET /api/v1/namespaces?watch", Answer::OpenFrames(vec![])));
    script.extend(discovery());
    script.push(ok(&format!("GET {maps}"), one.clone()));
    script.push(ok(&format!("GET {leases}"), one.clone()));
    script.push(ok(&format!("DELETE {maps}"), json!({})));
    script.push(ok(&format!("GET {leases}"), one));
    script.push(ok(&format!("DELETE {leases}/a"), json!({})));
    script.extend(discovery());
    script.push(ok(&format!("GET {maps}"), none.clone()));
    script.push(ok(&format!("GET {leases}"), none));
    script.push(ok("PATCH /api/v1/namespaces/gone/status", namespace.clone()));
    script.push(Exchange {
        body: json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "gone", "uid": "u1"},
            "spec": {"finalizers": []}}),
        ..ok("PUT /api/v1/namespaces/gone/finalize", namespace)
    });
    let transport = Scripted::new(script);
    let client = Client::new(Arc::new(transport.clone()), "test");
    let tasks = Tasks::new();
    let namespaces: Informer<Namespace> = Informer::spawn(&client, &tasks, Scope::Cluster, ListOptions::default());
    namespaces.synced().await;
    let mut clockwork = namespaces.subscribe();
    let key = clockwork.next().await;
    let clock: SharedClock = Arc::new(SimulatedClock::starting_at(Timestamp::UNIX_EPOCH));
    // Let the watch open, so that the script's order is certain.
    while transport.sent().len() < 2 {
        tokio::task::yield_now().await;
    }
    let outcome = sync(&client, &clock, &namespaces.get(&key).unwrap()).await.unwrap();
    assert_eq!(outcome, Outcome::Done);
    assert!(transport.is_over());
}
