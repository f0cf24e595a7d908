//! Claims and volumes with the real API server over the memory store, in process.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use client::{Client, DeleteOptions, Key, ListOptions, Scope};
use k8s_openapi::api::core::v1::{Event, PersistentVolume, PersistentVolumeClaim, Pod, ServiceAccount};
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
