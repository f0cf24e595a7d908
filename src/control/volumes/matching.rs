//! Which volume fits a claim.
//!
//! After `FindMatchingVolume` of `k8s.io/component-helpers/storage/volume` and `findByClaim` of
//! `pkg/controller/volume/persistentvolume/index.go`, but that a volume whose `claimRef` names the claim always goes before
//! those that are free, while upstream first looks among volumes with fewer access modes.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use api::selector::LabelSelector;
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::workload;

/// On either side of a binding that the controller has chosen, not the user.
pub(super) const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a claim whose binding was complete once.
pub(super) const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On a claim: where the scheduler wants its volume.
pub(crate) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Where older clients say the class.
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// The value of an annotation.
pub(crate) fn annotation<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// The name of an object.
pub(super) fn name_of(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

/// The class that a claim says, if it says any; an empty one is none.
pub(crate) fn said_class(claim: &PersistentVolumeClaim) -> Option<&str> {
    let spec = || claim.spec.as_ref()?.storage_class_name.as_deref();
    annotation(&claim.metadata, OLD_CLASS).or_else(spec)
}

/// The class of a volume; empty for none.
pub(super) fn class_of_volume(volume: &PersistentVolume) -> &str {
    let spec = || volume.spec.as_ref()?.storage_class_name.as_deref();
    annotation(&volume.metadata, OLD_CLASS).or_else(spec).unwrap_or_default()
}

/// The volume that a claim names; empty for none.
pub(crate) fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default()
}

/// Whether a claim has its volume, and both say so.
pub(crate) fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    !volume_name(claim).is_empty() && annotation(&claim.metadata, BIND_COMPLETED).is_some()
}

/// Whether only one pod may use a claim at a time (KEP-2485).
pub(crate) fn is_exclusive(claim: &PersistentVolumeClaim) -> bool {
    let modes = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    modes.iter().any(|mode| mode == "ReadWriteOncePod")
}

/// How much a claim asks for.
pub(crate) fn requested(claim: &PersistentVolumeClaim) -> Quantity {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    storage(resources.and_then(|resources| resources.requests.as_ref()))
}

/// The claim that a volume names.
pub(super) fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

/// The phase of a volume.
pub(crate) fn phase(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Whether a volume is bound to a claim, or kept for it by a reference that says no uid yet.
pub(super) fn is_meant_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    claim_ref(volume).is_some_and(|reference| {
        reference.name == claim.metadata.name
            && reference.namespace == claim.metadata.namespace
            && reference.uid.as_ref().is_none_or(|uid| uid.is_empty() || Some(uid) == claim.metadata.uid.as_ref())
    })
}

fn storage(amounts: Option<&BTreeMap<String, Text>>) -> Quantity {
    let text = amounts.and_then(|amounts| amounts.get("storage"));
    text.and_then(|text| Quantity::parse(&text.0).ok()).unwrap_or(Quantity::ZERO)
}

/// How much fits into a volume.
fn capacity(volume: &PersistentVolume) -> Quantity {
    storage(volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()))
}

/// What a claim asks for.
struct Wish<'a> {
    claim: &'a PersistentVolumeClaim,
    size: Quantity,
    class: &'a str,
    attributes: &'a str,
    mode: &'a str,
    modes: &'a [String],
    selector: LabelSelector,
}

const FILESYSTEM: &str = "Filesystem";

impl<'a> Wish<'a> {
    fn of(claim: &'a PersistentVolumeClaim) -> Self {
        let spec = claim.spec.as_ref();
        let selector = match spec.and_then(|spec| spec.selector.as_ref()) {
            None => LabelSelector::everything(),
            Some(selector) => workload::selector(selector),
        };
        Self {
            claim,
            size: requested(claim),
            class: said_class(claim).unwrap_or_default(),
            attributes: spec.and_then(|spec| spec.volume_attributes_class_name.as_deref()).unwrap_or_default(),
            mode: spec.and_then(|spec| spec.volume_mode.as_deref()).unwrap_or(FILESYSTEM),
            modes: spec.and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default(),
            selector,
        }
    }

    fn has_modes(&self, volume: &PersistentVolume) -> bool {
        let offered = modes(volume);
        self.modes.iter().all(|mode| offered.contains(mode))
    }

    fn has_mode(&self, volume: &PersistentVolume) -> bool {
        let mode = volume.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref());
        mode.unwrap_or(FILESYSTEM) == self.mode
    }

    fn may_have(&self, volume: &PersistentVolume) -> bool {
        volume.metadata.deletion_timestamp.is_none()
            && self.has_mode(volume)
            && self.has_modes(volume)
            && capacity(volume) >= self.size
    }

    fn takes(&self, volume: &PersistentVolume) -> bool {
        let attributes = volume.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
        let labels = || serde_json::to_value(&volume.metadata.labels).unwrap_or_default();
        claim_ref(volume).is_none()
            && phase(volume) == "Available"
            && class_of_volume(volume) == self.class
            && attributes.unwrap_or_default() == self.attributes
            && self.may_have(volume)
            && self.selector.matches(labels().as_object())
    }
}

fn modes(volume: &PersistentVolume) -> &[String] {
    volume.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default()
}

/// The volume that a claim gets: one that is kept for it, else that with the fewest access modes, of those the smallest,
/// of those the first by name. `kept_only` leaves out those that anybody may have.
pub(crate) fn find<'a>(
    claim: &PersistentVolumeClaim,
    volumes: impl Iterator<Item = &'a PersistentVolume> + Clone,
    kept_only: bool,
) -> Option<&'a PersistentVolume> {
    let wish = Wish::of(claim);
    let kept = volumes.clone().find(|volume| is_meant_for(volume, wish.claim) && wish.may_have(volume));
    if kept.is_some() || kept_only {
        return kept;
    }
    let fitting = volumes.filter(|volume| wish.takes(volume));
    fitting.min_by_key(|volume| (modes(volume).len(), capacity(volume), volume.metadata.name.clone()))
}

/// Why a claim cannot have the volume that it names (`checkVolumeSatisfyClaim`).
pub(super) fn objection(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<String> {
    let wish = Wish::of(claim);
    let text = if volume.metadata.deletion_timestamp.is_some() {
        return Some(format!("the volume is marked for deletion {:?}", name_of(&volume.metadata)));
    } else if capacity(volume) < wish.size {
        "requested PV is too small"
    } else if class_of_volume(volume) != wish.class {
        "storageClassName does not match"
    } else if !wish.has_mode(volume) {
        "incompatible volumeMode"
    } else if !wish.has_modes(volume) {
        "incompatible accessMode"
    } else {
        return None;
    };
    Some(text.to_owned())
}
