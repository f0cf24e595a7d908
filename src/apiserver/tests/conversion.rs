//! Kinds whose versions a webhook makes of each other: a real server behind TLS is asked.

use serde_json::{Value, json};

use super::custom::{DEFINITIONS, establish};
use super::webhooks::{Answers, Hooks, VALIDATING, by_service, configure, message, serve_behind};
use super::world::{Events, World, admin};
use crate::fairness::Limits;

pub(super) const V1: &str = "/apis/shop.example.com/v1/namespaces/default/doors";
pub(super) const V2: &str = "/apis/shop.example.com/v2/namespaces/default/doors";
const ALL_V2: &str = "/apis/shop.example.com/v2/doors";

/// Version 1 has `spec.hostPort`, version 2 `spec.host` and `spec.port`, as in upstream's documentation.
pub(super) fn doors(hooks: &Hooks, stored: &str) -> Value {
    let schema = |fields: Value| {
        json!({ "openAPIV3Schema": {
            "type": "object", "properties": { "spec": { "type": "object", "properties": fields } },
        } })
    };
    let text = json!({ "type": "string" });
    let version = |name: &str, fields: Value| {
        let field = if name == "v1" { ".spec.hostPort" } else { ".spec.port" };
        json!({
            "name": name, "served": true, "storage": name == stored, "schema": schema(fields),
            "selectableFields": [{ "jsonPath": field }],
        })
    };
    let client = json!({ "url": format!("https://127.0.0.1:{}/convert", hooks.port), "caBundle": hooks.authority });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "doors.shop.example.com" },
        "spec": {
            "group": "shop.example.com", "scope": "Namespaced",
            "names": { "plural": "doors", "kind": "Door" },
            "versions": [version("v1", json!({ "hostPort": text })), version("v2", json!({ "host": text, "port": text }))],
            "conversion": {
                "strategy": "Webhook",
                "webhook": { "clientConfig": client, "conversionReviewVersions": ["v3", "v1", "v1beta1"] },
            },
        },
    })
}

fn converted(object: &Value, wanted: &Value) -> Value {
    let mut new = object.clone();
    new["apiVersion"] = wanted.clone();
    let spec = &object["spec"];
    new["spec"] = match spec["hostPort"].as_str().and_then(|both| both.split_once(':')) {
        Some((host, port)) => json!({ "host": host, "port": port, "unknown": 1 }),
        None => {
            let text = |field: &str| spec[field].as_str().unwrap_or_default();
            json!({ "hostPort": format!("{}:{}", text("host"), text("port")) })
        }
    };
    new["metadata"]["annotations"]["converted"] = wanted.clone();
    new["metadata"]["generation"] = json!(99);
    new
}

fn convert(_: &str, request: &Value) -> Result<Value, u16> {
    let objects = request["objects"].as_array().unwrap();
    let done: Vec<Value> = objects.iter().map(|object| converted(object, &request["desiredAPIVersion"])).collect();
    Ok(json!({ "result": { "status": "Success" }, "convertedObjects": done }))
}

async fn world(answers: Answers) -> (World, Hooks) {
    let hooks = Hooks::start(answers).await;
    let world = World::limited(Limits::default()).await;
    establish(&world, doors(&hooks, "v1")).await;
    (world, hooks)
}

pub(super) fn door_v1(name: &str, at: &str) -> Value {
    json!({ "metadata": { "name": name }, "spec": { "hostPort": at } })
}

pub(super) fn door_v2(name: &str, host: &str, port: &str) -> Value {
    json!({ "metadata": { "name": name }, "spec": { "host": host, "port": port } })
}

/// The next event that is about an object.
async fn next(events: &mut Events) -> (Value, Value, Value) {
    let event = events.next().await.unwrap();
    (event["type"].clone(), event["object"]["apiVersion"].clone(), event["object"]["spec"].clone())
}

#[tokio::test]
async fn objects_are_read_and_written_in_every_version() {
    let (world, hooks) = world(convert).await;
    let made = world.ask(&format!("POST {V1}"), door_v1("a", "home:1")).await.expect(201);
    assert!(hooks.asked("convert").is_empty(), "in the version of storage nobody is asked");
    let read = world.ask(&format!("GET {V2}/a"), Value::Null).await.expect(200);
    assert_eq!(read["spec"], json!({ "host": "home", "port": "1" }), "what the version does not have is dropped");
    assert_eq!((&read["apiVersion"], &read["metadata"]["generation"]), (&json!("shop.example.com/v2"), &json!(1)));
    assert_eq!(read["metadata"]["annotations"]["converted"], "shop.example.com/v2");
    assert_eq!(read["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    let asked = hooks.asked("convert").pop().unwrap();
    assert_eq!(asked["desiredAPIVersion"], "shop.example.com/v2");
    assert_eq!(asked["objects"][0]["spec"], json!({ "hostPort": "home:1" }));

    let made = world.ask(&format!("POST {V2}"), door_v2("b", "work", "2")).await.expect(201);
    assert_eq!(made["spec"], json!({ "host": "work", "port": "2" }));
    let stored = world.ask(&format!("GET {V1}/b"), Value::Null).await.expect(200);
    assert_eq!(stored["spec"], json!({ "hostPort": "work:2" }));
    let patched = world.patch(&format!("{V2}/a"), "merge-patch", json!({ "spec": { "port": "3" } })).await.expect(200);
    assert_eq!(patched["spec"], json!({ "host": "home", "port": "3" }));
    let stored = world.ask(&format!("GET {V1}/a"), Value::Null).await.expect(200);
    assert_eq!((&stored["spec"], &stored["metadata"]["generation"]), (&json!({ "hostPort": "home:3" }), &json!(2)));
    world.ask(&format!("PUT {V2}/a"), stored.clone()).await.expect(400);
    let mut next = world.ask(&format!("GET {V2}/a"), Value::Null).await.expect(200);
    next["spec"]["host"] = json!("away");
    world.ask(&format!("PUT {V2}/a"), next).await.expect(200);
    world.patch(&format!("{V2}/a"), "merge-patch", json!({ "metadata": { "finalizers": ["x/y"] } })).await.expect(200);
    let marked = world.ask(&format!("DELETE {V2}/a"), Value::Null).await.expect(200);
    assert_eq!(marked["spec"], json!({ "host": "away", "port": "3" }));
    world.patch(&format!("{V2}/a"), "merge-patch", json!({ "metadata": { "finalizers": null } })).await.expect(200);
    world.ask(&format!("GET {V1}/a"), Value::Null).await.expect(404);
    hooks.tasks.shutdown().await;
}

#[tokio::test]
async fn lists_of_mixed_versions_are_converted_in_portions_and_watches_one_by_one() {
    let (world, hooks) = world(convert).await;
    for name in ["a", "b"] {
        world.ask(&format!("POST {V1}"), door_v1(name, &format!("{name}:1"))).await.expect(201);
    }
    let mut definition = doors(&hooks, "v2");
    let path = format!("{DEFINITIONS}/doors.shop.example.com");
    let old = world.ask(&format!("GET {path}"), Value::Null).await.expect(200);
    definition["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
    definition["status"] = old["status"].clone();
    let kept = world.ask(&format!("PUT {path}"), definition).await.expect(200);
    assert_eq!(kept["status"]["storedVersions"], json!(["v1", "v2"]));
    world.ask(&format!("POST {V2}"), door_v2("c", "c", "1")).await.expect(201);
    let before = hooks.asked("convert").len();
    let list = world.ask(&format!("GET {V2}"), Value::Null).await.expect(200);
    let hosts: Vec<&Value> = list["items"].as_array().unwrap().iter().map(|door| &door["spec"]["host"]).collect();
    assert_eq!(hosts, ["a", "b", "c"]);
    let asked = hooks.asked("convert").split_off(before);
    assert_eq!(asked.len(), 1, "all at once");
    assert_eq!(asked[0]["objects"].as_array().unwrap().len(), 2, "and not what has the version already");
    let list = world.ask(&format!("GET {V1}"), Value::Null).await.expect(200);
    assert_eq!(list["items"][2]["spec"], json!({ "hostPort": "c:1" }));
    let one = world.ask(&format!("GET {ALL_V2}?fieldSelector=spec.port%3D1,metadata.name%3Db"), Value::Null).await;
    assert_eq!(one.expect(200)["items"].as_array().unwrap().len(), 1);

    let mut events = world.watch(&format!("{V1}?watch=1")).await;
    for name in ["a", "b", "c"] {
        let expected = json!({ "hostPort": format!("{name}:1") });
        assert_eq!(next(&mut events).await, (json!("ADDED"), json!("shop.example.com/v1"), expected));
    }
    world.patch(&format!("{V2}/a"), "merge-patch", json!({ "spec": { "port": "7" } })).await.expect(200);
    let changed = (json!("MODIFIED"), json!("shop.example.com/v1"), json!({ "hostPort": "a:7" }));
    assert_eq!(next(&mut events).await, changed);
    let headers = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = world.send(admin(), &format!("GET {V1}"), &headers, "").await.expect(200);
    assert_eq!(table["rows"].as_array().unwrap().len(), 3);
    hooks.tasks.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_converted_is_said_in_upstreams_words() {
    let (world, hooks) = world(|_, request| {
        let object = &request["objects"][0];
        let mut new = converted(object, &request["desiredAPIVersion"]);
        let mut result = json!({ "status": "Success" });
        let mut objects = 1;
        match object["metadata"]["name"].as_str().unwrap() {
            "refused" => result = json!({ "status": "Failed", "message": "no way" }),
            "silent" => result = json!({}),
            "none" => objects = 0,
            "version" => new["apiVersion"] = json!("shop.example.com/v3"),
            "kind" => new["kind"] = json!("Window"),
            "name" => new["metadata"]["name"] = json!("other"),
            "uid" => new["metadata"]["uid"] = json!("other"),
            "label" => new["metadata"]["labels"] = json!({ "a": "not good" }),
            "list" => new["metadata"]["annotations"] = json!([]),
            "bare" => drop(new.as_object_mut().unwrap().remove("metadata")),
            "number" => new["metadata"]["labels"] = json!({ "a": 1 }),
            _ => return Err(500),
        }
        Ok(json!({ "result": result, "convertedObjects": vec![new; objects] }))
    })
    .await;
    let cases = [
        ("refused", "failed: no way"),
        ("silent", "failed: response.result.status was '', not 'Success'"),
        ("none", "returned 0 objects, expected 1"),
        (
            "version",
            "returned invalid object at index 0: invalid groupVersion (expected shop.example.com/v2, received \
             shop.example.com/v3)",
        ),
        ("kind", "returned invalid object at index 0: invalid kind (expected Door, received Window)"),
        ("name", "returned invalid object: must have the same name: name != other"),
        ("list", "returned invalid metadata: invalid metadata.annotations of type []interface {} in converted object"),
        ("bare", "returned invalid object: must have the same name: bare != "),
        ("number", "returned invalid metadata: metadata.labels[a] must be a string, but is int64 in converted object"),
        ("broken", "failed: an error on the server (\"no\") has prevented the request from succeeding"),
    ];
    for (name, why) in cases {
        world.ask(&format!("POST {V1}"), door_v1(name, "x:1")).await.expect(201);
        let answer = world.ask(&format!("GET {V2}/{name}"), Value::Null).await;
        let expected = format!("conversion webhook for shop.example.com/v1, Kind=Door {why}");
        assert_eq!(message(&answer, 500), expected);
        world.ask(&format!("GET {V1}/{name}"), Value::Null).await.expect(200);
    }
    for (name, why) in [("uid", "must have the same UID"), ("label", "metadata.labels: Invalid value: \"not good\"")] {
        world.ask(&format!("POST {V1}"), door_v1(name, "x:1")).await.expect(201);
        let answer = world.ask(&format!("GET {V2}/{name}"), Value::Null).await;
        assert!(message(&answer, 500).contains(why), "{}", answer.text);
    }
    // A write that cannot be stored is none.
    let answer = world.ask(&format!("POST {V2}"), door_v2("version", "x", "1")).await;
    assert_eq!(answer.code, 500, "{}", answer.text);
    let mut events = world.watch(&format!("{V2}?watch=1&resourceVersion=1")).await;
    assert_eq!(events.next().await.unwrap()["type"], "ERROR");
    // What is stored goes with its definition, whatever becomes of the webhook.
    hooks.tasks.shutdown().await;
    world.ask(&format!("DELETE {DEFINITIONS}/doors.shop.example.com"), Value::Null).await.expect(200);
    while world.ask(&format!("GET {DEFINITIONS}/doors.shop.example.com"), Value::Null).await.code != 404 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_rule_about_another_version_is_told_of_objects_in_that_version() {
    let hooks = Hooks::start(|path, request| match path {
        "convert" => convert(path, request),
        _ => Ok(json!({ "allowed": request["object"]["spec"]["host"] != "bad", "status": { "message": "bad" } })),
    })
    .await;
    let world = World::limited(Limits::default()).await;
    let mut definition = doors(&hooks, "v1");
    if serve_behind(&world, &hooks).await.is_some() {
        definition["spec"]["conversion"]["webhook"]["clientConfig"] = by_service(&hooks, "/convert");
    }
    establish(&world, definition).await;
    let rule = json!({
        "apiGroups": ["shop.example.com"], "apiVersions": ["v2"], "operations": ["CREATE"], "resources": ["doors"],
    });
    configure(&world, VALIDATING, "c", vec![hooks.hook("v", &[], json!({ "rules": [rule] }))]).await;
    world.ask(&format!("POST {V1}"), door_v1("a", "good:1")).await.expect(201);
    let told = message(&world.ask(&format!("POST {V1}"), door_v1("b", "bad:1")).await, 400);
    assert_eq!(told, "admission webhook \"v.example.org\" denied the request: bad");
    let asked = hooks.asked("v").pop().unwrap();
    assert_eq!((&asked["kind"]["version"], &asked["requestKind"]["version"]), (&json!("v2"), &json!("v1")));
    assert_eq!(asked["object"]["apiVersion"], "shop.example.com/v2");
    hooks.tasks.shutdown().await;
}
