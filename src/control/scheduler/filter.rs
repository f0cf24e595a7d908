//! Whether a pod can run on a node at all, and why not.
//!
//! In the order of upstream's default plugins; the first that refuses gives the reasons.

use std::fmt;

use api::placement::{UNSCHEDULABLE, admits, is_tolerated, untolerated};
use client::Key;
use k8s_openapi::api::core::v1::{Node, PodSpec, Taint, Toleration};

use super::amounts::Amounts;
use super::cluster::{NodeRoom, Resident};
use super::facts::Facts;
use super::needs::Needs;

/// Why a node does not fit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// It is none of those that the pod names.
    NotNamed,
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
    /// There are too many pods of the sort already.
    Spread,
    /// It has not the label by which pods are to be spread.
    SpreadLabel,
    /// The pods are not there that the pod is to be near.
    NotNear,
    /// Pods are there that the pod is not to be near.
    NotApart,
    /// Pods are there that the pod is not to be near by what these say.
    Rejected,
}

impl Refusal {
    /// Whether the pods on the node are the reason.
    pub fn is_due_to_pods(&self) -> bool {
        matches!(
            self,
            Self::Ports
                | Self::TooManyPods
                | Self::Insufficient(_)
                | Self::ClaimInUse
                | Self::Spread
                | Self::NotApart
                | Self::Rejected
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotNamed => "node(s) didn't satisfy plugin(s) [NodeAffinity]",
            Self::Unschedulable => "node(s) were unschedulable",
            Self::Taint => "node(s) had untolerated taint(s)",
            Self::Affinity => "node(s) didn't match Pod's node affinity/selector",
            Self::VolumeAffinity => "node(s) didn't match PersistentVolume's node affinity",
            Self::VolumeGone => "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)",
            Self::NoVolume => "node(s) didn't find available persistent volumes to bind",
            Self::ClaimInUse => {
                "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
            }
            Self::Ports => "node(s) didn't have free ports for the requested pod ports",
            Self::TooManyPods => "Too many pods",
            Self::Insufficient(resource) | Self::TooSmall(resource) => return write!(f, "Insufficient {resource}"),
            Self::Spread => "node(s) didn't match pod topology spread constraints",
            Self::SpreadLabel => "node(s) didn't match pod topology spread constraints (missing required label)",
            Self::NotNear => "node(s) didn't match pod affinity rules",
            Self::NotApart => "node(s) didn't match pod anti-affinity rules",
            Self::Rejected => "node(s) didn't satisfy existing pods anti-affinity rules",
        })
    }
}

/// Why the pod cannot run on a node as it is; nothing if it can.
pub(super) fn filter(facts: &Facts<'_>, room: &NodeRoom) -> Vec<Refusal> {
    let (needs, Some(spec)) = (facts.asked.needs, facts.asked.pod.spec.as_ref()) else { return Vec::new() };
    if let Some(refusal) = static_refusal(spec, &room.node) {
        return vec![refusal];
    }
    let mut ports = room.pods.values().flat_map(|other| &other.needs.ports);
    if !needs.ports.is_empty() && ports.any(|port| needs.ports.iter().any(|own| own.conflicts(port))) {
        return vec![Refusal::Ports];
    }
    let refusals = room_refusals(needs, room);
    if !refusals.is_empty() {
        return refusals;
    }
    if facts.has_claim_in_use() {
        return vec![Refusal::ClaimInUse];
    }
    if let Err(refusals) = facts.cluster.claims.on(facts.used, &room.node) {
        return refusals;
    }
    facts.spread_refusal(room).or_else(|| facts.company_refusal(room)).into_iter().collect()
}

/// The same with the pods that room is kept for on the node; it must hold with and without them, because they may never
/// come, and others may want to be near them.
pub(super) fn filter_with_nominated<'a>(facts: &Facts<'a>, room: &'a NodeRoom, now: &NodeRoom) -> Vec<Refusal> {
    let counts = |key: &Key, priority: i32| priority >= facts.asked.needs.priority && *key != facts.key();
    let nominees = facts.cluster.nominations.on(&room.name);
    let nominees: Vec<_> = nominees.filter(|(key, nominee)| counts(key, nominee.needs.priority)).collect();
    if !nominees.is_empty() {
        let (mut supposed, mut with_them) = (facts.clone(), now.clone());
        for (key, nominee) in nominees {
            supposed.suppose(&nominee.needs, room, 1);
            with_them.admit(key.clone(), Resident::new(&nominee.pod, &nominee.needs));
        }
        let refusals = filter(&supposed, &with_them);
        if !refusals.is_empty() {
            return refusals;
        }
    }
    filter(facts, now)
}

/// Why the pod cannot run on a node whatever runs there.
pub(super) fn static_refusal(spec: &PodSpec, node: &Node) -> Option<Refusal> {
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    if is_cordoned(node) && !is_tolerated(&cordon(), tolerations) {
        return Some(Refusal::Unschedulable);
    }
    if has_untolerated_taint(node, tolerations) {
        return Some(Refusal::Taint);
    }
    (!admits(spec, node)).then_some(Refusal::Affinity)
}

/// The resources of which the pod needs more than there is in all.
pub(super) fn too_small<'a>(needs: &'a Needs, allocatable: &'a Amounts) -> impl Iterator<Item = &'a str> {
    let requests = needs.requests.iter().filter(|(resource, amount)| *amount > allocatable.get(resource));
    requests.map(|(resource, _)| resource)
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
    if pods.saturating_add(1) > room.allocatable.pods() {
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
