//! How the parts of the control plane are, as `kubectl get componentstatuses` asks.

use serde_json::{Value, json};

use super::world::{World, admin};
use crate::Component;

const PATH: &str = "/api/v1/componentstatuses";

#[tokio::test(start_paused = true)]
async fn components_are_told_as_they_are_and_kept_by_nobody() {
    let world = World::new().await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let cells = async || {
        let answer = world.send(admin(), &format!("GET {PATH}"), &[("accept", table)], "").await;
        assert_eq!(answer.headers["warning"], "299 - \"v1 ComponentStatus is deprecated in v1.19+\"");
        let table = answer.expect(200);
        let rows = table["rows"].as_array().unwrap().iter().map(|row| row["cells"].clone());
        rows.collect::<Value>()
    };
    let absent = "it does not run in this server";
    let expected = json!([
        ["scheduler", "Unhealthy", "", absent],
        ["controller-manager", "Unhealthy", "", absent],
        ["etcd-0", "Healthy", "ok", ""],
    ]);
    assert_eq!(cells().await, expected);
    world.server.hosts(Component::Scheduler);
    world.server.hosts(Component::ControllerManager);
    assert_eq!(cells().await[1], json!(["controller-manager", "Healthy", "ok", ""]));

    let one = world.ask(&format!("GET {PATH}/scheduler"), Value::Null).await.expect(200);
    assert_eq!(one["conditions"], json!([{ "type": "Healthy", "status": "True", "message": "ok" }]));
    world.ask(&format!("GET {PATH}/none"), Value::Null).await.expect(404);
    let selected = format!("GET {PATH}?fieldSelector=metadata.name%3Detcd-0");
    let list = world.ask(&selected, Value::Null).await.expect(200);
    assert_eq!((&list["kind"], list["items"].as_array().unwrap().len()), (&json!("ComponentStatusList"), 1));
    for line in [format!("POST {PATH}"), format!("DELETE {PATH}/scheduler"), format!("GET {PATH}?watch=1")] {
        world.ask(&line, json!({ "metadata": { "name": "x" } })).await.expect(405);
    }
}
