//! Kinds that come at run time, from their definition to their end.

use serde_json::{Value, json};

use super::world::{Answer, World, admin};

pub(super) const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const CRONTABS: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";

/// The CronTab of upstream's documentation, with something of everything.
pub(super) fn crontabs() -> Value {
    let schema = json!({
        "type": "object", "description": "A CronTab runs an image now and then.",
        "required": ["spec"],
        "properties": {
            "spec": {
                "type": "object", "description": "What is wanted.", "required": ["cronSpec"],
                "properties": {
                    "cronSpec": { "type": "string", "pattern": "^(\\d+|\\*)(/\\d+)?(\\s+(\\d+|\\*)(/\\d+)?){4}$", "description": "When." },
                    "image": { "type": "string", "default": "busybox" },
                    "replicas": { "type": "integer", "minimum": 1, "maximum": 10, "default": 1 },
                    "policy": { "type": "string", "enum": ["Allow", "Forbid"] },
                    "port": { "x-kubernetes-int-or-string": true },
                    "note": { "type": "string", "nullable": true, "maxLength": 5 },
                    "free": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
                    "labels": { "type": "object", "additionalProperties": { "type": "string" } },
                    "ports": {
                        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "maxItems": 3,
                        "items": {
                            "type": "object", "required": ["name"],
                            "properties": { "name": { "type": "string" }, "number": { "type": "integer", "format": "int32" } },
                        },
                    },
                    "template": { "type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true },
                    "either": { "type": "object", "properties": { "a": { "type": "string" }, "b": { "type": "string" } },
                        "oneOf": [{ "required": ["a"] }, { "required": ["b"] }] },
                },
            },
            "status": {
                "type": "object",
                "properties": { "replicas": { "type": "integer" }, "selector": { "type": "string" } },
            },
        },
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "crontabs.stable.example.com" },
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced",
            "names": { "plural": "crontabs", "singular": "crontab", "kind": "CronTab", "shortNames": ["ct"], "categories": ["all"] },
            "versions": [{
                "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": schema },
                "subresources": {
                    "status": {},
                    "scale": { "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector" },
                },
                "selectableFields": [{ "jsonPath": ".spec.image" }],
                "additionalPrinterColumns": [
                    { "name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec", "description": "When" },
                    { "name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas" },
                    { "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" },
                    { "name": "Image", "type": "string", "jsonPath": ".spec.image", "priority": 1 },
                ],
            }],
        },
    })
}

pub(super) fn crontab(name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": { "name": name }, "spec": spec })
}

const EVERY: &str = "* * * * */5";

/// Creates a definition and waits until it is served.
pub(super) async fn establish(world: &World, definition: Value) -> Value {
    let name = definition["metadata"]["name"].as_str().unwrap().to_owned();
    let mut events = world.watch(&format!("{DEFINITIONS}?watch=1&fieldSelector=metadata.name%3D{name}")).await;
    world.ask(&format!("POST {DEFINITIONS}?fieldValidation=Strict"), definition).await.expect(201);
    loop {
        let object = events.next().await.unwrap()["object"].clone();
        if object["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|c| c["type"] == "Established" && c["status"] == "True")
        {
            return object;
        }
    }
}

/// A server with CronTabs.
pub(super) async fn world() -> World {
    let world = World::new().await;
    establish(&world, crontabs()).await;
    world
}

fn message(answer: &Answer) -> String {
    answer.json()["message"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_definition_gets_its_names_and_is_established() {
    let world = World::new().await;
    let object = establish(&world, crontabs()).await;
    assert_eq!(object["status"]["acceptedNames"]["listKind"], "CronTabList");
    assert_eq!(object["status"]["storedVersions"], json!(["v1"]));
    assert_eq!((&object["metadata"]["generation"], &object["metadata"]["finalizers"]), (&json!(1), &Value::Null));
    world.tasks.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn discovery_and_openapi_tell_of_a_kind_while_it_is_there() {
    let world = World::new().await;
    world.ask("GET /apis/stable.example.com", Value::Null).await;
    let index = world.ask("GET /openapi/v3", Value::Null).await.expect(200);
    assert!(index["paths"]["apis/stable.example.com/v1"].is_null());
    establish(&world, crontabs()).await;
    let list = world.ask("GET /apis/stable.example.com/v1", Value::Null).await.expect(200);
    let names: Vec<&str> = list["resources"].as_array().unwrap().iter().filter_map(|r| r["name"].as_str()).collect();
    assert_eq!(names, ["crontabs", "crontabs/status", "crontabs/scale"]);
    let groups = world.ask("GET /apis", Value::Null).await.expect(200);
    assert!(groups["groups"].as_array().unwrap().iter().any(|group| group["name"] == "stable.example.com"));
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let aggregated = world.send(admin(), "GET /apis", &[("accept", accept)], "").await.expect(200);
    let own =
        aggregated["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == "stable.example.com");
    assert_eq!(own.unwrap()["versions"][0]["resources"][0]["shortNames"], json!(["ct"]));

    let document = world.ask("GET /openapi/v3/apis/stable.example.com/v1", Value::Null).await.expect(200);
    let schemas = &document["components"]["schemas"];
    let own = &schemas["com.example.stable.v1.CronTab"];
    assert_eq!(own["x-kubernetes-group-version-kind"][0]["kind"], "CronTab");
    assert_eq!(own["properties"]["spec"]["properties"]["cronSpec"]["description"], "When.");
    let text = document.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.get(name).is_some(), "{name}");
    }
    let patch = &document["paths"]["/apis/stable.example.com/v1/namespaces/{namespace}/crontabs/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "CronTab");

    let hash = |index: &Value| index["paths"]["apis/stable.example.com/v1"]["serverRelativeURL"].clone();
    let before = hash(&world.ask("GET /openapi/v3", Value::Null).await.expect(200));
    let change =
        json!([{ "op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema/description", "value": "Other." }]);
    world.patch(&format!("{DEFINITIONS}/crontabs.stable.example.com"), "json-patch", change).await.expect(200);
    assert_ne!(hash(&world.ask("GET /openapi/v3", Value::Null).await.expect(200)), before);
    world.tasks.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn objects_are_created_filled_in_read_changed_watched_and_deleted() {
    let world = world().await;
    let mut events = world.watch(&format!("{CRONTABS}?watch=1")).await;
    let made = world.ask(&format!("POST {CRONTABS}"), crontab("a", json!({ "cronSpec": EVERY }))).await.expect(201);
    assert_eq!(made["spec"], json!({ "cronSpec": EVERY, "image": "busybox", "replicas": 1 }));
    assert_eq!(made["metadata"]["generation"], 1);
    assert_eq!(events.next().await.unwrap(), json!({ "type": "ADDED", "object": made }));
    assert_eq!(world.ask(&format!("GET {CRONTABS}/a"), Value::Null).await.expect(200), made);
    assert_eq!(world.ask(&format!("PUT {CRONTABS}/a"), made.clone()).await.expect(200), made);
    let list = world.ask(&format!("GET {CRONTABS}"), Value::Null).await.expect(200);
    assert_eq!((&list["kind"], &list["items"]), (&json!("CronTabList"), &json!([made])));

    let patched =
        world.patch(&format!("{CRONTABS}/a"), "merge-patch", json!({ "spec": { "replicas": 3 } })).await.expect(200);
    assert_eq!((&patched["spec"]["replicas"], &patched["metadata"]["generation"]), (&json!(3), &json!(2)));
    assert_eq!(events.brief().await, "MODIFIED a");
    world.patch(&format!("{CRONTABS}/a"), "strategic-merge-patch", json!({})).await.expect(415);
    let mut unversioned = made.clone();
    unversioned["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let answer = world.ask(&format!("PUT {CRONTABS}/a"), unversioned).await;
    assert!(answer.code == 422 && message(&answer).contains("must be specified for an update"), "{}", answer.text);

    world.ask(&format!("DELETE {CRONTABS}/a?propagationPolicy=Background"), Value::Null).await.expect(200);
    assert_eq!(events.brief().await, "DELETED a");
    world.tasks.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_schema_does_not_admit_is_refused_in_upstreams_words() {
    let world = world().await;
    let wrong = [
        (json!({}), "spec.cronSpec: Required value"),
        (
            json!({ "cronSpec": "* *" }),
            "spec.cronSpec: Invalid value: \"* *\": spec.cronSpec in body should match '^(\\d+|\\*)(/\\d+)?(\\s+(\\d+|\\*)(/\\d+)?){4}$'",
        ),
        (
            json!({ "cronSpec": EVERY, "replicas": 15 }),
            "spec.replicas: Invalid value: 15: spec.replicas in body should be less than or equal to 10",
        ),
        (
            json!({ "cronSpec": EVERY, "replicas": "2" }),
            "spec.replicas: Invalid value: \"string\": spec.replicas in body must be of type integer: \"string\"",
        ),
        (
            json!({ "cronSpec": EVERY, "policy": "x" }),
            "spec.policy: Unsupported value: \"x\": supported values: \"Allow\", \"Forbid\"",
        ),
        (
            json!({ "cronSpec": EVERY, "port": true }),
            "spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\"",
        ),
        (json!({ "cronSpec": EVERY, "note": "sixsix" }), "spec.note: Too long: may not be more than 5 bytes"),
        (
            json!({ "cronSpec": EVERY, "labels": { "a": 1 } }),
            "spec.labels.a: Invalid value: \"integer\": spec.labels.a in body must be of type string: \"integer\"",
        ),
        (json!({ "cronSpec": EVERY, "ports": [{}] }), "spec.ports[0].name: Required value"),
        (
            json!({ "cronSpec": EVERY, "ports": [{ "name": "a" }, { "name": "a" }] }),
            "spec.ports[1]: Duplicate value: {\"name\":\"a\"}",
        ),
        (
            json!({ "cronSpec": EVERY, "ports": [{ "name": "a" }, { "name": "b" }, { "name": "c" }, { "name": "d" }] }),
            "spec.ports: Too many: 4: must have at most 3 items",
        ),
        (
            json!({ "cronSpec": EVERY, "ports": [{ "name": "a", "number": 3_000_000_000_u64 }] }),
            "spec.ports[0].number: Invalid value: \"3000000000\": spec.ports[0].number in body must be of type int32: \"3000000000\"",
        ),
        (
            json!({ "cronSpec": EVERY, "template": { "metadata": {} } }),
            "[spec.template.apiVersion: Required value: must not be empty, spec.template.kind: Required value: must not be empty]",
        ),
        (
            json!({ "cronSpec": EVERY, "either": {} }),
            "[<nil>: Invalid value: \"\": \"spec.either\" must validate one and only one schema (oneOf). Found none valid, spec.either.a: Required value]",
        ),
    ];
    for (spec, expected) in wrong {
        let answer = world.ask(&format!("POST {CRONTABS}"), crontab("a", spec.clone())).await;
        assert_eq!(answer.code, 422, "{spec} {}", answer.text);
        assert_eq!(message(&answer), format!("CronTab.stable.example.com \"a\" is invalid: {expected}"));
    }
    let bare = json!({ "apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": { "name": "a" } });
    assert!(message(&world.ask(&format!("POST {CRONTABS}"), bare).await).ends_with("spec: Required value"));
    let fine = json!({ "cronSpec": EVERY, "port": "http", "note": null, "image": null, "free": { "any": [1] }, "either": { "a": "" } });
    let made = world.ask(&format!("POST {CRONTABS}"), crontab("a", fine)).await.expect(201);
    assert_eq!((&made["spec"]["image"], &made["spec"]["note"]), (&json!("busybox"), &Value::Null));
    world.tasks.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn fields_that_nobody_specified_go_and_are_named_as_far_as_one_asks() {
    let world = world().await;
    let body = r#"{"kind":"CronTab","apiVersion":"stable.example.com/v1","metadata":{"name":"a","odd":1},
        "spec":{"cronSpec":"* * * * *","cronSpec":"* * * * */5","foo":1,"ports":[{"name":"a","bar":2}],
        "free":{"kept":{"deep":1}},"template":{"apiVersion":"v1","kind":"Pod","metadata":{"odd":2},"spec":{"x":1}}}}"#;
    let strict = world.send(admin(), &format!("POST {CRONTABS}?fieldValidation=Strict"), &[], body).await;
    assert_eq!(strict.code, 400);
    let expected = "CronTab in version \"v1\" cannot be handled as a CronTab: strict decoding error: \
        duplicate field \"spec.cronSpec\", unknown field \"metadata.odd\", unknown field \"spec.foo\", \
        unknown field \"spec.ports[0].bar\", unknown field \"spec.template.metadata.odd\"";
    assert_eq!(message(&strict), expected);
    let warned = world.send(admin(), &format!("POST {CRONTABS}"), &[], body).await;
    assert_eq!(warned.headers.get_all("warning").iter().count(), 5);
    let made = warned.expect(201);
    assert_eq!((&made["spec"]["foo"], &made["metadata"]["odd"]), (&Value::Null, &Value::Null));
    assert_eq!(made["spec"]["free"], json!({ "kept": { "deep": 1 } }));
    assert_eq!(made["spec"]["template"]["spec"], json!({ "x": 1 }));
    let patch = json!({ "spec": { "foo": 1 } });
    let path = format!("PATCH {CRONTABS}/a?fieldValidation=Strict");
    let answer =
        world.send(admin(), &path, &[("content-type", "application/merge-patch+json")], &patch.to_string()).await;
    assert!(answer.code == 422 && message(&answer).contains("unknown field \"spec.foo\""), "{}", answer.text);
    world.tasks.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn status_and_scale_are_subresources() {
    let world = world().await;
    let mut body = crontab("a", json!({ "cronSpec": EVERY, "replicas": 2 }));
    body["status"] = json!({ "replicas": 9 });
    let made = world.ask(&format!("POST {CRONTABS}"), body).await.expect(201);
    assert!(made["status"].is_null());
    let patch = json!({ "metadata": { "labels": { "a": "b" } }, "spec": { "replicas": 7 }, "status": { "replicas": 2, "selector": "a=b" } });
    let patched = world.patch(&format!("{CRONTABS}/a/status"), "merge-patch", patch).await.expect(200);
    assert_eq!((&patched["spec"]["replicas"], &patched["status"]["replicas"]), (&json!(2), &json!(2)));
    assert_eq!((&patched["metadata"]["labels"], &patched["metadata"]["generation"]), (&Value::Null, &json!(1)));

    let scale = world.ask(&format!("GET {CRONTABS}/a/scale"), Value::Null).await.expect(200);
    assert_eq!(
        (&scale["kind"], &scale["spec"], &scale["status"]),
        (&json!("Scale"), &json!({ "replicas": 2 }), &json!({ "replicas": 2, "selector": "a=b" }))
    );
    let scaled = world
        .patch(&format!("{CRONTABS}/a/scale"), "merge-patch", json!({ "spec": { "replicas": 5 } }))
        .await
        .expect(200);
    assert_eq!(scaled["spec"]["replicas"], 5);
    let answer =
        world.patch(&format!("{CRONTABS}/a/scale"), "merge-patch", json!({ "spec": { "replicas": 11 } })).await;
    assert!(answer.code == 422 && message(&answer).contains("less than or equal to 10"), "{}", answer.text);
    world.tasks.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn tables_have_the_columns_of_the_definition() {
    let world = world().await;
    world.ask(&format!("POST {CRONTABS}"), crontab("a", json!({ "cronSpec": EVERY }))).await.expect(201);
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let table = world.send(admin(), &format!("GET {CRONTABS}"), &[("accept", accept)], "").await.expect(200);
    let names: Vec<&str> =
        table["columnDefinitions"].as_array().unwrap().iter().filter_map(|c| c["name"].as_str()).collect();
    assert_eq!(names, ["Name", "Spec", "Replicas", "Age", "Image"]);
    assert_eq!(table["rows"][0]["cells"], json!(["a", EVERY, 1, "0s", "busybox"]));
    world.tasks.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn objects_are_selected_by_the_fields_of_the_definition() {
    let world = world().await;
    for (name, image) in [("a", "x"), ("b", "y")] {
        world
            .ask(&format!("POST {CRONTABS}"), crontab(name, json!({ "cronSpec": EVERY, "image": image })))
            .await
            .expect(201);
    }
    let mut events = world.watch(&format!("{CRONTABS}?watch=1&fieldSelector=spec.image%3Dx")).await;
    assert_eq!(events.brief().await, "ADDED a");
    let list = world.ask(&format!("GET {CRONTABS}?fieldSelector=spec.image%3Dy"), Value::Null).await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    world.patch(&format!("{CRONTABS}/b"), "merge-patch", json!({ "spec": { "image": "x" } })).await.expect(200);
    assert_eq!(events.brief().await, "ADDED b");
    let answer = world.ask(&format!("GET {CRONTABS}?fieldSelector=spec.cronSpec%3Dx"), Value::Null).await;
    assert_eq!((answer.code, message(&answer).as_str()), (400, "field label not supported: spec.cronSpec"));
    world.tasks.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_definition_goes_with_its_objects() {
    let world = world().await;
    for name in ["a", "b"] {
        let mut object = crontab(name, json!({ "cronSpec": EVERY }));
        if name == "b" {
            object["metadata"]["finalizers"] = json!(["example.com/wait"]);
        }
        world.ask(&format!("POST {CRONTABS}"), object).await.expect(201);
    }
    let mut events = world.watch(&format!("{CRONTABS}?watch=1")).await;
    assert_eq!((events.brief().await, events.brief().await), ("ADDED a".to_owned(), "ADDED b".to_owned()));
    let path = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let marked = world.ask(&format!("DELETE {path}"), Value::Null).await.expect(200);
    assert_eq!(marked["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    assert_eq!((events.brief().await, events.brief().await), ("DELETED a".to_owned(), "MODIFIED b".to_owned()));
    let answer = world.ask(&format!("POST {CRONTABS}"), crontab("c", json!({ "cronSpec": EVERY }))).await;
    assert_eq!(answer.code, 405);
    let mut definitions =
        world.watch(&format!("{DEFINITIONS}?watch=1&fieldSelector=metadata.name%3Dcrontabs.stable.example.com")).await;
    assert_eq!(definitions.brief().await, "ADDED crontabs.stable.example.com");
    world
        .patch(&format!("{CRONTABS}/b"), "merge-patch", json!({ "metadata": { "finalizers": null } }))
        .await
        .expect(200);
    while definitions.brief().await != "DELETED crontabs.stable.example.com" {}
    assert_eq!(world.ask(&format!("GET {CRONTABS}"), Value::Null).await.code, 404);
    assert_eq!(world.ask("GET /apis/stable.example.com", Value::Null).await.code, 404);
    world.tasks.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn several_versions_show_the_same_objects() {
    let world = World::new().await;
    let mut definition = crontabs();
    let mut old = definition["spec"]["versions"][0].clone();
    old["name"] = json!("v1beta1");
    old["storage"] = json!(false);
    old["deprecated"] = json!(true);
    old["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["old"] =
        json!({ "type": "string", "default": "o" });
    let mut hidden = old.clone();
    hidden["name"] = json!("v1alpha1");
    hidden["served"] = json!(false);
    definition["spec"]["versions"].as_array_mut().unwrap().insert(0, hidden);
    definition["spec"]["versions"].as_array_mut().unwrap().insert(0, old);
    let established = establish(&world, definition).await;
    assert_eq!(established["status"]["storedVersions"], json!(["v1"]));
    let group = world.ask("GET /apis/stable.example.com", Value::Null).await.expect(200);
    assert_eq!(group["preferredVersion"]["version"], "v1");
    assert_eq!(group["versions"].as_array().unwrap().len(), 2);

    let beta = CRONTABS.replace("/v1/", "/v1beta1/");
    let mut object = crontab("a", json!({ "cronSpec": EVERY }));
    object["apiVersion"] = json!("stable.example.com/v1beta1");
    let answer = world.ask(&format!("POST {beta}"), object).await;
    assert_eq!(answer.headers["warning"], "299 - \"stable.example.com/v1beta1 CronTab is deprecated\"");
    let made = answer.expect(201);
    assert_eq!(made["apiVersion"], "stable.example.com/v1beta1");
    let read = world.ask(&format!("GET {CRONTABS}/a"), Value::Null).await.expect(200);
    assert_eq!((&read["apiVersion"], &read["spec"]["old"]), (&json!("stable.example.com/v1"), &Value::Null));
    let list = world.ask(&format!("GET {beta}"), Value::Null).await.expect(200);
    assert_eq!(list["items"][0]["apiVersion"], "stable.example.com/v1beta1");
    assert_eq!(world.ask(&format!("GET {}", CRONTABS.replace("/v1/", "/v1alpha1/")), Value::Null).await.code, 404);
    world.tasks.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn defaults_that_come_later_are_filled_in_when_objects_are_read() {
    let world = world().await;
    world.ask(&format!("POST {CRONTABS}"), crontab("a", json!({ "cronSpec": EVERY }))).await.expect(201);
    let change = json!([{ "op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/later",
        "value": { "type": "string", "default": "now" } }]);
    world.patch(&format!("{DEFINITIONS}/crontabs.stable.example.com"), "json-patch", change).await.expect(200);
    assert_eq!(world.ask(&format!("GET {CRONTABS}/a"), Value::Null).await.expect(200)["spec"]["later"], "now");
    assert_eq!(
        world.ask(&format!("GET {CRONTABS}"), Value::Null).await.expect(200)["items"][0]["spec"]["later"],
        "now"
    );
    let mut events = world.watch(&format!("{CRONTABS}?watch=1")).await;
    assert_eq!(events.next().await.unwrap()["object"]["spec"]["later"], "now");
    world.tasks.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_valid_when_it_was_written_may_stay() {
    let world = world().await;
    world.ask(&format!("POST {CRONTABS}"), crontab("a", json!({ "cronSpec": EVERY, "replicas": 9 }))).await.expect(201);
    let change = json!([{ "op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/replicas/maximum", "value": 5 }]);
    world.patch(&format!("{DEFINITIONS}/crontabs.stable.example.com"), "json-patch", change).await.expect(200);
    world.patch(&format!("{CRONTABS}/a"), "merge-patch", json!({ "spec": { "image": "x" } })).await.expect(200);
    let answer = world.patch(&format!("{CRONTABS}/a"), "merge-patch", json!({ "spec": { "replicas": 8 } })).await;
    assert_eq!(answer.code, 422, "{}", answer.text);
    world.tasks.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn rules_of_the_schema_are_kept() {
    let world = World::new().await;
    let mut definition = crontabs();
    let spec = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    spec["x-kubernetes-validations"] = json!([
        { "rule": "self.replicas < 5 || self.image != 'busybox'", "message": "too many for busybox", "fieldPath": ".replicas" },
        { "rule": "!has(self.policy) || self.policy != 'Forbid'", "messageExpression": "'policy ' + self.policy + ' is not for us'", "reason": "FieldValueForbidden" },
        { "rule": "self.cronSpec == oldSelf.cronSpec" },
    ]);
    spec["properties"]["note"]["x-kubernetes-validations"] = json!([{ "rule": "self.startsWith('n')" }]);
    establish(&world, definition).await;
    for (spec, expected) in [
        (json!({ "cronSpec": EVERY, "replicas": 6 }), "spec.replicas: Invalid value: \"object\": too many for busybox"),
        (json!({ "cronSpec": EVERY, "policy": "Forbid" }), "spec: Forbidden: policy Forbid is not for us"),
        (
            json!({ "cronSpec": EVERY, "note": "x" }),
            "spec.note: Invalid value: \"string\": failed rule: self.startsWith('n')",
        ),
    ] {
        let answer = world.ask(&format!("POST {CRONTABS}"), crontab("a", spec)).await;
        assert_eq!(answer.code, 422, "{}", answer.text);
        assert_eq!(message(&answer), format!("CronTab.stable.example.com \"a\" is invalid: {expected}"));
    }
    world.ask(&format!("POST {CRONTABS}"), crontab("a", json!({ "cronSpec": EVERY }))).await.expect(201);
    let answer =
        world.patch(&format!("{CRONTABS}/a"), "merge-patch", json!({ "spec": { "cronSpec": "1 * * * *" } })).await;
    assert!(message(&answer).ends_with("failed rule: self.cronSpec == oldSelf.cronSpec"), "{}", answer.text);
    world.patch(&format!("{CRONTABS}/a"), "merge-patch", json!({ "spec": { "replicas": 2 } })).await.expect(200);
    world.tasks.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn definitions_that_make_no_sense_are_refused_with_the_place() {
    let world = World::new().await;
    let check = async |place: &str, value: Value| {
        let mut definition = crontabs();
        *definition.pointer_mut(place).unwrap() = value;
        let answer = world.ask(&format!("POST {DEFINITIONS}"), definition).await;
        assert_eq!(answer.code, 422, "{place} {}", answer.text);
        let text = message(&answer);
        text.split_once(" is invalid: ").unwrap().1.to_owned()
    };
    let root = "/spec/versions/0/schema/openAPIV3Schema";
    let spec = format!("{root}/properties/spec");
    let at = "spec.validation.openAPIV3Schema.properties[spec]";
    let cases = [
        ("/metadata/name".to_owned(), json!("x"), "metadata.name: Invalid value: \"x\": must be spec.names.plural+\".\"+spec.group".to_owned()),
        ("/spec/scope".to_owned(), json!("Global"), "spec.scope: Unsupported value: \"Global\": supported values: \"Cluster\", \"Namespaced\"".to_owned()),
        ("/spec/names/kind".to_owned(), json!("Cron_Tab"), "spec.names.kind: Invalid value: \"Cron_Tab\": may have mixed case".to_owned()),
        (root.to_owned(), Value::Null, "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required".to_owned()),
        ("/spec/versions/0/storage".to_owned(), json!(false), "spec.versions: Invalid value".to_owned()),
        (format!("{spec}/type"), json!(""), format!("{at}.type: Required value: must not be empty for specified object fields")),
        (format!("{spec}/properties/image"), json!({ "type": "array" }), format!("{at}.properties[image].items: Required value: must be specified")),
        (format!("{spec}/properties/image"), json!({ "type": "string", "default": 1 }), format!("{at}.properties[image].default: Invalid value: \"integer\": {at}.properties[image].default in body must be of type string: \"integer\"")),
        (format!("{spec}/properties/image"), json!({ "type": "string", "pattern": "(" }), format!("{at}.properties[image].pattern: Invalid value: \"(\": must be a valid regular expression, but isn't")),
        (format!("{spec}/properties/image"), json!({ "type": "string", "uniqueItems": true }), format!("{at}.properties[image].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic")),
        (format!("{spec}/properties/image"), json!({ "type": "string", "x-kubernetes-validations": [{ "rule": "self.nope()" }] }), format!("{at}.properties[image].x-kubernetes-validations[0].rule: Invalid value: \"self.nope()\": compilation failed: undeclared reference to 'nope'")),
        (format!("{spec}/properties/either/oneOf"), json!([{ "type": "object" }]), format!("{at}.properties[either].oneOf[0].type: Forbidden: must be empty to be structural")),
        ("/spec/versions/0/subresources/scale/specReplicasPath".to_owned(), json!(".status.x"), "spec.subresources.scale.specReplicasPath: Invalid value: \".status.x\": should be a json path under .spec".to_owned()),
        ("/spec/versions/0/additionalPrinterColumns/0/type".to_owned(), json!("x"), "spec.additionalPrinterColumns[0].type: Invalid value: \"x\": must be one of boolean,date,integer,number,string".to_owned()),
        ("/spec/versions/0/selectableFields/0/jsonPath".to_owned(), json!(".spec.free"), "spec.selectableFields[0].jsonPath: Invalid value: \".spec.free\": must point to a field of type string".to_owned()),
    ];
    for (place, value, expected) in cases {
        let text = check(&place, value).await;
        assert!(text.trim_start_matches('[').starts_with(&expected), "{place}: {text}");
    }
    let mut odd = crontabs();
    odd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["propertys"] = json!({});
    let answer = world.ask(&format!("POST {DEFINITIONS}?fieldValidation=Strict"), odd).await;
    assert!(
        message(&answer).contains("unknown field \"spec.versions[0].schema.openAPIV3Schema.propertys\""),
        "{}",
        answer.text
    );
    world.tasks.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn conversions_that_make_no_sense_are_refused_with_the_place() {
    let world = World::new().await;
    let client = json!({ "url": "http://x" });
    let webhooks = [
        (
            json!({ "strategy": "Webhook" }),
            "[spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook, \
             spec.conversion.conversionReviewVersions: Required value]",
        ),
        (
            json!({ "strategy": "Webhook", "webhook": { "clientConfig": {}, "conversionReviewVersions": ["v2"] } }),
            "[spec.conversion.webhookClientConfig: Required value: exactly one of url or service is required, \
             spec.conversion.conversionReviewVersions: Invalid value: [\"v2\"]: must include at least one of v1, v1beta1]",
        ),
        (
            json!({ "strategy": "Webhook", "webhook": { "clientConfig": client, "conversionReviewVersions": ["v1"] } }),
            "spec.conversion.webhookClientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; \
             desired format: https://host[/path]",
        ),
        (
            json!({ "strategy": "None", "webhook": { "clientConfig": client, "conversionReviewVersions": ["v1"] } }),
            "[spec.conversion.webhookClientConfig: Forbidden: should not be set when strategy is not set to Webhook, \
             spec.conversion.conversionReviewVersions: Forbidden: should not be set when strategy is not set to Webhook]",
        ),
    ];
    for (conversion, expected) in webhooks {
        let mut definition = crontabs();
        definition["spec"]["conversion"] = conversion;
        let answer = world.ask(&format!("POST {DEFINITIONS}"), definition).await;
        assert!(message(&answer).ends_with(&format!(" is invalid: {expected}")), "{}", answer.text);
    }
    world.tasks.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn configurations_merge_as_the_schema_says() {
    let world = world().await;
    let apply = async |manager: &str, spec: Value| {
        let line = format!("PATCH {CRONTABS}/a?fieldManager={manager}");
        let body = crontab("a", spec).to_string();
        world.send(admin(), &line, &[("content-type", "application/apply-patch+yaml")], &body).await
    };
    apply("one", json!({ "cronSpec": EVERY, "ports": [{ "name": "a", "number": 1 }] })).await.expect(201);
    let merged = apply("two", json!({ "ports": [{ "name": "b", "number": 2 }] })).await.expect(200);
    assert_eq!(merged["spec"]["ports"], json!([{ "name": "a", "number": 1 }, { "name": "b", "number": 2 }]));
    let conflict = apply("two", json!({ "ports": [{ "name": "a", "number": 3 }] })).await.expect(409);
    assert!(conflict["message"].as_str().unwrap().contains(".spec.ports[name=\"a\"].number"), "{conflict}");
    let odd = apply("two", json!({ "odd": 1 })).await;
    assert!(odd.code >= 400 && message(&odd).contains(".spec.odd: field not declared in schema"), "{}", odd.text);
    world.tasks.shutdown().await;
}
