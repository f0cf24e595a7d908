//! Whether a pod can run on a node at all, and why not.
//!
//! In the order of upstream's default plugins; the first that refuses gives the reasons.

use std::fmt;

use api::placement::{UNSCHEDULABLE, admits, is_tolerated, untolerated};
use k8s_openapi::api::core::v1::{Node, PodSpec, Taint, Toleration};

use super::cluster::NodeRoom;
use super::needs::Needs;

/// Why a node does not fit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// It is cordoned.
    Unschedulable,
    /// It has a taint.
    Taint,
    /// It is not what the pod selects.
    Affinity,
    /// Another pod has a claim that only one may use.
    ClaimInUse,
    /// A volume of the pod cannot be used there.
    VolumeAffinity,
    /// A volume of the pod does not exist.
    VolumeGone,
    /// A claim of the pod finds no volume there.
    NoVolume,
    /// Another pod has the port.
    Ports,
    /// It has as many pods as it may have.
    TooManyPods,
    /// It has too little room left of this resource.
    Insufficient(String),
    /// It is too small for the pod even when empty; prints as the former.
    TooSmall(String),
}

impl Refusal {
    /// Whether the pods on the node are the reason.
    pub fn is_due_to_pods(&self) -> bool {
        matches!(self, Self::Ports | Self::TooManyPods | Self::Insufficient(_) | Self::ClaimInUse)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unschedulable => f.write_str("node(s) were unschedulable"),
            Self::Taint => f.write_str("node(s) had untolerated taint(s)"),
            Self::Affinity => f.write_str("node(s) didn't match Pod's node affinity/selector"),
            Self::VolumeAffinity => f.write_str("node(s) didn't match PersistentVolume's node affinity"),
            Self::VolumeGone => {
                f.write_str("node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)")
            }
            Self::NoVolume => f.write_str("node(s) didn't find available persistent volumes to bind"),
            Self::ClaimInUse => f.write_str(
                "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode",
            ),
            Self::Ports => f.write_str("node(s) didn't have free ports for the requested pod ports"),
            Self::TooManyPods => f.write_str("Too many pods"),
            Self::Insufficient(resource) | Self::TooSmall(resource) => write!(f, "Insufficient {resource}"),
        }
    }
}

/// Why the pod cannot run on the node; nothing if it can.
pub(super) fn filter(spec: &PodSpec, needs: &Needs, node: &Node, room: &NodeRoom) -> Vec<Refusal> {
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    if is_cordoned(node) && !is_tolerated(&cordon(), tolerations) {
        return vec![Refusal::Unschedulable];
    }
    if has_untolerated_taint(node, tolerations) {
        return vec![Refusal::Taint];
    }
    if !admits(spec, node) {
        return vec![Refusal::Affinity];
    }
    if room.pods.values().any(|other| other.ports.iter().any(|port| needs.ports.iter().any(|own| own.conflicts(port))))
    {
        return vec![Refusal::Ports];
    }
    room_refusals(needs, room)
}

fn is_cordoned(node: &Node) -> bool {
    node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false)
}

fn cordon() -> Taint {
    Taint { key: UNSCHEDULABLE.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() }
}

fn has_untolerated_taint(node: &Node, tolerations: &[Toleration]) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    untolerated(taints, tolerations, |effect| effect == "NoSchedule" || effect == "NoExecute").is_some()
}

fn room_refusals(needs: &Needs, room: &NodeRoom) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let pods = i64::try_from(room.pods.len()).unwrap_or(i64::MAX);
    if pods.saturating_add(1) > room.allocatable.get("pods") {
        refusals.push(Refusal::TooManyPods);
    }
    for (resource, amount) in needs.requests.iter() {
        let total = room.allocatable.get(resource);
        if amount > total {
            refusals.push(Refusal::TooSmall(resource.to_owned()));
        } else if amount > total - room.requested.get(resource) {
            refusals.push(Refusal::Insufficient(resource.to_owned()));
        }
    }
    refusals
}
