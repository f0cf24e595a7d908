//! Watches.

use std::time::Duration;

use serde_json::{Value, json};

use super::custom::{self, DEFINITIONS, crontab};
use super::world::{World, sample};

const CONFIG: &str = "/api/v1/namespaces/default/configmaps";

async fn make(world: &World, name: &str, label: &str) -> Value {
    let body = json!({ "metadata": { "name": name, "labels": { "l": label } } });
    world.ask(&format!("POST {CONFIG}"), body).await.expect(201)
}

async fn relabel(world: &World, name: &str, label: &str) -> Value {
    let patch = json!({ "metadata": { "labels": { "l": label } } });
    world.patch(&format!("{CONFIG}/{name}"), "merge-patch", patch).await.expect(200)
}

#[tokio::test(start_paused = true)]
async fn a_watch_without_a_version_starts_with_what_is_there() {
    let world = World::new().await;
    make(&world, "a", "x").await;
    for start in ["?watch=1", "?watch=true&resourceVersion=0"] {
        let mut events = world.watch(&format!("{CONFIG}{start}")).await;
        assert_eq!(events.brief().await, "ADDED a");
        events.is_quiet().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_from_a_version_sees_everything_after_it_in_order() {
    let world = World::new().await;
    let a = make(&world, "a", "x").await;
    let version = a["metadata"]["resourceVersion"].as_str().unwrap();
    let mut events = world.watch(&format!("{CONFIG}?watch=1&resourceVersion={version}")).await;
    let changed = relabel(&world, "a", "y").await;
    make(&world, "b", "x").await;
    world.ask(&format!("DELETE {CONFIG}/a"), Value::Null).await.expect(200);
    let modified = events.next().await.unwrap();
    assert_eq!((modified["type"].as_str(), &modified["object"]), (Some("MODIFIED"), &changed));
    assert_eq!(events.brief().await, "ADDED b");
    let deleted = events.next().await.unwrap();
    assert_eq!(deleted["type"], "DELETED");
    assert_eq!(deleted["object"]["metadata"]["labels"]["l"], "y", "the last state");
    let number = |object: &Value| object["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(number(&deleted["object"]) > number(&changed), "with the version of the deletion");
    events.is_quiet().await;
}

#[tokio::test(start_paused = true)]
async fn objects_enter_and_leave_a_selection() {
    let world = World::new().await;
    make(&world, "a", "x").await;
    let mut events = world.watch(&format!("{CONFIG}?watch=1&labelSelector=l%3Dy")).await;
    relabel(&world, "a", "y").await;
    assert_eq!(events.brief().await, "ADDED a");
    world.patch(&format!("{CONFIG}/a"), "merge-patch", json!({ "data": { "k": "v" } })).await.expect(200);
    assert_eq!(events.brief().await, "MODIFIED a");
    let left = relabel(&world, "a", "z").await;
    let event = events.next().await.unwrap();
    assert_eq!(event["type"], "DELETED");
    assert_eq!(event["object"]["metadata"]["resourceVersion"], left["metadata"]["resourceVersion"]);
    assert_eq!(event["object"]["metadata"]["labels"]["l"], "y");
    world.ask(&format!("DELETE {CONFIG}/a"), Value::Null).await.expect(200);
    events.is_quiet().await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_by_name_is_about_that_name_only() {
    let world = World::new().await;
    let mut events = world.watch(&format!("{CONFIG}?watch=1&fieldSelector=metadata.name%3Da")).await;
    for name in ["ab", "a", "b"] {
        make(&world, name, "x").await;
    }
    assert_eq!(events.brief().await, "ADDED a");
    events.is_quiet().await;
}

#[tokio::test(start_paused = true)]
async fn initial_events_end_with_an_annotated_bookmark() {
    let world = World::new().await;
    make(&world, "a", "x").await;
    let options = "watch=1&sendInitialEvents=true&allowWatchBookmarks=true";
    let path = format!("{CONFIG}?{options}&resourceVersionMatch=NotOlderThan&resourceVersion=0");
    let mut events = world.watch(&path).await;
    assert_eq!(events.brief().await, "ADDED a");
    let bookmark = events.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["kind"], "ConfigMap");
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    make(&world, "b", "x").await;
    assert_eq!(events.brief().await, "ADDED b");
    world.ask(&format!("GET {CONFIG}?{options}"), Value::Null).await.expect(422);
    world.ask(&format!("GET {CONFIG}?watch=1&resourceVersionMatch=Exact"), Value::Null).await.expect(422);
}

#[tokio::test(start_paused = true)]
async fn bookmarks_come_every_minute_and_at_the_end() {
    let world = World::new().await;
    let path = format!("{CONFIG}?watch=1&allowWatchBookmarks=true&timeoutSeconds=90");
    let mut events = world.watch(&path).await;
    let started = tokio::time::Instant::now();
    world.ask("POST /api/v1/namespaces", sample("Namespace", "elsewhere")).await.expect(201);
    let first = events.next().await.unwrap();
    assert_eq!((first["type"].as_str(), started.elapsed()), (Some("BOOKMARK"), Duration::from_secs(60)));
    let newest = world.ask(&format!("GET {CONFIG}"), Value::Null).await.expect(200);
    assert_eq!(first["object"]["metadata"]["resourceVersion"], newest["metadata"]["resourceVersion"]);
    world.ask("POST /api/v1/namespaces", sample("Namespace", "further")).await.expect(201);
    assert_eq!(events.brief().await, "BOOKMARK -");
    assert_eq!(events.brief().await, "end");
    assert_eq!(started.elapsed(), Duration::from_secs(90));
}

#[tokio::test(start_paused = true)]
async fn a_watch_from_a_forgotten_version_is_told_so() {
    let world = World::new().await;
    make(&world, "a", "x").await;
    // History is kept for ten minutes of the store's time.
    tokio::time::advance(Duration::from_secs(3600)).await;
    make(&world, "b", "x").await;
    make(&world, "c", "x").await;
    let mut events = world.watch(&format!("{CONFIG}?watch=1&resourceVersion=1")).await;
    let event = events.next().await.unwrap();
    assert_eq!(event["type"], "ERROR");
    assert_eq!((event["object"]["code"].as_u64(), event["object"]["reason"].as_str()), (Some(410), Some("Expired")));
    assert_eq!(events.brief().await, "end");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_watch_is_not_late_when_history_goes() {
    let world = World::new().await;
    let mut events = world.watch(&format!("{CONFIG}?watch=1&timeoutSeconds=100000")).await;
    for hour in 0..3 {
        assert!(tokio::time::timeout(Duration::from_secs(3600), events.next()).await.is_err());
        world.ask("POST /api/v1/namespaces", sample("Namespace", &format!("n{hour}"))).await.expect(201);
    }
    assert!(tokio::time::timeout(Duration::from_secs(60), events.next()).await.is_err());
    make(&world, "a", "x").await;
    assert_eq!(events.brief().await, "ADDED a");
}

#[tokio::test(start_paused = true)]
async fn tables_define_their_columns_once() {
    let world = World::new().await;
    make(&world, "a", "x").await;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let path = format!("GET {CONFIG}?watch=1&timeoutSeconds=1");
    make(&world, "b", "x").await;
    let answer = world.send(super::world::admin(), &path, &[("accept", accept)], "").await;
    let events: Vec<Value> = answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 2);
    assert_eq!(events[0]["object"]["kind"], "Table");
    assert!(events[0]["object"]["columnDefinitions"].as_array().is_some_and(|columns| !columns.is_empty()));
    assert!(events[1]["object"]["columnDefinitions"].as_array().is_none_or(Vec::is_empty));
    assert_eq!(events[1]["object"]["rows"][0]["cells"][0], "b");
}

#[tokio::test(start_paused = true)]
async fn watches_end_when_the_server_closes() {
    let world = World::new().await;
    let mut events = world.watch(&format!("{CONFIG}?watch=1")).await;
    world.server.closing.cancel();
    assert_eq!(events.brief().await, "end");
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_a_custom_kind_ends_when_the_kind_is_another() {
    const CRONTABS: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";
    let world = custom::world().await;
    let spec = json!({ "cronSpec": "* * * * */5" });
    world.ask(&format!("POST {CRONTABS}"), crontab("a", spec)).await.expect(201);
    let definition = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let path = format!("{CRONTABS}?watch=1");
    let field = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/added";
    let changes = [
        json!([{ "op": "add", "path": field, "value": { "type": "string" } }]),
        json!([{ "op": "replace", "path": "/spec/versions/0/served", "value": false }]),
    ];
    for change in changes {
        let mut events = world.watch(&path).await;
        assert_eq!(events.brief().await, "ADDED a");
        // What is only noted down of a definition makes no difference.
        let note = json!({ "metadata": { "annotations": { "note": change.to_string() } } });
        world.patch(&definition, "merge-patch", note).await.expect(200);
        events.is_quiet().await;
        world.patch(&definition, "json-patch", change).await.expect(200);
        assert_eq!(events.brief().await, "end");
    }
    let served = json!([{ "op": "replace", "path": "/spec/versions/0/served", "value": true }]);
    world.patch(&definition, "json-patch", served).await.expect(200);
    let mut events = world.watch(&path).await;
    assert_eq!(events.brief().await, "ADDED a");
    world.ask(&format!("DELETE {definition}"), Value::Null).await.expect(200);
    assert_eq!((events.brief().await.as_str(), events.brief().await.as_str()), ("DELETED a", "end"));
    world.tasks.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn no_event_is_made_by_what_a_definition_said_once() {
    const CRONTABS: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";
    let world = custom::world().await;
    let mut events = world.watch(&format!("{CRONTABS}?watch=1")).await;
    let definition = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let field = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/added";
    let change = json!([{ "op": "add", "path": field, "value": { "type": "string" } }]);
    world.patch(&definition, "json-patch", change).await.expect(200);
    let spec = json!({ "cronSpec": "* * * * */5", "added": "kept" });
    world.ask(&format!("POST {CRONTABS}"), crontab("a", spec)).await.expect(201);
    assert_eq!(events.brief().await, "end");
    let mut events = world.watch(&format!("{CRONTABS}?watch=1")).await;
    assert_eq!(events.next().await.unwrap()["object"]["spec"]["added"], "kept");
    world.tasks.shutdown().await;
}
