//! Kinds in several versions: one object, seen in each.

use serde_json::{Value, json};

use super::world::{World, admin, sample};

const V1: &str = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
const V2: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";

fn memory() -> Value {
    let target = json!({ "type": "Utilization", "averageUtilization": 60 });
    json!({ "type": "Resource", "resource": { "name": "memory", "target": target } })
}

#[tokio::test(start_paused = true)]
async fn an_object_is_the_same_in_every_version() {
    let world = World::new().await;
    let mut old = world.watch(&format!("{V1}?watch=1")).await;
    let mut new = world.watch(&format!("{V2}?watch=1")).await;
    let mut body = sample("HorizontalPodAutoscaler", "web");
    body["spec"]["targetCPUUtilizationPercentage"] = json!(50);
    let made = world.ask(&format!("POST {V1}"), body).await.expect(201);
    assert_eq!(
        (&made["apiVersion"], &made["spec"]["targetCPUUtilizationPercentage"]),
        (&json!("autoscaling/v1"), &json!(50))
    );
    assert_eq!(old.next().await.unwrap(), json!({ "type": "ADDED", "object": made }));
    let seen = world.ask(&format!("GET {V2}/web"), Value::Null).await.expect(200);
    assert_eq!(new.next().await.unwrap(), json!({ "type": "ADDED", "object": seen }));
    assert_eq!(seen["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 50);
    assert_eq!(seen["metadata"], made["metadata"]);

    let mut changed = seen;
    changed["spec"]["metrics"].as_array_mut().unwrap().push(memory());
    let changed = world.ask(&format!("PUT {V2}/web"), changed).await.expect(200);
    let back = world.ask(&format!("GET {V1}"), Value::Null).await.expect(200);
    assert_eq!((&back["kind"], &back["apiVersion"]), (&json!("HorizontalPodAutoscalerList"), &json!("autoscaling/v1")));
    assert!(back["items"][0]["metadata"]["annotations"][METRICS].as_str().unwrap().contains("memory"));
    assert_eq!(back["items"][0]["metadata"]["resourceVersion"], changed["metadata"]["resourceVersion"]);
    assert_eq!(old.brief().await, "MODIFIED web");

    let patch = json!({ "spec": { "maxReplicas": 9 } });
    world.patch(&format!("{V1}/web"), "merge-patch", patch).await.expect(200);
    let seen = world.ask(&format!("GET {V2}/web"), Value::Null).await.expect(200);
    assert_eq!((&seen["spec"]["metrics"][1], &seen["spec"]["maxReplicas"]), (&memory(), &json!(9)));
    assert_eq!(seen["metadata"].get("annotations"), None);

    world.ask(&format!("POST {V2}"), sample("HorizontalPodAutoscaler", "web")).await.expect(409);
    world.ask(&format!("DELETE {V1}/web"), Value::Null).await.expect(200);
    assert_eq!((new.brief().await, new.brief().await), ("MODIFIED web".to_owned(), "MODIFIED web".to_owned()));
    assert_eq!(new.brief().await, "DELETED web");
    world.ask(&format!("GET {V2}/web"), Value::Null).await.expect(404);
}

#[tokio::test(start_paused = true)]
async fn the_newest_version_is_preferred_and_both_have_tables() {
    let world = World::new().await;
    let group = world.ask("GET /apis/autoscaling", Value::Null).await.expect(200);
    assert_eq!(group["preferredVersion"]["version"], "v2");
    world.ask(&format!("POST {V2}"), sample("HorizontalPodAutoscaler", "web")).await.expect(201);
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    for path in [V1, V2] {
        let shown = world.send(admin(), &format!("GET {path}"), &[("accept", table)], "").await.expect(200);
        let expected = json!(["web", "Deployment/web", "cpu: <unknown>/80%", "1", "3", 0, "0s"]);
        assert_eq!(shown["rows"][0]["cells"], expected, "{path}");
    }
    let wrong = json!({ "spec": { "minReplicas": 5 } });
    let status = world.patch(&format!("{V1}/web"), "merge-patch", wrong).await.expect(422);
    let text = "spec.maxReplicas: Invalid value: 3: must be greater than or equal to `minReplicas`";
    assert!(status["message"].as_str().unwrap().ends_with(text), "{status}");
}
