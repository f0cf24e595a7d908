//! Volumes of nodes' own disks with the real API server over the memory store, in process.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use client::{DeleteOptions, Informer, Key, ListOptions, Patch, Scope};
use control::localpath::LocalStorage;
use k8s_openapi::api::core::v1::{Event, Node, PersistentVolume, PersistentVolumeClaim, Pod, ServiceAccount};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::json;
use support::{Cluster, cluster_of, read, until};
use task::SystemClock;

async fn with_storage() -> Cluster {
    let cluster = cluster_of(Arc::new(SystemClock), 1, LocalStorage::On).await;
    until::<ServiceAccount>(&cluster, Key::namespaced("default", "default"), |account| account.is_some()).await;
    until::<StorageClass>(&cluster, Key::cluster("local-path"), |class| class.is_some()).await;
    let node: Node = read(json!({
        "metadata": {"name": "edge-1", "labels": {"kubernetes.io/hostname": "edge-1"}},
        "status": {
            "allocatable": {"cpu": "2", "memory": "1Gi", "pods": "10"},
            "addresses": [{"type": "InternalIP", "address": "192.0.2.7"}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }));
    cluster.client.create(&node).await.unwrap();
    cluster.client.replace_status(&node).await.unwrap();
    cluster
}

fn web() -> Key {
    Key::namespaced("default", "web")
}

/// A claim that names no class, and a pod that uses it.
async fn add_claim_and_user(cluster: &Cluster) {
    let claim: PersistentVolumeClaim = read(json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}}}));
    cluster.client.create(&claim).await.unwrap();
    let pod: Pod = read(json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {
        "containers": [{"name": "c", "image": "web"}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "web"}}]}}));
    cluster.client.create(&pod).await.unwrap();
}

async fn bound(cluster: &Cluster) -> (PersistentVolumeClaim, Key) {
    let is_bound = |claim: Option<&PersistentVolumeClaim>| {
        claim.and_then(|claim| claim.status.as_ref()?.phase.as_deref()) == Some("Bound")
    };
    let claim = (*until(cluster, web(), is_bound).await.unwrap()).clone();
    let volume = Key::cluster(claim.spec.as_ref().unwrap().volume_name.as_deref().unwrap());
    (claim, volume)
}

async fn said(cluster: &Cluster, reason: &str, text: &str) {
    let events = Informer::<Event>::spawn(&cluster.client, &cluster.tasks, Scope::Cluster, ListOptions::default());
    let mut dirty = events.subscribe();
    let is_it = |event: &Arc<Event>| {
        event.reason.as_deref() == Some(reason) && event.message.as_deref().is_some_and(|said| said.contains(text))
    };
    let found = async {
        while !events.snapshot().iter().any(is_it) {
            dirty.next().await;
        }
    };
    let late = |_| panic!("nobody said {reason}: {text}");
    tokio::time::timeout(std::time::Duration::from_secs(20), found).await.unwrap_or_else(late);
}

async fn remove<K: client::Object>(cluster: &Cluster, key: &Key) {
    let options = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    cluster.client.delete::<K>(key, &options).await.unwrap();
}

#[tokio::test]
async fn a_claim_without_a_class_gets_a_directory_that_goes_with_it() {
    let cluster = with_storage().await;
    add_claim_and_user(&cluster).await;
    let (claim, volume) = bound(&cluster).await;
    let directory = format!("{}_default_web", volume.name);
    assert_eq!(volume.name, format!("pvc-{}", claim.metadata.uid.unwrap()));
    assert_eq!(*cluster.disks.made.lock().unwrap(), [("edge-1".to_owned(), directory.clone())].into());
    let found: PersistentVolume = cluster.client.get(&volume).await.unwrap();
    assert_eq!(found.spec.unwrap().local.unwrap().path, format!("/disks/{directory}"));
    let on_node = |pod: Option<&Pod>| pod.and_then(|pod| pod.spec.as_ref()?.node_name.as_deref()) == Some("edge-1");
    until(&cluster, web(), on_node).await;
    said(&cluster, "Provisioning", "External provisioner is provisioning volume for claim \"default/web\"").await;
    said(&cluster, "ProvisioningSucceeded", &format!("Successfully provisioned volume {}", volume.name)).await;
    remove::<PersistentVolumeClaim>(&cluster, &web()).await;
    // It is in use, so that it stays.
    assert!(!cluster.disks.made.lock().unwrap().is_empty());
    remove::<Pod>(&cluster, &web()).await;
    until::<PersistentVolumeClaim>(&cluster, web(), |claim| claim.is_none()).await;
    until::<PersistentVolume>(&cluster, volume, |volume| volume.is_none()).await;
    assert!(cluster.disks.made.lock().unwrap().is_empty(), "the directory is left");
    cluster.tasks.shutdown().await;
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_asked_again_and_people_are_told() {
    let cluster = with_storage().await;
    cluster.disks.deaf.store(2, Ordering::SeqCst);
    add_claim_and_user(&cluster).await;
    let (_, volume) = bound(&cluster).await;
    said(&cluster, "ProvisioningFailed", "failed to provision volume with StorageClass \"local-path\": ").await;
    cluster.disks.deaf.store(2, Ordering::SeqCst);
    remove::<Pod>(&cluster, &web()).await;
    remove::<PersistentVolumeClaim>(&cluster, &web()).await;
    until::<PersistentVolume>(&cluster, volume, |volume| volume.is_none()).await;
    said(&cluster, "VolumeFailedDelete", "edge-1").await;
    assert!(cluster.disks.made.lock().unwrap().is_empty(), "the directory is left");
    cluster.tasks.shutdown().await;
}

#[tokio::test]
async fn a_node_that_never_answers_keeps_others_from_nothing() {
    let cluster = with_storage().await;
    cluster.client.create(&read::<Node>(json!({"metadata": {"name": "edge-2"}}))).await.unwrap();
    *cluster.disks.silent.lock().unwrap() = Some("edge-2".to_owned());
    for number in 0..12 {
        let claim: PersistentVolumeClaim = read(json!({
            "metadata": {"name": format!("silent-{number}"), "namespace": "default", "annotations": {
                "volume.kubernetes.io/selected-node": "edge-2"}},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}));
        cluster.client.create(&claim).await.unwrap();
    }
    said(&cluster, "Provisioning", "External provisioner is provisioning volume for claim \"default/silent-").await;
    add_claim_and_user(&cluster).await;
    bound(&cluster).await;
    assert_eq!(cluster.disks.made.lock().unwrap().len(), 1);
    cluster.tasks.shutdown().await;
}

#[tokio::test]
async fn data_that_are_to_be_kept_stay_when_volume_and_node_go() {
    let cluster = with_storage().await;
    add_claim_and_user(&cluster).await;
    let (_, volume) = bound(&cluster).await;
    let keep = Patch::Merge(json!({"spec": {"persistentVolumeReclaimPolicy": "Retain"}}));
    cluster.client.patch::<PersistentVolume>(&volume, &keep).await.unwrap();
    remove::<Pod>(&cluster, &web()).await;
    remove::<PersistentVolumeClaim>(&cluster, &web()).await;
    let is_released = |volume: Option<&PersistentVolume>| {
        volume.and_then(|volume| volume.status.as_ref()?.phase.as_deref()) == Some("Released")
    };
    until(&cluster, volume.clone(), is_released).await;
    remove::<PersistentVolume>(&cluster, &volume).await;
    until::<PersistentVolume>(&cluster, volume, |volume| volume.is_none()).await;
    assert_eq!(cluster.disks.made.lock().unwrap().len(), 1);
    cluster.tasks.shutdown().await;
}
