//! What is to be done for a volume (`syncVolume`).

use client::events::{EventType, reference};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use serde_json::{Value, json};

use super::matching::{BOUND_BY_CONTROLLER, annotation, claim_ref, name_of, phase, volume_name};
use super::step::Step;

/// Who has made a volume.
pub(crate) const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Which driver has taken a volume over from what was built in.
const MIGRATED_TO: &str = "pv.kubernetes.io/migrated-to";

/// Decides for a volume; `claim` is what has the name that it refers to.
pub(super) fn decide(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>, now: Timestamp) -> Vec<Step> {
    let uid = claim_ref(volume).and_then(|reference| reference.uid.as_deref()).filter(|uid| !uid.is_empty());
    let Some(uid) = uid else { return become_phase(volume, "Available", now) };
    // Another claim of the same name is none of its own.
    let Some(claim) = claim.filter(|claim| claim.metadata.uid.as_deref() == Some(uid)) else {
        return released(volume, now);
    };
    match volume_name(claim) {
        // The claim is about to be bound, which is done from its side.
        "" => Vec::new(),
        name if name == name_of(&volume.metadata) => become_phase(volume, "Bound", now),
        _ if annotation(&volume.metadata, PROVISIONED_BY).is_some() && policy(volume) == "Delete" => {
            released(volume, now)
        }
        _ => unbind(volume, now),
    }
}

fn policy(volume: &PersistentVolume) -> &str {
    volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref()).unwrap_or_default()
}

fn become_phase(volume: &PersistentVolume, wanted: &str, now: Timestamp) -> Vec<Step> {
    if phase(volume) == wanted { Vec::new() } else { vec![phase_step(volume, wanted, "", now)] }
}

/// The change of a phase; what was said of the former one is forgotten.
pub(super) fn phase_step(volume: &PersistentVolume, phase: &str, message: &str, now: Timestamp) -> Step {
    let message = if message.is_empty() { Value::Null } else { message.into() };
    let since = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let status = json!({"phase": phase, "message": message, "reason": null, "lastPhaseTransitionTime": since});
    Step::volume_status(volume, status)
}

/// Its claim is bound elsewhere. One that a user has kept for the claim stays so.
fn unbind(volume: &PersistentVolume, now: Timestamp) -> Vec<Step> {
    let change = if annotation(&volume.metadata, BOUND_BY_CONTROLLER).is_some() {
        json!({"metadata": {"annotations": {BOUND_BY_CONTROLLER: null}}, "spec": {"claimRef": null}})
    } else {
        json!({"spec": {"claimRef": {"uid": null}}})
    };
    let mut steps = vec![Step::volume(volume, change)];
    steps.extend(become_phase(volume, "Available", now));
    steps
}

/// Its claim is gone. One that has failed keeps saying so.
fn released(volume: &PersistentVolume, now: Timestamp) -> Vec<Step> {
    let mut steps = Vec::new();
    if !matches!(phase(volume), "Released" | "Failed") {
        steps.push(phase_step(volume, "Released", "", now));
    }
    if let Some((reason, message)) = obstacle(volume).filter(|_| phase(volume) != "Failed") {
        steps.push(phase_step(volume, "Failed", &message, now));
        let subject = reference(volume);
        steps.push(Step::Tell { subject, kind: EventType::Warning, reason, message });
    }
    steps
}

/// Why what is to become of a released volume cannot be done here: nothing here empties or deletes volumes.
fn obstacle(volume: &PersistentVolume) -> Option<(&'static str, String)> {
    if annotation(&volume.metadata, MIGRATED_TO).is_some_and(|driver| !driver.is_empty()) {
        return None;
    }
    let maker = annotation(&volume.metadata, PROVISIONED_BY).unwrap_or_default();
    match policy(volume) {
        "Retain" => None,
        "Recycle" => Some(("VolumeFailedRecycle", "No recycler plugin found for the volume!".to_owned())),
        // Who has made it from outside deletes it.
        "Delete" if !maker.is_empty() && !maker.starts_with("kubernetes.io/") => None,
        "Delete" => {
            let name = name_of(&volume.metadata);
            let text =
                format!("error getting deleter volume plugin for volume {name:?}: no deletable volume plugin matched");
            Some(("VolumeFailedDelete", text))
        }
        _ => {
            let text = "Volume has unrecognized PersistentVolumeReclaimPolicy";
            Some(("VolumeUnknownReclaimPolicy", text.to_owned()))
        }
    }
}
