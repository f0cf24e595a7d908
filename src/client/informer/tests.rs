use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use super::*;
use crate::scripted::{Answer, Scripted, exchange};

const PATH: &str = "GET /api/v1/namespaces/default/configmaps?";

fn object(name: &str, revision: u32) -> Value {
    json!({
        "kind": "ConfigMap", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "default", "uid": name, "resourceVersion": revision.to_string()},
    })
}

fn list(revision: u32, items: &[Value]) -> Answer {
    let metadata = json!({"resourceVersion": revision.to_string()});
    Answer::Json(200, json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": metadata, "items": items}))
}

fn event(kind: &str, object: &Value) -> Value {
    json!({"type": kind, "object": object})
}

fn expired() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "code": 410, "reason": "Expired", "message": "too old"})
}

fn watch_after(revision: u32) -> String {
    format!("{PATH}watch=true&allowWatchBookmarks=true&resourceVersion={revision}&")
}

struct Setup {
    informer: Informer<ConfigMap>,
    transport: Scripted,
    _tasks: Tasks,
}

fn start(script: Vec<crate::scripted::Exchange>) -> Setup {
    let transport = Scripted::new(script);
    let client = Client::new(Arc::new(transport.clone()), "test");
    let tasks = Tasks::new();
    let informer = Informer::spawn(&client, &tasks, Scope::namespace("default"), ListOptions::default());
    Setup { informer, transport, _tasks: tasks }
}

impl Setup {
    async fn dirty(&self, dirty: &mut Dirty) -> (String, Option<String>) {
        let key = dirty.next().await;
        let object = self.informer.get(&key);
        (key.to_string(), object.and_then(|object| object.metadata.resource_version.clone()))
    }
}

fn at(name: &str, revision: u32) -> (String, Option<String>) {
    (format!("default/{name}"), Some(revision.to_string()))
}

fn gone(name: &str) -> (String, Option<String>) {
    (format!("default/{name}"), None)
}

#[tokio::test(start_paused = true)]
async fn the_copy_follows_list_and_watch() {
    let setup = start(vec![
        exchange(&format!("{PATH}limit=500"), list(7, &[object("a", 3)])),
        exchange(
            &watch_after(7),
            Answer::OpenFrames(vec![
                event("ADDED", &object("b", 8)),
                event("MODIFIED", &object("a", 9)),
                event("DELETED", &object("b", 10)),
            ]),
        ),
    ]);
    setup.informer.synced().await;
    let mut dirty = setup.informer.subscribe();
    let mut keys: Vec<_> = dirty.batch().await.iter().map(Key::to_string).collect();
    while setup.informer.get(&Key::namespaced("default", "a")).unwrap().metadata.resource_version.as_deref()
        != Some("9")
        || setup.informer.snapshot().len() != 1
    {
        keys.push(dirty.next().await.to_string());
    }
    assert!(keys.contains(&"default/a".to_owned()));
    assert_eq!(setup.informer.get(&Key::namespaced("default", "b")), None);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_is_resumed_from_its_last_frame_bookmarks_included() {
    let bookmark = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"resourceVersion": "40"}});
    let setup = start(vec![
        exchange(PATH, list(7, &[])),
        exchange(&watch_after(7), Answer::Frames(vec![event("BOOKMARK", &bookmark)])),
        exchange(&watch_after(40), Answer::OpenFrames(vec![event("ADDED", &object("a", 41))])),
    ]);
    let mut dirty = setup.informer.subscribe();
    assert_eq!(setup.dirty(&mut dirty).await, at("a", 41));
}

#[tokio::test(start_paused = true)]
async fn after_expired_history_a_new_list_announces_only_what_differs() {
    for refusal in [Answer::Frames(vec![event("ERROR", &expired())]), Answer::Json(410, expired())] {
        let setup = start(vec![
            exchange(PATH, list(7, &[object("same", 1), object("changed", 2), object("removed", 3)])),
            exchange(&watch_after(7), refusal),
            exchange(&format!("{PATH}limit=500"), list(90, &[object("same", 1), object("changed", 80)])),
            exchange(&watch_after(90), Answer::OpenFrames(vec![event("ADDED", &object("last", 91))])),
        ]);
        setup.informer.synced().await;
        let mut dirty = setup.informer.subscribe();
        assert_eq!(dirty.batch().await.len(), 3);
        assert_eq!(setup.dirty(&mut dirty).await, at("changed", 80));
        assert_eq!(setup.dirty(&mut dirty).await, gone("removed"));
        assert_eq!(setup.dirty(&mut dirty).await, at("last", 91));
    }
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_server_and_a_broken_watch_are_tried_again() {
    let setup = start(vec![
        exchange(PATH, Answer::Unreachable),
        exchange(PATH, Answer::Json(503, json!({}))),
        exchange(PATH, list(7, &[])),
        exchange(&watch_after(7), Answer::Unreachable),
        exchange(&watch_after(7), Answer::BrokenFrames(vec![event("ADDED", &object("a", 8))])),
        exchange(&watch_after(8), Answer::OpenFrames(vec![event("ADDED", &object("b", 9))])),
    ]);
    let mut dirty = setup.informer.subscribe();
    assert_eq!(setup.dirty(&mut dirty).await, at("a", 8));
    assert_eq!(setup.dirty(&mut dirty).await, at("b", 9));
    assert!(setup.transport.is_over());
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_falls_silent_is_replaced() {
    let setup = start(vec![
        exchange(PATH, list(7, &[])),
        exchange(&watch_after(7), Answer::OpenFrames(vec![])),
        exchange(&watch_after(7), Answer::OpenFrames(vec![event("ADDED", &object("a", 8))])),
    ]);
    assert_eq!(setup.dirty(&mut setup.informer.subscribe()).await, at("a", 8));
}

#[tokio::test(start_paused = true)]
async fn lists_are_read_page_by_page() {
    let mut first = json!({"metadata": {"resourceVersion": "7", "continue": "more"}, "items": [object("a", 1)]});
    first["kind"] = json!("ConfigMapList");
    let setup = start(vec![
        exchange(&format!("{PATH}limit=500"), Answer::Json(200, first)),
        exchange(&format!("{PATH}limit=500&continue=more"), list(7, &[object("b", 2)])),
    ]);
    setup.informer.synced().await;
    assert_eq!(setup.informer.snapshot().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_changes_often_before_it_is_taken_is_dirty_once() {
    let changes: Vec<_> = (8..40).map(|revision| event("MODIFIED", &object("a", revision))).collect();
    let setup = start(vec![
        exchange(PATH, list(7, &[object("a", 1)])),
        exchange(&watch_after(7), Answer::Frames(changes)),
        exchange(&watch_after(39), Answer::OpenFrames(vec![event("ADDED", &object("b", 41))])),
    ]);
    let mut dirty = setup.informer.subscribe();
    let mut observer = setup.informer.subscribe();
    while observer.next().await != Key::namespaced("default", "b") {}
    assert_eq!(setup.dirty(&mut dirty).await, at("a", 39));
    assert_eq!(setup.dirty(&mut dirty).await, at("b", 41));
    assert_eq!(dirty.try_next(), None);
}
