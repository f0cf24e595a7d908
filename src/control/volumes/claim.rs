//! What is to be done for a claim (`syncClaim`).

use std::sync::Arc;

use api::resources::admission::default_storage_class;
use client::events::{EventType, reference};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

use super::matching::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, SELECTED_NODE, annotation, claim_ref, find, is_meant_for, name_of, objection,
    phase, said_class, volume_name,
};
use super::protection::uses;
use super::step::Step;
use super::volume::phase_step;

/// Under these names a claim says who is to make its volume; older provisioners look at the first.
pub(crate) const PROVISIONER: [&str; 2] =
    ["volume.beta.kubernetes.io/storage-provisioner", "volume.kubernetes.io/storage-provisioner"];

/// What claims are decided on.
#[derive(Debug, Clone, Copy)]
pub(super) struct World<'a> {
    /// All volumes.
    pub(super) volumes: &'a [Arc<PersistentVolume>],
    /// All classes.
    pub(super) classes: &'a [Arc<StorageClass>],
    /// The pods of the claim's namespace, at least those that use it.
    pub(super) pods: &'a [Arc<Pod>],
    /// When.
    pub(super) now: Timestamp,
}

impl World<'_> {
    fn volume(&self, name: &str) -> Option<&PersistentVolume> {
        self.volumes.iter().find(|volume| name_of(&volume.metadata) == name).map(|volume| &**volume)
    }
}

/// Decides for a claim.
pub(super) fn decide(claim: &PersistentVolumeClaim, world: World<'_>) -> Vec<Step> {
    if annotation(&claim.metadata, BIND_COMPLETED).is_some() {
        bound(claim, world)
    } else if claim.metadata.deletion_timestamp.is_some() {
        Vec::new()
    } else if volume_name(claim).is_empty() {
        unbound(claim, world)
    } else {
        named(claim, world)
    }
}

/// A claim that does not care which volume it gets.
fn unbound(claim: &PersistentVolumeClaim, world: World<'_>) -> Vec<Step> {
    let class_name = said_class(claim);
    let class = world.classes.iter().find(|class| Some(name_of(&class.metadata)) == class_name);
    let waits = class.is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
    if let Some(volume) = find(claim, world.volumes.iter().map(|volume| &**volume), waits) {
        return bind(volume, claim, world.now);
    }
    match class_name {
        None if let Some(class) = default_class(claim, world.classes) => {
            vec![Step::claim(claim, json!({"spec": {"storageClassName": class}}))]
        }
        None | Some("") => {
            let text = "no persistent volumes available for this claim and no storage class is set";
            with_pending(claim, vec![Step::tell_claim(claim, EventType::Normal, "FailedBinding", text)])
        }
        Some(_) if waits && annotation(&claim.metadata, SELECTED_NODE).is_none() => {
            with_pending(claim, vec![waiting(claim, world.pods)])
        }
        Some(name) => provision(claim, name, class.map(|class| class.provisioner.as_str())),
    }
}

/// A claim from before there was a default class gets it later.
fn default_class(claim: &PersistentVolumeClaim, classes: &[Arc<StorageClass>]) -> Option<String> {
    let classes: Vec<Value> = classes.iter().filter_map(|class| serde_json::to_value(&**class).ok()).collect();
    let mut claim = serde_json::to_value(claim).ok()?;
    default_storage_class(&mut claim, &classes);
    claim["spec"]["storageClassName"].as_str().map(str::to_owned)
}

fn waiting(claim: &PersistentVolumeClaim, pods: &[Arc<Pod>]) -> Step {
    let waits = |pod: &&Arc<Pod>| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
        uses(pod, claim) && node.is_empty() && !matches!(phase, Some("Succeeded" | "Failed"))
    };
    let mut names: Vec<&str> = pods.iter().filter(waits).map(|pod| name_of(&pod.metadata)).collect();
    names.sort_unstable();
    let (reason, text) = match names.as_slice() {
        [] => ("WaitForFirstConsumer", "waiting for first consumer to be created before binding".to_owned()),
        [name] => ("WaitForPodScheduled", format!("waiting for pod {name} to be scheduled")),
        names => ("WaitForPodScheduled", format!("waiting for pods {} to be scheduled", names.join(","))),
    };
    Step::tell_claim(claim, EventType::Normal, reason, text)
}

/// No volume of the class is there: whoever makes them is asked for one.
fn provision(claim: &PersistentVolumeClaim, class: &str, provisioner: Option<&str>) -> Vec<Step> {
    let failed = |text: String| vec![Step::tell_claim(claim, EventType::Warning, "ProvisioningFailed", text)];
    let Some(provisioner) = provisioner else {
        return failed(format!("storageclass.storage.k8s.io {class:?} not found"));
    };
    if provisioner.starts_with("kubernetes.io/") {
        return failed(format!("no volume plugin matched name: {provisioner}"));
    }
    let mut steps = Vec::new();
    if PROVISIONER.into_iter().any(|name| annotation(&claim.metadata, name) != Some(provisioner)) {
        let [old, new] = PROVISIONER;
        steps.push(Step::claim(claim, json!({"metadata": {"annotations": {old: provisioner, new: provisioner}}})));
    }
    let text = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system \
         administrator. If volume creation is delayed, please verify that the provisioner is running and correctly \
         registered."
    );
    steps.push(Step::tell_claim(claim, EventType::Normal, "ExternalProvisioning", text));
    steps
}

/// A claim that names its volume.
fn named(claim: &PersistentVolumeClaim, world: World<'_>) -> Vec<Step> {
    let name = volume_name(claim);
    let Some(volume) = world.volume(name) else { return with_pending(claim, Vec::new()) };
    let refuse = |reason, text| with_pending(claim, vec![Step::tell_claim(claim, EventType::Warning, reason, text)]);
    if claim_ref(volume).is_none() {
        match objection(claim, volume) {
            None => bind(volume, claim, world.now),
            Some(text) => refuse("VolumeMismatch", format!("Cannot bind to requested volume {name:?}: {text}")),
        }
    } else if is_meant_for(volume, claim) {
        bind(volume, claim, world.now)
    } else {
        refuse("FailedBinding", format!("volume {name:?} already bound to a different claim."))
    }
}

/// A claim that was bound once.
fn bound(claim: &PersistentVolumeClaim, world: World<'_>) -> Vec<Step> {
    let name = volume_name(claim);
    if name.is_empty() {
        let text = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
        return lost(claim, "ClaimLost", text);
    }
    let Some(volume) = world.volume(name) else {
        return lost(claim, "ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!");
    };
    match claim_ref(volume) {
        Some(reference) if reference.uid != claim.metadata.uid => {
            let text = "Two claims are bound to the same volume, this one is bound incorrectly";
            lost(claim, "ClaimMisbound", text)
        }
        _ => bind(volume, claim, world.now),
    }
}

fn lost(claim: &PersistentVolumeClaim, reason: &'static str, text: &str) -> Vec<Step> {
    if claim_phase(claim) == "Lost" {
        return Vec::new();
    }
    let status = json!({"phase": "Lost", "accessModes": null, "capacity": null});
    vec![Step::claim_status(claim, status), Step::tell_claim(claim, EventType::Warning, reason, text)]
}

fn claim_phase(claim: &PersistentVolumeClaim) -> &str {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn with_pending(claim: &PersistentVolumeClaim, mut steps: Vec<Step>) -> Vec<Step> {
    if claim_phase(claim) != "Pending" {
        let status = json!({"phase": "Pending", "accessModes": null, "capacity": null});
        steps.push(Step::claim_status(claim, status));
    }
    steps
}

/// The change by which a volume refers to its claim, unless it does so already.
pub(crate) fn keep_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<Value> {
    let is_whole = claim_ref(volume).is_some_and(|reference| reference.uid == claim.metadata.uid);
    if is_whole && is_meant_for(volume, claim) {
        return None;
    }
    let mut change = json!({"spec": {"claimRef": reference(claim)}});
    if !is_meant_for(volume, claim) {
        change["metadata"]["annotations"][BOUND_BY_CONTROLLER] = json!("yes");
    }
    Some(change)
}

/// Binds both to each other, the volume first: who wins it has it. What is so already is left out.
fn bind(volume: &PersistentVolume, claim: &PersistentVolumeClaim, now: Timestamp) -> Vec<Step> {
    let mut steps: Vec<Step> = keep_for(volume, claim).map(|change| Step::volume(volume, change)).into_iter().collect();
    if phase(volume) != "Bound" {
        steps.push(phase_step(volume, "Bound", "", now));
    }
    let mut change = json!({});
    if volume_name(claim) != name_of(&volume.metadata) {
        change["spec"]["volumeName"] = json!(volume.metadata.name);
        change["metadata"]["annotations"][BOUND_BY_CONTROLLER] = json!("yes");
    }
    if annotation(&claim.metadata, BIND_COMPLETED).is_none() {
        change["metadata"]["annotations"][BIND_COMPLETED] = json!("yes");
    }
    if change != json!({}) {
        steps.push(Step::claim(claim, change));
    }
    let (spec, status) = (volume.spec.as_ref(), claim.status.as_ref());
    let modes = spec.and_then(|spec| spec.access_modes.as_ref());
    let mut change = json!({});
    if status.and_then(|status| status.access_modes.as_ref()) != modes {
        change["accessModes"] = json!(modes);
    }
    // The size of one that is bound already may differ for a reason, while it grows.
    if claim_phase(claim) != "Bound" {
        change["phase"] = json!("Bound");
        change["capacity"] = json!(spec.and_then(|spec| spec.capacity.as_ref()));
    }
    if change != json!({}) {
        steps.push(Step::claim_status(claim, change));
    }
    steps
}
