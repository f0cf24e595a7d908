use std::sync::Arc;

use client::Patch;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::step::Step;
use super::{claim, matching, protection, volume};

fn read<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn merged(mut base: Value, change: &Value) -> Value {
    for (key, value) in change.as_object().unwrap() {
        let inner =
            if value.is_object() && base[key].is_object() { merged(base[key].clone(), value) } else { value.clone() };
        base[key] = inner;
    }
    base
}

/// A claim of 5Gi in `default` with this uid, and what differs from that.
fn claim(name: &str, change: Value) -> PersistentVolumeClaim {
    let base = json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "resourceVersion": "7"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "resources": {"requests": {"storage": "5Gi"}}},
        "status": {"phase": "Pending"},
    });
    read(merged(base, &change))
}

/// A free volume of this size, and what differs from that.
fn volume(name: &str, size: &str, change: Value) -> Arc<PersistentVolume> {
    let base = json!({
        "metadata": {"name": name, "uid": format!("uid-{name}"), "resourceVersion": "9"},
        "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/data"},
            "persistentVolumeReclaimPolicy": "Retain"},
        "status": {"phase": "Available"},
    });
    Arc::new(read(merged(base, &change)))
}

fn class(name: &str, change: Value) -> Arc<StorageClass> {
    Arc::new(read(merged(json!({"metadata": {"name": name}, "provisioner": "kubernetes.io/no-provisioner"}), &change)))
}

fn kept_for(name: &str, uid: Value) -> Value {
    json!({"spec": {"claimRef": {"namespace": "default", "name": name, "uid": uid}}})
}

#[derive(Default)]
struct World {
    volumes: Vec<Arc<PersistentVolume>>,
    classes: Vec<Arc<StorageClass>>,
    pods: Vec<Arc<Pod>>,
}

/// One line for each step.
fn show(steps: &[Step]) -> Vec<String> {
    let line = |step: &Step| {
        let (what, key, patch) = match step {
            Step::Volume(key, patch) => ("volume", key, patch),
            Step::VolumeStatus(key, patch) => ("volume status", key, patch),
            Step::Claim(key, patch) => ("claim", key, patch),
            Step::ClaimStatus(key, patch) => ("claim status", key, patch),
            Step::Tell { kind, reason, message, .. } => return format!("{kind:?} {reason}: {message}"),
        };
        let Patch::Merge(patch) = patch else { panic!("{patch:?}") };
        format!("{what} {key}: {patch}")
    };
    steps.iter().map(line).collect()
}

fn steps_of(claim: &PersistentVolumeClaim, world: &World) -> Vec<String> {
    let World { volumes, classes, pods } = world;
    show(&claim::decide(claim, claim::World { volumes, classes, pods, now: Timestamp::UNIX_EPOCH }))
}

fn found(claim: &PersistentVolumeClaim, volumes: Vec<Arc<PersistentVolume>>) -> Option<String> {
    matching::find(claim, volumes.iter().map(|volume| &**volume), false).and_then(|volume| volume.metadata.name.clone())
}

#[test]
fn a_claim_gets_the_smallest_volume_that_fits() {
    let own = claim("web", json!({}));
    let sizes = [("a", "1Gi"), ("b", "20Gi"), ("c", "6Gi"), ("d", "6144Mi"), ("e", "7Gi")];
    let volumes: Vec<_> = sizes.into_iter().map(|(name, size)| volume(name, size, json!({}))).collect();
    assert_eq!(found(&own, volumes).as_deref(), Some("c"));
    let more = volume("more", "5Gi", json!({"spec": {"accessModes": ["ReadWriteOnce", "ReadWriteMany"]}}));
    assert_eq!(found(&own, vec![more, volume("exact", "50Gi", json!({}))]).as_deref(), Some("exact"));
    assert_eq!(found(&own, vec![volume("a", "4Gi", json!({}))]), None);
}

#[test]
fn what_a_claim_asks_for_rules_volumes_out() {
    let none = |own: Value, change: Value| {
        assert_eq!(found(&claim("web", own), vec![volume("a", "9Gi", change.clone())]), None, "{change}");
    };
    none(json!({}), json!({"spec": {"storageClassName": "fast"}}));
    none(json!({}), json!({"spec": {"accessModes": ["ReadOnlyMany"]}}));
    none(json!({}), json!({"spec": {"volumeMode": "Block"}}));
    none(json!({}), json!({"status": {"phase": "Released"}}));
    none(json!({}), json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    none(json!({}), kept_for("other", Value::Null));
    none(json!({}), kept_for("web", json!("an earlier one")));
    none(json!({"spec": {"storageClassName": "fast"}}), json!({}));
    none(
        json!({"spec": {"selector": {"matchLabels": {"tier": "gold"}}}}),
        json!({"metadata": {"labels": {"tier": "tin"}}}),
    );
    let picky = claim("web", json!({"spec": {"selector": {"matchLabels": {"tier": "gold"}}}}));
    let gold = volume("gold", "9Gi", json!({"metadata": {"labels": {"tier": "gold"}}}));
    assert_eq!(found(&picky, vec![volume("a", "6Gi", json!({})), gold]).as_deref(), Some("gold"));
}

#[test]
fn a_volume_that_is_kept_for_the_claim_goes_before_better_ones() {
    let kept = volume("kept", "90Gi", kept_for("web", Value::Null));
    let volumes = vec![volume("a", "5Gi", json!({})), kept];
    assert_eq!(found(&claim("web", json!({})), volumes.clone()).as_deref(), Some("kept"));
    assert_eq!(found(&claim("other", json!({})), volumes).as_deref(), Some("a"));
}

#[test]
fn binding_writes_the_volume_first_and_against_its_version() {
    let world = World { volumes: vec![volume("a", "6Gi", json!({}))], ..World::default() };
    let reference = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": "web", "namespace": "default",
        "resourceVersion": "7", "uid": "uid-web"});
    let expected = [
        format!(
            "volume a: {}",
            json!({"metadata": {"annotations": {"pv.kubernetes.io/bound-by-controller": "yes"}, "resourceVersion": "9"},
                "spec": {"claimRef": reference}})
        ),
        format!(
            "volume status a: {}",
            json!({"metadata": {"uid": "uid-a"}, "status": {"phase": "Bound", "message": null, "reason": null,
                "lastPhaseTransitionTime": "1970-01-01T00:00:00Z"}})
        ),
        format!(
            "claim default/web: {}",
            json!({"metadata": {"annotations": {"pv.kubernetes.io/bound-by-controller": "yes",
                "pv.kubernetes.io/bind-completed": "yes"}, "resourceVersion": "7"}, "spec": {"volumeName": "a"}})
        ),
        format!(
            "claim status default/web: {}",
            json!({"metadata": {"uid": "uid-web"}, "status": {"phase": "Bound", "accessModes": ["ReadWriteOnce"],
                "capacity": {"storage": "6Gi"}}})
        ),
    ];
    assert_eq!(steps_of(&claim("web", json!({})), &world), expected);
}

#[test]
fn what_a_user_has_chosen_is_not_said_to_be_the_controllers_choice() {
    let kept = World { volumes: vec![volume("a", "6Gi", kept_for("web", Value::Null))], ..World::default() };
    let steps = steps_of(&claim("web", json!({"spec": {"volumeName": "a"}})), &kept);
    assert_eq!(steps.len(), 4, "{steps:?}");
    assert!(!steps.concat().contains("bound-by-controller"), "{steps:?}");
}

#[test]
fn a_bound_pair_is_left_alone() {
    let bound = claim(
        "web",
        json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}, "spec": {"volumeName": "a"},
            "status": {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "4Gi"}}}),
    );
    let own = volume("a", "6Gi", merged(kept_for("web", json!("uid-web")), &json!({"status": {"phase": "Bound"}})));
    assert_eq!(steps_of(&bound, &World { volumes: vec![Arc::clone(&own)], ..World::default() }), [""; 0]);
    assert_eq!(show(&volume::decide(&own, Some(&bound), Timestamp::UNIX_EPOCH)), [""; 0]);
    // Its volume goes, or comes to be another's.
    let said = steps_of(&bound, &World::default());
    assert_eq!(said[1], "Warning ClaimLost: Bound claim has lost its PersistentVolume. Data on the volume is lost!");
    let taken = volume("a", "6Gi", kept_for("other", json!("uid-other")));
    let said = steps_of(&bound, &World { volumes: vec![taken], ..World::default() });
    assert!(said[0].contains("Lost") && said[1].starts_with("Warning ClaimMisbound"), "{said:?}");
}

#[test]
fn a_volume_that_a_claim_names_must_be_free_and_satisfy_it() {
    let own = claim("web", json!({"spec": {"volumeName": "a"}}));
    let said = |change: Value| steps_of(&own, &World { volumes: vec![volume("a", "6Gi", change)], ..World::default() });
    let mismatch = |why: &str| [format!("Warning VolumeMismatch: Cannot bind to requested volume \"a\": {why}")];
    assert_eq!(said(json!({"spec": {"capacity": {"storage": "1Gi"}}})), mismatch("requested PV is too small"));
    assert_eq!(said(json!({"spec": {"storageClassName": "x"}})), mismatch("storageClassName does not match"));
    assert_eq!(said(json!({"spec": {"volumeMode": "Block"}})), mismatch("incompatible volumeMode"));
    assert_eq!(said(json!({"spec": {"accessModes": ["ReadOnlyMany"]}})), mismatch("incompatible accessMode"));
    let taken = said(kept_for("other", json!("uid-other")));
    assert_eq!(taken, ["Warning FailedBinding: volume \"a\" already bound to a different claim."]);
    assert_eq!(steps_of(&own, &World::default()), [""; 0]);
    assert_eq!(said(json!({})).len(), 4);
}

#[test]
fn a_claim_without_a_volume_says_what_it_waits_for() {
    let of_class = |name: &str| claim("web", json!({"spec": {"storageClassName": name}}));
    let world = World {
        classes: vec![
            class("local", json!({"volumeBindingMode": "WaitForFirstConsumer"})),
            class("manual", json!({})),
            class("csi", json!({"provisioner": "disks.example.com"})),
        ],
        volumes: vec![volume("a", "6Gi", json!({"spec": {"storageClassName": "local"}}))],
        pods: Vec::new(),
    };
    let none = "Normal FailedBinding: no persistent volumes available for this claim and no storage class is set";
    assert_eq!(steps_of(&of_class(""), &world), [none]);
    let wait = "Normal WaitForFirstConsumer: waiting for first consumer to be created before binding";
    assert_eq!(steps_of(&of_class("local"), &world), [wait]);
    let fail = "Warning ProvisioningFailed: no volume plugin matched name: kubernetes.io/no-provisioner";
    assert_eq!(steps_of(&of_class("manual"), &world), [fail]);
    let absent = "Warning ProvisioningFailed: storageclass.storage.k8s.io \"absent\" not found";
    assert_eq!(steps_of(&of_class("absent"), &world), [absent]);
    let asked = steps_of(&of_class("csi"), &world);
    assert!(asked[0].contains("volume.kubernetes.io/storage-provisioner\":\"disks.example.com"), "{asked:?}");
    assert!(asked[1].starts_with("Normal ExternalProvisioning: Waiting for a volume to be created"), "{asked:?}");
    let pod: Pod = read(json!({"metadata": {"name": "first", "namespace": "default"}, "spec": {"containers": [],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "web"}}]}}));
    let world = World { pods: vec![Arc::new(pod)], ..world };
    let wait = "Normal WaitForPodScheduled: waiting for pod first to be scheduled";
    assert_eq!(steps_of(&of_class("local"), &world), [wait]);
}

#[test]
fn a_claim_that_says_no_class_gets_a_default_one_that_came_later() {
    let mut own = claim("web", json!({}));
    own.spec.as_mut().unwrap().storage_class_name = None;
    let default = json!({"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}});
    let world = World { classes: vec![class("slow", json!({})), class("fast", default)], ..World::default() };
    let change = json!({"metadata": {"resourceVersion": "7"}, "spec": {"storageClassName": "fast"}});
    assert_eq!(steps_of(&own, &world), [format!("claim default/web: {change}")]);
    assert!(steps_of(&claim("web", json!({})), &world)[0].starts_with("Normal FailedBinding"));
}

#[test]
fn a_volume_without_its_claim_is_released_and_reclaimed_by_its_policy() {
    let said = |policy: &str, more: Value| {
        let mut own = merged(kept_for("web", json!("uid-web")), &json!({"status": {"phase": "Bound"}}));
        own["spec"]["persistentVolumeReclaimPolicy"] = json!(policy);
        let own = volume("a", "6Gi", merged(own, &more));
        let steps = show(&volume::decide(&own, None, Timestamp::UNIX_EPOCH));
        steps
            .into_iter()
            .filter_map(|line| {
                let phases = ["Released", "Failed", "Available", "Bound"];
                let phase = |phase: &&str| line.contains(&format!("\"phase\":\"{phase}\""));
                phases.into_iter().find(phase).map(str::to_owned).or(line.starts_with("Warning").then_some(line))
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(said("Retain", json!({})), ["Released"]);
    let recycle = "Warning VolumeFailedRecycle: No recycler plugin found for the volume!";
    assert_eq!(said("Recycle", json!({})), ["Released", "Failed", recycle]);
    let delete = "Warning VolumeFailedDelete: error getting deleter volume plugin for volume \"a\": no deletable volume \
                  plugin matched";
    assert_eq!(said("Delete", json!({})), ["Released", "Failed", delete]);
    let made = json!({"metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": "disks.example.com"}}});
    assert_eq!(said("Delete", made), ["Released"]);
    assert_eq!(said("Delete", json!({"status": {"phase": "Failed"}})), [""; 0]);
}

#[test]
fn a_volume_whose_claim_is_bound_elsewhere_becomes_free_or_stays_kept() {
    let other = claim("web", json!({"spec": {"volumeName": "b"}}));
    let bound = merged(kept_for("web", json!("uid-web")), &json!({"status": {"phase": "Bound"}}));
    let ours = json!({"metadata": {"annotations": {"pv.kubernetes.io/bound-by-controller": "yes"}}});
    let steps =
        show(&volume::decide(&volume("a", "6Gi", merged(bound.clone(), &ours)), Some(&other), Timestamp::UNIX_EPOCH));
    assert!(steps[0].contains("\"claimRef\":null") && steps[1].contains("Available"), "{steps:?}");
    let steps = show(&volume::decide(&volume("a", "6Gi", bound), Some(&other), Timestamp::UNIX_EPOCH));
    assert!(steps[0].contains("\"claimRef\":{\"uid\":null}") && steps[1].contains("Available"), "{steps:?}");
}

#[test]
fn finalizers_come_at_once_and_go_with_the_last_user() {
    let own = protection::OF_CLAIMS;
    let fresh = claim("web", json!({}));
    assert_eq!(protection::finalizers(&fresh.metadata, own, false), Some(vec![own.to_owned()]));
    let kept = claim("web", json!({"metadata": {"finalizers": ["a/b", own]}}));
    assert_eq!(protection::finalizers(&kept.metadata, own, false), None);
    let gone = json!({"metadata": {"finalizers": ["a/b", own], "deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let gone = claim("web", gone);
    assert_eq!(protection::finalizers(&gone.metadata, own, true), None);
    assert_eq!(protection::finalizers(&gone.metadata, own, false), Some(vec!["a/b".to_owned()]));
    let pod = |node: Value, volume: Value| -> Pod {
        read(json!({"metadata": {"name": "p", "namespace": "default"},
            "spec": {"containers": [], "nodeName": node, "volumes": [volume]}}))
    };
    let named = json!({"name": "v", "persistentVolumeClaim": {"claimName": "web"}});
    assert!(protection::holds(&pod(json!("edge-1"), named.clone()), &gone));
    assert!(!protection::holds(&pod(Value::Null, named), &gone));
    let ephemeral = pod(json!("edge-1"), json!({"name": "v", "ephemeral": {}}));
    assert_eq!(protection::claims_of(&ephemeral), [("p-v".to_owned(), true)]);
}
