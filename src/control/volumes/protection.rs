//! The finalizers that keep claims and volumes while they are in use.
//!
//! After `pkg/controller/volume/pvcprotection` and `pvprotection`. Only a pod with a node counts: a kubelet starts no pod
//! whose claim is being deleted.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::matching::phase;

/// Keeps a claim while pods use it.
pub(super) const OF_CLAIMS: &str = "kubernetes.io/pvc-protection";
/// Keeps a volume while it is bound.
pub(super) const OF_VOLUMES: &str = "kubernetes.io/pv-protection";

/// The finalizers that an object should have, if others than it has.
pub(super) fn finalizers(metadata: &ObjectMeta, own: &str, is_used: bool) -> Option<Vec<String>> {
    let mut names = metadata.finalizers.clone().unwrap_or_default();
    let (has, is_going) = (names.iter().any(|name| name == own), metadata.deletion_timestamp.is_some());
    if is_going && has && !is_used {
        names.retain(|name| name != own);
    } else if !is_going && !has {
        names.push(own.to_owned());
    } else {
        return None;
    }
    Some(names)
}

/// Whether a volume must stay.
pub(super) fn is_bound(volume: &PersistentVolume) -> bool {
    phase(volume) == "Bound"
}

/// Whether a pod that has a node uses a claim.
pub(super) fn holds(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
    !node.is_empty() && uses(pod, claim)
}

/// Whether a pod uses a claim.
pub(super) fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    pod.metadata.namespace == claim.metadata.namespace
        && claims_of(pod).iter().any(|(name, _)| Some(name) == claim.metadata.name.as_ref())
}

/// The claims that a pod uses, and of each whether it is made for that pod alone.
pub(crate) fn claims_of(pod: &Pod) -> Vec<(String, bool)> {
    let own = pod.metadata.name.as_deref().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let name = |volume: &k8s_openapi::api::core::v1::Volume| match &volume.persistent_volume_claim {
        Some(source) => Some((source.claim_name.clone(), false)),
        None => volume.ephemeral.as_ref().map(|_| (format!("{own}-{}", volume.name), true)),
    };
    volumes.filter_map(name).collect()
}
