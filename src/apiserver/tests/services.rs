//! Services get addresses and ports, and the API has one of its own.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::world::{World, admin, sample};

const PATH: &str = "/api/v1/namespaces/default/services";
const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";

fn service(name: &str, spec: Value) -> Value {
    json!({ "metadata": { "name": name }, "spec": spec })
}

#[tokio::test(start_paused = true)]
async fn the_api_is_a_service_and_comes_back_when_removed() {
    let world = World::new().await;
    let own = world.ask(&format!("GET {PATH}/kubernetes"), Value::Null).await.expect(200);
    assert_eq!(
        (&own["spec"]["clusterIP"], &own["spec"]["ports"][0]["targetPort"]),
        (&json!("10.43.0.1"), &json!(6443))
    );
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let slice = world.ask(&format!("GET {slices}/kubernetes"), Value::Null).await.expect(200);
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["192.0.2.1"]));
    assert_eq!(slice["ports"][0]["port"], 6443);

    let mut events = world.watch(&format!("{PATH}?watch=1&resourceVersion={}", version(&slice))).await;
    world.ask(&format!("DELETE {PATH}/kubernetes"), Value::Null).await.expect(200);
    assert_eq!(events.brief().await, "DELETED kubernetes");
    assert_eq!(events.brief().await, "ADDED kubernetes");

    let endpoints = "/api/v1/namespaces/default/endpoints/kubernetes";
    let mut wrong = world.ask(&format!("GET {endpoints}"), Value::Null).await.expect(200);
    let mut events = world.watch("/api/v1/namespaces/default/endpoints?watch=1").await;
    assert_eq!(events.brief().await, "ADDED kubernetes");
    wrong["subsets"] = json!([]);
    world.ask(&format!("PUT {endpoints}"), wrong).await.expect(200);
    assert_eq!(events.brief().await, "MODIFIED kubernetes");
    let repaired = events.next().await.unwrap();
    assert_eq!(repaired["object"]["subsets"][0]["addresses"], json!([{ "ip": "192.0.2.1" }]));
}

/// After the conformance test "ServiceCIDR and IPAddress API should support ServiceCIDR API operations".
#[tokio::test(start_paused = true)]
async fn the_range_of_the_settings_is_a_service_cidr_that_is_ready_and_comes_back_when_removed() {
    let world = World::new().await;
    let mut events = world.watch(&format!("{RANGES}?watch=1")).await;
    let first = events.next().await.unwrap();
    assert_eq!(first["object"]["metadata"]["name"], "kubernetes");
    let is_ready = |range: &Value| range["status"]["conditions"].clone();
    let own = world.ask(&format!("GET {RANGES}/kubernetes/status"), Value::Null).await.expect(200);
    assert_eq!(own["spec"]["cidrs"], json!(["10.43.0.0/16"]));
    assert_eq!((&is_ready(&own)[0]["type"], &is_ready(&own)[0]["status"]), (&json!("Ready"), &json!("True")));
    // It stays while the API's own Service has an address of it alone.
    let named = "kubernetes";
    let said = |range: &Value| is_ready(range).as_array().cloned().unwrap_or_default().pop().unwrap_or_default();
    until(&world, RANGES, named, |range| range.is_some_and(|range| !range["metadata"]["finalizers"].is_null())).await;
    world.ask(&format!("DELETE {RANGES}/kubernetes"), Value::Null).await.expect(200);
    let told = until(&world, RANGES, named, |range| range.is_some_and(|range| said(range)["status"] == "False")).await;
    assert_eq!((&said(&told)["type"], &said(&told)["reason"]), (&json!("Ready"), &json!("Terminating")));
    let status = world.ask(&format!("POST {PATH}"), sample("Service", "web")).await.expect(500);
    assert!(status["message"].as_str().unwrap().ends_with("failed to allocate a serviceIP: range is full"), "{status}");
    // A range that has the same addresses lets it go, and it comes back.
    let wider = json!({ "metadata": { "name": "wider" }, "spec": { "cidrs": ["10.42.0.0/15"] } });
    world.ask(&format!("POST {RANGES}"), wider).await.expect(201);
    let is_new = |range: Option<&Value>| range.is_some_and(|range| range["metadata"]["uid"] != own["metadata"]["uid"]);
    until(&world, RANGES, named, is_new).await;
    until(&world, RANGES, named, |range| range.is_some_and(|range| said(range)["status"] == "True")).await;
}

/// Waits until an object is so.
async fn until(world: &World, path: &str, name: &str, is_so: impl Fn(Option<&Value>) -> bool) -> Value {
    let mut events = world.watch(&format!("{path}?watch=1")).await;
    loop {
        let found = world.ask(&format!("GET {path}/{name}"), Value::Null).await;
        let found = (found.code == 200).then(|| found.expect(200));
        if is_so(found.as_ref()) {
            return found.unwrap_or_default();
        }
        events.next().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn each_address_of_a_service_is_told_of_for_as_long_as_it_has_it() {
    const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
    let world = World::new().await;
    let api = until(&world, ADDRESSES, "10.43.0.1", |found| found.is_some()).await;
    assert_eq!(api["spec"]["parentRef"]["name"], "kubernetes");
    let body = service("web", json!({ "clusterIP": "10.43.0.9", "ports": [{ "port": 80 }] }));
    world.ask(&format!("POST {PATH}"), body.clone()).await.expect(201);
    let told = world.ask(&format!("GET {ADDRESSES}/10.43.0.9"), Value::Null).await.expect(200);
    let parent = json!({ "group": "", "resource": "services", "namespace": "default", "name": "web" });
    let labels = json!({
        "ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
    });
    assert_eq!((&told["spec"]["parentRef"]["name"], &told["metadata"]["labels"]), (&parent["name"], &labels));
    assert_eq!(told["spec"]["parentRef"]["namespace"], "default");

    // Who removes it, or makes one for nothing, has changed nothing.
    world.ask(&format!("DELETE {ADDRESSES}/10.43.0.9"), Value::Null).await.expect(200);
    let is_another =
        |found: Option<&Value>| found.is_some_and(|found| found["metadata"]["uid"] != told["metadata"]["uid"]);
    until(&world, ADDRESSES, "10.43.0.9", is_another).await;
    let orphan = json!({ "metadata": { "name": "10.43.0.8", "labels": labels }, "spec": { "parentRef": parent } });
    world.ask(&format!("POST {ADDRESSES}"), orphan).await.expect(201);
    until(&world, ADDRESSES, "10.43.0.8", |found| found.is_none()).await;
    // That of somebody else is kept from Services.
    let gateway = json!({ "group": "gateway.example", "resource": "gateways", "name": "g" });
    let other = json!({ "metadata": { "name": "10.43.0.7" }, "spec": { "parentRef": gateway } });
    world.ask(&format!("POST {ADDRESSES}"), other).await.expect(201);
    let taken = service("taken", json!({ "clusterIP": "10.43.0.7", "ports": [{ "port": 80 }] }));
    let status = world.ask(&format!("POST {PATH}"), taken).await.expect(422);
    assert!(status["message"].as_str().unwrap().ends_with("provided IP is already allocated"), "{status}");

    let patch = json!({ "spec": { "type": "ExternalName", "externalName": "example.org" } });
    world.patch(&format!("{PATH}/web"), "merge-patch", patch).await.expect(200);
    until(&world, ADDRESSES, "10.43.0.9", |found| found.is_none()).await;
    let patch = json!({ "spec": { "type": "ClusterIP", "externalName": null, "clusterIP": "10.43.0.9" } });
    world.patch(&format!("{PATH}/web"), "merge-patch", patch).await.expect(200);
    world.ask(&format!("GET {ADDRESSES}/10.43.0.9"), Value::Null).await.expect(200);
    world.ask(&format!("DELETE {PATH}/web"), Value::Null).await.expect(200);
    until(&world, ADDRESSES, "10.43.0.9", |found| found.is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_further_range_gives_addresses_until_it_goes_for_which_it_waits_until_they_are_given_back() {
    let world = World::new().await;
    let wanted = service("web", json!({ "clusterIP": "10.96.0.9", "ports": [{ "port": 80 }] }));
    let status = world.ask(&format!("POST {PATH}"), wanted.clone()).await.expect(422);
    assert!(status["message"].as_str().unwrap().ends_with("the provided network does not match the current range"));
    let range = json!({ "metadata": { "name": "more" }, "spec": { "cidrs": ["10.96.0.0/24"] } });
    world.ask(&format!("POST {RANGES}"), range).await.expect(201);
    world.ask(&format!("POST {PATH}"), wanted).await.expect(201);
    let ready = |range: &Value| range["status"]["conditions"][0]["status"].clone();
    until(&world, RANGES, "more", |range| range.is_some_and(|range| ready(range) == "True")).await;
    world.ask(&format!("DELETE {RANGES}/more"), Value::Null).await.expect(200);
    let late = service("late", json!({ "clusterIP": "10.96.0.8", "ports": [{ "port": 80 }] }));
    world.ask(&format!("POST {PATH}"), late).await.expect(422);
    until(&world, RANGES, "more", |range| range.is_some_and(|range| ready(range) == "False")).await;
    world.ask(&format!("DELETE {PATH}/web"), Value::Null).await.expect(200);
    until(&world, RANGES, "more", |range| range.is_none()).await;
}

fn version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap()
}

#[tokio::test(start_paused = true)]
async fn services_that_come_at_once_get_different_addresses_and_ports() {
    let world = Arc::new(World::new().await);
    let mut work = Vec::new();
    for index in 0..20 {
        let world = Arc::clone(&world);
        work.push(async move {
            let body = service(&format!("s{index}"), json!({ "type": "NodePort", "ports": [{ "port": 80 }] }));
            world.ask(&format!("POST {PATH}"), body).await.expect(201)
        });
    }
    let made = futures_util::future::join_all(work).await;
    let addresses: BTreeSet<&str> = made.iter().map(|made| made["spec"]["clusterIP"].as_str().unwrap()).collect();
    let ports: BTreeSet<i64> = made.iter().map(|made| made["spec"]["ports"][0]["nodePort"].as_i64().unwrap()).collect();
    assert_eq!((addresses.len(), ports.len()), (20, 20));
}

#[tokio::test(start_paused = true)]
async fn what_a_service_was_given_stays_until_it_goes() {
    let world = World::new().await;
    let body = service("web", json!({ "type": "NodePort", "ports": [{ "port": 80 }] }));
    let made = world.ask(&format!("POST {PATH}"), body.clone()).await.expect(201);
    let (address, port) = (made["spec"]["clusterIP"].clone(), made["spec"]["ports"][0]["nodePort"].clone());
    let put = world.ask(&format!("PUT {PATH}/web"), body).await.expect(200);
    assert_eq!((&put["spec"]["clusterIP"], &put["spec"]["ports"][0]["nodePort"]), (&address, &port));
    let patch = json!({ "spec": { "type": "ClusterIP" } });
    let patched = world.patch(&format!("{PATH}/web"), "merge-patch", patch).await.expect(200);
    assert_eq!((&patched["spec"]["clusterIP"], &patched["spec"]["ports"][0]["nodePort"]), (&address, &Value::Null));
    let patch = json!({ "spec": { "clusterIP": "10.43.0.9", "clusterIPs": ["10.43.0.9"] } });
    let status = world.patch(&format!("{PATH}/web"), "merge-patch", patch).await.expect(422);
    assert!(status["message"].as_str().unwrap().contains("may not change once set"), "{status}");
    let taken = service("other", json!({ "clusterIP": address, "ports": [{ "port": 80 }] }));
    world.ask(&format!("POST {PATH}"), taken.clone()).await.expect(422);
    let dry = service("dry", json!({ "clusterIP": "10.43.0.9", "ports": [{ "port": 80 }] }));
    world.ask(&format!("POST {PATH}?dryRun=All"), dry.clone()).await.expect(201);
    world.ask(&format!("DELETE {PATH}/web"), Value::Null).await.expect(200);
    world.ask(&format!("POST {PATH}"), taken).await.expect(201);
    world.ask(&format!("POST {PATH}"), dry).await.expect(201);
}

#[tokio::test(start_paused = true)]
async fn a_service_becomes_a_name_and_a_service_again() {
    let world = World::new().await;
    world.ask(&format!("POST {PATH}"), sample("Service", "web")).await.expect(201);
    let patch = json!({ "spec": { "type": "ExternalName", "externalName": "example.org" } });
    let name = world.patch(&format!("{PATH}/web"), "merge-patch", patch).await.expect(200);
    assert_eq!((&name["spec"]["clusterIP"], &name["spec"]["ipFamilies"]), (&Value::Null, &Value::Null));
    let patch = json!({ "spec": { "type": "ClusterIP", "externalName": null } });
    let again = world.patch(&format!("{PATH}/web"), "merge-patch", patch).await.expect(200);
    assert!(again["spec"]["clusterIP"].as_str().unwrap().starts_with("10.43."));
}

#[tokio::test(start_paused = true)]
async fn a_pod_has_the_priority_of_its_class() {
    let world = World::new().await;
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    let system = world.ask(&format!("GET {classes}/system-node-critical"), Value::Null).await.expect(200);
    assert_eq!(system["value"], 2_000_001_000);
    let forged = json!({ "metadata": { "name": "system-mine" }, "value": 1 });
    let status = world.ask(&format!("POST {classes}"), forged).await.expect(422);
    assert!(status["message"].as_str().unwrap().ends_with("system-mine is not a known system priority class"));
    let high = json!({ "metadata": { "name": "high" }, "value": 1000, "preemptionPolicy": "Never" });
    world.ask(&format!("POST {classes}"), high).await.expect(201);
    let pods = "/api/v1/namespaces/default/pods";
    let mut pod = sample("Pod", "a");
    pod["spec"]["priorityClassName"] = json!("high");
    let made = world.ask(&format!("POST {pods}"), pod.clone()).await.expect(201);
    assert_eq!((&made["spec"]["priority"], &made["spec"]["preemptionPolicy"]), (&json!(1000), &json!("Never")));
    pod["metadata"]["name"] = json!("b");
    pod["spec"]["priorityClassName"] = json!("none");
    let status = world.ask(&format!("POST {pods}"), pod).await.expect(403);
    assert_eq!(status["message"], "pods \"b\" is forbidden: no PriorityClass with name none was found");
    let usual = json!({ "metadata": { "name": "usual" }, "value": 5, "globalDefault": true });
    let usual = world.ask(&format!("POST {classes}"), usual).await.expect(201);
    let other = json!({ "metadata": { "name": "other" }, "value": 6, "globalDefault": true });
    let status = world.ask(&format!("POST {classes}"), other).await.expect(403);
    let wanted = "priorityclasses.scheduling.k8s.io \"other\" is forbidden: PriorityClass usual is already marked as default. \
                  Only one default can exist";
    assert_eq!(status["message"], wanted);
    world.ask(&format!("PUT {classes}/usual"), usual).await.expect(200);
    let made = world.ask(&format!("POST {pods}"), sample("Pod", "c")).await.expect(201);
    assert_eq!((&made["spec"]["priority"], &made["spec"]["priorityClassName"]), (&json!(5), &json!("usual")));
    let put = world.ask(&format!("PUT {pods}/c"), made.clone()).await.expect(200);
    assert_eq!(put["spec"], made["spec"]);
}

#[tokio::test(start_paused = true)]
async fn a_job_knows_its_pods_by_its_uid() {
    let world = World::new().await;
    let path = "/apis/batch/v1/namespaces/default/jobs";
    let made = world.ask(&format!("POST {path}"), sample("Job", "work")).await.expect(201);
    let uid = &made["metadata"]["uid"];
    assert_eq!(made["spec"]["selector"], json!({ "matchLabels": { "batch.kubernetes.io/controller-uid": uid } }));
    let labels = &made["spec"]["template"]["metadata"]["labels"];
    assert_eq!((&labels["job-name"], &labels["controller-uid"], &labels["app"]), (&json!("work"), uid, &json!("work")));
    let mut manual = sample("Job", "manual");
    manual["spec"]["manualSelector"] = json!(true);
    world.ask(&format!("POST {path}"), manual.clone()).await.expect(422);
    manual["spec"]["selector"] = json!({ "matchLabels": { "app": "manual" } });
    world.ask(&format!("POST {path}"), manual).await.expect(201);
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let shown = world.send(admin(), &format!("GET {path}/work"), &[("accept", table)], "").await.expect(200);
    let cells = shown["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(cells[..4], [json!("work"), json!("Running"), json!("0/1"), json!("")]);
}

#[tokio::test(start_paused = true)]
async fn addresses_are_kept_in_order_when_only_others_have_changed_for_long() {
    const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
    let world = World::new().await;
    let web = world.ask(&format!("POST {PATH}"), sample("Service", "web")).await.expect(201);
    let address = web["spec"]["clusterIP"].as_str().unwrap();
    until(&world, ADDRESSES, address, |found| found.is_some()).await;
    // Longer than changes are remembered, of which a watch hears nothing that are not its own.
    for number in 0..3 {
        tokio::time::sleep(std::time::Duration::from_secs(700)).await;
        let map = sample("ConfigMap", &format!("other-{number}"));
        world.ask("POST /api/v1/namespaces/default/configmaps", map).await.expect(201);
    }
    world.ask(&format!("DELETE {PATH}/web"), Value::Null).await.expect(200);
    until(&world, ADDRESSES, address, |found| found.is_none()).await;
}
