//! What is to be written or told, as data.

use client::events::{EventType, reference};
use client::{Key, Patch};
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use serde_json::{Value, json};

/// One of the things that are to be done in turn; each one only after those before it have worked.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// A volume changes.
    Volume(Key, Patch),
    /// The status of a volume changes.
    VolumeStatus(Key, Patch),
    /// A claim changes.
    Claim(Key, Patch),
    /// The status of a claim changes.
    ClaimStatus(Key, Patch),
    /// People are told.
    Tell { subject: ObjectReference, kind: EventType, reason: &'static str, message: String },
}

impl Step {
    /// Changes a volume that is as it was when this was decided.
    pub(super) fn volume(volume: &PersistentVolume, mut change: Value) -> Self {
        change["metadata"]["resourceVersion"] = json!(volume.metadata.resource_version);
        Self::Volume(Key::of(&volume.metadata), Patch::Merge(change))
    }

    /// Changes the status of this very volume; a step before may have changed the rest.
    pub(super) fn volume_status(volume: &PersistentVolume, status: Value) -> Self {
        let change = json!({"metadata": {"uid": volume.metadata.uid}, "status": status});
        Self::VolumeStatus(Key::of(&volume.metadata), Patch::Merge(change))
    }

    /// Changes a claim that is as it was when this was decided.
    pub(super) fn claim(claim: &PersistentVolumeClaim, mut change: Value) -> Self {
        change["metadata"]["resourceVersion"] = json!(claim.metadata.resource_version);
        Self::Claim(Key::of(&claim.metadata), Patch::Merge(change))
    }

    /// Changes the status of this very claim; a step before may have changed the rest.
    pub(super) fn claim_status(claim: &PersistentVolumeClaim, status: Value) -> Self {
        let change = json!({"metadata": {"uid": claim.metadata.uid}, "status": status});
        Self::ClaimStatus(Key::of(&claim.metadata), Patch::Merge(change))
    }

    /// Says something of a claim.
    pub(super) fn tell_claim(
        claim: &PersistentVolumeClaim,
        kind: EventType,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self::Tell { subject: reference(claim), kind, reason, message: message.into() }
    }
}
