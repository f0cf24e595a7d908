//! A node that was given up for a while, by others, and is back.

use std::time::Duration;

use runtime::simulated::Program;
use serde_json::{Value, json};

use super::World;
use super::scenarios::{is_ready, one_container, started};

const NODE: &str = "/api/v1/nodes/edge";
const POD: &str = "/api/v1/namespaces/default/pods/web";

fn ready_status(object: &Value) -> Value {
    condition(object, "Ready")["status"].clone()
}

fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array().expect("conditions");
    conditions.iter().find(|one| one["type"] == kind).expect("the condition")
}

/// Says something of an object, as others do: by a patch that names nothing else.
fn say(world: &World, path: &str, kind: &str, status: &str) {
    let patch = json!({"status": {"conditions": [{"type": kind, "status": status}]}});
    world.api.patch_strategically(path, patch.to_string().as_bytes()).expect("the object");
}

#[tokio::test(start_paused = true)]
async fn a_node_and_its_pods_that_were_given_up_say_how_they_are() {
    let world = started().await;
    world.create("web", one_container());
    world.until_pod("web", "it is ready", is_ready).await;
    world.until("the node is there", |world| world.api.get(NODE).is_some()).await;
    for _ in 0..2 {
        say(&world, NODE, "Ready", "Unknown");
        say(&world, POD, "Ready", "False");
        world.until("the node is ready", |world| ready_status(&world.api.get(NODE).expect("a node")) == "True").await;
        world.until_pod("web", "it is ready again", |pod| ready_status(pod) == "True").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_ready_gives_no_reason_for_it() {
    let world = started().await;
    world.program("web", &[Program { start_latency: Duration::from_secs(3), ..Program::serves() }]);
    world.create("web", one_container());
    let waits = |pod: &Value| condition(pod, "Ready")["reason"] == "ContainersNotReady";
    world.until_pod("web", "it is not ready", |pod| pod["status"]["conditions"].is_array() && waits(pod)).await;
    world.until_pod("web", "it is ready", is_ready).await;
    let pod = world.pod("web").expect("the pod");
    for kind in ["Ready", "ContainersReady", "Initialized"] {
        let said = condition(&pod, kind);
        assert!(said["reason"].is_null() && said["message"].is_null(), "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_others_say_of_a_node_is_left_as_it_is() {
    let mut world = started().await;
    world.until("the node is there", |world| world.api.get(NODE).is_some()).await;
    let beat = |world: &World| {
        let node = world.api.get(NODE).expect("a node");
        condition(&node, "Ready")["lastHeartbeatTime"].as_str().expect("a time").to_owned()
    };
    say(&world, NODE, "NetworkUnavailable", "True");
    let before = beat(&world);
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.start_agent().await;
    world.until("the agent has seen what they say", |world| beat(world) > before).await;
    say(&world, NODE, "NetworkUnavailable", "False");
    let before = beat(&world);
    world.until("the node has been written again", |world| beat(world) > before).await;
    assert_eq!(condition(&world.api.get(NODE).expect("a node"), "NetworkUnavailable")["status"], "False");
}
