//! What the verbs do, case by case.

use serde_json::{Value, json};

use super::world::{World, admin, node, sample};

const CONFIG: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn at<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{pointer} in {object}"))
}

async fn bound_pod(world: &World, name: &str) -> Value {
    world.ask(&format!("POST {PODS}"), sample("Pod", name)).await.expect(201);
    let binding = json!({ "metadata": { "name": name }, "target": { "kind": "Node", "name": "n1" } });
    world.ask(&format!("POST {PODS}/{name}/binding"), binding).await.expect(201);
    world.ask(&format!("GET {PODS}/{name}"), Value::Null).await.expect(200)
}

#[tokio::test(start_paused = true)]
async fn create_sets_what_the_server_knows_and_refuses_a_second_one() {
    let world = World::new().await;
    let made = world.ask(&format!("POST {CONFIG}"), json!({ "metadata": { "name": "c" }, "data": { "a": "b" } })).await;
    let made = made.expect(201);
    assert_eq!(at(&made, "/metadata/creationTimestamp"), "2026-01-02T03:04:05Z");
    assert_eq!(at(&made, "/metadata/namespace"), "default");
    assert_eq!(at(&made, "/metadata/uid").len(), 36);
    assert_eq!((at(&made, "/kind"), at(&made, "/apiVersion")), ("ConfigMap", "v1"));
    let again = world.ask(&format!("POST {CONFIG}"), sample("ConfigMap", "c")).await.expect(409);
    assert_eq!(at(&again, "/message"), "configmaps \"c\" already exists");
    let got = world.ask(&format!("GET {CONFIG}/c"), Value::Null).await.expect(200);
    assert_eq!(got, made);
}

#[tokio::test(start_paused = true)]
async fn create_checks_namespace_name_and_version() {
    let world = World::new().await;
    let cases = [
        ("/api/v1/namespaces/none/configmaps", sample("", "c"), 404, "namespaces \"none\" not found"),
        (CONFIG, json!({ "metadata": { "name": "c", "namespace": "x" } }), 400, "the namespace of the provided object"),
        (CONFIG, json!({ "metadata": { "name": "c", "resourceVersion": "4" } }), 400, "resourceVersion should not"),
        (CONFIG, json!({}), 422, "name or generateName is required"),
        (CONFIG, json!({ "kind": "Secret" }), 400, "cannot be handled as a ConfigMap"),
        (CONFIG, json!([]), 400, ""),
        ("/api/v1/configmaps", sample("", "c"), 405, "does not allow this method"),
        ("/api/v1/namespaces/default/configmaps/c", sample("", "c"), 405, "does not allow this method"),
    ];
    for (path, body, code, words) in cases {
        let error = world.ask(&format!("POST {path}"), body.clone()).await.expect(code);
        assert!(at(&error, "/message").contains(words), "{path} {body}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_waits_for_the_default_account_and_for_no_other() {
    let world = World::new().await;
    let accounts = "/api/v1/namespaces/kube-public/serviceaccounts";
    let pods = "/api/v1/namespaces/kube-public/pods";
    let later = async {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let account = json!({ "metadata": { "name": "default" }, "imagePullSecrets": [{ "name": "registry" }] });
        world.ask(&format!("POST {accounts}"), account).await.expect(201);
    };
    let create = async { world.ask(&format!("POST {pods}"), sample("Pod", "p")).await.expect(201) };
    let ((), pod) = tokio::join!(later, create);
    assert_eq!(at(&pod, "/spec/serviceAccountName"), "default");
    assert_eq!(at(&pod, "/spec/imagePullSecrets/0/name"), "registry");
    let mut other = sample("Pod", "q");
    other["spec"]["serviceAccountName"] = json!("robot");
    let error = world.ask(&format!("POST {pods}"), other).await.expect(403);
    let wanted = "pods \"q\" is forbidden: error looking up service account kube-public/robot: serviceaccount \
                  \"robot\" not found";
    assert_eq!(at(&error, "/message"), wanted);
}

#[tokio::test(start_paused = true)]
async fn names_are_generated() {
    let world = World::new().await;
    let body = json!({ "metadata": { "generateName": "web-" } });
    let (one, two) =
        (world.ask(&format!("POST {CONFIG}"), body.clone()).await, world.ask(&format!("POST {CONFIG}"), body).await);
    let (one, two) = (one.expect(201), two.expect(201));
    assert!(at(&one, "/metadata/name").starts_with("web-") && at(&one, "/metadata/name").len() == 9);
    assert_ne!(one["metadata"]["name"], two["metadata"]["name"]);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_leaves_no_trace() {
    let world = World::new().await;
    world.ask(&format!("POST {CONFIG}?dryRun=All"), sample("", "c")).await.expect(201);
    world.ask(&format!("GET {CONFIG}/c"), Value::Null).await.expect(404);
    let kept = world.ask(&format!("POST {CONFIG}"), sample("", "c")).await.expect(201);
    world.ask(&format!("POST {CONFIG}?dryRun=All"), sample("", "c")).await.expect(409);
    let mut changed = kept.clone();
    changed["data"] = json!({ "a": "b" });
    let shown = world.ask(&format!("PUT {CONFIG}/c?dryRun=All"), changed).await.expect(200);
    assert_eq!(at(&shown, "/data/a"), "b");
    world.ask(&format!("DELETE {CONFIG}/c?dryRun=All"), Value::Null).await.expect(200);
    assert_eq!(world.ask(&format!("GET {CONFIG}/c"), Value::Null).await.expect(200), kept);
    world.ask(&format!("POST {CONFIG}?dryRun=Some"), sample("", "d")).await.expect(422);
}

#[tokio::test(start_paused = true)]
async fn an_update_of_a_stale_version_conflicts_and_one_without_version_does_not() {
    let world = World::new().await;
    let first = world.ask(&format!("POST {CONFIG}"), sample("", "c")).await.expect(201);
    let mut second = first.clone();
    second["data"] = json!({ "a": "1" });
    let second = world.ask(&format!("PUT {CONFIG}/c"), second).await.expect(200);
    assert_ne!(first["metadata"]["resourceVersion"], second["metadata"]["resourceVersion"]);
    let error = world.ask(&format!("PUT {CONFIG}/c"), first.clone()).await.expect(409);
    assert!(
        at(&error, "/message").starts_with("Operation cannot be fulfilled on configmaps \"c\": the object has been")
    );
    let blind =
        world.ask(&format!("PUT {CONFIG}/c"), json!({ "metadata": { "name": "c" }, "data": { "a": "2" } })).await;
    let blind = blind.expect(200);
    assert_eq!((at(&blind, "/data/a"), &blind["metadata"]["uid"]), ("2", &first["metadata"]["uid"]));
    let wrong = json!({ "metadata": { "name": "c", "uid": "other" } });
    let error = world.ask(&format!("PUT {CONFIG}/c"), wrong).await.expect(409);
    assert!(at(&error, "/message").contains("UID in precondition: other"));
    world.ask(&format!("PUT {CONFIG}/absent"), sample("", "absent")).await.expect(404);
    let error = world.ask(&format!("PUT {CONFIG}/c"), sample("", "d")).await.expect(400);
    assert!(at(&error, "/message").contains("(d) does not match the name on the URL (c)"));
    let error = world.ask(&format!("PUT {CONFIG}/c"), json!({ "data": {} })).await.expect(400);
    assert!(at(&error, "/message").starts_with("the name of the object (c based on URL) was undeterminable"));
}

#[tokio::test(start_paused = true)]
async fn a_manifest_without_the_tolerations_of_admission_replaces_a_pod() {
    let world = World::new().await;
    let mut pod = bound_pod(&world, "p").await;
    pod["spec"].as_object_mut().unwrap().remove("tolerations");
    pod["metadata"]["labels"] = json!({ "tier": "front" });
    let replaced = world.ask(&format!("PUT {PODS}/p"), pod).await.expect(200);
    assert_eq!(replaced["spec"]["tolerations"].as_array().map(Vec::len), Some(2));
}

#[tokio::test(start_paused = true)]
async fn data_that_is_too_large_is_refused() {
    let world = World::new().await;
    let large = json!({ "metadata": { "name": "c" }, "data": { "a": "x".repeat((1 << 20) + 1) } });
    let refused = world.ask(&format!("POST {CONFIG}"), large).await.expect(422);
    assert_eq!(
        at(&refused, "/message"),
        "ConfigMap \"c\" is invalid: []: Too long: may not be more than 1048576 bytes"
    );
}

#[tokio::test(start_paused = true)]
async fn an_update_that_changes_nothing_is_not_written() {
    let world = World::new().await;
    let first = world.ask(&format!("POST {CONFIG}"), sample("", "c")).await.expect(201);
    let again = world.ask(&format!("PUT {CONFIG}/c"), first.clone()).await.expect(200);
    assert_eq!(again, first);
}

#[tokio::test(start_paused = true)]
async fn leases_are_created_by_update() {
    let world = World::new().await;
    let path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1";
    let lease = json!({ "metadata": { "name": "n1" }, "spec": { "holderIdentity": "n1" } });
    world.send(node("n1"), &format!("PUT {path}"), &[], &lease.to_string()).await.expect(201);
    let error = world.ask(&format!("PUT {path}"), lease).await.expect(422);
    assert!(at(&error, "/message").contains("metadata.resourceVersion: Invalid value: 0: must be specified"));
}

#[tokio::test(start_paused = true)]
async fn patches_change_what_they_say_and_other_bodies_are_refused() {
    let world = World::new().await;
    world
        .ask(&format!("POST {CONFIG}"), json!({ "metadata": { "name": "c" }, "data": { "a": "1" } }))
        .await
        .expect(201);
    let path = format!("{CONFIG}/c");
    let merged = world.patch(&path, "merge-patch", json!({ "data": { "b": "2" } })).await.expect(200);
    assert_eq!(merged["data"], json!({ "a": "1", "b": "2" }));
    let json_patch = json!([{ "op": "remove", "path": "/data/a" }]);
    assert_eq!(world.patch(&path, "json-patch", json_patch).await.expect(200)["data"], json!({ "b": "2" }));
    let strategic = json!({ "metadata": { "labels": { "l": "v" } } });
    let labelled = world.patch(&path, "strategic-merge-patch", strategic).await.expect(200);
    assert_eq!(at(&labelled, "/metadata/labels/l"), "v");
    let stale = json!({ "metadata": { "resourceVersion": merged["metadata"]["resourceVersion"] } });
    world.patch(&path, "merge-patch", stale).await.expect(409);
    world.patch(&path, "merge-patch", json!({ "metadata": { "name": "d" } })).await.expect(400);
    world.patch(&format!("{CONFIG}/absent"), "merge-patch", json!({})).await.expect(404);
    let other = [("content-type", "application/yaml")];
    let refused = world.send(admin(), &format!("PATCH {path}"), &other, "{}").await.expect(415);
    assert_eq!(refused["reason"], "UnsupportedMediaType");
}

#[tokio::test(start_paused = true)]
async fn unknown_fields_are_refused_told_or_ignored() {
    let world = World::new().await;
    let pod = json!({
        "metadata": { "name": "p" },
        "spec": { "containers": [{ "name": "c", "image": "i", "imagee": "x" }] },
    });
    let strict = world.ask(&format!("POST {PODS}?fieldValidation=Strict"), pod.clone()).await.expect(400);
    let wanted = "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \
                  \"spec.containers[0].imagee\"";
    assert_eq!(at(&strict, "/message"), wanted);
    let ignored = world.ask(&format!("POST {PODS}?fieldValidation=Ignore&dryRun=All"), pod.clone()).await;
    ignored.expect(201);
    assert!(ignored.headers.get("warning").is_none());
    let warned = world.ask(&format!("POST {PODS}"), pod).await;
    warned.expect(201);
    assert_eq!(warned.headers["warning"], r#"299 - "unknown field \"spec.containers[0].imagee\"""#);
    world.ask(&format!("POST {PODS}?fieldValidation=Loose"), sample("Pod", "q")).await.expect(422);
    let patch = json!({ "spec": { "nope": 1 }, "metadata": { "labels": { "a": "b" } } });
    let strict =
        world.patch(&format!("{PODS}/p?fieldValidation=Strict"), "merge-patch", patch.clone()).await.expect(422);
    assert!(at(&strict, "/message").starts_with(" \"\" is invalid: patch: Invalid value: \"{"), "{strict}");
    assert!(at(&strict, "/message").ends_with("}\": strict decoding error: unknown field \"spec.nope\""), "{strict}");
    let warned = world.patch(&format!("{PODS}/p"), "strategic-merge-patch", patch).await;
    warned.expect(200);
    assert_eq!(warned.headers["warning"], r#"299 - "unknown field \"spec.nope\"""#);
    let wrong =
        world.patch(&format!("{PODS}/p"), "merge-patch", json!({ "spec": { "hostname": 1 } })).await.expect(422);
    assert!(at(&wrong, "/message").contains("cannot unmarshal number into Go struct field"), "{wrong}");
}

#[tokio::test(start_paused = true)]
async fn collections_are_neither_replaced_nor_patched() {
    let world = World::new().await;
    for path in [CONFIG, PODS, "/api/v1/namespaces", "/api/v1/nodes", "/api/v1/configmaps"] {
        world.ask(&format!("PUT {path}"), sample("ConfigMap", "c")).await.expect(405);
        world.patch(path, "merge-patch", json!({})).await.expect(405);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dry_deletion_deletes_nothing() {
    let world = World::new().await;
    for kind in ["configmaps", "pods"] {
        let path = format!("/api/v1/namespaces/default/{kind}");
        let kept = ["a", "b"].map(|name| sample(if kind == "pods" { "Pod" } else { "ConfigMap" }, name));
        for object in kept {
            world.ask(&format!("POST {path}"), object).await.expect(201);
        }
        let before = world.ask(&format!("GET {path}"), Value::Null).await.expect(200);
        world.ask(&format!("DELETE {path}/a?dryRun=All"), Value::Null).await.expect(200);
        world.ask(&format!("DELETE {path}/a"), json!({ "dryRun": ["All"], "gracePeriodSeconds": 0 })).await.expect(200);
        world.ask(&format!("DELETE {path}?dryRun=All"), Value::Null).await.expect(200);
        world.ask(&format!("DELETE {path}"), json!({ "dryRun": ["Some"] })).await.expect(422);
        let after = world.ask(&format!("GET {path}"), Value::Null).await.expect(200);
        assert_eq!(after, before);
    }
}

#[tokio::test(start_paused = true)]
async fn people_get_a_field_a_line_and_programs_do_not() {
    let world = World::new().await;
    let curl = [("user-agent", "curl/8.5.0"), ("accept-encoding", "gzip")];
    let list = world.send(admin(), &format!("GET {CONFIG}"), &curl, "").await;
    assert!(list.text.contains("\n  \"kind\": \"ConfigMapList\","), "{}", list.text);
    let missing = world.send(admin(), &format!("GET {CONFIG}/none"), &curl, "").await;
    assert!(missing.code == 404 && missing.text.contains("\n  \"reason\": \"NotFound\","), "{}", missing.text);
    let asked = world.send(admin(), &format!("GET {CONFIG}?pretty=true"), &[], "").await;
    assert_eq!(asked.text, list.text);
    let plain = world.send(admin(), &format!("GET {CONFIG}?pretty=0"), &curl, "").await;
    assert!(!plain.text.trim_end().contains('\n'), "{}", plain.text);
    let index = world.ask("GET /", Value::Null).await.expect(200);
    for path in ["/api/v1", "/apis/apps", "/apis/apps/v1", "/version"] {
        assert!(index["paths"].as_array().unwrap().contains(&json!(path)), "{index}");
    }
    let version = world.send(admin(), "GET /version", &[], "").await;
    assert!(version.text.contains("\n  \"major\": "), "{}", version.text);
}

#[tokio::test(start_paused = true)]
async fn yaml_is_written_for_those_who_ask_for_it() {
    let world = World::new().await;
    let accept = [("accept", "application/yaml"), ("content-type", "application/yaml"), ("accept-encoding", "gzip")];
    let body = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: 'yes'}\n";
    let made = world.send(admin(), &format!("POST {CONFIG}"), &accept, body).await;
    assert_eq!((made.code, &made.headers["content-type"]), (201, &"application/yaml".parse().unwrap()));
    let read = |answer: &super::world::Answer| api::json::parse_yaml(answer.text.as_bytes()).unwrap().value;
    assert_eq!(read(&made), world.ask(&format!("GET {CONFIG}/c"), Value::Null).await.expect(200));
    let list = world.send(admin(), &format!("GET {CONFIG}"), &accept, "").await;
    assert_eq!(read(&list), world.ask(&format!("GET {CONFIG}"), Value::Null).await.expect(200));
    let put = world.send(admin(), &format!("PUT {CONFIG}/c"), &accept, &made.text.replace("yes", "no")).await;
    assert_eq!((put.code, &read(&put)["data"]["a"]), (200, &json!("no")));
    let absent = world.send(admin(), &format!("GET {CONFIG}/absent"), &accept, "").await;
    assert_eq!((absent.code, &read(&absent)["reason"]), (404, &json!("NotFound")));
    let apis = world.send(admin(), "GET /api/v1", &accept, "").await;
    assert_eq!(read(&apis)["kind"], "APIResourceList");
    assert_eq!(world.send(admin(), &format!("GET {CONFIG}?watch=1"), &accept, "").await.code, 406);
}

#[tokio::test(start_paused = true)]
async fn yaml_is_read_and_other_bodies_are_not() {
    let world = World::new().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: written}\ndata: {a: 'b'}\n";
    let post = format!("POST {CONFIG}");
    let made = world.send(admin(), &post, &[("content-type", "application/yaml")], yaml).await.expect(201);
    assert_eq!(at(&made, "/data/a"), "b");
    world.send(admin(), &post, &[("content-type", "text/csv")], "a,b").await.expect(415);
    world.send(admin(), &post, &[("accept", "text/html")], "{}").await.expect(406);
}

#[tokio::test(start_paused = true)]
async fn status_and_the_rest_are_written_apart() {
    let world = World::new().await;
    let pod = bound_pod(&world, "p").await;
    let mut through_main = pod.clone();
    through_main["status"]["phase"] = json!("Failed");
    let kept = world.ask(&format!("PUT {PODS}/p"), through_main).await.expect(200);
    assert_eq!(at(&kept, "/status/phase"), "Pending");
    let patch = json!({ "status": { "phase": "Running" }, "spec": { "activeDeadlineSeconds": 7 } });
    let running = world.patch(&format!("{PODS}/p/status"), "strategic-merge-patch", patch).await.expect(200);
    assert_eq!(at(&running, "/status/phase"), "Running");
    assert_eq!(running["spec"], pod["spec"]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_bound_once() {
    let world = World::new().await;
    let pod = bound_pod(&world, "p").await;
    assert_eq!(at(&pod, "/spec/nodeName"), "n1");
    let scheduled = pod["status"]["conditions"].as_array().unwrap().iter().any(|c| {
        c["type"] == "PodScheduled" && c["status"] == "True" && c["lastTransitionTime"] == "2026-01-02T03:04:05Z"
    });
    assert!(scheduled, "{pod}");
    let again = json!({ "metadata": { "name": "p" }, "target": { "kind": "Node", "name": "n2" } });
    let error = world.ask(&format!("POST {PODS}/p/binding"), again).await.expect(409);
    assert!(at(&error, "/message").contains("pod p is already assigned to node \"n1\""), "{error}");
    world.ask(&format!("POST {PODS}"), sample("Pod", "q")).await.expect(201);
    let other = json!({ "metadata": { "name": "q" }, "target": { "name": "n2" } });
    world.ask("POST /api/v1/namespaces/default/bindings", other).await.expect(201);
    let nowhere = json!({ "metadata": { "name": "q" }, "target": { "kind": "Pod" } });
    world.ask(&format!("POST {PODS}/q/binding"), nowhere).await.expect(422);
}

#[tokio::test(start_paused = true)]
async fn a_bound_pod_is_deleted_gracefully_and_sooner_when_asked_again() {
    let world = World::new().await;
    let uid = bound_pod(&world, "p").await["metadata"]["uid"].clone();
    let path = format!("{PODS}/p");
    let background = json!({ "kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background" });
    let marked = world.ask(&format!("DELETE {path}"), background).await.expect(200);
    assert_eq!(at(&marked, "/metadata/deletionTimestamp"), "2026-01-02T03:04:35Z");
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    let again = world.ask(&format!("DELETE {path}"), Value::Null).await.expect(200);
    assert_eq!(again, marked, "a repetition changes nothing");
    let longer = world.ask(&format!("DELETE {path}?gracePeriodSeconds=60"), Value::Null).await.expect(200);
    assert_eq!(longer, marked, "time is never added");
    let shorter = world.ask(&format!("DELETE {path}"), json!({ "gracePeriodSeconds": 5 })).await.expect(200);
    assert_eq!(at(&shorter, "/metadata/deletionTimestamp"), "2026-01-02T03:04:10Z");
    let wrong = json!({ "gracePeriodSeconds": 0, "preconditions": { "uid": "other" } });
    let kubelet = node("n1");
    world.send(kubelet.clone(), &format!("DELETE {path}"), &[], &wrong.to_string()).await.expect(409);
    let end = json!({ "gracePeriodSeconds": 0, "preconditions": { "uid": uid } });
    world.send(kubelet, &format!("DELETE {path}"), &[], &end.to_string()).await.expect(200);
    world.ask(&format!("GET {path}"), Value::Null).await.expect(404);
}

#[tokio::test(start_paused = true)]
async fn a_pod_without_a_node_goes_at_once() {
    let world = World::new().await;
    world.ask(&format!("POST {PODS}"), sample("Pod", "p")).await.expect(201);
    let gone = world.ask(&format!("DELETE {PODS}/p"), Value::Null).await.expect(200);
    assert_eq!(at(&gone, "/kind"), "Pod");
    world.ask(&format!("GET {PODS}/p"), Value::Null).await.expect(404);
}

#[tokio::test(start_paused = true)]
async fn finalizers_hold_an_object_until_the_last_one_is_removed() {
    let world = World::new().await;
    let held = json!({ "metadata": { "name": "c", "finalizers": ["example.com/hold"] } });
    world.ask(&format!("POST {CONFIG}"), held).await.expect(201);
    let path = format!("{CONFIG}/c");
    let marked = world.ask(&format!("DELETE {path}"), Value::Null).await.expect(200);
    assert_eq!(at(&marked, "/metadata/deletionTimestamp"), "2026-01-02T03:04:05Z");
    world.ask(&format!("GET {path}"), Value::Null).await.expect(200);
    let more = json!({ "metadata": { "finalizers": ["example.com/hold", "example.com/more"] } });
    let refused = world.patch(&path, "merge-patch", more).await.expect(422);
    let found = "found new finalizers []string{\"example.com/more\"}";
    assert!(at(&refused, "/message").ends_with(found), "{refused}");
    world.patch(&path, "merge-patch", json!({ "metadata": { "finalizers": null } })).await.expect(200);
    world.ask(&format!("GET {path}"), Value::Null).await.expect(404);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_goes_when_its_controller_says_that_it_is_empty() {
    let world = World::new().await;
    let made = world.ask("POST /api/v1/namespaces", sample("Namespace", "x")).await.expect(201);
    assert_eq!(made["spec"]["finalizers"], json!(["kubernetes"]));
    let marked = world.ask("DELETE /api/v1/namespaces/x", Value::Null).await.expect(200);
    assert_eq!(at(&marked, "/status/phase"), "Terminating");
    let error = world.ask("POST /api/v1/namespaces/x/configmaps", sample("", "c")).await.expect(403);
    assert_eq!(at(&error, "/details/causes/0/reason"), "NamespaceTerminating");
    let again = world.ask("DELETE /api/v1/namespaces/x", Value::Null).await.expect(200);
    assert_eq!(again, marked, "a repetition changes nothing");
    let mut empty = marked.clone();
    empty["spec"]["finalizers"] = json!([]);
    world.ask("PUT /api/v1/namespaces/x/finalize", empty).await.expect(200);
    world.ask("GET /api/v1/namespaces/x", Value::Null).await.expect(404);
    let error = world.ask("DELETE /api/v1/namespaces/default", Value::Null).await.expect(403);
    assert!(at(&error, "/message").ends_with("this namespace may not be deleted"));
}

#[tokio::test(start_paused = true)]
async fn a_removed_system_namespace_comes_back() {
    let world = World::new().await;
    let path = "/api/v1/namespaces/kube-node-lease";
    let mut events = world.watch("/api/v1/namespaces?watch=1&fieldSelector=metadata.name%3Dkube-node-lease").await;
    assert_eq!(events.brief().await, "ADDED kube-node-lease");
    let mut marked = world.ask(&format!("DELETE {path}"), Value::Null).await.expect(200);
    assert_eq!(events.brief().await, "MODIFIED kube-node-lease");
    marked["spec"]["finalizers"] = json!([]);
    world.ask(&format!("PUT {path}/finalize"), marked).await.expect(200);
    assert_eq!(events.brief().await, "DELETED kube-node-lease");
    assert_eq!(events.brief().await, "ADDED kube-node-lease");
}

#[tokio::test(start_paused = true)]
async fn lists_come_in_pages_of_one_state() {
    let world = World::new().await;
    for name in ["a", "b", "c", "d"] {
        world.ask(&format!("POST {CONFIG}"), sample("", name)).await.expect(201);
    }
    let first = world.ask(&format!("GET {CONFIG}?limit=2"), Value::Null).await.expect(200);
    assert_eq!(first["metadata"]["remainingItemCount"], 2);
    world.ask(&format!("POST {CONFIG}"), sample("", "bb")).await.expect(201);
    let token = at(&first, "/metadata/continue");
    let second = world.ask(&format!("GET {CONFIG}?limit=2&continue={token}"), Value::Null).await.expect(200);
    let names: Vec<&str> = second["items"].as_array().unwrap().iter().map(|i| at(i, "/metadata/name")).collect();
    assert_eq!(names, ["c", "d"], "what came later is not in it");
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert!(second["metadata"]["continue"].is_null());
    world.ask(&format!("GET {CONFIG}?continue=nonsense"), Value::Null).await.expect(400);
}

#[tokio::test(start_paused = true)]
async fn lists_are_filtered_and_a_field_that_is_not_offered_is_refused() {
    let world = World::new().await;
    bound_pod(&world, "p").await;
    world.ask(&format!("POST {PODS}"), sample("Pod", "q")).await.expect(201);
    for (selector, wanted) in [
        ("fieldSelector=spec.nodeName%3Dn1", 1),
        ("fieldSelector=metadata.name%3Dq", 1),
        ("fieldSelector=status.phase!%3DRunning", 2),
        ("labelSelector=absent", 0),
        ("labelSelector=!absent&limit=1", 1),
    ] {
        let list = world.ask(&format!("GET /api/v1/pods?{selector}"), Value::Null).await.expect(200);
        assert_eq!(list["items"].as_array().unwrap().len(), wanted, "{selector}");
    }
    let error = world.ask(&format!("GET {PODS}?fieldSelector=spec.color%3Dred"), Value::Null).await.expect(400);
    assert_eq!(at(&error, "/message"), "field label not supported: spec.color");
}

#[tokio::test(start_paused = true)]
async fn a_list_waits_for_the_future_only_so_long() {
    let world = World::new().await;
    let error = world.ask(&format!("GET {CONFIG}?resourceVersion=100000"), Value::Null).await.expect(504);
    assert_eq!(at(&error, "/details/causes/0/reason"), "ResourceVersionTooLarge");
    assert_eq!(error["details"]["retryAfterSeconds"], 1);
    world.ask(&format!("GET {CONFIG}?resourceVersion=0"), Value::Null).await.expect(200);
    world.ask(&format!("GET {CONFIG}?resourceVersionMatch=Exact"), Value::Null).await.expect(422);
}

#[tokio::test(start_paused = true)]
async fn logs_come_from_the_node() {
    let world = World::new().await;
    let log = |query: &str| format!("GET {PODS}/p/log{query}");
    world.ask(&format!("POST {PODS}"), sample("Pod", "p")).await.expect(201);
    assert_eq!(world.ask(&log(""), Value::Null).await.text, "", "no node yet");
    let binding = json!({ "metadata": { "name": "p" }, "target": { "name": "n1" } });
    world.ask(&format!("POST {PODS}/p/binding"), binding).await.expect(201);
    let answer = world.ask(&log("?follow=true&tailLines=5&insecureSkipTLSVerifyBackend=true"), Value::Null).await;
    assert_eq!(answer.text, "n1 /containerLogs/default/p/c?follow=true&tailLines=5");
    assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
    let error = world.ask(&log("?container=x"), Value::Null).await.expect(400);
    assert_eq!(at(&error, "/message"), "container x is not valid for pod p");
    world.ask(&log("?tailLines=-1"), Value::Null).await.expect(422);
    let mut two = sample("Pod", "two");
    two["spec"]["containers"] = json!([{ "name": "a", "image": "i" }, { "name": "waiting", "image": "i" }]);
    two["spec"]["nodeName"] = json!("n1");
    world.ask(&format!("POST {PODS}"), two).await.expect(201);
    let error = world.ask(&format!("GET {PODS}/two/log"), Value::Null).await.expect(400);
    let wanted = "a container name must be specified for pod two, choose one of: [a waiting]";
    assert_eq!(at(&error, "/message"), wanted);
    let error = world.ask(&format!("GET {PODS}/two/log?container=waiting"), Value::Null).await.expect(400);
    assert_eq!(at(&error, "/reason"), "BadRequest");
}

#[tokio::test(start_paused = true)]
async fn a_node_reads_the_secrets_of_its_pods_only() {
    let world = World::new().await;
    let secrets = "/api/v1/namespaces/default/secrets";
    world.ask(&format!("POST {secrets}"), sample("Secret", "s")).await.expect(201);
    let get = format!("GET {secrets}/s");
    let error = world.send(node("n1"), &get, &[], "").await.expect(403);
    assert!(at(&error, "/message").contains("no relationship found between node"), "{error}");
    let mut pod = sample("Pod", "p");
    pod["spec"]["volumes"] = json!([{ "name": "v", "secret": { "secretName": "s" } }]);
    pod["spec"]["nodeName"] = json!("n1");
    world.ask(&format!("POST {PODS}"), pod).await.expect(201);
    world.send(node("n1"), &get, &[], "").await.expect(200);
    world.send(node("n2"), &get, &[], "").await.expect(403);
    world.send(node("n2"), &format!("PATCH {PODS}/p/status"), &[], "{}").await.expect(403);
    world.send(node("n1"), &format!("GET {PODS}/p"), &[], "").await.expect(200);
    world.send(node("n1"), &format!("GET {PODS}"), &[], "").await.expect(403);
}

#[tokio::test(start_paused = true)]
async fn a_node_creates_itself_and_mirrors_only() {
    let world = World::new().await;
    let create = |path: &str, object: Value| {
        let (line, text) = (format!("POST {path}"), object.to_string());
        let world = &world;
        async move { world.send(node("n1"), &line, &[], &text).await }
    };
    create("/api/v1/nodes", sample("Node", "n2")).await.expect(403);
    let mut restricted = sample("Node", "n1");
    restricted["metadata"]["labels"] = json!({ "node-restriction.kubernetes.io/zone": "safe" });
    create("/api/v1/nodes", restricted).await.expect(403);
    create("/api/v1/nodes", sample("Node", "n1")).await.expect(201);
    create(PODS, sample("Pod", "p")).await.expect(403);
    let mut mirror = sample("Pod", "mirror");
    mirror["metadata"]["annotations"] = json!({ "kubernetes.io/config.mirror": "hash" });
    mirror["spec"]["nodeName"] = json!("n2");
    create(PODS, mirror.clone()).await.expect(403);
    mirror["spec"]["nodeName"] = json!("n1");
    create(PODS, mirror).await.expect(201);
}
