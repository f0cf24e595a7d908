//! The scheduler with the real API server: what others see of it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use client::{Client, DeleteOptions, Key, ListOptions, Scope};
use k8s_openapi::api::core::v1::{Event, Node, Pod, PodCondition, ServiceAccount};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::{Value, json};
use support::{cluster, read, until};

fn pod(name: &str, class: &str, mut spec: Value) -> Pod {
    spec["containers"] = json!([{"name": "c", "image": "web", "resources": {"requests": {"cpu": "1"}}}]);
    spec["priorityClassName"] = json!(class);
    let metadata = json!({"name": name, "namespace": "default", "labels": {"app": name}});
    read(json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec}))
}

async fn add_node(client: &Client, name: &str, cpu: &str) {
    let node: Node = read(json!({
        "kind": "Node", "apiVersion": "v1",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {
            "allocatable": {"cpu": cpu, "memory": "1Gi", "pods": "10"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }));
    client.create(&node).await.unwrap();
    client.replace_status(&node).await.unwrap();
}

async fn add_class(client: &Client, name: &str, value: i32) {
    let metadata = json!({"name": name});
    let class =
        json!({"kind": "PriorityClass", "apiVersion": "scheduling.k8s.io/v1", "metadata": metadata, "value": value});
    client.create(&read::<PriorityClass>(class)).await.unwrap();
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

fn kept_on(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.nominated_node_name.as_deref()
}

fn condition<'a>(pod: &'a Pod, name: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == name)
}

#[tokio::test]
async fn a_pod_of_higher_priority_gets_the_room_of_another_once_that_has_gone() {
    let cluster = cluster().await;
    let client = &cluster.client;
    let key = |name: &str| Key::namespaced("default", name);
    until::<ServiceAccount>(&cluster, key("default"), |account| account.is_some()).await;
    add_class(client, "high", 1000).await;
    add_class(client, "low", 10).await;
    add_node(client, "edge-1", "1").await;
    client.create(&pod("first", "low", json!({}))).await.unwrap();
    until::<Pod>(&cluster, key("first"), |pod| pod.and_then(node_of) == Some("edge-1")).await;
    client.create(&pod("second", "high", json!({}))).await.unwrap();
    let told = until::<Pod>(&cluster, key("second"), |pod| pod.and_then(kept_on) == Some("edge-1")).await.unwrap();
    let said = condition(&told, "PodScheduled").unwrap();
    assert_eq!(said.message.as_deref(), Some("0/1 nodes are available: 1 Insufficient cpu."));
    let victim =
        until::<Pod>(&cluster, key("first"), |pod| pod.is_some_and(|pod| pod.metadata.deletion_timestamp.is_some()));
    let victim = victim.await.unwrap();
    let why = condition(&victim, "DisruptionTarget").unwrap();
    assert_eq!((why.status.as_str(), why.reason.as_deref()), ("True", Some("PreemptionByScheduler")));
    assert_eq!(why.message.as_deref(), Some("default-scheduler: preempting to accommodate a higher priority pod"));
    // A third one finds no room, neither now nor in the moment in which the first has gone.
    client.create(&pod("third", "low", json!({}))).await.unwrap();
    until::<Pod>(&cluster, key("third"), |pod| pod.is_some_and(|pod| condition(pod, "PodScheduled").is_some())).await;
    let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    client.delete::<Pod>(&key("first"), &now).await.unwrap();
    let bound = until::<Pod>(&cluster, key("second"), |pod| pod.and_then(node_of) == Some("edge-1")).await;
    assert_eq!(kept_on(&bound.unwrap()), None);
    let third = client.get::<Pod>(&key("third")).await.unwrap();
    assert_eq!(node_of(&third), None);
    let preempted = format!("Preempted by pod {} on node edge-1", told.metadata.uid.as_deref().unwrap());
    let mut said = false;
    while !said {
        let events = client.list::<Event>(&Scope::namespace("default"), &ListOptions::default()).await.unwrap();
        said = events
            .items
            .iter()
            .any(|event| event.reason.as_deref() == Some("Preempted") && event.message.as_deref() == Some(&preempted));
        tokio::task::yield_now().await;
    }
    cluster.tasks.shutdown().await;
}

#[tokio::test]
async fn selectors_are_completed_with_labels_and_pods_spread_by_them() {
    let cluster = cluster().await;
    let client = &cluster.client;
    let key = |name: &str| Key::namespaced("default", name);
    until::<ServiceAccount>(&cluster, key("default"), |account| account.is_some()).await;
    add_class(client, "usual", 1).await;
    add_node(client, "edge-1", "4").await;
    add_node(client, "edge-2", "4").await;
    let term = json!({"labelSelector": {}, "matchLabelKeys": ["app"], "topologyKey": "kubernetes.io/hostname"});
    let apart = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}});
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let mut one = pod("web", "usual", apart.clone());
        one.metadata.name = None;
        one.metadata.generate_name = Some("web-".to_owned());
        let name = client.create(&one).await.unwrap().metadata.name.unwrap();
        let bound = until::<Pod>(&cluster, key(&name), |pod| pod.is_some_and(|pod| node_of(pod).is_some())).await;
        nodes.push(node_of(&bound.unwrap()).unwrap().to_owned());
    }
    nodes.sort();
    assert_eq!(nodes, ["edge-1", "edge-2"]);
    client.create(&pod("web", "usual", apart)).await.unwrap();
    let told =
        until::<Pod>(&cluster, key("web"), |pod| pod.is_some_and(|pod| condition(pod, "PodScheduled").is_some()));
    let told = told.await.unwrap();
    let expected = "0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules. no new claims to \
                    deallocate, preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod.";
    assert_eq!(condition(&told, "PodScheduled").unwrap().message.as_deref(), Some(expected));
    cluster.tasks.shutdown().await;
}
