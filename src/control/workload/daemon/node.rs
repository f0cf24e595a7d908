//! Which nodes are meant, and what a pod for one of them looks like.

use api::placement::{admits, untolerated};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration,
};

use crate::workload::members::pod_of;
use crate::workload::revision::HASH;

/// The field that a pod's node is chosen by.
const NAME: &str = "metadata.name";

/// What pods of DaemonSets put up with (`AddOrUpdateDaemonPodTolerations`).
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
/// What those put up with that use the node's own network.
const TOLERATED_ON_HOST: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// What a set has to do with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// A pod should be there.
    Run,
    /// One that is there may stay.
    Stay,
    /// None may be there.
    Go,
}

/// What a set wants of a node (`NodeShouldRunDaemonPod`).
pub(super) fn wish(spec: &PodSpec, node: &Node) -> Wish {
    let name = node.metadata.name.as_deref();
    if spec.node_name.as_deref().is_some_and(|wanted| Some(wanted) != name) || !admits(spec, node) {
        return Wish::Go;
    }
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let refuses = |effects: &[&str]| untolerated(taints, tolerations, |effect| effects.contains(&effect)).is_some();
    match (refuses(&["NoSchedule", "NoExecute"]), refuses(&["NoExecute"])) {
        (false, _) => Wish::Run,
        (true, false) => Wish::Stay,
        (true, true) => Wish::Go,
    }
}

/// The pods' spec with what all of them tolerate.
pub(super) fn tolerant(mut spec: PodSpec) -> PodSpec {
    let on_host = spec.host_network.unwrap_or(false).then_some(TOLERATED_ON_HOST);
    let all = spec.tolerations.get_or_insert_default();
    for (key, effect) in TOLERATED.into_iter().chain(on_host) {
        let is_it = |one: &Toleration| one.key.as_deref() == Some(key) && one.effect.as_deref() == Some(effect);
        all.retain(|one| !is_it(one) || one.operator.as_deref() == Some("Exists"));
        if !all.iter().any(is_it) {
            all.push(Toleration {
                key: Some(key.to_owned()),
                operator: Some("Exists".to_owned()),
                effect: Some(effect.to_owned()),
                ..Toleration::default()
            });
        }
    }
    spec
}

/// A pod for a node.
pub(super) fn pod(set: &DaemonSet, spec: PodSpec, node: &str, hash: &str) -> Option<Pod> {
    let mut pod = pod_of(set, &set.spec.as_ref()?.template);
    pod.metadata.labels.get_or_insert_default().insert(HASH.to_owned(), hash.to_owned());
    let by_name = NodeSelectorRequirement {
        key: NAME.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![by_name]), match_expressions: None };
    let mut spec = spec;
    let affinity = spec.affinity.get_or_insert_with(Affinity::default);
    let of_nodes = affinity.node_affinity.get_or_insert_with(NodeAffinity::default);
    // Whether the set wants this node has been looked at: its own terms have done their part.
    of_nodes.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
    pod.spec = Some(spec);
    Some(pod)
}

/// The node that a pod is for: it need not be bound yet.
pub(super) fn target(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(node) = spec.node_name.as_deref().filter(|node| !node.is_empty()) {
        return Some(node);
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let fields = terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let by_name = fields.into_iter().find(|field| field.key == NAME && field.operator == "In")?;
    by_name.values.as_ref()?.first().map(String::as_str)
}
