//! The controllers with the real API server over the memory store, in process and over TLS.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;

use apiserver::Entropy;
use apiserver::pki::{Pki, Subject};
use client::{Client, DeleteOptions, HttpsConfig, HttpsTransport, Identity, Informer, Key, ListOptions, Patch, Scope};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Node, Pod, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::ClusterRole;
use serde_json::json;
use support::{Cluster, MASTERS, cluster, read, until};
use task::Tasks;

fn pod(name: &str, memory: &str) -> Pod {
    read(json!({
        "kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "web", "resources": {"requests": {"memory": memory}}}]},
    }))
}

async fn add_node(client: &Client, name: &str) {
    let node: Node = read(json!({
        "kind": "Node", "apiVersion": "v1", "metadata": {"name": name},
        "status": {
            "allocatable": {"cpu": "2", "memory": "1Gi", "pods": "10"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }));
    client.create(&node).await.unwrap();
    client.replace_status(&node).await.unwrap();
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

#[tokio::test]
async fn a_pod_waits_with_a_reason_until_a_node_comes_and_is_bound_at_once() {
    let cluster = cluster().await;
    let key = Key::namespaced("default", "web");
    until::<ServiceAccount>(&cluster, Key::namespaced("default", "default"), |account| account.is_some()).await;
    cluster.client.create(&pod("web", "600Mi")).await.unwrap();
    let reason = |pod: &Pod| {
        let conditions = pod.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|condition| condition.type_ == "PodScheduled")?.message.clone()
    };
    until::<Pod>(&cluster, key.clone(), |pod| {
        pod.and_then(reason).as_deref() == Some("no nodes available to schedule pods")
    })
    .await;
    add_node(&cluster.client, "edge-1").await;
    until::<Pod>(&cluster, key, |pod| pod.and_then(node_of) == Some("edge-1")).await;
    // A second one finds no room beside the first, until that is gone.
    cluster.client.create(&pod("second", "600Mi")).await.unwrap();
    let second = Key::namespaced("default", "second");
    let full = "0/1 nodes are available: 1 Insufficient memory. no new claims to deallocate, preemption: 0/1 nodes are \
                available: 1 No preemption victims found for incoming pod.";
    until::<Pod>(&cluster, second.clone(), |pod| pod.and_then(reason).as_deref() == Some(full)).await;
    let options = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    cluster.client.delete::<Pod>(&Key::namespaced("default", "web"), &options).await.unwrap();
    until::<Pod>(&cluster, second, |pod| pod.and_then(node_of) == Some("edge-1")).await;
    let events = cluster.client.list::<Event>(&Scope::namespace("default"), &ListOptions::default()).await.unwrap();
    let said = |reason: &str| events.items.iter().any(|event| event.reason.as_deref() == Some(reason));
    assert!(said("FailedScheduling") && said("Scheduled"));
    cluster.tasks.shutdown().await;
}

#[tokio::test]
async fn a_namespace_gets_its_account_and_authority_and_is_deleted_with_its_contents() {
    let cluster = cluster().await;
    let client = &cluster.client;
    let namespace: Namespace = read(json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "team"}}));
    client.create(&namespace).await.unwrap();
    let account = Key::namespaced("team", "default");
    until::<ServiceAccount>(&cluster, account.clone(), |account| account.is_some()).await;
    until::<ConfigMap>(&cluster, Key::namespaced("team", "kube-root-ca.crt"), |map| {
        map.is_some_and(|map| map.data.as_ref().is_some_and(|data| data.get("ca.crt").is_some_and(|ca| ca == "the CA")))
    })
    .await;
    let first = client.get::<ServiceAccount>(&account).await.unwrap();
    client.delete::<ServiceAccount>(&account, &DeleteOptions::default()).await.unwrap();
    until::<ServiceAccount>(&cluster, account, |account| {
        account.is_some_and(|account| account.metadata.uid != first.metadata.uid)
    })
    .await;
    client.delete::<Namespace>(&Key::cluster("team"), &DeleteOptions::default()).await.unwrap();
    until::<Namespace>(&cluster, Key::cluster("team"), |namespace| namespace.is_none()).await;
    let left = client.list::<ConfigMap>(&Scope::namespace("team"), &ListOptions::default()).await.unwrap();
    assert!(left.items.is_empty());
    cluster.tasks.shutdown().await;
}

#[tokio::test]
async fn the_same_client_works_over_tls_with_a_client_certificate() {
    let cluster = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let now = cluster.clock.now();
    let pki = Pki::open(folder.path(), now, &Entropy::system()).unwrap();
    let credential = pki.mint(&Subject::api_server("edge-1", &[]), now).unwrap();
    let tls = apiserver::tls_config(pki.certificate(), &credential).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = Tasks::new();
    serving.spawn("serve", Arc::clone(&cluster.server).serve(listener, tls, cluster.tasks.clone()));
    let own = pki.mint(&Subject::client("admin", &[MASTERS]), now).unwrap();
    let config = |identity| HttpsConfig {
        server: format!("https://127.0.0.1:{port}"),
        ca: pki.certificate().as_bytes().to_vec(),
        server_name: None,
        identity,
    };
    let identity = Identity::Certificate { chain: own.certificate.clone().into(), key: own.key().into() };
    let transport = Arc::new(HttpsTransport::new(config(identity), &serving).unwrap());
    let client = Client::new(transport, "test");
    let pods: Informer<Pod> = Informer::spawn(&client, &serving, Scope::Cluster, ListOptions::default());
    let mut dirty = pods.subscribe();
    until::<ServiceAccount>(&cluster, Key::namespaced("default", "default"), |account| account.is_some()).await;
    let names: Vec<String> = (0..120).map(|number| format!("web-{number}")).collect();
    let created = names.iter().map(|name| {
        let client = client.clone();
        async move { client.create(&pod(name, "1Mi")).await }
    });
    for result in futures_util::future::join_all(created).await {
        result.unwrap();
    }
    while pods.snapshot().len() < names.len() {
        dirty.next().await;
    }
    let error = client.get::<Pod>(&Key::namespaced("default", "absent")).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
    let nobody = Client::new(Arc::new(HttpsTransport::new(config(Identity::Anonymous), &serving).unwrap()), "nobody");
    assert!(nobody.get::<Pod>(&Key::namespaced("default", "web-1")).await.unwrap_err().api().is_some());
    serving.stop();
    cluster.tasks.shutdown().await;
}

/// A pod that runs on a node and is ready, of a controller.
async fn running(cluster: &Cluster, name: &str, owner: &ReplicaSet) {
    let mut body = serde_json::to_value(pod(name, "1Mi")).unwrap();
    body["metadata"]["labels"] = json!({"app": "web"});
    body["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner.metadata.name, "uid": owner.metadata.uid,
        "controller": true, "blockOwnerDeletion": true,
    }]);
    body["spec"]["nodeName"] = json!("edge-1");
    cluster.client.create(&read::<Pod>(body)).await.unwrap();
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    cluster.client.patch_status::<Pod>(&Key::namespaced("default", name), &Patch::Merge(status)).await.unwrap();
}

#[tokio::test]
async fn a_budget_follows_its_pods_and_lets_them_go_one_after_another() {
    let cluster = cluster().await;
    let client = &cluster.client;
    until::<ServiceAccount>(&cluster, Key::namespaced("default", "default"), |account| account.is_some()).await;
    let labels = json!({"app": "web"});
    let set: ReplicaSet = read(json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": 3, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "web"}]}}},
    }));
    let set = client.create(&set).await.unwrap();
    for name in ["web-1", "web-2", "web-3"] {
        running(&cluster, name, &set).await;
    }
    let budget: PodDisruptionBudget = read(json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"maxUnavailable": "34%", "selector": {"matchLabels": labels}},
    }));
    client.create(&budget).await.unwrap();
    let mut of_nobody = budget.clone();
    of_nobody.metadata.name = Some("nobody".to_owned());
    of_nobody.spec.as_mut().unwrap().selector =
        serde_json::from_value(json!({"matchLabels": {"app": "nobody"}})).unwrap();
    client.create(&of_nobody).await.unwrap();
    let key = Key::namespaced("default", "web");
    let says = |expected: i32, healthy: i32, allowed: i32| {
        move |budget: Option<&PodDisruptionBudget>| {
            let status = budget.and_then(|budget| budget.status.as_ref());
            status.is_some_and(|status| {
                let numbers = (status.expected_pods, status.current_healthy, status.disruptions_allowed);
                numbers == (Some(expected), Some(healthy), Some(allowed)) && status.disrupted_pods.is_none()
            })
        }
    };
    until(&cluster, key.clone(), says(3, 3, 2)).await;
    let evict = async |name: &str| {
        let body = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name},
            "deleteOptions": {"gracePeriodSeconds": 0}});
        let path = format!("/api/v1/namespaces/default/pods/{name}/eviction");
        client.request(http::Method::POST, &path, Some(&body)).await
    };
    evict("web-1").await.unwrap();
    until(&cluster, key.clone(), says(3, 2, 1)).await;
    evict("web-2").await.unwrap();
    until(&cluster, key.clone(), says(3, 1, 0)).await;
    assert_eq!(evict("web-3").await.unwrap_err().api().unwrap().code, 429);
    // That a budget covers nobody is told once, not whenever a pod of others changes.
    let events: Vec<Event> = client.list(&Scope::namespace("default"), &ListOptions::default()).await.unwrap().items;
    let lonely: Vec<&Event> = events.iter().filter(|event| event.reason.as_deref() == Some("NoPods")).collect();
    assert!(matches!(&lonely[..], [one] if one.count.unwrap_or(1) == 1), "{lonely:?}");
    // Nobody collects the pod of a set that is there; with the set, it goes too, and the budget expects nothing.
    client.delete::<ReplicaSet>(&key, &DeleteOptions::default()).await.unwrap();
    until::<Pod>(&cluster, Key::namespaced("default", "web-3"), |pod| {
        pod.is_none_or(|pod| pod.metadata.deletion_timestamp.is_some())
    })
    .await;
    cluster.tasks.shutdown().await;
}

#[tokio::test]
async fn a_role_that_grants_to_viewers_extends_the_role_of_viewers_and_those_made_of_it() {
    let cluster = cluster().await;
    let client = &cluster.client;
    let role: ClusterRole = read(json!({
        "metadata": {"name": "things", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
        "rules": [{"verbs": ["get"], "apiGroups": ["example.com"], "resources": ["things"]}],
    }));
    client.create(&role).await.unwrap();
    let grants = |role: Option<&ClusterRole>| {
        let rules = role.and_then(|role| role.rules.as_deref()).unwrap_or_default();
        rules.iter().flat_map(|rule| rule.api_groups.iter().flatten()).any(|group| group == "example.com")
    };
    for name in ["view", "edit", "admin"] {
        until(&cluster, Key::cluster(name), grants).await;
    }
    client.delete::<ClusterRole>(&Key::cluster("things"), &DeleteOptions::default()).await.unwrap();
    for name in ["view", "edit", "admin"] {
        until(&cluster, Key::cluster(name), |role| role.is_some() && !grants(role)).await;
    }
    cluster.tasks.shutdown().await;
}
