//! What an agent does about what an earlier one left, and about its node.

use std::time::Duration;

use runtime::SandboxId;
use runtime::simulated::{Call, Ending, Program};
use serde_json::json;

use super::World;
use super::scenarios::{is_ready, one_container, phase, started};

#[tokio::test(start_paused = true)]
async fn an_agent_that_starts_again_leaves_running_containers_alone() {
    let mut world = started().await;
    world.create("web", one_container());
    world.until_pod("web", "it is ready", is_ready).await;
    let before = world.pod("web").expect("the pod")["status"].clone();
    world.start_agent().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.pod("web").expect("the pod")["status"], before);
    assert_eq!(starts(&world), 1);
    world.delete("web", 30);
    world.until_gone("web").await;
}

/// How often a container was started.
fn starts(world: &World) -> usize {
    world.runtime.calls().into_iter().filter(|call| matches!(call, Call::StartContainer(..))).count()
}

/// A pod that has succeeded and given its sandbox back.
async fn finished() -> World {
    let world = started().await;
    world.program("web", &[Program::exits(Duration::from_secs(1), 0)]);
    let mut spec = one_container();
    spec["restartPolicy"] = json!("Never");
    world.create("web", spec);
    world.until_pod("web", "it succeeds", |pod| phase(pod) == "Succeeded").await;
    world.until("its sandbox is gone", |world| world.network.attached().is_empty()).await;
    world
}

#[tokio::test(start_paused = true)]
async fn a_finished_pod_is_not_run_again_by_the_next_agent() {
    let mut world = finished().await;
    let before = world.pod("web").expect("the pod")["status"].clone();
    world.start_agent().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(starts(&world), 1);
    assert_eq!(world.pod("web").expect("the pod")["status"], before);
}

#[tokio::test(start_paused = true)]
async fn a_finished_pod_is_not_run_again_without_an_api_server() {
    let mut world = finished().await;
    world.with_api = false;
    world.start_agent().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(starts(&world), 1);
}

#[tokio::test(start_paused = true)]
async fn a_finished_pod_is_not_run_again_when_its_checkpoint_is_lost() {
    let mut world = finished().await;
    std::fs::remove_dir_all(world.directory.path().join("lib/pods")).expect("the checkpoints");
    world.start_agent().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(starts(&world), 1);
}

#[tokio::test(start_paused = true)]
async fn the_next_agent_ends_no_pod_that_is_listed() {
    let mut world = started().await;
    let names: Vec<String> = (0..100).map(|number| format!("web-{number}")).collect();
    for name in &names {
        world.create(name, one_container());
    }
    for name in &names {
        world.until_pod(name, "it is ready", is_ready).await;
    }
    for _ in 0..5 {
        world.start_agent().await;
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    assert!(!world.events("Pod").iter().any(|reason| reason == "Killing"));
    assert_eq!(starts(&world), names.len());
}

#[tokio::test(start_paused = true)]
async fn a_container_with_a_new_image_is_left_alone_by_the_next_agent() {
    let mut world = started().await;
    world.create("web", one_container());
    world.until_pod("web", "it is ready", is_ready).await;
    let mut spec = one_container();
    spec["containers"][0]["image"] = json!("web:2");
    world.api.patch("/api/v1/namespaces/default/pods/web", &json!({ "spec": spec }));
    world
        .until_pod("web", "it runs the new image", |pod| {
            is_ready(pod) && pod["status"]["containerStatuses"][0]["restartCount"] == 1
        })
        .await;
    world.with_api = false;
    world.start_agent().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(starts(&world), 2);
}

#[tokio::test(start_paused = true)]
async fn a_pod_deleted_while_the_agent_was_away_is_removed_once_the_list_is_complete() {
    let mut world = started().await;
    world.create("web", one_container());
    world.until_pod("web", "it is ready", is_ready).await;
    world.start_agent().await;
    world.delete("web", 0);
    world.start_agent().await;
    world.until("nothing is left", |world| world.network.attached().is_empty() && world.runtime.running() == 0).await;
    world
        .until("its files are gone", |world| {
            std::fs::read_dir(world.directory.path().join("lib/pods")).expect("a directory").next().is_none()
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn pods_go_on_without_an_api_server_after_a_restart() {
    let mut world = started().await;
    world.create("web", one_container());
    world.until_pod("web", "it is ready", is_ready).await;
    world.with_api = false;
    world.start_agent().await;
    let uid = world.pod("web").expect("the pod")["metadata"]["uid"].as_str().expect("a uid").to_owned();
    let sandbox = SandboxId::new(&uid, 0);
    let status = runtime::Runtime::status(&world.runtime, &sandbox).await.expect("a status").expect("a sandbox");
    world.runtime.end_container(&sandbox, &status.containers[0].id, Ending { code: 1, ..Ending::default() });
    let attempts =
        |world: &World| world.runtime.calls().into_iter().any(|call| matches!(call, Call::StartContainer(_, _, 1)));
    world.until("it is started again", attempts).await;
}

#[tokio::test(start_paused = true)]
async fn the_node_is_registered_and_its_lease_renewed() {
    let world = started().await;
    world.until("the node is there", |world| world.api.get("/api/v1/nodes/edge").is_some()).await;
    let node = world.api.get("/api/v1/nodes/edge").expect("the node");
    assert_eq!(node["status"]["capacity"]["memory"], "8388608Ki");
    assert_eq!(node["spec"]["podCIDR"], "10.42.0.0/24");
    let ready = node["status"]["conditions"].as_array().expect("conditions").iter().find(|one| one["type"] == "Ready");
    assert_eq!(ready.map(|one| &one["reason"]), Some(&json!("KubeletReady")));
    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/edge";
    world.until("the lease is there", |world| world.api.get(lease).is_some()).await;
    let first = world.api.get(lease).expect("a lease")["spec"]["renewTime"].clone();
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_ne!(world.api.get(lease).expect("a lease")["spec"]["renewTime"], first);
    tokio::time::sleep(Duration::from_secs(240)).await;
    assert_eq!(
        world.api.get("/api/v1/nodes/edge").expect("the node")["metadata"]["resourceVersion"],
        node["metadata"]["resourceVersion"]
    );
    let told = world.events("Node");
    assert!(
        ["Starting", "NodeAllocatableEnforced"].iter().all(|reason| told.iter().any(|own| own == reason)),
        "{told:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_in_time_also_by_the_next_agent() {
    let mut world = started().await;
    let mut spec = one_container();
    let sources = json!([{"serviceAccountToken": {"path": "token", "expirationSeconds": 1000}}]);
    spec["volumes"] = json!([{"name": "own", "projected": {"sources": sources}}]);
    world.create("web", spec);
    world.until_pod("web", "it is ready", is_ready).await;
    let uid = world.pod("web").expect("the pod")["metadata"]["uid"].as_str().expect("a uid").to_owned();
    let volume = format!("run/pods/{uid}/volumes/kubernetes.io~projected/own/token");
    let file = world.directory.path().join(volume);
    let token = || std::fs::read_to_string(&file).expect("a token");
    let begun = world.elapsed();
    assert_eq!(token(), "token-1");
    world.until("the token is renewed", |_| token() == "token-2").await;
    let life = world.elapsed() - begun;
    assert!((795..=805).contains(&life), "renewed after {life} s instead of four fifths of its life");
    world.start_agent().await;
    world.until("an agent that does not know how old it is renews it", |_| token() == "token-3").await;
    assert_eq!(world.pod("web").expect("the pod")["status"]["containerStatuses"][0]["restartCount"], 0);
    world.until("the token is renewed again", |_| token() == "token-4").await;
}
