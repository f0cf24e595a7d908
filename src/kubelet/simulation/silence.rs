//! A node that was given up for a while, by others, and is back.

use serde_json::{Value, json};

use super::World;
use super::scenarios::{is_ready, one_container, started};

const NODE: &str = "/api/v1/nodes/edge";
const POD: &str = "/api/v1/namespaces/default/pods/web";

fn ready_status(object: &Value) -> Value {
    let conditions = object["status"]["conditions"].as_array().expect("conditions");
    conditions.iter().find(|one| one["type"] == "Ready").expect("Ready")["status"].clone()
}

/// Says of an object that it is not ready, as the controller of nodes does.
fn mark(world: &World, path: &str, status: &str) {
    let mut object = world.api.get(path).expect("the object");
    for condition in object["status"]["conditions"].as_array_mut().expect("conditions") {
        if condition["type"] == "Ready" {
            *condition =
                json!({"type": "Ready", "status": status, "lastTransitionTime": condition["lastTransitionTime"]});
        }
    }
    world.api.patch(path, &json!({"status": {"conditions": object["status"]["conditions"]}}));
}

#[tokio::test(start_paused = true)]
async fn a_node_and_its_pods_that_were_given_up_say_how_they_are() {
    let world = started().await;
    world.create("web", one_container());
    world.until_pod("web", "it is ready", is_ready).await;
    world.until("the node is there", |world| world.api.get(NODE).is_some()).await;
    for _ in 0..2 {
        mark(&world, NODE, "Unknown");
        mark(&world, POD, "False");
        world.until("the node is ready", |world| ready_status(&world.api.get(NODE).expect("a node")) == "True").await;
        world.until_pod("web", "it is ready again", |pod| ready_status(pod) == "True").await;
    }
}
