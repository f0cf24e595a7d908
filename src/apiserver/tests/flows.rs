//! FlowSchemas and PriorityLevelConfigurations, and what they do to requests.

use std::net::{IpAddr, Ipv4Addr};

use api::user::UserInfo;
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::Full;
use serde_json::{Value, json};

use super::world::World;
use crate::fairness::Outside;

const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";

/// What a request of a user from another machine is answered with.
async fn from_afar(world: &World, user: &str) -> (u16, HeaderMap) {
    let mut request = Request::get("/api/v1/namespaces/default/pods").body(Full::new(Bytes::new())).unwrap();
    request.extensions_mut().insert(Outside(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7))));
    let response = world.raw(UserInfo::authenticated(user, &[]), request).await;
    (response.status().as_u16(), response.headers().clone())
}

/// The UIDs in a response.
fn class(headers: &HeaderMap) -> [&str; 2] {
    ["x-kubernetes-pf-flowschema-uid", "x-kubernetes-pf-prioritylevel-uid"]
        .map(|name| headers.get(name).map_or("", |value| value.to_str().unwrap()))
}

async fn uid(world: &World, path: &str) -> String {
    let object = world.ask(&format!("GET {path}"), Value::Null).await.expect(200);
    object["metadata"]["uid"].as_str().unwrap().to_owned()
}

fn schema(level: &str) -> Value {
    let rule =
        json!({ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true });
    let rule = json!({ "subjects": [{ "kind": "User", "user": { "name": "jane" } }], "resourceRules": [rule] });
    let spec = json!({ "priorityLevelConfiguration": { "name": level }, "matchingPrecedence": 50, "rules": [rule] });
    json!({ "metadata": { "name": "of-jane" }, "spec": spec })
}

/// Waits until the condition of a schema says whether its level is missing.
async fn dangles(world: &World, name: &str, expected: &str) -> String {
    let mut events = world.watch(&format!("{SCHEMAS}?watch=1&fieldSelector=metadata.name%3D{name}")).await;
    loop {
        let condition = &events.next().await.unwrap()["object"]["status"]["conditions"][0];
        if condition["status"] == expected {
            assert_eq!(condition["type"], "Dangling");
            return condition["message"].as_str().unwrap().to_owned();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn answers_say_which_schema_and_level_their_requests_belong_to() {
    let world = World::new().await;
    let (code, headers) = from_afar(&world, "jane").await;
    let own = [
        uid(&world, &format!("{SCHEMAS}/global-default")).await,
        uid(&world, &format!("{LEVELS}/global-default")).await,
    ];
    assert_eq!((code, class(&headers)), (403, [own[0].as_str(), own[1].as_str()]));
    let here = world.ask("GET /api/v1/pods", Value::Null).await;
    assert_eq!(class(&here.headers), ["", ""], "components of this process belong to none");
    world.tasks.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_schema_puts_its_requests_on_its_level_as_soon_as_both_are_there() {
    let world = World::new().await;
    world.ask(&format!("POST {SCHEMAS}"), schema("narrow")).await.expect(201);
    let missing = dangles(&world, "of-jane", "True").await;
    assert!(missing.ends_with("named \"narrow\" but there is no such object"), "{missing}");
    assert_eq!(from_afar(&world, "jane").await.0, 403);
    let limited = json!({ "nominalConcurrencyShares": 0, "limitResponse": { "type": "Reject" } });
    let level = json!({ "metadata": { "name": "narrow" }, "spec": { "type": "Limited", "limited": limited } });
    world.ask(&format!("POST {LEVELS}"), level).await.expect(201);
    dangles(&world, "of-jane", "False").await;
    // Jane may read nothing, which is not what she is told: a closed level comes after authorization.
    let grant = json!({ "metadata": { "name": "jane" }, "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
        "name": "view" }, "subjects": [{ "kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "jane" }] });
    world.ask("POST /apis/rbac.authorization.k8s.io/v1/clusterrolebindings", grant).await.expect(201);
    let (code, headers) = from_afar(&world, "jane").await;
    let own = [uid(&world, &format!("{SCHEMAS}/of-jane")).await, uid(&world, &format!("{LEVELS}/narrow")).await];
    assert_eq!((code, class(&headers)), (429, [own[0].as_str(), own[1].as_str()]));
    assert_eq!(from_afar(&world, "joe").await.0, 403);
    world.ask(&format!("DELETE {LEVELS}/narrow"), Value::Null).await.expect(200);
    dangles(&world, "of-jane", "True").await;
    assert_eq!(from_afar(&world, "jane").await.0, 200);
    world.tasks.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_every_cluster_has_comes_back_unless_somebody_has_taken_it_over() {
    let world = World::new().await;
    let path = format!("{LEVELS}/system");
    let mut events = world.watch(&format!("{LEVELS}?watch=1&fieldSelector=metadata.name%3Dsystem")).await;
    let shares = |event: Option<Value>| {
        let event = event.unwrap();
        let shares = event["object"]["spec"]["limited"]["nominalConcurrencyShares"].as_i64().unwrap();
        format!("{} {shares}", event["type"].as_str().unwrap())
    };
    assert_eq!(shares(events.next().await), "ADDED 30");
    let fewer = json!({ "spec": { "limited": { "nominalConcurrencyShares": 3 } } });
    world.patch(&path, "merge-patch", fewer.clone()).await.expect(200);
    assert_eq!(shares(events.next().await), "MODIFIED 3");
    assert_eq!(shares(events.next().await), "MODIFIED 30");
    world.ask(&format!("DELETE {path}"), Value::Null).await.expect(200);
    assert_eq!(shares(events.next().await), "DELETED 30");
    assert_eq!(shares(events.next().await), "ADDED 30");
    let mut own = fewer;
    own["metadata"] = json!({ "annotations": { "apf.kubernetes.io/autoupdate-spec": "false" } });
    world.patch(&path, "merge-patch", own).await.expect(200);
    assert_eq!(shares(events.next().await), "MODIFIED 3");
    events.is_quiet().await;
    let fixed = json!({ "spec": { "matchingPrecedence": 9 } });
    world.patch(&format!("{SCHEMAS}/catch-all"), "merge-patch", fixed).await.expect(422);
    world.tasks.shutdown().await;
}
