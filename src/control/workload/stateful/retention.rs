//! To whom the claims of a set's pods belong, and with whom they go.
//!
//! After `updateClaimOwnerRefForSetAndPod` and `isClaimOwnerUpToDate` in pkg/controller/statefulset/stateful_set_utils.go
//! (KEP-1847): the garbage collector removes what has no owner any more, so that a claim of a pod that stays belongs to the
//! set if it goes with the set, and one of a pod that is too much to that pod if it goes with it.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::workload::owned::managed_by;

/// What becomes of claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    Retain,
    Delete,
}

fn policy(text: Option<&String>) -> Policy {
    if text.is_some_and(|text| text == "Delete") { Policy::Delete } else { Policy::Retain }
}

/// What becomes of claims with their set.
pub(super) fn when_deleted(spec: &StatefulSetSpec) -> Policy {
    policy(spec.persistent_volume_claim_retention_policy.as_ref().and_then(|policy| policy.when_deleted.as_ref()))
}

/// What becomes of claims with a pod that is too much.
pub(super) fn when_scaled(spec: &StatefulSetSpec) -> Policy {
    policy(spec.persistent_volume_claim_retention_policy.as_ref().and_then(|policy| policy.when_scaled.as_ref()))
}

fn owners_of(claim: &PersistentVolumeClaim) -> &[OwnerReference] {
    claim.metadata.owner_references.as_deref().unwrap_or_default()
}

/// Whether a claim goes with a pod of this name, whichever that was.
pub(super) fn belongs_to_a_pod(claim: &PersistentVolumeClaim, pod: &str) -> bool {
    owners_of(claim).iter().any(|owner| owner.api_version == "v1" && owner.kind == "Pod" && owner.name == pod)
}

/// A pod whose claims are looked at.
pub(super) struct Whose<'a> {
    pub(super) set: &'a StatefulSet,
    pub(super) spec: &'a StatefulSetSpec,
    pub(super) pod: &'a Pod,
    /// Whether the set wants a pod of this number.
    pub(super) stays: bool,
}

impl Whose<'_> {
    /// The owners that a claim should have, if those that it has are others. A claim of a former set or pod of the same name
    /// is left to the garbage collector, one that another controller manages to that.
    pub(super) fn owners(&self, claim: &PersistentVolumeClaim) -> Option<Vec<OwnerReference>> {
        let own = [managed_by(self.set), managed_by(self.pod)];
        let names = |one: &OwnerReference, other: &OwnerReference| {
            (&one.api_version, &one.kind, &one.name) == (&other.api_version, &other.kind, &other.name)
        };
        let present = owners_of(claim);
        if present.iter().any(|one| own.iter().any(|own| names(one, own) && one.uid != own.uid)) {
            return None;
        }
        let is_own = |one: &&OwnerReference| own.iter().any(|own| names(one, own));
        let mut wanted: Vec<OwnerReference> = present.iter().filter(|one| !is_own(one)).cloned().collect();
        let [of_set, of_pod] = own.clone();
        if !wanted.iter().any(|one| one.controller == Some(true)) {
            wanted.extend(match (when_scaled(self.spec), when_deleted(self.spec)) {
                (Policy::Delete, _) if !self.stays => Some(of_pod),
                (_, Policy::Delete) => Some(of_set),
                (_, Policy::Retain) => None,
            });
        }
        let is_same = present.len() == wanted.len() && wanted.iter().all(|one| present.contains(one));
        (!is_same).then_some(wanted)
    }
}
