//! The Service of the cluster's DNS with the real API server.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use client::{DeleteOptions, Key};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;
use support::{cluster, read, until};

fn key() -> Key {
    Key::namespaced("kube-system", "kube-dns")
}

/// Addresses and nodes of those who answer.
fn said(slice: Option<&EndpointSlice>) -> Vec<(String, String)> {
    let endpoints = slice.into_iter().flat_map(|slice| slice.endpoints.iter().flatten());
    endpoints.map(|endpoint| (endpoint.addresses[0].clone(), endpoint.node_name.clone().unwrap())).collect()
}

#[tokio::test]
async fn the_dns_of_ready_nodes_answers_for_its_service_which_comes_back() {
    let cluster = cluster().await;
    let service = until::<Service>(&cluster, key(), |service| service.is_some()).await.unwrap();
    let spec = service.spec.clone().unwrap();
    assert_eq!(
        (spec.cluster_ip.as_deref(), spec.internal_traffic_policy.as_deref()),
        (Some("10.43.0.10"), Some("Local"))
    );
    until::<EndpointSlice>(&cluster, key(), |slice| slice.is_some()).await;
    for (name, range) in [("edge-1", "10.42.0.0/24"), ("edge-2", "10.42.1.0/24")] {
        let node: Node = read(json!({ "metadata": { "name": name }, "spec": { "podCIDR": range } }));
        let mut node = cluster.client.create(&node).await.unwrap();
        let conditions = json!({ "conditions": [{ "type": "Ready", "status": "True" }] });
        node.status = Some(serde_json::from_value(conditions).unwrap());
        // Who tells the node of its first taint may be faster.
        let status = client::Patch::Merge(json!({ "status": node.status }));
        cluster.client.patch_status::<Node>(&Key::of(&node.metadata), &status).await.unwrap();
    }
    let both = [("10.42.0.1", "edge-1"), ("10.42.1.1", "edge-2")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    until::<EndpointSlice>(&cluster, key(), |slice| said(slice) == both).await;
    cluster.client.delete::<Node>(&Key::namespaced("", "edge-2"), &DeleteOptions::default()).await.unwrap();
    until::<EndpointSlice>(&cluster, key(), |slice| said(slice) == both[..1]).await;
    cluster.client.delete::<Service>(&key(), &DeleteOptions::default()).await.unwrap();
    cluster.client.delete::<EndpointSlice>(&key(), &DeleteOptions::default()).await.unwrap();
    let uid = |service: &Service| service.metadata.uid.clone();
    until::<Service>(&cluster, key(), |now| now.is_some_and(|now| uid(now) != uid(&service))).await;
    until::<EndpointSlice>(&cluster, key(), |slice| said(slice) == both[..1]).await;
    cluster.tasks.shutdown().await;
}
