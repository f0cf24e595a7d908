//! Subresources through which one part of a pod is changed.

use serde_json::{Value, json};

use super::world::{World, sample};

const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test(start_paused = true)]
async fn an_ephemeral_container_is_added_by_a_patch_and_stays_as_it_is() {
    let world = World::new().await;
    let made = world.ask(&format!("POST {PODS}"), sample("Pod", "p")).await.expect(201);
    let path = format!("{PODS}/p/ephemeralcontainers");
    let debug = |image: &str| json!({ "spec": { "ephemeralContainers": [{ "name": "debugger", "image": image, "stdin": true }] } });
    let added = world.patch(&path, "strategic-merge-patch", debug("busybox:1")).await.expect(200);
    assert_eq!(added["spec"]["ephemeralContainers"][0]["imagePullPolicy"], "IfNotPresent");
    assert_eq!(added["metadata"]["generation"], 2);
    assert_eq!(world.ask(&format!("GET {path}"), Value::Null).await.expect(200), added);
    let error = world.patch(&path, "strategic-merge-patch", debug("busybox:2")).await.expect(422);
    assert!(error["message"].as_str().unwrap().contains("\"debugger\" may not be changed"), "{error}");
    let mut without = added.clone();
    without["spec"]["ephemeralContainers"] = json!([]);
    let error = world.ask(&format!("PUT {path}"), without).await.expect(422);
    assert!(error["message"].as_str().unwrap().contains("\"debugger\" may not be removed"), "{error}");
    let mut second = added.clone();
    second["metadata"]["labels"] = json!({ "not": "taken" });
    second["spec"]["containers"] = json!([]);
    let more = json!({ "name": "second", "image": "busybox:1" });
    second["spec"]["ephemeralContainers"].as_array_mut().unwrap().push(more);
    let both = world.ask(&format!("PUT {path}"), second).await.expect(200);
    assert_eq!(both["spec"]["ephemeralContainers"].as_array().unwrap().len(), 2);
    assert_eq!(both["spec"]["containers"], made["spec"]["containers"]);
    assert_eq!(both["metadata"]["labels"], made["metadata"]["labels"]);
    let stale = world.ask(&format!("PUT {path}"), added).await.expect(409);
    assert_eq!(stale["reason"], "Conflict");
}

#[tokio::test(start_paused = true)]
async fn a_resize_changes_cpu_and_memory_and_the_main_resource_does_not() {
    let world = World::new().await;
    let mut pod = sample("Pod", "p");
    pod["spec"]["containers"][0]["resources"] = json!({ "requests": { "cpu": "100m", "memory": "32Mi" } });
    world.ask(&format!("POST {PODS}"), pod).await.expect(201);
    let sizes =
        |cpu: &str| json!({ "spec": { "containers": [{ "name": "c", "resources": { "requests": { "cpu": cpu } } }] } });
    let path = format!("{PODS}/p");
    world.patch(&path, "strategic-merge-patch", sizes("200m")).await.expect(422);
    let resized = world.patch(&format!("{path}/resize"), "strategic-merge-patch", sizes("200m")).await.expect(200);
    let requests = json!({ "cpu": "200m", "memory": "32Mi" });
    assert_eq!(resized["spec"]["containers"][0]["resources"]["requests"], requests);
    assert_eq!(resized["metadata"]["generation"], 2);
    let limits = json!({ "requests": { "cpu": "1", "memory": "1Gi" }, "limits": { "cpu": "1", "memory": "1Gi" } });
    let whole = json!({ "spec": { "containers": [{ "name": "c", "resources": limits }] } });
    let error = world.patch(&format!("{path}/resize"), "strategic-merge-patch", whole).await.expect(422);
    assert!(error["message"].as_str().unwrap().contains("Pod QOS Class may not change"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_status_write_changes_labels_too_but_nothing_of_the_spec() {
    let world = World::new().await;
    let mut pod = sample("Pod", "p");
    pod["spec"]["nodeName"] = json!("n1");
    world.ask(&format!("POST {PODS}"), pod).await.expect(201);
    let patch = json!({
        "metadata": { "labels": { "a": "b" }, "finalizers": ["example.com/hold"] },
        "spec": { "terminationGracePeriodSeconds": 1 }, "status": { "phase": "Running" },
    });
    let changed = world.patch(&format!("{PODS}/p/status"), "merge-patch", patch).await.expect(200);
    assert_eq!(changed["status"]["phase"], "Running");
    assert_eq!(changed["spec"]["terminationGracePeriodSeconds"], 30);
    assert_eq!(changed["metadata"]["labels"]["a"], "b");
}
