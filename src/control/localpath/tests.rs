//! Decisions for claims and volumes.

use std::sync::Arc;

use client::Object;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

use super::decide::{self, FINALIZER, OfClaim, OfVolume};

fn read<K: Object>(value: Value) -> K {
    serde_json::from_value(value).expect("an object")
}

fn claim(spec: &Value, node: &str) -> PersistentVolumeClaim {
    let mut value = json!({
        "metadata": {"name": "data", "namespace": "shop", "uid": "u1", "resourceVersion": "7", "annotations": {
            "volume.kubernetes.io/storage-provisioner": "coracle.dev/local-path"}},
        "spec": {"storageClassName": "local-path", "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}},
    });
    for (name, field) in spec.as_object().expect("an object") {
        value["spec"][name] = field.clone();
    }
    if !node.is_empty() {
        value["metadata"]["annotations"]["volume.kubernetes.io/selected-node"] = json!(node);
    }
    read(value)
}

#[test]
fn a_claim_gets_its_volume_once_its_node_is_known() {
    let class = decide::class(&[]);
    let decide = |spec: Value, node| match decide::of_claim(&claim(&spec, node), Some(&class)) {
        OfClaim::NotOurs => "not ours".to_owned(),
        OfClaim::Refused(why) => why,
        OfClaim::Wanted { node, .. } => format!("on {node}"),
    };
    assert_eq!(decide(json!({}), ""), "not ours");
    assert_eq!(decide(json!({}), "edge-1"), "on edge-1");
    assert_eq!(decide(json!({"accessModes": ["ReadWriteOncePod"]}), "edge-1"), "on edge-1");
    assert_eq!(decide(json!({"volumeName": "other"}), "edge-1"), "not ours");
    let modes = "NodePath only supports ReadWriteOnce and ReadWriteOncePod (1.22+) access modes";
    assert_eq!(decide(json!({"accessModes": ["ReadWriteMany"]}), "edge-1"), modes);
    assert_eq!(decide(json!({"volumeMode": "Block"}), "edge-1"), "block volumes are not supported");
    assert_eq!(decide(json!({"selector": {}}), "edge-1"), "claim.Spec.Selector is not supported");
}

#[test]
fn claims_of_others_and_those_that_go_are_left_alone() {
    let ours = decide::class(&[]);
    let other = StorageClass { provisioner: "disks.example.com".to_owned(), ..ours.clone() };
    let mut own = claim(&json!({}), "edge-1");
    assert_eq!(decide::of_claim(&own, Some(&other)), OfClaim::NotOurs);
    assert_eq!(decide::of_claim(&own, None), OfClaim::NotOurs);
    let at_once = StorageClass { volume_binding_mode: Some("Immediate".to_owned()), ..ours.clone() };
    let refused = decide::of_claim(&claim(&json!({}), ""), Some(&at_once));
    assert_eq!(refused, OfClaim::Refused("configuration error, no node was specified".to_owned()));
    own.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).expect("a time"));
    assert_eq!(decide::of_claim(&own, Some(&ours)), OfClaim::NotOurs);
}

#[test]
fn the_volume_is_bound_to_its_claim_and_its_node() {
    let own = claim(&json!({}), "edge-1");
    let node: Node = read(json!({"metadata": {"name": "edge-1", "labels": {"kubernetes.io/hostname": "edge"}}}));
    let path = "/data/storage/pvc-u1_shop_data";
    assert_eq!(decide::directory(&own), "pvc-u1_shop_data");
    let volume = serde_json::to_value(decide::volume(&own, &decide::class(&[]), &node, path)).expect("an object");
    let here = json!([{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["edge"]}]}]);
    let expected = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": "pvc-u1", "finalizers": [FINALIZER], "annotations": {
            "coracle.dev/node": "edge-1", "pv.kubernetes.io/provisioned-by": "coracle.dev/local-path"}},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "local": {"path": path},
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": "data", "namespace": "shop",
                "resourceVersion": "7", "uid": "u1"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": here}},
            "persistentVolumeReclaimPolicy": "Delete", "storageClassName": "local-path", "volumeMode": "Filesystem",
        },
    });
    assert_eq!(volume, expected);
}

#[test]
fn a_long_name_is_cut_behind_what_keeps_it_apart() {
    let mut own = claim(&json!({}), "edge-1");
    own.metadata.name = Some("n".repeat(253));
    let name = decide::directory(&own);
    assert_eq!(name.len(), 255);
    assert!(name.starts_with("pvc-u1_shop_nnn"));
}

#[test]
fn data_go_with_a_released_volume_that_is_to_be_deleted_and_with_no_other() {
    let decide = |policy: &str, phase: &str, finalizers: &[&str], more: Value| {
        let mut value = json!({
            "metadata": {"name": "pvc-u1", "finalizers": finalizers, "annotations": {
                "coracle.dev/node": "edge-1", "pv.kubernetes.io/provisioned-by": "coracle.dev/local-path"}},
            "spec": {"persistentVolumeReclaimPolicy": policy, "local": {"path": "/data/storage/pvc-u1_shop_data"}},
            "status": {"phase": phase},
        });
        for (name, field) in more.as_object().expect("an object") {
            value["metadata"][name] = field.clone();
        }
        decide::of_volume(&read::<PersistentVolume>(value))
    };
    let gone = || json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
    let remove = OfVolume::Remove {
        node: "edge-1".to_owned(),
        directory: "pvc-u1_shop_data".to_owned(),
        finalizers: vec!["a/b".to_owned()],
    };
    assert_eq!(decide("Delete", "Bound", &[FINALIZER], json!({})), OfVolume::Stays);
    assert_eq!(decide("Delete", "Bound", &[FINALIZER], gone()), OfVolume::Stays);
    assert_eq!(decide("Delete", "Released", &["a/b", FINALIZER], json!({})), remove);
    assert_eq!(decide("Delete", "Released", &["a/b", FINALIZER], gone()), remove);
    assert_eq!(decide("Delete", "Released", &["a/b"], json!({})), remove);
    assert_eq!(decide("Delete", "Released", &["a/b"], gone()), OfVolume::Stays);
    assert_eq!(decide("Delete", "Bound", &[], json!({})), OfVolume::Keep(vec![FINALIZER.to_owned()]));
    assert_eq!(decide("Retain", "Released", &["a/b"], json!({})), OfVolume::Stays);
    assert_eq!(decide("Retain", "Released", &["a/b", FINALIZER], gone()), OfVolume::Keep(vec!["a/b".to_owned()]));
    for (name, others) in [("pvc-u2", "pvc-u1_shop_data"), ("pvc-u", "pvc-u1_shop_data"), ("pv", "pvc-u1_shop_data")] {
        let refused = decide("Delete", "Released", &[FINALIZER], json!({ "name": name }));
        assert!(matches!(&refused, OfVolume::Strange(why) if why.contains(others)), "{refused:?}");
    }
    let strange = json!({"annotations": {"pv.kubernetes.io/provisioned-by": "disks.example.com"}});
    assert_eq!(decide("Delete", "Released", &[FINALIZER], strange), OfVolume::Stays);
}

#[test]
fn where_another_class_is_the_default_this_one_is_not() {
    let name = "storageclass.kubernetes.io/is-default-class";
    let said = |others: &[Arc<StorageClass>]| decide::class(others).metadata.annotations.expect("some")[name].clone();
    assert_eq!(said(&[]), "true");
    assert_eq!(said(&[Arc::new(decide::class(&[]))]), "false");
}
