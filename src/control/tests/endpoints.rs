//! Endpoints and EndpointSlices with the real API server.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::time::Duration;

use client::{DeleteOptions, Informer, Key, ListOptions, Patch, Scope};
use http::Method;
use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};
use support::{Cluster, cluster, read, until};

fn key(name: &str) -> Key {
    Key::namespaced("default", name)
}

/// The node of all pods here.
async fn node(cluster: &Cluster) {
    let node: Node = read(json!({ "metadata": { "name": "edge-1" } }));
    cluster.client.create(&node).await.unwrap();
}

async fn running(cluster: &Cluster, name: &str, address: &str) {
    let pod: Pod = read(json!({
        "metadata": { "name": name, "namespace": "default", "labels": { "app": "web" } },
        "spec": { "nodeName": "edge-1", "containers": [{ "name": "c", "image": "1" }] },
    }));
    cluster.client.create(&pod).await.unwrap();
    say(cluster, name, address, "True").await;
}

async fn say(cluster: &Cluster, name: &str, address: &str, ready: &str) {
    let status = json!({ "status": {
        "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }],
        "conditions": [{ "type": "Ready", "status": ready }],
    } });
    cluster.client.patch_status::<Pod>(&key(name), &Patch::Merge(status)).await.unwrap();
}

/// Waits until the slices of a Service say so: addresses with whether they are ready, and how many slices.
async fn until_slices(cluster: &Cluster, service: &str, wanted: &[(&str, bool)], count: usize) -> Vec<EndpointSlice> {
    let tasks = cluster.tasks.child();
    let options = ListOptions::labels(&format!("kubernetes.io/service-name={service}"));
    let informer: Informer<EndpointSlice> =
        Informer::spawn(&cluster.client, &tasks, Scope::namespace("default"), options);
    informer.synced().await;
    let mut dirty = informer.subscribe();
    let said = || {
        let mut all: Vec<(String, bool)> = Vec::new();
        for slice in informer.snapshot() {
            all.extend(slice.endpoints.iter().flatten().map(|endpoint| {
                let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready);
                (endpoint.addresses[0].clone(), ready == Some(true))
            }));
        }
        all.sort();
        all
    };
    let wanted: Vec<(String, bool)> = wanted.iter().map(|(address, ready)| ((*address).to_owned(), *ready)).collect();
    let found = async {
        while said() != wanted || informer.snapshot().len() != count {
            dirty.next().await;
        }
    };
    let late = |_| panic!("{:?} instead of {wanted:?}", said());
    tokio::time::timeout(Duration::from_secs(20), found).await.unwrap_or_else(late);
    tasks.stop();
    informer.snapshot().iter().map(|slice| (**slice).clone()).collect()
}

fn says(endpoints: Option<&Endpoints>, wanted: &Value) -> bool {
    let subsets = endpoints.map(|endpoints| endpoints.subsets.clone().unwrap_or_default());
    let of = |all: Option<&Vec<k8s_openapi::api::core::v1::EndpointAddress>>| {
        all.into_iter().flatten().map(|address| address.ip.clone()).collect::<Vec<_>>()
    };
    let said: Option<Vec<Value>> = subsets.map(|subsets| {
        let plain = |subset: &k8s_openapi::api::core::v1::EndpointSubset| {
            json!([of(subset.addresses.as_ref()), of(subset.not_ready_addresses.as_ref())])
        };
        subsets.iter().map(plain).collect()
    });
    json!(said) == *wanted
}

#[tokio::test]
async fn a_service_knows_its_pods_as_they_come_become_ready_and_go() {
    let cluster = cluster().await;
    until::<ServiceAccount>(&cluster, key("default"), |account| account.is_some()).await;
    running(&cluster, "a", "10.42.0.2").await;
    let service: Service = read(json!({
        "metadata": { "name": "web", "namespace": "default" },
        "spec": {
            "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": 8080 }],
            "trafficDistribution": "PreferSameZone",
        },
    }));
    let service = cluster.client.create(&service).await.unwrap();
    until_slices(&cluster, "web", &[], 1).await;
    node(&cluster).await;
    let slices = until_slices(&cluster, "web", &[("10.42.0.2", true)], 1).await;
    let label = |zone: &str| Patch::Merge(json!({ "metadata": { "labels": { "topology.kubernetes.io/zone": zone } } }));
    cluster.client.patch::<Node>(&Key::cluster("edge-1"), &label("z")).await.unwrap();
    let slice = Key::of(&slices[0].metadata);
    until::<EndpointSlice>(&cluster, slice, |slice| {
        let hints = slice.and_then(|slice| slice.endpoints.as_ref()?.first()?.hints.clone());
        hints.and_then(|hints| hints.for_zones).is_some_and(|zones| zones[0].name == "z")
    })
    .await;
    let owner = &slices[0].metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((owner.kind.as_str(), Some(&owner.uid)), ("Service", service.metadata.uid.as_ref()));
    assert_eq!(slices[0].ports.as_ref().unwrap()[0].port, Some(8080));
    running(&cluster, "b", "10.42.0.3").await;
    until_slices(&cluster, "web", &[("10.42.0.2", true), ("10.42.0.3", true)], 1).await;
    say(&cluster, "a", "10.42.0.2", "False").await;
    until_slices(&cluster, "web", &[("10.42.0.2", false), ("10.42.0.3", true)], 1).await;
    until::<Endpoints>(&cluster, key("web"), |all| says(all, &json!([[["10.42.0.3"], ["10.42.0.2"]]]))).await;
    // A pod with other labels is no endpoint any more.
    let patch = Patch::Merge(json!({ "metadata": { "labels": { "app": "other" } } }));
    cluster.client.patch::<Pod>(&key("b"), &patch).await.unwrap();
    until_slices(&cluster, "web", &[("10.42.0.2", false)], 1).await;
    // What somebody takes away comes back.
    cluster.client.delete::<EndpointSlice>(&Key::of(&slices[0].metadata), &DeleteOptions::default()).await.unwrap();
    let again = until_slices(&cluster, "web", &[("10.42.0.2", false)], 1).await;
    assert_ne!(again[0].metadata.uid, slices[0].metadata.uid);
    cluster.client.delete::<Service>(&key("web"), &DeleteOptions::default()).await.unwrap();
    until_slices(&cluster, "web", &[], 0).await;
    until::<Endpoints>(&cluster, key("web"), |endpoints| endpoints.is_none()).await;
    cluster.tasks.shutdown().await;
}

#[tokio::test]
async fn endpoints_written_by_hand_are_mirrored_until_the_service_selects_pods() {
    let cluster = cluster().await;
    let endpoints: Endpoints = read(json!({
        "metadata": { "name": "db", "namespace": "default" },
        "subsets": [{ "addresses": [{ "ip": "192.0.2.7" }], "ports": [{ "port": 5432 }] }],
    }));
    cluster.client.create(&endpoints).await.unwrap();
    let service: Service = read(json!({
        "metadata": { "name": "db", "namespace": "default" }, "spec": { "ports": [{ "port": 5432 }] },
    }));
    cluster.client.create(&service).await.unwrap();
    let slices = until_slices(&cluster, "db", &[("192.0.2.7", true)], 1).await;
    let keeper = &slices[0].metadata.labels.as_ref().unwrap()["endpointslice.kubernetes.io/managed-by"];
    assert_eq!(keeper, "endpointslicemirroring-controller.k8s.io");
    let patch =
        Patch::Merge(json!({ "subsets": [{ "addresses": [{ "ip": "192.0.2.8" }], "ports": [{ "port": 5432 }] }] }));
    cluster.client.patch::<Endpoints>(&key("db"), &patch).await.unwrap();
    until_slices(&cluster, "db", &[("192.0.2.8", true)], 1).await;
    // The one of the API server itself has a slice already.
    let all = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io/service-name%3Dkubernetes";
    let own = cluster.client.request(Method::GET, all, None).await.unwrap();
    assert_eq!(own["items"].as_array().unwrap().len(), 1);
    let patch = Patch::Merge(json!({ "spec": { "selector": { "app": "web" } } }));
    cluster.client.patch::<Service>(&key("db"), &patch).await.unwrap();
    let slices = until_slices(&cluster, "db", &[], 1).await;
    let keeper = &slices[0].metadata.labels.as_ref().unwrap()["endpointslice.kubernetes.io/managed-by"];
    assert_eq!(keeper, "endpointslice-controller.k8s.io");
    until::<Endpoints>(&cluster, key("db"), |all| says(all, &json!([]))).await;
    cluster.tasks.shutdown().await;
}
