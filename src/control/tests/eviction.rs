//! Pods on tainted and silent nodes with the real API server over the memory store, in process.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use client::{Key, ListOptions, Patch, Scope};
use k8s_openapi::api::core::v1::{Event, Node, Pod, ServiceAccount};
use serde_json::{Value, json};
use support::{Cluster, cluster, read, until};

async fn add_node(cluster: &Cluster, name: &str, ready: &str) {
    let node: Node = read(json!({
        "metadata": {"name": name},
        "status": {
            "allocatable": {"cpu": "2", "memory": "1Gi", "pods": "10"},
            "conditions": [{"type": "Ready", "status": ready}],
        },
    }));
    cluster.client.create(&node).await.unwrap();
    cluster.client.replace_status(&node).await.unwrap();
}

async fn add_pod(cluster: &Cluster, name: &str, node: &str, tolerations: Value) {
    let pod: Pod = read(json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "web"}], "tolerations": tolerations},
    }));
    cluster.client.create(&pod).await.unwrap();
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    cluster.client.patch_status::<Pod>(&Key::namespaced("default", name), &Patch::Merge(status)).await.unwrap();
}

fn condition<'a>(pod: Option<&'a Pod>, kind: &str) -> Option<(&'a str, &'a str)> {
    let conditions = pod?.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((&found.status, found.reason.as_deref().unwrap_or_default()))
}

fn is_leaving(pod: Option<&Pod>) -> bool {
    pod.is_none_or(|pod| {
        pod.metadata.deletion_timestamp.is_some()
            && condition(Some(pod), "DisruptionTarget") == Some(("True", "DeletionByTaintManager"))
    })
}

#[tokio::test]
async fn pods_leave_a_tainted_node_when_they_tolerate_it_no_longer() {
    let cluster = cluster().await;
    until::<ServiceAccount>(&cluster, Key::namespaced("default", "default"), |account| account.is_some()).await;
    add_node(&cluster, "edge-1", "True").await;
    let of = |seconds: Value| json!([{"key": "sick", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}]);
    add_pod(&cluster, "at-once", "edge-1", json!([])).await;
    add_pod(&cluster, "soon", "edge-1", of(json!(1))).await;
    add_pod(&cluster, "never", "edge-1", of(Value::Null)).await;
    let taint = json!({"spec": {"taints": [{"key": "sick", "effect": "NoExecute"}]}});
    cluster.client.patch::<Node>(&Key::cluster("edge-1"), &Patch::Merge(taint)).await.unwrap();
    for name in ["at-once", "soon"] {
        until::<Pod>(&cluster, Key::namespaced("default", name), is_leaving).await;
    }
    let stays: Pod = cluster.client.get(&Key::namespaced("default", "never")).await.unwrap();
    assert!(stays.metadata.deletion_timestamp.is_none());
    let events = cluster.client.list::<Event>(&Scope::namespace("default"), &ListOptions::default()).await.unwrap();
    let said = |text: &str| events.items.iter().any(|event| event.message.as_deref() == Some(text));
    assert!(said("Marking for deletion Pod default/at-once"));
    cluster.tasks.shutdown().await;
}

#[tokio::test]
async fn a_node_that_is_down_among_others_lets_go_of_its_pods_and_one_out_of_service_of_all_that_are_going() {
    let cluster = cluster().await;
    until::<ServiceAccount>(&cluster, Key::namespaced("default", "default"), |account| account.is_some()).await;
    add_node(&cluster, "edge-2", "False").await;
    let taints = |node: Option<&Node>| -> Vec<String> {
        let taints = node.and_then(|node| node.spec.as_ref()?.taints.clone()).unwrap_or_default();
        taints.into_iter().map(|taint| format!("{}:{}", taint.key, taint.effect)).collect()
    };
    let unfit = "node.kubernetes.io/not-ready:NoSchedule".to_owned();
    // As long as it is the only one, nothing is held against it.
    until::<Node>(&cluster, Key::cluster("edge-2"), |node| taints(node) == [unfit.clone()]).await;
    let short = json!([{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute",
        "tolerationSeconds": 1}]);
    add_pod(&cluster, "web", "edge-2", short).await;
    add_node(&cluster, "edge-1", "True").await;
    until::<Node>(&cluster, Key::cluster("edge-2"), |node| taints(node).len() == 2).await;
    let web = Key::namespaced("default", "web");
    until::<Pod>(&cluster, web.clone(), is_leaving).await;
    // Nobody there ends it, until an administrator says that nothing runs there any more.
    assert!(cluster.client.get_opt::<Pod>(&web).await.unwrap().is_some());
    let node: Node = cluster.client.get(&Key::cluster("edge-2")).await.unwrap();
    let mut with = serde_json::to_value(&node.spec).unwrap();
    let out = json!({"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"});
    with["taints"].as_array_mut().unwrap().push(out);
    cluster.client.patch::<Node>(&Key::cluster("edge-2"), &Patch::Merge(json!({"spec": with}))).await.unwrap();
    until::<Pod>(&cluster, web, |pod| pod.is_none()).await;
    cluster.tasks.shutdown().await;
}
