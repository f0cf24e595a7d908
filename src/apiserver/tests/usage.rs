//! What nodes and pods use, as `kubectl top` asks.

use serde_json::{Value, json};

use super::world::{World, admin, sample};

const ROOT: &str = "/apis/metrics.k8s.io/v1beta1";
const UID: &str = "11111111-2222-3333-4444-555555555555";

/// What every kubelet says here; the pod is known by its UID.
pub(super) fn summary() -> String {
    let part = |name: &str, cpu: u64, memory: u64| {
        json!({
            "name": name, "cpu": { "time": "2026-01-02T03:04:05Z", "usageNanoCores": cpu, "window": "15s" },
            "memory": { "workingSetBytes": memory },
        })
    };
    json!({
        "node": part("", 250_000_000, 1 << 30),
        "pods": [{ "podRef": { "uid": UID }, "containers": [part("c", 12_345_678, 8 << 20), part("d", 1, 4096)] }],
    })
    .to_string()
}

async fn with_pods() -> World {
    let world = World::new().await;
    for name in ["n1", "unreachable"] {
        let node = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "labels": { "disk": name } },
        });
        world.ask("POST /api/v1/nodes", node).await.expect(201);
    }
    let pods = "/api/v1/namespaces/default/pods";
    for name in ["web", "other", "waiting"] {
        let mut pod = sample("Pod", name);
        pod["metadata"]["labels"] = json!({ "app": name });
        if name != "waiting" {
            pod["spec"]["nodeName"] = json!("n1");
        }
        world.ask(&format!("POST {pods}"), pod).await.expect(201);
    }
    world
}

async fn run(world: &World, name: &str) {
    let status = json!({ "status": { "phase": "Running" } });
    let path = format!("/api/v1/namespaces/default/pods/{name}/status");
    world.patch(&path, "merge-patch", status).await.expect(200);
}

async fn table(world: &World, path: &str) -> Value {
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
    let table = world.send(admin(), &format!("GET {ROOT}/{path}"), &accept, "").await.expect(200);
    table["rows"].as_array().unwrap().iter().map(|row| row["cells"].clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn nodes_say_what_they_use_and_those_that_do_not_answer_are_left_out() {
    let world = with_pods().await;
    assert_eq!(table(&world, "nodes").await, json!([["n1", "250m", "1Gi", "15s"]]));
    let one = world.ask(&format!("GET {ROOT}/nodes/n1"), Value::Null).await.expect(200);
    assert_eq!((&one["kind"], &one["usage"]), (&json!("NodeMetrics"), &json!({ "cpu": "250m", "memory": "1Gi" })));
    let error = world.ask(&format!("GET {ROOT}/nodes/absent"), Value::Null).await.expect(404);
    assert_eq!(error["message"], "nodemetrics.metrics.k8s.io \"absent\" not found");
    world.ask(&format!("GET {ROOT}/nodes/unreachable"), Value::Null).await.expect(404);
    assert_eq!(table(&world, "nodes?labelSelector=disk%3Dn1").await, json!([["n1", "250m", "1Gi", "15s"]]));
    assert_eq!(table(&world, "nodes?labelSelector=disk%3Dx").await, json!([]));
    world.ask(&format!("GET {ROOT}/nodes?watch=1"), Value::Null).await.expect(405);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_runs_is_told_of_by_its_uid() {
    let world = with_pods().await;
    run(&world, "web").await;
    // Nobody has measured a pod of that UID: one of the same name that was there before is another.
    assert_eq!(table(&world, "pods").await, json!([]));
    let error = world.ask(&format!("GET {ROOT}/namespaces/default/pods/web"), Value::Null).await.expect(404);
    assert_eq!(error["message"], "podmetrics.metrics.k8s.io \"default/web\" not found");
    world.ask(&format!("GET {ROOT}/namespaces/default/pods/absent"), Value::Null).await.expect(404);
    let list = world.ask(&format!("GET {ROOT}/pods"), Value::Null).await.expect(200);
    assert_eq!((&list["kind"], &list["items"]), (&json!("PodMetricsList"), &json!([])));
}

#[tokio::test(start_paused = true)]
async fn what_the_server_has_done_is_told_to_those_who_may_know() {
    let world = World::new().await;
    world.ask("GET /api/v1/namespaces/default/pods/absent", Value::Null).await.expect(404);
    let answer = world.send(admin(), "GET /metrics", &[], "").await;
    let counted = "apiserver_request_total{code=\"404\",group=\"\",resource=\"pods\",subresource=\"\",verb=\"GET\",version=\"v1\"} 1\n";
    assert!(answer.code == 200 && answer.text.contains(counted), "{}", answer.text);
    let jane = api::user::UserInfo::authenticated("jane", &[]);
    world.send(jane, "GET /metrics", &[], "").await.expect(403);
}
