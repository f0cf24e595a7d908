//! Deletion: what becomes of the object, and what is said of its dependents.

use serde_json::{Value, json};

use super::world::{World, sample};

const CONFIG: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";
const CONTROLLERS: &str = "/api/v1/namespaces/default/replicationcontrollers";

async fn made(world: &World, collection: &str, kind: &str, name: &str) -> Value {
    world.ask(&format!("POST {collection}"), sample(kind, name)).await.expect(201)
}

fn finalizers(object: &Value) -> &Value {
    &object["metadata"]["finalizers"]
}

#[tokio::test(start_paused = true)]
async fn a_deletion_is_answered_by_a_status_that_names_what_is_gone() {
    let world = World::new().await;
    let made = made(&world, CONFIG, "", "c").await;
    let status =
        world.ask(&format!("DELETE {CONFIG}/c"), json!({ "propagationPolicy": "Background" })).await.expect(200);
    assert_eq!((&status["kind"], &status["status"]), (&json!("Status"), &json!("Success")));
    assert_eq!(status["details"], json!({ "name": "c", "kind": "configmaps", "uid": made["metadata"]["uid"] }));
    world.ask(&format!("DELETE {CONFIG}/c?propagationPolicy=Maybe"), Value::Null).await.expect(422);
}

#[tokio::test(start_paused = true)]
async fn an_object_waits_for_the_garbage_collector_if_its_dependents_matter() {
    let world = World::new().await;
    let path = format!("{CONFIG}/c");
    made(&world, CONFIG, "", "c").await;
    let marked = world.ask(&format!("DELETE {path}"), json!({ "propagationPolicy": "Foreground" })).await.expect(200);
    assert_eq!(finalizers(&marked), &json!(["foregroundDeletion"]));
    assert_eq!(marked["metadata"]["deletionTimestamp"], "2026-01-02T03:04:05Z");
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
    let again = world.ask(&format!("DELETE {path}"), Value::Null).await.expect(200);
    assert_eq!(again, marked, "who does not ask changes nothing");
    let other = world.ask(&format!("DELETE {path}?orphanDependents=true"), Value::Null).await.expect(200);
    assert_eq!(finalizers(&other), &json!(["orphan"]), "another policy takes its place");
    let done = json!({ "metadata": { "finalizers": null } });
    world.patch(&path, "merge-patch", done).await.expect(200);
    world.ask(&format!("GET {path}"), Value::Null).await.expect(404);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_waited_goes_at_once_when_its_dependents_do_not_matter_any_more() {
    let world = World::new().await;
    let path = format!("{CONFIG}/c");
    made(&world, CONFIG, "", "c").await;
    world.ask(&format!("DELETE {path}?propagationPolicy=Orphan"), Value::Null).await.expect(200);
    let gone = world.ask(&format!("DELETE {path}?propagationPolicy=Background"), Value::Null).await.expect(200);
    assert_eq!(gone["kind"], "Status");
    world.ask(&format!("GET {path}"), Value::Null).await.expect(404);
}

#[tokio::test(start_paused = true)]
async fn some_kinds_leave_their_dependents_alone_unless_asked() {
    let world = World::new().await;
    made(&world, CONTROLLERS, "ReplicationController", "r").await;
    let answer = world.ask(&format!("DELETE {CONTROLLERS}/r"), Value::Null).await;
    assert!(answer.headers.get("warning").is_none());
    assert_eq!(finalizers(&answer.expect(200)), &json!(["orphan"]));
    made(&world, JOBS, "Job", "a").await;
    let answer = world.ask(&format!("DELETE {JOBS}/a"), Value::Null).await;
    let warning = answer.headers["warning"].to_str().unwrap();
    assert!(warning.contains("child pods are preserved by default when jobs are deleted"), "{warning}");
    assert_eq!(finalizers(&answer.expect(200)), &json!(["orphan"]));
    made(&world, JOBS, "Job", "b").await;
    let answer = world.ask(&format!("DELETE {JOBS}/b"), json!({ "propagationPolicy": "Background" })).await;
    assert!(answer.headers.get("warning").is_none());
    assert_eq!(answer.expect(200)["kind"], "Status");
    let event = sample("Event", "e");
    world.ask("POST /api/v1/namespaces/default/events", event).await.expect(201);
    let path = "DELETE /api/v1/namespaces/default/events/e?propagationPolicy=Foreground";
    assert_eq!(world.ask(path, Value::Null).await.expect(200)["kind"], "Status", "nobody owns by an event");
}

#[tokio::test(start_paused = true)]
async fn the_old_word_for_no_orphans_is_answered_by_accepted_as_long_as_the_object_is_there() {
    let world = World::new().await;
    let held = json!({ "metadata": { "name": "c", "finalizers": ["example.com/hold"] } });
    world.ask(&format!("POST {CONFIG}"), held).await.expect(201);
    world.ask(&format!("DELETE {CONFIG}/c"), json!({ "orphanDependents": false })).await.expect(202);
    made(&world, CONFIG, "", "d").await;
    world.ask(&format!("DELETE {CONFIG}/d"), json!({ "orphanDependents": false })).await.expect(200);
    let both = json!({ "orphanDependents": false, "propagationPolicy": "Orphan" });
    world.ask(&format!("DELETE {CONFIG}/c"), both).await.expect(422);
}

#[tokio::test(start_paused = true)]
async fn a_dry_deletion_stores_nothing_and_answers_as_a_real_one() {
    let world = World::new().await;
    let before = made(&world, CONFIG, "", "c").await;
    let dry = json!({ "dryRun": ["All"], "propagationPolicy": "Foreground" });
    let shown = world.ask(&format!("DELETE {CONFIG}/c"), dry).await.expect(200);
    assert_eq!(finalizers(&shown), &json!(["foregroundDeletion"]));
    assert_eq!(world.ask(&format!("DELETE {CONFIG}/c?dryRun=All"), Value::Null).await.expect(200)["kind"], "Status");
    world.ask(&format!("DELETE {CONFIG}?dryRun=All"), Value::Null).await.expect(200);
    assert_eq!(world.ask(&format!("GET {CONFIG}/c"), Value::Null).await.expect(200), before);
    let wrong = json!({ "dryRun": ["All"], "preconditions": { "uid": "other" } });
    world.ask(&format!("DELETE {CONFIG}/c"), wrong).await.expect(409);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_waits_for_its_dependents_keeps_its_grace() {
    let world = World::new().await;
    let mut pod = sample("Pod", "p");
    pod["spec"]["nodeName"] = json!("n1");
    world.ask(&format!("POST {PODS}"), pod).await.expect(201);
    let path = format!("{PODS}/p");
    let marked = world.ask(&format!("DELETE {path}?propagationPolicy=Foreground"), Value::Null).await.expect(200);
    assert_eq!(finalizers(&marked), &json!(["foregroundDeletion"]));
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    let other = world.ask(&format!("DELETE {path}?propagationPolicy=Orphan"), Value::Null).await.expect(200);
    assert_eq!(other, marked, "a pending grace period fixes the policy");
    let ended = world.ask(&format!("DELETE {path}?gracePeriodSeconds=0"), Value::Null).await.expect(200);
    assert_eq!(ended["metadata"]["deletionGracePeriodSeconds"], 0);
    assert_eq!(finalizers(&ended), &json!(["foregroundDeletion"]));
    world.patch(&path, "merge-patch", json!({ "metadata": { "finalizers": null } })).await.expect(200);
    world.ask(&format!("GET {path}"), Value::Null).await.expect(404);
}

#[tokio::test(start_paused = true)]
async fn a_collection_is_deleted_by_selector() {
    let world = World::new().await;
    for (name, label) in [("a", "x"), ("b", "y"), ("c", "x")] {
        let body = json!({ "metadata": { "name": name, "labels": { "l": label } } });
        world.ask(&format!("POST {CONFIG}"), body).await.expect(201);
    }
    let deleted = world.ask(&format!("DELETE {CONFIG}?labelSelector=l%3Dx"), Value::Null).await.expect(200);
    assert_eq!(deleted["items"].as_array().unwrap().len(), 2);
    let left = world.ask(&format!("GET {CONFIG}"), Value::Null).await.expect(200);
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_collection_is_deleted_as_its_objects_would_be() {
    let world = World::new().await;
    for name in ["a", "b", "c"] {
        made(&world, CONFIG, "", name).await;
    }
    world.ask(&format!("DELETE {CONFIG}?limit=1&propagationPolicy=Background"), Value::Null).await.expect(200);
    let left = world.ask(&format!("GET {CONFIG}"), Value::Null).await.expect(200);
    let names: Vec<&Value> = left["items"].as_array().unwrap().iter().map(|item| &item["metadata"]["name"]).collect();
    assert_eq!(names, ["b", "c"]);
    world.ask(&format!("DELETE {CONFIG}"), json!({ "propagationPolicy": "Foreground" })).await.expect(200);
    let held = world.ask(&format!("GET {CONFIG}"), Value::Null).await.expect(200);
    let all = held["items"].as_array().unwrap();
    assert!(all.len() == 2 && all.iter().all(|item| finalizers(item) == &json!(["foregroundDeletion"])), "{held}");
    made(&world, JOBS, "Job", "j").await;
    let answer = world.ask(&format!("DELETE {JOBS}"), Value::Null).await;
    assert!(answer.headers["warning"].to_str().unwrap().contains("child pods are preserved"));
}
