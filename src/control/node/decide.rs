//! What a node's conditions and its silence ask for.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that repel pods while they are true.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
/// What nobody knows any more once the kubelet is silent.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// What to do about a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Set these conditions of its status.
    Conditions(Vec<NodeCondition>),
    /// Give it exactly these taints.
    Taints(Vec<Taint>),
}

/// Whether a node that is not ready is to let go of its pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eviction {
    /// From now on.
    Now,
    /// If it does so already.
    Later,
    /// Not at all, whatever was begun.
    Never,
}

/// Decides by the node, whether it has been silent for too long, and whether it is to let go of its pods. Conditions come
/// alone: what they mean for taints is decided once the node shows them.
pub fn decide(node: &Node, is_silent: bool, eviction: Eviction, now: Timestamp) -> Vec<Action> {
    if is_silent {
        let unknown = unknown_conditions(node, now);
        if !unknown.is_empty() {
            return vec![Action::Conditions(unknown)];
        }
    }
    let current = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let wanted = taints(node, current, eviction, now);
    if wanted == current { Vec::new() } else { vec![Action::Taints(wanted)] }
}

fn conditions(node: &Node) -> &[NodeCondition] {
    node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    conditions(node).iter().find(|condition| condition.type_ == kind)
}

/// Whether a node says that it is ready.
pub(super) fn is_ready(node: &Node) -> bool {
    condition(node, "Ready").is_some_and(|ready| ready.status == "True")
}

/// Whether a node is not ready, and nothing has been begun yet to have it let go of its pods.
pub(super) fn keeps_its_pods(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    condition(node, "Ready").is_some_and(|ready| ready.status != "True") && !evicts(taints)
}

/// Whether taints of ours drive pods away.
fn evicts(taints: &[Taint]) -> bool {
    taints.iter().any(|taint| taint.effect == "NoExecute" && (taint.key == NOT_READY || taint.key == UNREACHABLE))
}

/// The heartbeat in the node's status.
pub(super) fn heartbeat(node: &Node) -> Option<Timestamp> {
    Some(condition(node, "Ready")?.last_heartbeat_time.as_ref()?.0)
}

fn unknown_conditions(node: &Node, now: Timestamp) -> Vec<NodeCondition> {
    let known = |kind: &str| condition(node, kind);
    let stale = REPORTED.iter().filter(|kind| known(kind).is_none_or(|condition| condition.status != "Unknown"));
    stale
        .map(|kind| {
            let (reason, message) = match known(kind) {
                Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
                None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
            };
            NodeCondition {
                type_: (*kind).to_owned(),
                status: "Unknown".to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message.to_owned()),
                last_heartbeat_time: known(kind).and_then(|condition| condition.last_heartbeat_time.clone()),
                last_transition_time: Some(Time(now)),
            }
        })
        .collect()
}

/// The taints that the node should have: those that are not ours, and ours as its conditions say.
fn taints(node: &Node, current: &[Taint], eviction: Eviction, now: Timestamp) -> Vec<Taint> {
    let has_begun = eviction == Eviction::Later && evicts(current);
    let wanted = wanted(node, eviction == Eviction::Now || has_begun);
    let is_ours = |taint: &Taint| {
        taint.key == NOT_READY
            || taint.key == UNREACHABLE
            || (taint.effect == "NoSchedule"
                && (taint.key == UNSCHEDULABLE || PRESSURES.iter().any(|(_, key)| *key == taint.key)))
    };
    let is_wanted = |taint: &Taint| wanted.contains(&(taint.key.as_str(), taint.effect.as_str()));
    let mut taints: Vec<Taint> = current.iter().filter(|taint| !is_ours(taint) || is_wanted(taint)).cloned().collect();
    for (key, effect) in wanted {
        if !taints.iter().any(|taint| taint.key == key && taint.effect == effect) {
            let (key, effect) = (key.to_owned(), effect.to_owned());
            taints.push(Taint { key, effect, time_added: Some(Time(now)), value: None });
        }
    }
    taints
}

fn wanted(node: &Node, lets_go: bool) -> Vec<(&'static str, &'static str)> {
    let mut wanted = Vec::new();
    let key = match condition(node, "Ready").map(|ready| ready.status.as_str()) {
        Some("True") | None => None,
        Some("Unknown") => Some(UNREACHABLE),
        Some(_) => Some(NOT_READY),
    };
    wanted.extend(key.map(|key| (key, "NoSchedule")));
    wanted.extend(key.filter(|_| lets_go).map(|key| (key, "NoExecute")));
    for (kind, key) in PRESSURES {
        if condition(node, kind).is_some_and(|condition| condition.status == "True") {
            wanted.push((key, "NoSchedule"));
        }
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    wanted
}
