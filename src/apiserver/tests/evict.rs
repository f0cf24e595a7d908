//! Evictions, and the budgets that may refuse them.

use serde_json::{Value, json};

use super::world::{Answer, World, sample};

const PODS: &str = "/api/v1/namespaces/default/pods";
const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";

fn eviction(name: &str) -> Value {
    json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": name, "namespace": "default" } })
}

async fn evict(world: &World, name: &str) -> Answer {
    world.ask(&format!("POST {PODS}/{name}/eviction"), eviction(name)).await
}

/// A pod on a node that a finalizer holds, so that its end can be looked at.
async fn pod(world: &World, name: &str, phase: &str, is_ready: bool) {
    let mut body = sample("Pod", name);
    body["metadata"]["labels"] = json!({ "app": "web" });
    body["spec"]["nodeName"] = json!("n1");
    world.ask(&format!("POST {PODS}"), body).await.expect(201);
    let ready = if is_ready { "True" } else { "False" };
    let status = json!({ "status": { "phase": phase, "conditions": [{ "type": "Ready", "status": ready }] } });
    world.patch(&format!("{PODS}/{name}/status"), "merge-patch", status).await.expect(200);
}

async fn budget(world: &World, name: &str, spec: Value, allowed: i64, healthy: i64) {
    let mut spec = spec;
    spec["selector"] = json!({ "matchLabels": { "app": "web" } });
    let body = json!({ "metadata": { "name": name }, "spec": spec });
    let mut made = world.ask(&format!("POST {BUDGETS}"), body).await.expect(201);
    made["status"] = json!({
        "observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": healthy, "desiredHealthy": 2,
        "expectedPods": 3,
    });
    world.ask(&format!("PUT {BUDGETS}/{name}/status"), made).await.expect(200);
}

async fn get(world: &World, path: &str) -> Value {
    world.ask(&format!("GET {path}"), Value::Null).await.expect(200)
}

fn cause(error: &Value) -> (&str, &str) {
    let cause = &error["details"]["causes"][0];
    (cause["reason"].as_str().unwrap(), cause["message"].as_str().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_pod_without_a_budget_is_told_why_it_goes_and_goes_gracefully() {
    let world = World::new().await;
    pod(&world, "p", "Running", true).await;
    let status = evict(&world, "p").await.expect(201);
    assert_eq!(
        (&status["kind"], &status["status"], &status["code"]),
        (&json!("Status"), &json!("Success"), &json!(201))
    );
    let ending = get(&world, &format!("{PODS}/p")).await;
    assert_eq!(ending["metadata"]["deletionGracePeriodSeconds"], 30);
    let conditions = ending["status"]["conditions"].as_array().unwrap();
    let told = conditions.iter().find(|condition| condition["type"] == "DisruptionTarget").unwrap();
    assert_eq!((&told["status"], &told["reason"]), (&json!("True"), &json!("EvictionByEvictionAPI")));
    evict(&world, "p").await.expect(201);
    evict(&world, "absent").await.expect(404);
}

#[tokio::test(start_paused = true)]
async fn a_budget_lets_go_what_it_can_spare_and_refuses_the_rest() {
    let world = World::new().await;
    for name in ["a", "b"] {
        pod(&world, name, "Running", true).await;
    }
    budget(&world, "least", json!({ "minAvailable": 2 }), 1, 3).await;
    evict(&world, "a").await.expect(201);
    let spent = get(&world, &format!("{BUDGETS}/least")).await;
    assert_eq!(spent["status"]["disruptionsAllowed"], 0);
    assert_eq!(spent["status"]["disruptedPods"], json!({ "a": "2026-01-02T03:04:05Z" }));
    assert_eq!(spent["status"]["conditions"][0]["type"], "DisruptionAllowed");
    let error = evict(&world, "b").await.expect(429);
    assert_eq!(error["reason"], "TooManyRequests");
    assert_eq!(error["message"], "Cannot evict pod as it would violate the pod's disruption budget.");
    let text = "The disruption budget least needs 2 healthy pods and has 3 currently";
    assert_eq!(cause(&error), ("DisruptionBudget", text));
    assert!(get(&world, &format!("{PODS}/b")).await["metadata"]["deletionTimestamp"].is_null());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_serves_nobody_is_no_matter_of_budgets() {
    let world = World::new().await;
    budget(&world, "least", json!({ "minAvailable": 2 }), 0, 1).await;
    for phase in ["Succeeded", "Failed", "Pending"] {
        let name = phase.to_lowercase();
        pod(&world, &name, phase, false).await;
        evict(&world, &name).await.expect(201);
    }
    pod(&world, "sick", "Running", false).await;
    assert_eq!(cause(&evict(&world, "sick").await.expect(429)).0, "DisruptionBudget");
    let always = json!({ "spec": { "unhealthyPodEvictionPolicy": "AlwaysAllow" } });
    world.patch(&format!("{BUDGETS}/least"), "merge-patch", always).await.expect(200);
    evict(&world, "sick").await.expect(201);
    let kept = get(&world, &format!("{BUDGETS}/least")).await;
    assert!(kept["status"]["disruptedPods"].is_null(), "it did not count");
}

#[tokio::test(start_paused = true)]
async fn a_dry_eviction_is_checked_and_stores_nothing() {
    let world = World::new().await;
    pod(&world, "p", "Running", true).await;
    budget(&world, "least", json!({ "minAvailable": 2 }), 1, 3).await;
    let (before, budget) = (get(&world, &format!("{PODS}/p")).await, get(&world, &format!("{BUDGETS}/least")).await);
    world.ask(&format!("POST {PODS}/p/eviction?dryRun=All"), eviction("p")).await.expect(201);
    let mut dry = eviction("p");
    dry["deleteOptions"] = json!({ "dryRun": ["All"] });
    world.ask(&format!("POST {PODS}/p/eviction"), dry).await.expect(201);
    assert_eq!(get(&world, &format!("{PODS}/p")).await, before);
    assert_eq!(get(&world, &format!("{BUDGETS}/least")).await, budget);
}

#[tokio::test(start_paused = true)]
async fn preconditions_names_and_versions_of_evictions_are_checked() {
    let world = World::new().await;
    pod(&world, "p", "Running", true).await;
    let path = format!("POST {PODS}/p/eviction");
    let error = world.ask(&path, eviction("other")).await.expect(400);
    assert_eq!(error["message"], "name in URL does not match name in Eviction object");
    let mut wrong = eviction("p");
    wrong["deleteOptions"] = json!({ "preconditions": { "uid": "other" } });
    world.ask(&path, wrong).await.expect(409);
    let mut wrong = eviction("p");
    wrong["deleteOptions"] = json!({ "preconditions": { "resourceVersion": "1" } });
    world.ask(&path, wrong).await.expect(409);
    let mut unknown = eviction("p");
    unknown["apiVersion"] = json!("policy/v2");
    world.ask(&path, unknown).await.expect(400);
    let mut old = eviction("p");
    old["apiVersion"] = json!("policy/v1beta1");
    old["deleteOptions"] = json!({ "gracePeriodSeconds": 0 });
    world.ask(&path, old).await.expect(201);
    world.ask(&format!("GET {PODS}/p"), Value::Null).await.expect(404);
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_two_budgets_cannot_be_evicted() {
    let world = World::new().await;
    pod(&world, "p", "Running", true).await;
    budget(&world, "one", json!({ "minAvailable": 1 }), 1, 3).await;
    budget(&world, "two", json!({ "minAvailable": 1 }), 1, 3).await;
    let error = evict(&world, "p").await.expect(500);
    assert!(
        error["message"].as_str().unwrap().starts_with("This pod has more than one PodDisruptionBudget"),
        "{error}"
    );
}
