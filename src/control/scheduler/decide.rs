//! The decision: the best node of those that fit, or why there is none.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Affinity, Node, Pod, PodSpec};

use super::claims::Bindings;
use super::cluster::{Cluster, NodeRoom};
use super::filter::{Refusal, filter};
use super::needs::Needs;
use super::score::score;

/// What is to happen with a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It runs there.
    Bind {
        /// The name of the node.
        node: String,
        /// What becomes of its claims before.
        bindings: Bindings,
    },
    /// It runs nowhere at present.
    Unschedulable {
        /// For people, in upstream's words.
        message: String,
        /// What stood in the way on any node; empty if the pod itself is at fault.
        refusals: BTreeSet<Refusal>,
    },
}

/// Decides where a pod runs.
pub fn decide(pod: &Pod, needs: &Needs, cluster: &Cluster) -> Decision {
    let spec = pod.spec.clone().unwrap_or_default();
    let nodes: Vec<(&Node, &NodeRoom)> = cluster.nodes().map(|(node, room)| (&**node, room)).collect();
    if nodes.is_empty() {
        let message = "no nodes available to schedule pods".to_owned();
        return Decision::Unschedulable { message, refusals: BTreeSet::new() };
    }
    if let Some(objection) = objection(&spec) {
        let message = unfit_message(nodes.len(), &objection, nodes.len(), 0, 0);
        return Decision::Unschedulable { message, refusals: BTreeSet::new() };
    }
    let used = match cluster.claims.of(pod) {
        Ok(used) => used,
        Err(objection) => {
            let message = unfit_message(nodes.len(), &objection, nodes.len(), 0, 0);
            return Decision::Unschedulable { message, refusals: BTreeSet::new() };
        }
    };
    let in_use = cluster.uses_any(&used.exclusive);
    let mut fitting = Vec::new();
    let mut refused = Vec::new();
    for (node, room) in nodes {
        let mut refusals = filter(&spec, needs, node, room);
        if refusals.is_empty() && in_use {
            refusals.push(Refusal::ClaimInUse);
        }
        if refusals.is_empty() {
            refusals.extend(cluster.claims.on(&used, node).err().unwrap_or_default());
        }
        if refusals.is_empty() {
            fitting.push((node, room));
        } else {
            refused.push((room, refusals));
        }
    }
    let Some(best) = best(&spec, needs, &fitting) else { return unschedulable(needs, &refused) };
    Decision::Bind {
        node: best.metadata.name.clone().unwrap_or_default(),
        bindings: cluster.claims.on(&used, best).unwrap_or_default(),
    }
}

/// The highest score; among equals the node with the fewest pods, then the first by name.
fn best<'a>(spec: &PodSpec, needs: &Needs, fitting: &[(&'a Node, &NodeRoom)]) -> Option<&'a Node> {
    let scores = score(spec, needs, fitting);
    let candidates = fitting.iter().zip(scores).rev();
    let best = candidates.max_by_key(|((_, room), score)| (*score, std::cmp::Reverse(room.pods.len())));
    best.map(|((node, _), _)| *node)
}

fn unschedulable(needs: &Needs, refused: &[(&NodeRoom, Vec<Refusal>)]) -> Decision {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let (mut hopeless, mut without_victims, mut with_victims) = (0, 0, 0);
    for (room, refusals) in refused {
        for refusal in refusals {
            *counts.entry(refusal.to_string()).or_default() += 1;
        }
        if !refusals.iter().all(Refusal::is_due_to_pods) {
            hopeless += 1;
        } else if room.pods.values().any(|other| other.priority < needs.priority) {
            with_victims += 1;
        } else {
            without_victims += 1;
        }
    }
    let mut reasons: Vec<String> = counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    reasons.sort_unstable();
    let message = unfit_message(refused.len(), &reasons.join(", "), hopeless, without_victims, with_victims);
    let refusals = refused.iter().flat_map(|(_, refusals)| refusals.iter().cloned()).collect();
    Decision::Unschedulable { message, refusals }
}

/// Upstream's `FitError.Error()` with what its plugins `DynamicResources` and `DefaultPreemption` add.
fn unfit_message(nodes: usize, reasons: &str, hopeless: usize, without_victims: usize, with_victims: usize) -> String {
    let preemption = [
        (hopeless, "Preemption is not helpful for scheduling"),
        (without_victims, "No preemption victims found for incoming pod"),
        (with_victims, "node(s) have pods of lower priority, but this scheduler does not preempt"),
    ];
    let mut parts: Vec<String> =
        preemption.iter().filter(|(count, _)| *count > 0).map(|(count, text)| format!("{count} {text}")).collect();
    parts.sort_unstable();
    format!(
        "0/{nodes} nodes are available: {reasons}. no new claims to deallocate, preemption: 0/{nodes} nodes are \
         available: {}.",
        parts.join(", ")
    )
}

/// What the pod asks for that no node of ours can give.
fn objection(spec: &PodSpec) -> Option<String> {
    if spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        return Some("spec.resourceClaims is not supported by this scheduler".to_owned());
    }
    if spec.affinity.as_ref().is_some_and(requires_pods) {
        return Some("required inter-pod affinity is not supported by this scheduler".to_owned());
    }
    let spread = spec.topology_spread_constraints.iter().flatten();
    if spread.into_iter().any(|constraint| constraint.when_unsatisfiable == "DoNotSchedule") {
        return Some("topologySpreadConstraints with DoNotSchedule are not supported by this scheduler".to_owned());
    }
    None
}

fn requires_pods(affinity: &Affinity) -> bool {
    let near = affinity.pod_affinity.as_ref();
    let far = affinity.pod_anti_affinity.as_ref();
    near.and_then(|near| near.required_during_scheduling_ignored_during_execution.as_ref())
        .is_some_and(|terms| !terms.is_empty())
        || far
            .and_then(|far| far.required_during_scheduling_ignored_during_execution.as_ref())
            .is_some_and(|terms| !terms.is_empty())
}
