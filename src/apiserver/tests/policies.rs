//! What namespaces and classes say about pods and claims: limits, quotas, pod security, runtime and storage classes.

use serde_json::{Value, json};
use store::{Durability, Expect, Key};

use super::world::{Answer, World, node, sample};

const NS: &str = "/api/v1/namespaces/default";

fn pod(name: &str, resources: Value) -> Value {
    let mut pod = sample("Pod", name);
    pod["spec"]["containers"][0]["resources"] = resources;
    pod
}

fn message(answer: &Answer) -> String {
    answer.json()["message"].as_str().unwrap_or_default().to_owned()
}

fn warnings(answer: &Answer) -> Vec<&str> {
    answer.headers.get_all("warning").iter().map(|value| value.to_str().unwrap()).collect()
}

async fn quota(world: &World, spec: Value) {
    let body = json!({ "metadata": { "name": "q" }, "spec": spec });
    world.ask(&format!("POST {NS}/resourcequotas"), body).await.expect(201);
}

/// Waits until what is used of the quota is this.
async fn used(world: &World, expected: Value) {
    let mut events = world.watch(&format!("{NS}/resourcequotas?watch=1")).await;
    loop {
        let event = events.next().await.expect("the watch ended");
        if event["object"]["status"]["used"] == expected {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn limits_fill_in_what_containers_leave_out_and_refuse_what_is_too_much() {
    let world = World::new().await;
    let limit = json!({ "type": "Container", "default": { "memory": "1Gi" }, "defaultRequest": { "cpu": "100m" }, "max": { "memory": "2Gi" } });
    let claims = json!({ "type": "PersistentVolumeClaim", "max": { "storage": "5Gi" } });
    let range = json!({ "metadata": { "name": "l" }, "spec": { "limits": [limit, claims] } });
    world.ask(&format!("POST {NS}/limitranges"), range).await.expect(201);

    let made = world.ask(&format!("POST {NS}/pods"), pod("a", json!({ "limits": { "cpu": "1" } }))).await.expect(201);
    let expected = json!({ "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "1", "memory": "1Gi" } });
    assert_eq!(made["spec"]["containers"][0]["resources"], expected, "a limit is a request before a default is");
    let told = "LimitRanger plugin set: memory request for container c; memory limit for container c";
    assert_eq!(made["metadata"]["annotations"]["kubernetes.io/limit-ranger"], told);

    let answer = world.ask(&format!("POST {NS}/pods"), pod("b", json!({ "limits": { "memory": "3Gi" } }))).await;
    let text = "pods \"b\" is forbidden: maximum memory usage per Container is 2Gi, but limit is 3Gi";
    assert_eq!((answer.code, message(&answer).as_str()), (403, text));

    let mut claim = sample("PersistentVolumeClaim", "c");
    claim["spec"]["resources"]["requests"]["storage"] = json!("6Gi");
    let answer = world.ask(&format!("POST {NS}/persistentvolumeclaims"), claim).await;
    let text = "persistentvolumeclaims \"c\" is forbidden: maximum storage usage per PersistentVolumeClaim is 5Gi, but request is 6Gi";
    assert_eq!((answer.code, message(&answer).as_str()), (403, text));
}

#[tokio::test(start_paused = true)]
async fn a_quota_is_never_exceeded_and_what_is_used_of_it_is_told() {
    let world = World::new().await;
    quota(&world, json!({ "hard": { "pods": "3", "requests.cpu": "1", "count/configmaps": "1" } })).await;
    used(&world, json!({ "pods": "0", "requests.cpu": "0", "count/configmaps": "0" })).await;

    let path = format!("POST {NS}/pods");
    let answer = world.ask(&path, pod("unsaid", json!({}))).await;
    let text = "pods \"unsaid\" is forbidden: failed quota: q: must specify requests.cpu for: c";
    assert_eq!((answer.code, message(&answer).as_str()), (403, text));

    // All at once: exactly as many as fit are made.
    let bodies: Vec<Value> = (0..8).map(|n| pod(&format!("p{n}"), json!({ "requests": { "cpu": "100m" } }))).collect();
    let answers = futures_util::future::join_all(bodies.into_iter().map(|body| world.ask(&path, body))).await;
    assert_eq!(answers.iter().filter(|answer| answer.code == 201).count(), 3);
    let refused = answers.iter().find(|answer| answer.code == 403).unwrap();
    let text = "is forbidden: exceeded quota: q, requested: pods=1, used: pods=3, limited: pods=3";
    assert!(message(refused).ends_with(text), "{}", message(refused));
    used(&world, json!({ "pods": "3", "requests.cpu": "300m", "count/configmaps": "0" })).await;

    let made = answers.iter().find(|answer| answer.code == 201).unwrap().json();
    let name = made["metadata"]["name"].as_str().unwrap();
    world
        .patch(&format!("{NS}/pods/{name}/status"), "merge-patch", json!({ "status": { "phase": "Succeeded" } }))
        .await
        .expect(200);
    used(&world, json!({ "pods": "2", "requests.cpu": "200m", "count/configmaps": "0" })).await;
    let big = pod("big", json!({ "requests": { "cpu": "900m" } }));
    let text = "exceeded quota: q, requested: requests.cpu=900m, used: requests.cpu=200m, limited: requests.cpu=1";
    assert!(message(&world.ask(&path, big).await).ends_with(text));
    world.ask(&path, pod("next", json!({ "requests": { "cpu": "800m" } }))).await.expect(201);

    world.ask(&format!("POST {NS}/configmaps"), sample("ConfigMap", "one")).await.expect(201);
    world.ask(&format!("POST {NS}/configmaps"), sample("ConfigMap", "two")).await.expect(403);
    world.ask("POST /api/v1/namespaces/kube-public/configmaps", sample("ConfigMap", "two")).await.expect(201);
    world.ask(&format!("DELETE {NS}/configmaps/one"), Value::Null).await.expect(200);
    world.ask(&format!("POST {NS}/configmaps"), sample("ConfigMap", "two")).await.expect(201);
    used(&world, json!({ "pods": "3", "requests.cpu": "1", "count/configmaps": "1" })).await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_cannot_be_counted_keeps_no_other_from_it() {
    let world = World::new().await;
    world.ask("POST /api/v1/namespaces", sample("Namespace", "broken")).await.expect(201);
    let (store, key) = (&world.server.config.store, Key("/configmaps/broken/one".to_owned()));
    let made = store.put(&key, "no object".into(), Expect::Absent, Durability::Durable).await.unwrap();
    let quota = json!({ "metadata": { "name": "q" }, "spec": { "hard": { "count/configmaps": "5" } } });
    for namespace in ["broken", "default"] {
        let path = format!("POST /api/v1/namespaces/{namespace}/resourcequotas");
        world.ask(&path, quota.clone()).await.expect(201);
    }
    used(&world, json!({ "count/configmaps": "0" })).await;
    world.ask(&format!("POST {NS}/configmaps"), sample("ConfigMap", "one")).await.expect(201);
    used(&world, json!({ "count/configmaps": "1" })).await;
    // What is mended is counted, too.
    store.delete(&key, made, Durability::Durable).await.unwrap();
    let mut events = world.watch("/api/v1/namespaces/broken/resourcequotas?watch=1").await;
    while events.next().await.unwrap()["object"]["status"]["used"]["count/configmaps"] != "0" {}
}

#[tokio::test(start_paused = true)]
async fn scopes_bound_some_pods_and_changes_of_services_are_charged() {
    let world = World::new().await;
    quota(&world, json!({ "hard": { "pods": "0" }, "scopes": ["BestEffort"] })).await;
    world.ask(&format!("POST {NS}/pods"), sample("Pod", "best")).await.expect(403);
    world.ask(&format!("POST {NS}/pods"), pod("some", json!({ "requests": { "cpu": "1m" } }))).await.expect(201);

    let body = json!({ "metadata": { "name": "s" }, "spec": { "hard": { "services.nodeports": "1" } } });
    world.ask(&format!("POST {NS}/resourcequotas"), body).await.expect(201);
    for name in ["one", "two"] {
        world.ask(&format!("POST {NS}/services"), sample("Service", name)).await.expect(201);
    }
    let patch = json!({ "spec": { "type": "NodePort" } });
    world.patch(&format!("{NS}/services/one"), "merge-patch", patch.clone()).await.expect(200);
    let answer = world.patch(&format!("{NS}/services/two"), "merge-patch", patch).await;
    let text = "services \"two\" is forbidden: exceeded quota: s, requested: services.nodeports=1, used: services.nodeports=1, limited: services.nodeports=1";
    assert_eq!((answer.code, message(&answer).as_str()), (403, text));
    world
        .patch(&format!("{NS}/services/one"), "merge-patch", json!({ "metadata": { "labels": { "a": "b" } } }))
        .await
        .expect(200);
}

#[tokio::test(start_paused = true)]
async fn namespaces_say_whether_claims_may_have_devices_of_others() {
    let world = World::new().await;
    let exactly = |admin: bool| json!({ "exactly": { "deviceClassName": "driver.example", "adminAccess": admin } });
    let with = |kind: &str, admin: bool| {
        let mut object = sample(kind, &format!("c-{admin}"));
        let place = if kind == "ResourceClaim" { "/spec/devices" } else { "/spec/spec/devices" };
        let (mut first, mut second) = (exactly(false), exactly(admin));
        (first["name"], second["name"]) = (json!("one"), json!("two"));
        object.pointer_mut(place).unwrap()["requests"] = json!([first, second]);
        object
    };
    let kinds = [("ResourceClaim", "resourceclaims"), ("ResourceClaimTemplate", "resourceclaimtemplates")];
    for (kind, plural) in kinds {
        let path = format!("POST /apis/resource.k8s.io/v1/namespaces/default/{plural}");
        for value in [Value::Null, json!("True"), json!("true")] {
            let label = json!({ "metadata": { "labels": { "resource.kubernetes.io/admin-access": value } } });
            world.patch("/api/v1/namespaces/default", "merge-patch", label).await.expect(200);
            let answer = world.ask(&format!("{path}?dryRun=All"), with(kind, true)).await;
            if value == "true" {
                answer.expect(201);
                continue;
            }
            let text = "is invalid: spec.devices.requests[1].adminAccess: Forbidden: admin access to devices requires \
                        the `resource.kubernetes.io/admin-access: true` label on the containing namespace";
            assert!(answer.code == 422 && message(&answer).ends_with(text), "{}", answer.text);
            world.ask(&format!("{path}?dryRun=All"), with(kind, false)).await.expect(201);
        }
        world.ask(&path, with(kind, true)).await.expect(201);
    }
}

#[tokio::test(start_paused = true)]
async fn namespaces_say_what_pods_may_do() {
    let world = World::new().await;
    let labels = |level: &str| json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": level } } });
    let answer = world.patch("/api/v1/namespaces/default", "merge-patch", labels("strict")).await;
    let text = "Namespace \"default\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one of privileged, baseline, restricted";
    assert_eq!((answer.code, message(&answer).as_str()), (422, text));

    let mut privileged = sample("Pod", "there");
    privileged["spec"]["containers"][0]["securityContext"] = json!({ "privileged": true });
    world.ask(&format!("POST {NS}/pods"), privileged.clone()).await.expect(201);
    let answer = world.patch("/api/v1/namespaces/default", "merge-patch", labels("baseline")).await;
    assert_eq!(answer.code, 200);
    assert_eq!(
        warnings(&answer),
        [
            "299 - \"existing pods in namespace \\\"default\\\" violate the new PodSecurity enforce level \\\"baseline:latest\\\"\"",
            "299 - \"there: privileged\"",
        ]
    );
    privileged["metadata"]["name"] = json!("another");
    let answer = world.ask(&format!("POST {NS}/pods"), privileged).await;
    let text = "pods \"another\" is forbidden: violates PodSecurity \"baseline:latest\": privileged (container \"c\" must not set securityContext.privileged=true)";
    assert_eq!((answer.code, message(&answer).as_str()), (403, text));

    let mut workload = sample("Deployment", "web");
    workload["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
    let answer = world.ask("POST /apis/apps/v1/namespaces/default/deployments", workload).await;
    assert_eq!(answer.code, 201);
    assert_eq!(
        warnings(&answer)[..1],
        ["299 - \"would violate PodSecurity \\\"baseline:latest\\\": host namespaces (hostNetwork=true)\""]
    );
    // What is there goes on, and may change what the level is not about.
    let image = json!({ "spec": { "containers": [{ "name": "c", "image": "i:2" }] } });
    world.patch(&format!("{NS}/pods/there"), "strategic-merge-patch", image).await.expect(200);
}

#[tokio::test(start_paused = true)]
async fn runtime_classes_add_their_cost_and_must_exist() {
    let world = World::new().await;
    let mut body = pod("a", json!({ "requests": { "cpu": "1" } }));
    body["spec"]["runtimeClassName"] = json!("vm");
    let answer = world.ask(&format!("POST {NS}/pods"), body.clone()).await;
    let text = "pods \"a\" is forbidden: pod rejected: RuntimeClass \"vm\" not found";
    assert_eq!((answer.code, message(&answer).as_str()), (403, text));
    let class = json!({
        "metadata": { "name": "vm" }, "handler": "vm", "overhead": { "podFixed": { "cpu": "250m" } },
        "scheduling": { "nodeSelector": { "vm": "yes" } },
    });
    world.ask("POST /apis/node.k8s.io/v1/runtimeclasses", class).await.expect(201);
    let made = world.ask(&format!("POST {NS}/pods"), body).await.expect(201);
    assert_eq!(made["spec"]["overhead"], json!({ "cpu": "250m" }));
    assert_eq!(made["spec"]["nodeSelector"], json!({ "vm": "yes" }));
}

#[tokio::test(start_paused = true)]
async fn claims_and_ingresses_get_the_default_class_and_claims_grow_if_it_permits() {
    let world = World::new().await;
    let default = |key: &str| json!({ key: "true" });
    let mut storage = sample("StorageClass", "fast");
    storage["metadata"]["annotations"] = default("storageclass.kubernetes.io/is-default-class");
    world.ask("POST /apis/storage.k8s.io/v1/storageclasses", storage).await.expect(201);
    let mut ingress = sample("IngressClass", "front");
    ingress["metadata"]["annotations"] = default("ingressclass.kubernetes.io/is-default-class");
    world.ask("POST /apis/networking.k8s.io/v1/ingressclasses", ingress).await.expect(201);

    let path = format!("{NS}/persistentvolumeclaims");
    let claim = world.ask(&format!("POST {path}"), sample("PersistentVolumeClaim", "c")).await.expect(201);
    assert_eq!(claim["spec"]["storageClassName"], "fast");
    assert_eq!(claim["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    let path_of_ingresses = "/apis/networking.k8s.io/v1/namespaces/default/ingresses";
    let made = world.ask(&format!("POST {path_of_ingresses}"), sample("Ingress", "i")).await.expect(201);
    assert_eq!(made["spec"]["ingressClassName"], "front");

    world.patch(&format!("{path}/c"), "merge-patch", json!({ "spec": { "volumeName": "v" } })).await.expect(200);
    let bound = json!({ "status": { "phase": "Bound", "capacity": { "storage": "1Gi" } } });
    world.patch(&format!("{path}/c/status"), "merge-patch", bound).await.expect(200);
    let more = json!({ "spec": { "resources": { "requests": { "storage": "2Gi" } } } });
    let answer = world.patch(&format!("{path}/c"), "merge-patch", more.clone()).await;
    assert!(message(&answer).contains("must support resize"), "{}", answer.text);
    let permit = json!({ "allowVolumeExpansion": true });
    world.patch("/apis/storage.k8s.io/v1/storageclasses/fast", "merge-patch", permit).await.expect(200);
    world.patch(&format!("{path}/c"), "merge-patch", more).await.expect(200);
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_and_not_acted_on_is_told() {
    let world = World::new().await;
    let mut service = sample("Service", "x");
    service["spec"]["loadBalancerIP"] = json!("192.0.2.1");
    let answer = world.ask(&format!("POST {NS}/services"), service).await;
    assert_eq!((answer.code, warnings(&answer).len()), (201, 1), "{}", answer.text);
    let answer = world.ask(&format!("GET {NS}/services/x"), Value::Null).await;
    assert_eq!(warnings(&answer).len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_cannot_name_an_account_by_its_old_name() {
    let world = World::new().await;
    let mut mirror = sample("Pod", "static");
    mirror["metadata"]["annotations"] = json!({ "kubernetes.io/config.mirror": "x" });
    mirror["spec"]["nodeName"] = json!("edge-1");
    mirror["spec"]["serviceAccount"] = json!("robot");
    let answer = world.send(node("edge-1"), &format!("POST {NS}/pods"), &[], &mirror.to_string()).await;
    assert_eq!(answer.code, 403);
    assert!(message(&answer).ends_with("can not create pods that reference a service account"), "{}", answer.text);
}

#[tokio::test(start_paused = true)]
async fn an_event_is_the_same_in_both_groups() {
    let world = World::new().await;
    let mut body = sample("Event", "e");
    (body["message"], body["count"], body["type"]) = (json!("it is done"), json!(2), json!("Normal"));
    world.ask(&format!("POST {NS}/events"), body).await.expect(201);
    let path = "/apis/events.k8s.io/v1/namespaces/default/events";
    let list = world.ask(&format!("GET {path}?fieldSelector=regarding.name%3Dp"), Value::Null).await.expect(200);
    let event = &list["items"][0];
    assert_eq!(
        (&event["note"], &event["deprecatedCount"], &event["apiVersion"]),
        (&json!("it is done"), &json!(2), &json!("events.k8s.io/v1"))
    );
    assert_eq!((&event["message"], &event["regarding"]["name"]), (&Value::Null, &json!("p")));
}

#[tokio::test(start_paused = true)]
async fn documents_are_sent_once() {
    let world = World::new().await;
    let index = world.ask("GET /openapi/v3", Value::Null).await.expect(200);
    let path = index["paths"]["api/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let first = world.ask(&format!("GET {path}"), Value::Null).await;
    let about = &first.json()["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"];
    assert_eq!(about["description"], "PodSpec is a description of a pod.");
    let tag = first.headers["etag"].to_str().unwrap();
    assert_eq!(first.headers["cache-control"], "public, immutable");
    for path in [path.as_str(), "/openapi/v2"] {
        let again = world.send(super::world::admin(), &format!("GET {path}"), &[("if-none-match", tag)], "").await;
        assert_eq!((again.code, again.text.as_str()), (304, ""), "{path}");
    }
    let other = world.send(super::world::admin(), &format!("GET {path}"), &[("if-none-match", "\"0\"")], "").await;
    assert_eq!(other.code, 200);
    let nothing = world.ask("GET /openapi/v3/apis/none.example/v1", Value::Null).await;
    assert_eq!((nothing.code, nothing.headers.get("etag")), (404, None));
}
