//! Claims and volumes with the real API server over the memory store, in process.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use client::{Client, DeleteOptions, Key, ListOptions, Scope};
use k8s_openapi::api::core::v1::{Event, Node, PersistentVolume, PersistentVolumeClaim, Pod, ServiceAccount};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::json;
use support::{Cluster, cluster, read, until};

const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";

async fn add_volume(client: &Client, name: &str, size: &str, policy: &str) {
    let volume: PersistentVolume = read(json!({"metadata": {"name": name}, "spec": {
        "capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": policy,
        "storageClassName": "manual", "hostPath": {"path": "/data"}}}));
    client.create(&volume).await.unwrap();
}

async fn add_claim(client: &Client, name: &str, class: &str) {
    let claim: PersistentVolumeClaim = read(json!({"metadata": {"name": name, "namespace": "default"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": class,
        "resources": {"requests": {"storage": "5Gi"}}}}));
    client.create(&claim).await.unwrap();
}

async fn volume_in_phase(cluster: &Cluster, name: &str, phase: &str) -> PersistentVolume {
    let is_it = |volume: Option<&PersistentVolume>| {
        volume.and_then(|volume| volume.status.as_ref()?.phase.as_deref()) == Some(phase)
    };
    (*until(cluster, Key::cluster(name), is_it).await.unwrap()).clone()
}

async fn claim_in_phase(cluster: &Cluster, name: &str, phase: &str) -> PersistentVolumeClaim {
    let is_it = |claim: Option<&PersistentVolumeClaim>| {
        claim.and_then(|claim| claim.status.as_ref()?.phase.as_deref()) == Some(phase)
    };
    (*until(cluster, Key::namespaced("default", name), is_it).await.unwrap()).clone()
}

async fn said(cluster: &Cluster, reason: &str) {
    // Events are delivered on their own time; their names are not known before.
    let mut dirty =
        client::Informer::<Event>::spawn(&cluster.client, &cluster.tasks, Scope::Cluster, ListOptions::default())
            .subscribe();
    let found = tokio::time::timeout(std::time::Duration::from_secs(20), async {
        loop {
            let events = cluster.client.list::<Event>(&Scope::Cluster, &ListOptions::default()).await.unwrap();
            if events.items.iter().any(|event| event.reason.as_deref() == Some(reason)) {
                return;
            }
            dirty.next().await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("nobody said {reason}"));
}

#[tokio::test]
async fn a_claim_is_bound_to_the_smallest_volume_and_what_becomes_of_it_follows_its_policy() {
    let cluster = cluster().await;
    let client = &cluster.client;
    add_claim(client, "web", "manual").await;
    said(&cluster, "ProvisioningFailed").await;
    add_volume(client, "large", "20Gi", "Retain").await;
    let claim = claim_in_phase(&cluster, "web", "Bound").await;
    let annotations = claim.metadata.annotations.unwrap();
    assert_eq!((&*annotations[BOUND_BY_CONTROLLER], &*annotations[BIND_COMPLETED]), ("yes", "yes"));
    assert_eq!(claim.spec.unwrap().volume_name.as_deref(), Some("large"));
    assert_eq!(claim.status.unwrap().capacity.unwrap()["storage"].0, "20Gi");
    let large = volume_in_phase(&cluster, "large", "Bound").await;
    let reference = large.spec.unwrap().claim_ref.unwrap();
    assert_eq!((reference.name.as_deref(), reference.uid), (Some("web"), claim.metadata.uid));
    add_volume(client, "medium", "7Gi", "Delete").await;
    add_volume(client, "small", "6Gi", "Recycle").await;
    for name in ["medium", "small"] {
        volume_in_phase(&cluster, name, "Available").await;
    }
    add_claim(client, "second", "manual").await;
    add_claim(client, "third", "manual").await;
    for name in ["second", "third"] {
        claim_in_phase(&cluster, name, "Bound").await;
    }
    for name in ["web", "second", "third"] {
        let key = Key::namespaced("default", name);
        client.delete::<PersistentVolumeClaim>(&key, &DeleteOptions::default()).await.unwrap();
        until::<PersistentVolumeClaim>(&cluster, key, |claim| claim.is_none()).await;
    }
    volume_in_phase(&cluster, "large", "Released").await;
    for name in ["medium", "small"] {
        let volume = volume_in_phase(&cluster, name, "Failed").await;
        assert!(volume.status.unwrap().message.is_some());
    }
    said(&cluster, "VolumeFailedRecycle").await;
    said(&cluster, "VolumeFailedDelete").await;
    cluster.tasks.shutdown().await;
}

#[tokio::test]
async fn claims_that_want_the_same_volumes_get_one_each() {
    let cluster = cluster().await;
    let names: Vec<String> = (0..12).map(|number| format!("web-{number}")).collect();
    for name in &names {
        add_claim(&cluster.client, name, "manual").await;
    }
    for number in 0..12 {
        add_volume(&cluster.client, &format!("disk-{number}"), "5Gi", "Retain").await;
    }
    let mut taken = std::collections::BTreeSet::new();
    for name in &names {
        taken.extend(claim_in_phase(&cluster, name, "Bound").await.spec.unwrap().volume_name);
    }
    assert_eq!(taken.len(), 12);
    cluster.tasks.shutdown().await;
}

#[tokio::test]
async fn what_is_in_use_stays_until_it_is_not() {
    let cluster = cluster().await;
    let client = &cluster.client;
    until::<ServiceAccount>(&cluster, Key::namespaced("default", "default"), |account| account.is_some()).await;
    add_volume(client, "disk", "5Gi", "Retain").await;
    add_claim(client, "web", "manual").await;
    claim_in_phase(&cluster, "web", "Bound").await;
    let pod: Pod = read(json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {
        "nodeName": "edge-1", "containers": [{"name": "c", "image": "web"}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "web"}}]}}));
    client.create(&pod).await.unwrap();
    let (claim, volume) = (Key::namespaced("default", "web"), Key::cluster("disk"));
    let is_protected = |metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta, name: &str| {
        metadata.finalizers.iter().flatten().any(|finalizer| finalizer == name)
    };
    until::<PersistentVolumeClaim>(&cluster, claim.clone(), |claim| {
        claim.is_some_and(|claim| is_protected(&claim.metadata, "kubernetes.io/pvc-protection"))
    })
    .await;
    until::<PersistentVolume>(&cluster, volume.clone(), |volume| {
        volume.is_some_and(|volume| is_protected(&volume.metadata, "kubernetes.io/pv-protection"))
    })
    .await;
    client.delete::<PersistentVolumeClaim>(&claim, &DeleteOptions::default()).await.unwrap();
    client.delete::<PersistentVolume>(&volume, &DeleteOptions::default()).await.unwrap();
    // Something else is done after that has been looked at: the two are still there then.
    add_volume(client, "later", "5Gi", "Retain").await;
    volume_in_phase(&cluster, "later", "Available").await;
    assert!(client.get::<PersistentVolumeClaim>(&claim).await.unwrap().metadata.deletion_timestamp.is_some());
    assert!(client.get::<PersistentVolume>(&volume).await.unwrap().metadata.deletion_timestamp.is_some());
    client
        .delete::<Pod>(&claim, &DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() })
        .await
        .unwrap();
    until::<PersistentVolumeClaim>(&cluster, claim, |claim| claim.is_none()).await;
    until::<PersistentVolume>(&cluster, volume, |volume| volume.is_none()).await;
    cluster.tasks.shutdown().await;
}

#[tokio::test]
async fn a_pod_runs_where_its_volume_is_once_its_claim_is_bound() {
    let cluster = cluster().await;
    let client = &cluster.client;
    until::<ServiceAccount>(&cluster, Key::namespaced("default", "default"), |account| account.is_some()).await;
    add_nodes(client).await;
    add_user(client, "web", "web").await;
    add_claim(client, "web", "manual").await;
    let key = Key::namespaced("default", "web");
    let says = |text: &'static str| {
        move |pod: Option<&Pod>| {
            let status = pod.and_then(|pod| pod.status.as_ref());
            let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
            conditions.iter().any(|one| one.message.as_deref().is_some_and(|message| message.contains(text)))
        }
    };
    until(&cluster, key.clone(), says("pod has unbound immediate PersistentVolumeClaims")).await;
    let volume: PersistentVolume = read(json!({"metadata": {"name": "disk"}, "spec": {
        "capacity": {"storage": "5Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "manual",
        "local": {"path": "/disks/a"}, "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "disk", "operator": "In", "values": ["edge-2"]}]}]}}}}));
    client.create(&volume).await.unwrap();
    until::<Pod>(&cluster, key, |pod| pod.and_then(|pod| pod.spec.as_ref()?.node_name.as_deref()) == Some("edge-2"))
        .await;
    cluster.tasks.shutdown().await;
}

async fn add_nodes(client: &Client) {
    for name in ["edge-1", "edge-2"] {
        let node: Node = read(json!({"metadata": {"name": name, "labels": {"disk": name}}, "status": {
            "allocatable": {"cpu": "2", "memory": "1Gi", "pods": "10"},
            "conditions": [{"type": "Ready", "status": "True"}]}}));
        client.create(&node).await.unwrap();
        client.replace_status(&node).await.unwrap();
    }
}

async fn add_class(client: &Client, provisioner: &str) {
    let class: StorageClass = read(json!({"metadata": {"name": "late"}, "provisioner": provisioner,
        "volumeBindingMode": "WaitForFirstConsumer"}));
    client.create(&class).await.unwrap();
}

async fn add_user(client: &Client, name: &str, claim: &str) {
    let pod: Pod = read(json!({"metadata": {"name": name, "namespace": "default"}, "spec": {
        "containers": [{"name": "c", "image": "web"}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]}}));
    client.create(&pod).await.unwrap();
}

async fn node_of(cluster: &Cluster, name: &str) -> String {
    let node = |pod: &Pod| pod.spec.as_ref()?.node_name.clone();
    let pod = until(cluster, Key::namespaced("default", name), |pod| pod.and_then(node).is_some()).await;
    node(&pod.unwrap()).unwrap()
}

fn local(name: &str, node: &str) -> PersistentVolume {
    read(json!({"metadata": {"name": name}, "spec": {
        "capacity": {"storage": "5Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "late",
        "local": {"path": "/disks/a"}, "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "disk", "operator": "In", "values": [node]}]}]}}}}))
}

#[tokio::test]
async fn a_claim_that_waits_for_its_first_consumer_is_bound_where_that_runs() {
    let cluster = cluster().await;
    let client = &cluster.client;
    until::<ServiceAccount>(&cluster, Key::namespaced("default", "default"), |account| account.is_some()).await;
    add_nodes(client).await;
    add_class(client, "kubernetes.io/no-provisioner").await;
    for (name, node) in [("disk-1", "edge-1"), ("disk-2", "edge-2")] {
        client.create(&local(name, node)).await.unwrap();
        volume_in_phase(&cluster, name, "Available").await;
    }
    add_claim(client, "web", "late").await;
    add_claim(client, "second", "late").await;
    said(&cluster, "WaitForFirstConsumer").await;
    add_user(client, "web", "web").await;
    add_user(client, "second", "second").await;
    let mut used = std::collections::BTreeSet::new();
    for name in ["web", "second"] {
        let node = node_of(&cluster, name).await;
        let claim = claim_in_phase(&cluster, name, "Bound").await;
        let volume = claim.spec.unwrap().volume_name.unwrap();
        assert_eq!(volume.replace("disk", "edge"), node, "the pod runs where its volume is");
        used.insert(volume);
    }
    assert_eq!(used.len(), 2);
    cluster.tasks.shutdown().await;
}

#[tokio::test]
async fn whoever_makes_volumes_is_told_the_node_and_the_pod_follows() {
    let cluster = cluster().await;
    let client = &cluster.client;
    until::<ServiceAccount>(&cluster, Key::namespaced("default", "default"), |account| account.is_some()).await;
    add_nodes(client).await;
    add_class(client, "disks.example").await;
    add_claim(client, "web", "late").await;
    add_user(client, "web", "web").await;
    let selected = |claim: &PersistentVolumeClaim| {
        claim.metadata.annotations.as_ref()?.get("volume.kubernetes.io/selected-node").cloned()
    };
    let key = Key::namespaced("default", "web");
    let claim = until(&cluster, key.clone(), |claim| claim.and_then(selected).is_some()).await.unwrap();
    let node = selected(&claim).unwrap();
    assert!(client.get::<Pod>(&key).await.unwrap().spec.unwrap().node_name.is_none(), "not before it has its volume");
    let mut volume = local("made", &node);
    volume.spec.as_mut().unwrap().claim_ref = Some(client::events::reference(&*claim));
    client.create(&volume).await.unwrap();
    assert_eq!(node_of(&cluster, "web").await, node);
    cluster.tasks.shutdown().await;
}

#[tokio::test]
async fn a_volume_that_lives_with_its_pod_has_a_claim_that_goes_with_it() {
    let cluster = cluster().await;
    let client = &cluster.client;
    until::<ServiceAccount>(&cluster, Key::namespaced("default", "default"), |account| account.is_some()).await;
    add_nodes(client).await;
    add_class(client, "kubernetes.io/no-provisioner").await;
    client.create(&local("disk", "edge-2")).await.unwrap();
    add_claim(client, "second-data", "late").await;
    for name in ["web", "second"] {
        let pod: Pod = read(json!({"metadata": {"name": name, "namespace": "default"}, "spec": {
            "containers": [{"name": "c", "image": "web"}],
            "volumes": [{"name": "data", "ephemeral": {"volumeClaimTemplate": {
                "metadata": {"labels": {"of": "web"}},
                "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "late",
                    "resources": {"requests": {"storage": "1Gi"}}}}}}]}}));
        client.create(&pod).await.unwrap();
    }
    assert_eq!(node_of(&cluster, "web").await, "edge-2");
    let claim = claim_in_phase(&cluster, "web-data", "Bound").await;
    assert_eq!(claim.metadata.labels.unwrap()["of"], "web");
    // A claim of the right name that was there before is nobody's to take.
    said(&cluster, "FailedBinding").await;
    let options = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    client.delete::<Pod>(&Key::namespaced("default", "web"), &options).await.unwrap();
    until::<PersistentVolumeClaim>(&cluster, Key::namespaced("default", "web-data"), |claim| claim.is_none()).await;
    cluster.tasks.shutdown().await;
}
