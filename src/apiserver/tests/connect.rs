//! What the API server does with a connection before the kubelet has it.

use api::user::UserInfo;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};

use super::world::{World, admin, sample};

const PODS: &str = "/api/v1/namespaces/default/pods";
const EXEC: &str =
    "/api/v1/namespaces/default/pods/p/exec?command=echo&command=a%20b&stdin=true&stdout=true&stderr=false";

async fn with_pod() -> World {
    let world = World::new().await;
    let mut pod = sample("Pod", "p");
    pod["spec"]["nodeName"] = json!("n1");
    world.ask(&format!("POST {PODS}"), pod).await.expect(201);
    world
}

/// Sends a request of a connection that can change its protocol.
async fn upgrade(world: &World, method: &str, path: &str) -> (u16, String) {
    let request = Request::builder().method(method).uri(path);
    let request = request.header("connection", "keep-alive, Upgrade").header("upgrade", "websocket");
    let connection = hyper::upgrade::on(Request::new(()));
    let request = request.extension(connection).body(Full::new(Bytes::new())).unwrap();
    let response = world.raw(admin(), request).await;
    let code = response.status().as_u16();
    let text = response.into_body().collect().await.unwrap().to_bytes();
    (code, String::from_utf8(text.to_vec()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_handed_to_the_kubelet_by_either_verb() {
    let world = with_pod().await;
    let asked = "n1 /exec/default/p/c?input=1&output=1&command=echo&command=a%20b".to_owned();
    for method in ["GET", "POST"] {
        assert_eq!(upgrade(&world, method, EXEC).await, (200, asked.clone()), "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn parameters_have_the_names_that_the_kubelet_knows() {
    let world = with_pod().await;
    let cases = [
        ("attach?container=c&stdin=true&stdout=true&tty=true", "/attach/default/p/c?input=1&output=1&tty=1&"),
        ("portforward?ports=80&ports=443", "/portForward/default/p?port=80%2C443"),
        ("portforward", "/portForward/default/p"),
    ];
    for (asked, expected) in cases {
        let answer = upgrade(&world, "POST", &format!("{PODS}/p/{asked}")).await;
        assert_eq!(answer, (200, format!("n1 {expected}")), "{asked}");
    }
    let (code, text) = upgrade(&world, "GET", &format!("{PODS}/p/attach?container=y")).await;
    assert_eq!(code, 400, "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_command_without_a_change_of_protocol_is_refused() {
    let world = with_pod().await;
    let error = world.ask(&format!("GET {EXEC}"), Value::Null).await.expect(400);
    assert_eq!(error["message"], "Upgrade request required");
    let error = world.ask(&format!("GET {PODS}/p/exec?command=x&container=y"), Value::Null).await.expect(400);
    assert_eq!(error["message"], "container y is not valid for pod p");
    world.ask(&format!("GET {PODS}/absent/exec?command=x"), Value::Null).await.expect(404);
    world.ask(&format!("PUT {PODS}/p/exec?command=x"), json!({})).await.expect(405);
}

#[tokio::test(start_paused = true)]
async fn a_pod_without_a_node_runs_no_command() {
    let world = World::new().await;
    world.ask(&format!("POST {PODS}"), sample("Pod", "p")).await.expect(201);
    let (code, text) = upgrade(&world, "GET", EXEC).await;
    assert_eq!(code, 400);
    assert!(text.contains("pod p does not have a host assigned"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn whoever_may_only_read_runs_no_command() {
    let jane = UserInfo::authenticated("jane", &[]);
    let world = with_pod().await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = |verbs: &[&str]| {
        json!({
            "metadata": { "name": "r" },
            "rules": [{ "apiGroups": [""], "resources": ["pods/exec"], "verbs": verbs }],
        })
    };
    world.ask(&format!("POST {rbac}/roles"), role(&["get"])).await.expect(201);
    let binding = json!({
        "metadata": { "name": "b" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r" },
        "subjects": [{ "kind": "User", "name": "jane" }],
    });
    world.ask(&format!("POST {rbac}/rolebindings"), binding).await.expect(201);
    let error = world.send(jane.clone(), &format!("GET {EXEC}"), &[], "").await.expect(403);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("cannot create resource \"pods/exec\""), "{message}");
    world.ask(&format!("PUT {rbac}/roles/r"), role(&["get", "create"])).await.expect(200);
    let error = world.send(jane.clone(), &format!("GET {EXEC}"), &[], "").await.expect(400);
    assert_eq!(error["message"], "Upgrade request required");
}
