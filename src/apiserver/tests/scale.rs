//! The subresource `scale`, for every kind that has it.

use api::resources;
use serde_json::{Value, json};

use super::world::{World, admin, sample};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

#[tokio::test(start_paused = true)]
async fn every_kind_with_replicas_is_read_and_scaled_in_the_same_way() {
    let world = World::new().await;
    for row in resources::all().iter().copied().filter(|row| row.scale.is_some()) {
        let path = super::rows::collection(row, "default");
        let made = world.ask(&format!("POST {path}"), sample(row.kind, "web")).await.expect(201);
        let scale = world.ask(&format!("GET {path}/web/scale"), Value::Null).await.expect(200);
        assert_eq!((&scale["kind"], &scale["apiVersion"]), (&json!("Scale"), &json!("autoscaling/v1")), "{}", row.kind);
        assert_eq!(scale["spec"], json!({ "replicas": 1 }), "{}", row.kind);
        assert_eq!(scale["status"], json!({ "replicas": 0, "selector": "app=web" }), "{}", row.kind);
        assert_eq!(scale["metadata"]["uid"], made["metadata"]["uid"]);

        let mut three = scale.clone();
        three["spec"]["replicas"] = json!(3);
        let answer = world.ask(&format!("PUT {path}/web/scale"), three.clone()).await.expect(200);
        assert_eq!(answer["spec"]["replicas"], 3);
        let object = world.ask(&format!("GET {path}/web"), Value::Null).await.expect(200);
        assert_eq!((&object["spec"]["replicas"], &object["metadata"]["generation"]), (&json!(3), &json!(2)));
        assert_eq!(answer["metadata"]["resourceVersion"], object["metadata"]["resourceVersion"]);
        world.ask(&format!("PUT {path}/web/scale"), three).await.expect(409);

        for kind in ["merge-patch", "strategic-merge-patch"] {
            let patch = json!({ "spec": { "replicas": 0 } });
            let answer = world.patch(&format!("{path}/web/scale"), kind, patch).await.expect(200);
            assert_eq!(answer["spec"], json!({}));
        }
        let json_patch = json!([{ "op": "add", "path": "/spec/replicas", "value": 5 }]);
        world.patch(&format!("{path}/web/scale?dryRun=All"), "json-patch", json_patch).await.expect(200);
        let object = world.ask(&format!("GET {path}/web"), Value::Null).await.expect(200);
        assert_eq!(object["spec"]["replicas"], 0, "{}", row.kind);
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_scaled_so_is_refused_in_upstreams_words() {
    let world = World::new().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    world.ask(&format!("POST {path}"), sample("Deployment", "web")).await.expect(201);
    let negative = json!({ "metadata": { "name": "web" }, "spec": { "replicas": -1 } });
    let status = world.ask(&format!("PUT {path}/web/scale"), negative).await.expect(422);
    let text =
        "Scale.autoscaling \"web\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0";
    assert_eq!(status["message"], text);
    let other = json!({ "metadata": { "name": "other" }, "spec": { "replicas": 1 } });
    world.ask(&format!("PUT {path}/web/scale"), other).await.expect(400);
    world.ask(&format!("GET {path}/none/scale"), Value::Null).await.expect(404);
    let stale = json!({ "metadata": { "resourceVersion": "1" }, "spec": { "replicas": 2 } });
    world.patch(&format!("{path}/web/scale"), "merge-patch", stale).await.expect(409);
    let typo = json!({ "spec": { "replicass": 2 } });
    world.patch(&format!("{path}/web/scale?fieldValidation=Strict"), "merge-patch", typo).await.expect(422);
    let pods = world.ask("GET /api/v1/namespaces/default/pods/web/scale", Value::Null).await;
    assert_eq!((pods.code, pods.text.as_str()), (404, "404 page not found\n"));
}

#[tokio::test(start_paused = true)]
async fn a_scale_has_a_table_of_its_own() {
    let world = World::new().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    world.ask(&format!("POST {path}"), sample("Deployment", "web")).await.expect(201);
    let line = format!("GET {path}/web/scale");
    let table = world.send(admin(), &line, &[("accept", TABLE)], "").await.expect(200);
    assert_eq!(table["rows"][0]["cells"], json!(["web", 1, 0, "0s"]));
}
