//! What goes on while the webhook that converts a kind cannot be had.

use std::net::Ipv4Addr;
use std::pin::pin;

use serde_json::{Value, json};
use store::Range;
use tokio::net::{TcpListener, TcpStream};

use super::conversion::{V1, V2, door_v1, door_v2, doors};
use super::custom::{DEFINITIONS, establish};
use super::validating::{about, bind};
use super::webhooks::{Hooks, VALIDATING, configure};
use super::world::{Answer, World, sample};
use crate::fairness::Limits;

const NS: &str = "/api/v1/namespaces/default";

/// A server with doors, objects of which are stored in version 1, and the place where somebody should convert them.
async fn world(hooks: &Hooks) -> (World, TcpListener) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("https://127.0.0.1:{}/", listener.local_addr().unwrap().port());
    let world = World::limited(Limits::default()).await;
    let mut definition = doors(hooks, "v1");
    definition["spec"]["conversion"]["webhook"]["clientConfig"]["url"] = json!(url);
    establish(&world, definition).await;
    (world, listener)
}

async fn hooks() -> Hooks {
    Hooks::start(|_, _| Ok(json!({ "allowed": true }))).await
}

async fn quota(world: &World, hard: Value) {
    let body = json!({ "metadata": { "name": "q" }, "spec": { "hard": hard } });
    world.ask(&format!("POST {NS}/resourcequotas"), body).await.expect(201);
}

/// Carries out a write that waits for its webhook, which stays silent until the other one has been answered.
async fn meanwhile(listener: &TcpListener, slow: impl Future<Output = Answer>, other: impl Future<Output = Answer>) {
    let mut slow = pin!(slow);
    let asked = async {
        let (stream, _): (TcpStream, _) = listener.accept().await.unwrap();
        (stream, other.await)
    };
    let (stream, other) = tokio::select! {
        answer = &mut slow => panic!("it was answered first: {}", answer.text),
        both = asked => both,
    };
    other.expect(201);
    drop(stream);
    assert_eq!(slow.await.code, 500);
}

#[tokio::test]
async fn objects_of_several_versions_are_counted_once_and_by_no_webhook() {
    let hooks = hooks().await;
    let (world, listener) = world(&hooks).await;
    drop(listener);
    quota(&world, json!({ "count/doors.shop.example.com": "2" })).await;
    for name in ["a", "b"] {
        world.ask(&format!("POST {V1}"), door_v1(name, "home:1")).await.expect(201);
    }
    let mut events = world.watch(&format!("{NS}/resourcequotas?watch=1")).await;
    while events.next().await.unwrap()["object"]["status"]["used"]["count/doors.shop.example.com"] != "2" {}
    let refused = world.ask(&format!("POST {V1}"), door_v1("c", "home:1")).await.expect(403);
    let text = "exceeded quota: q, requested: count/doors.shop.example.com=1, used: count/doors.shop.example.com=2, \
                limited: count/doors.shop.example.com=2";
    assert!(refused["message"].as_str().unwrap().ends_with(text), "{refused}");
    hooks.tasks.shutdown().await;
}

#[tokio::test]
async fn no_charged_write_waits_for_the_webhook_of_another() {
    let hooks = hooks().await;
    let (world, listener) = world(&hooks).await;
    quota(&world, json!({ "count/doors.shop.example.com": "2", "count/configmaps": "2" })).await;
    let (slow, other) = (format!("POST {V2}"), format!("POST {NS}/configmaps"));
    let slow = world.ask(&slow, door_v2("a", "home", "1"));
    meanwhile(&listener, slow, world.ask(&other, sample("ConfigMap", "other"))).await;
    hooks.tasks.shutdown().await;
}

#[tokio::test]
async fn no_service_waits_for_the_settings_of_a_policy_about_another() {
    let hooks = hooks().await;
    let (world, listener) = world(&hooks).await;
    world.ask(&format!("POST {V1}"), door_v1("settings", "home:1")).await.expect(201);
    let mut constraints = about("services", &["CREATE"]);
    constraints["objectSelector"] = json!({ "matchLabels": { "asks": "yes" } });
    let spec = json!({
        "matchConstraints": constraints, "validations": [{ "expression": "true" }],
        "paramKind": { "apiVersion": "shop.example.com/v2", "kind": "Door" },
    });
    let settings = json!({ "name": "settings", "namespace": "default", "parameterNotFoundAction": "Deny" });
    bind(&world, "settled", spec, json!({ "paramRef": settings })).await;
    let path = format!("POST {NS}/services");
    let mut labelled = sample("Service", "one");
    labelled["metadata"]["labels"]["asks"] = json!("yes");
    meanwhile(&listener, world.ask(&path, labelled), world.ask(&path, sample("Service", "two"))).await;
    hooks.tasks.shutdown().await;
}

#[tokio::test]
async fn nothing_is_converted_for_those_who_are_asked_about_something_else() {
    let hooks = hooks().await;
    let (world, listener) = world(&hooks).await;
    drop(listener);
    let rule = |group: &str, versions: &[&str], resource: &str| {
        json!({ "rules": [{
            "apiGroups": [group], "apiVersions": versions, "operations": ["*"], "resources": [resource],
        }] })
    };
    let all = vec![
        hooks.hook("own", &[], rule("shop.example.com", &["v1", "v2"], "doors")),
        hooks.hook("maps", &[], rule("", &["*"], "configmaps")),
        hooks.hook("group", &[], rule("autoscaling", &["v2"], "*")),
        hooks.hook("resource", &[], rule("shop.example.com", &["v2"], "windows")),
    ];
    configure(&world, VALIDATING, "c", all).await;
    let spec = json!({ "matchConstraints": about("pods", &["*"]), "validations": [{ "expression": "false" }] });
    bind(&world, "pods", spec, json!({})).await;
    world.ask(&format!("POST {V1}"), door_v1("a", "home:1")).await.expect(201);
    let asked = hooks.asked("own").pop().unwrap();
    assert_eq!(asked["object"]["apiVersion"], "shop.example.com/v1");
    assert!(["maps", "group", "resource"].iter().all(|name| hooks.asked(name).is_empty()));
    // Whoever wants to see the other version does need it.
    let other = hooks.hook("other", &[], rule("shop.example.com", &["v2"], "doors"));
    configure(&world, VALIDATING, "d", vec![other]).await;
    world.ask(&format!("POST {V1}"), door_v1("b", "home:1")).await.expect(500);
    hooks.tasks.shutdown().await;
}

#[tokio::test]
async fn objects_go_with_their_definition_whatever_is_served_of_it() {
    let hooks = hooks().await;
    let set = |version: usize, field: &str, value: bool| json!({ "op": "replace", "path": format!("/spec/versions/{version}/{field}"), "value": value });
    let changes = [
        json!([set(0, "served", false)]),
        json!([set(0, "served", false), set(1, "served", false)]),
        json!([set(0, "storage", false), set(1, "storage", true), set(0, "served", false)]),
    ];
    for change in changes {
        let (world, listener) = world(&hooks).await;
        drop(listener);
        world.ask(&format!("POST {V1}"), door_v1("a", "home:1")).await.expect(201);
        let path = format!("{DEFINITIONS}/doors.shop.example.com");
        world.patch(&path, "json-patch", change.clone()).await.expect(200);
        world.ask(&format!("DELETE {path}"), Value::Null).await.expect(200);
        while world.ask(&format!("GET {path}"), Value::Null).await.code != 404 {
            tokio::task::yield_now().await;
        }
        let range = Range { prefix: "shop.example.com/doors/".to_owned(), after: None, limit: None, at: None };
        let left = world.server.config.store.list(range).await.unwrap();
        assert!(left.entries.is_empty(), "{change}");
        world.tasks.shutdown().await;
    }
    hooks.tasks.shutdown().await;
}
