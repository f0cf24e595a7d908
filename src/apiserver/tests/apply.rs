//! Server-side apply and managed fields through the verbs.

use api::resources::{self, Verb};
use api::user::UserInfo;
use serde_json::{Value, json};

use super::custom;
use super::rows::{collection, is_definition};
use super::samples::{sample, sample_of};
use super::world::{Answer, World, admin};

const CONFIG: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

impl World {
    /// Applies a configuration, which may be YAML.
    async fn apply(&self, path: &str, manager: &str, text: &str) -> Answer {
        let join = if path.contains('?') { '&' } else { '?' };
        let line = format!("PATCH {path}{join}fieldManager={manager}");
        self.send(admin(), &line, &[("content-type", "application/apply-patch+yaml")], text).await
    }
}

fn config(data: Value) -> String {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data}).to_string()
}

/// Each manager as `name operation subresource: fields`.
fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().unwrap_or_else(|| panic!("no managers: {object}"));
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or("-").to_owned();
    let shown = entries.iter().map(|entry| {
        let [manager, operation, subresource] = ["manager", "operation", "subresource"].map(|field| text(entry, field));
        assert_eq!((&entry["fieldsType"], entry["time"].is_string()), (&json!("FieldsV1"), true));
        format!("{manager} {operation} {subresource}: {}", entry["fieldsV1"])
    });
    shown.collect()
}

#[tokio::test(start_paused = true)]
async fn every_kind_is_created_and_changed_by_configurations() {
    let kinds = resources::all().iter().copied().filter(|row| row.verbs.contains(&Verb::Patch) && !is_definition(row));
    for row in kinds {
        let world = World::new().await;
        let (mut body, name) = sample_of(row);
        let path = format!("{}/{name}", collection(row, "default"));
        (body["kind"], body["apiVersion"]) = (json!(row.kind), json!(row.api_version()));
        body["metadata"]["labels"] = json!({"one": "1"});
        let made = world.apply(&path, "one", &body.to_string()).await.expect(201);
        let again = world.apply(&path, "one", &body.to_string()).await.expect(200);
        assert_eq!(again, made, "{} is not settled", row.plural);
        body["metadata"]["labels"] = json!({"two": "2"});
        // Forced, because an atomic list of the first configuration may have got defaults within.
        let labelled = world.apply(&format!("{path}?force=true"), "two", &body.to_string()).await.expect(200);
        assert!(managers(&labelled).iter().any(|one| one.starts_with("two Apply")), "{}", row.plural);
        body["metadata"]["labels"] = json!({"two": "3"});
        world.apply(&path, "one", &body.to_string()).await.expect(409);
        if row.has_status {
            let status = json!({"kind": row.kind, "apiVersion": row.api_version(), "metadata": {"name": name}});
            world.apply(&format!("{path}/status"), "three", &status.to_string()).await.expect(200);
            assert!(world.ask(&format!("GET {path}"), Value::Null).await.expect(200) == labelled, "{}", row.plural);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn options_and_bodies_of_configurations_are_checked() {
    let world = World::new().await;
    let path = format!("{CONFIG}/c");
    let apply = [("content-type", "application/apply-patch+yaml")];
    let nobody = world.send(admin(), &format!("PATCH {path}"), &apply, &config(json!({}))).await.expect(422);
    let wanted = "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
    assert_eq!(nobody["message"], wanted);
    let cases = [
        ("x", config(json!({})).replace("\"c\"", "\"d\""), 400, "the name of the object (d) does not match"),
        ("x", config(json!({})).replace("ConfigMap", "Secret"), 400, "invalid object type: /v1, Kind=Secret"),
        ("x", "a: [".to_owned(), 400, "error decoding YAML: "),
        ("x", "kind: ConfigMap".to_owned(), 400, "invalid object type: /, Kind=ConfigMap"),
        ("x", config(json!({"a": 1})), 400, "failed to create typed patch object (default/c; v1, Kind=ConfigMap): "),
        (
            "x",
            config(json!({})).replace("\"name\"", "\"managedFields\":[],\"name\""),
            400,
            "metadata.managedFields must be nil",
        ),
        (
            "x",
            config(json!({})).replace("\"name\"", "\"uid\":\"7\",\"name\""),
            409,
            "uid mismatch: the provided object specified uid 7",
        ),
        (
            "x",
            config(json!({})).replace("\"name\"", "\"namespace\":\"n\",\"name\""),
            400,
            "the namespace of the provided object",
        ),
        ("x%09y", config(json!({})), 422, "invalid character U+0009 (at position 1)"),
    ];
    for (manager, text, code, words) in cases {
        let error = world.apply(&path, manager, &text).await.expect(code);
        assert!(error["message"].as_str().unwrap().contains(words), "{text}: {error}");
    }
    for kind in ["apply-patch+cbor", "apply-patch+json"] {
        let content = format!("application/{kind}");
        let refused =
            world.send(admin(), &format!("PATCH {path}?fieldManager=x"), &[("content-type", &content)], "").await;
        assert!(refused.expect(415)["message"].as_str().unwrap().contains("application/apply-patch+yaml"));
    }
    let forced = world.patch(&format!("{path}?force=true"), "merge-patch", json!({})).await.expect(422);
    assert!(forced["message"].as_str().unwrap().contains("force: Forbidden: may not be specified for non-apply patch"));
    let long = format!("POST {CONFIG}?fieldManager={}", "x".repeat(129));
    let refused = world.ask(&long, sample("ConfigMap", "c")).await.expect(422);
    assert!(refused["message"].as_str().unwrap().contains("fieldManager: Too long: may not be more than 128 bytes"));
    world.apply(&format!("{CONFIG}/c/status"), "x", &config(json!({}))).await;
    assert_eq!(world.ask(&format!("GET {path}"), Value::Null).await.code, 404, "nothing of this was stored");
}

#[tokio::test(start_paused = true)]
async fn conflicts_name_fields_and_managers_and_force_ends_them() {
    let world = World::new().await;
    let path = format!("{CONFIG}/c");
    world
        .apply(&path, "one", "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {a: '1'}}")
        .await
        .expect(201);
    let update = json!({"data": {"b": "1"}});
    world.patch(&format!("{path}?fieldManager=editor"), "merge-patch", update).await.expect(200);
    let escaped =
        r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"e": "\ud83d\ude00"}}"#;
    let escaped = world.apply(&format!("{path}?dryRun=All"), "python", escaped).await.expect(200);
    assert_eq!(escaped["data"]["e"], "\u{1f600}");
    let nameless = "{apiVersion: v1, kind: ConfigMap, data: {f: '1'}}";
    world.apply(&format!("{path}?dryRun=All"), "one", nameless).await.expect(200);
    let refused = world.apply(&format!("{CONFIG}/d"), "one", nameless).await.expect(400);
    let told = "the name of the object (d based on URL) was undeterminable: name must be provided";
    assert_eq!(refused["message"], told);
    let conflict = world.apply(&path, "two", &config(json!({"a": "2", "b": "2"}))).await.expect(409);
    let wanted = "Apply failed with 2 conflicts: conflicts with \"editor\" using v1:\n- .data.b\nconflicts with \"one\":\n- .data.a";
    assert_eq!((&conflict["reason"], &conflict["message"]), (&json!("Conflict"), &json!(wanted)));
    let cause = json!({"reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".data.a"});
    assert_eq!(conflict["details"]["causes"][1], cause);
    let dry = world.apply(&format!("{path}?force=true&dryRun=All"), "two", &config(json!({"a": "2", "b": "2"}))).await;
    assert_eq!(dry.expect(200)["data"], json!({"a": "2", "b": "2"}));
    assert_eq!(world.ask(&format!("GET {path}"), Value::Null).await.expect(200)["data"], json!({"a": "1", "b": "1"}));
    let forced =
        world.apply(&format!("{path}?force=true"), "two", &config(json!({"a": "2", "b": "2"}))).await.expect(200);
    assert_eq!(managers(&forced), [r#"two Apply -: {"f:data":{"f:a":{},"f:b":{}}}"#]);
    let stale = config(json!({"a": "3"})).replace("\"name\"", "\"resourceVersion\":\"1\",\"name\"");
    let stale = world.apply(&path, "two", &stale).await.expect(409);
    assert!(stale["message"].as_str().unwrap().contains("the object has been modified"), "{stale}");
}

#[tokio::test(start_paused = true)]
async fn duplicate_keys_of_configurations_are_refused_told_or_ignored() {
    let world = World::new().await;
    let path = format!("{CONFIG}/c");
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\ndata:\n  a: '1'\n  b: '1'\n  a: '2'\n";
    let strict = world.apply(&format!("{path}?fieldValidation=Strict"), "x", text).await.expect(400);
    let wanted = "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  line 8: key \"a\" already set in map";
    assert_eq!(strict["message"], wanted);
    let ignored = world.apply(&format!("{path}?fieldValidation=Ignore&dryRun=All"), "x", text).await;
    ignored.expect(201);
    assert!(ignored.headers.get("warning").is_none());
    let told = world.apply(&path, "x", text).await;
    assert_eq!(told.expect(201)["data"], json!({"a": "2", "b": "1"}));
    let warning = told.headers["warning"].to_str().unwrap();
    assert!(warning.contains("line 8: key") && warning.contains("already set in map"), "{warning}");
}

#[tokio::test(start_paused = true)]
async fn who_writes_is_the_manager_that_it_names_or_its_program() {
    let world = World::new().await;
    let agent = [("user-agent", "my\u{7f}tool/v1.2 (linux) x")];
    let agent = [(agent[0].0, agent[0].1.replace('\u{7f}', ""))];
    let headers = [(agent[0].0, agent[0].1.as_str())];
    let made = world.send(admin(), &format!("POST {CONFIG}"), &headers, &config(json!({"a": "1"}))).await.expect(201);
    assert_eq!(managers(&made), [r#"mytool Update -: {"f:data":{".":{},"f:a":{}}}"#]);
    let put = world
        .send(admin(), &format!("PUT {CONFIG}/c?fieldManager=named"), &headers, &config(json!({"a": "1", "b": "2"})))
        .await;
    let put = put.expect(200);
    assert_eq!(managers(&put)[1], r#"named Update -: {"f:data":{"f:b":{}}}"#);
    let same = world
        .send(admin(), &format!("PUT {CONFIG}/c?fieldManager=third"), &headers, &config(json!({"a": "1", "b": "2"})))
        .await;
    assert_eq!(same.expect(200), put, "what changes nothing is no write");
}

#[tokio::test(start_paused = true)]
async fn writes_that_change_nothing_but_their_time_are_none() {
    let world = World::new().await;
    let path = format!("{CONFIG}/c");
    let made = world.apply(&path, "one", &config(json!({"a": "1"}))).await.expect(201);
    tokio::time::advance(std::time::Duration::from_secs(60)).await;
    assert_eq!(world.apply(&path, "one", &config(json!({"a": "1"}))).await.expect(200), made);
    let joined = world.apply(&path, "two", &config(json!({"a": "1"}))).await.expect(200);
    assert_ne!(joined["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"], "somebody manages more");
}

#[tokio::test(start_paused = true)]
async fn status_and_scale_are_managed_apart() {
    let world = World::new().await;
    let mut body = sample("Deployment", "d");
    body["spec"]["replicas"] = json!(1);
    body["status"] = json!({"replicas": 7});
    let made = world.ask(&format!("POST {DEPLOYMENTS}?fieldManager=maker"), body).await.expect(201);
    assert!(managers(&made)[0].starts_with("maker Update -: ") && !managers(&made)[0].contains("f:status"), "{made}");
    let path = format!("{DEPLOYMENTS}/d");
    let status = json!({"status": {"replicas": 1}, "spec": {"replicas": 9}});
    world.patch(&format!("{path}/status?fieldManager=controller"), "merge-patch", status).await.expect(200);
    let scale = json!({"spec": {"replicas": 2}});
    let scale = world.patch(&format!("{path}/scale?fieldManager=scaler"), "merge-patch", scale).await.expect(200);
    assert_eq!((&scale["spec"]["replicas"], &scale["metadata"]["managedFields"]), (&json!(2), &Value::Null));
    let found = world.ask(&format!("GET {path}"), Value::Null).await.expect(200);
    let all = managers(&found);
    assert!(all.contains(&r#"controller Update status: {"f:status":{"f:replicas":{}}}"#.to_owned()), "{all:?}");
    assert!(all.contains(&r#"scaler Update scale: {"f:spec":{"f:replicas":{}}}"#.to_owned()), "{all:?}");
    assert!(all.iter().any(|one| one.starts_with("maker") && !one.contains("f:replicas")), "{all:?}");
    let wanted =
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": 3}});
    let conflict = world.apply(&format!("{path}/scale"), "gitops", &wanted.to_string()).await.expect(409);
    let words = "conflict with \"scaler\" with subresource \"scale\" using autoscaling/v1: .spec.replicas";
    assert!(conflict["message"].as_str().unwrap().contains(words), "{conflict}");
    world.apply(&format!("{path}/scale?force=true"), "gitops", &wanted.to_string()).await.expect(200);
    let all = managers(&world.ask(&format!("GET {path}"), Value::Null).await.expect(200));
    assert!(all.contains(&r#"gitops Apply scale: {"f:spec":{"f:replicas":{}}}"#.to_owned()), "{all:?}");
    assert!(all.iter().all(|one| !one.starts_with("scaler")), "{all:?}");
    world
        .apply(&format!("{DEPLOYMENTS}/absent/scale"), "x", &wanted.to_string().replace("\"d\"", "\"absent\""))
        .await
        .expect(404);
}

#[tokio::test(start_paused = true)]
async fn managed_fields_can_be_emptied_but_not_forgotten() {
    let world = World::new().await;
    let path = format!("{CONFIG}/c");
    let made = world.apply(&path, "one", &config(json!({"a": "1"}))).await.expect(201);
    let put =
        world.ask(&format!("PUT {path}"), serde_json::from_str(&config(json!({"a": "1"}))).unwrap()).await.expect(200);
    assert_eq!(put, made, "a client that knows nothing of managers leaves them alone");
    for emptied in [json!([]), json!([{}])] {
        world.patch(&path, "merge-patch", json!({"metadata": {"managedFields": emptied}})).await.expect(200);
        let found = world.ask(&format!("GET {path}"), Value::Null).await.expect(200);
        assert_eq!(found["metadata"]["managedFields"], Value::Null);
        let again = world.apply(&path, "one", &config(json!({"a": "1"}))).await.expect(200);
        assert_eq!(managers(&again).len(), 2, "{again}");
        assert!(managers(&again)[1].starts_with("before-first-apply Update"), "{again}");
    }
    world.patch(&format!("{path}/status"), "merge-patch", json!({"metadata": {"managedFields": []}})).await;
}

#[tokio::test(start_paused = true)]
async fn who_may_patch_but_not_create_creates_nothing_by_applying() {
    let world = World::new().await;
    let role = json!({"metadata": {"name": "patcher"}, "rules": [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch"]}]});
    world.ask("POST /apis/rbac.authorization.k8s.io/v1/clusterroles", role).await.expect(201);
    let binding = json!({"metadata": {"name": "patcher"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "patcher"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "pat"}]});
    world.ask("POST /apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await.expect(201);
    let line = format!("PATCH {CONFIG}/c?fieldManager=x");
    let apply = [("content-type", "application/apply-patch+yaml")];
    let pat = || UserInfo::authenticated("pat", &[]);
    let refused = world.send(pat(), &line, &apply, &config(json!({"a": "1"}))).await.expect(403);
    assert!(refused["message"].as_str().unwrap().contains("cannot create resource \"configmaps\""), "{refused}");
    world.apply(&format!("{CONFIG}/c"), "one", &config(json!({"b": "1"}))).await.expect(201);
    world.send(pat(), &line, &apply, &config(json!({"a": "1"}))).await.expect(200);
}

#[tokio::test(start_paused = true)]
async fn configurations_applied_at_once_all_arrive() {
    let world = World::new().await;
    let path = format!("{CONFIG}/c");
    let applied = (0..8).map(|number| {
        let (world, path) = (&world, &path);
        async move {
            let text = config(json!({format!("k{number}"): "1"}));
            world.apply(path, &format!("m{number}"), &text).await.code
        }
    });
    let codes = futures_util::future::join_all(applied).await;
    assert!(codes.iter().all(|code| matches!(code, 200 | 201)), "{codes:?}");
    let found = world.ask(&format!("GET {path}"), Value::Null).await.expect(200);
    assert_eq!((found["data"].as_object().unwrap().len(), managers(&found).len()), (8, 8));
}

#[tokio::test(start_paused = true)]
async fn custom_resources_merge_as_their_schema_says() {
    let world = custom::world().await;
    let path = "/apis/stable.example.com/v1/namespaces/default/crontabs/a";
    let crontab = |spec: Value| {
        let mut spec = spec;
        spec["cronSpec"] = json!("* * * * */5");
        custom::crontab("a", spec).to_string()
    };
    let first = crontab(json!({"ports": [{"name": "a", "number": 1}], "labels": {"x": "1"}, "free": {"k": {"l": 1}}}));
    world.apply(path, "one", &first).await.expect(201);
    let second = crontab(json!({"ports": [{"name": "b", "number": 2}], "labels": {"y": "1"}, "free": {"k": {"m": 1}}}));
    let both = world.apply(path, "two", &second).await.expect(200);
    assert_eq!(both["spec"]["ports"], json!([{"name": "a", "number": 1}, {"name": "b", "number": 2}]));
    assert_eq!(both["spec"]["free"], json!({"k": {"l": 1, "m": 1}}));
    let wanted = r#"two Apply -: {"f:spec":{"f:cronSpec":{},"f:free":{"f:k":{".":{},"f:m":{}}},"f:labels":{"f:y":{}},"f:ports":{"k:{\"name\":\"b\"}":{".":{},"f:name":{},"f:number":{}}}}}"#;
    assert!(managers(&both).iter().any(|one| one == wanted), "{:?}", managers(&both));
    let less = world.apply(path, "one", &crontab(json!({}))).await.expect(200);
    assert_eq!(less["spec"]["ports"], json!([{"name": "b", "number": 2}]));
    assert_eq!((&less["spec"]["labels"], &less["spec"]["free"]), (&json!({"y": "1"}), &json!({"k": {"m": 1}})));
    let conflict =
        world.apply(path, "three", &crontab(json!({"ports": [{"name": "b", "number": 3}]}))).await.expect(409);
    assert!(conflict["message"].as_str().unwrap().ends_with("conflict with \"two\": .spec.ports[name=\"b\"].number"));
    let cases = [
        (json!({"foo": 1}), ".spec.foo: field not declared in schema"),
        (
            json!({"ports": [{"number": 1}]}),
            ".spec.ports: element 0: associative list with keys has an element that omits key field \"name\"",
        ),
        (json!({"ports": [{"name": "a"}, {"name": "a"}]}), ".spec.ports: duplicate entries for key [name=\"a\"]"),
        (json!({"template": {"metadata": {"odd": 1}}}), ".spec.template.metadata.odd: field not declared in schema"),
    ];
    for (spec, words) in cases {
        let error = world.apply(path, "one", &crontab(spec)).await.expect(400);
        assert!(error["message"].as_str().unwrap().contains(words), "{error}");
    }
    let odd = crontab(json!({})).replace("\"name\":\"a\"", "\"name\":\"a\",\"odd\":1");
    let odd = world.apply(path, "one", &odd).await.expect(400);
    assert!(odd["message"].as_str().unwrap().contains(".metadata.odd: field not declared in schema"), "{odd}");
    world.apply(&format!("{path}?force=true"), "three", &crontab(json!({"replicas": 2}))).await.expect(200);
    world.tasks.shutdown().await;
}
