//! Which pods go so that one of higher priority finds room.
//!
//! After `pkg/scheduler/framework/preemption` and its plugin `DefaultPreemption`. Nothing is done here: the shell makes the
//! victims go, and the pod is decided on again once they have. Invariant: every victim has a lower priority than the pod.

use std::cmp::Reverse;
use std::sync::Arc;

use api::selector::LabelSelector;
use client::Key;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use super::cluster::{NodeRoom, Resident};
use super::decide::{Circumstances, Reasons};
use super::facts::Facts;
use super::filter::{Refusal, filter_with_nominated};
use super::terms::covers;
use crate::workload;

/// At most so many nodes are tried, or this share of them in percent, if that is more (`DefaultPreemptionArgs`).
const TRIED_AT_LEAST: usize = 100;
const TRIED_PERCENT: usize = 10;
const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";
/// Reason of the condition `DisruptionTarget` of a victim.
pub(super) const REASON: &str = "PreemptionByScheduler";

/// Who goes, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preemption {
    /// The node.
    pub node: String,
    /// Pods that go, the most important first; with their uids.
    pub victims: Vec<(Key, String)>,
    /// Pods of lower priority for which no more room is kept there.
    pub demoted: Vec<Key>,
}

/// Nobody can go so that it helps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Futile {
    pub(super) message: String,
    /// Whether the room that is kept for the pod by now stays so.
    pub(super) keeps: bool,
}

/// What is said of a pod that fits nowhere whoever goes.
pub(super) fn hopeless(spec: &PodSpec, nodes: usize) -> String {
    match never(spec) {
        Some(reason) => reason.to_owned(),
        None => format!("0/{nodes} nodes are available: {nodes} {NOT_HELPFUL}."),
    }
}

fn never(spec: &PodSpec) -> Option<&'static str> {
    (spec.preemption_policy.as_deref() == Some("Never")).then_some("not eligible due to preemptionPolicy=Never.")
}

/// One node, and who would go there.
struct Candidate<'a> {
    room: &'a NodeRoom,
    victims: Vec<&'a Resident>,
    /// How many of them their budgets do not allow to go.
    violations: usize,
}

/// Decides who goes for a pod that no node fits.
pub(super) fn consider<'a>(
    facts: &Facts<'a>,
    refused: &[(&'a NodeRoom, Vec<Refusal>)],
    circumstances: Circumstances<'_>,
) -> Result<Preemption, Futile> {
    if let Some(reason) = ineligible(facts, refused) {
        return Err(Futile { message: reason.to_owned(), keeps: true });
    }
    let helped = refused.iter().filter(|(_, refusals)| refusals.iter().all(Refusal::is_due_to_pods));
    let helped: Vec<&NodeRoom> = helped.map(|(room, _)| *room).collect();
    let (candidates, mut reasons, tried) = try_out(facts, &helped, circumstances);
    match candidates.into_iter().min_by_key(rank) {
        Some(candidate) => Ok(preemption(facts, &candidate)),
        None => {
            reasons.add(NOT_HELPFUL.to_owned(), refused.len() - tried);
            let message = format!("0/{} nodes are available: {reasons}.", refused.len());
            Err(Futile { message, keeps: false })
        }
    }
}

/// Why the pod is to make nobody go (`PodEligibleToPreemptOthers`).
fn ineligible(facts: &Facts<'_>, refused: &[(&NodeRoom, Vec<Refusal>)]) -> Option<&'static str> {
    if let Some(reason) = facts.asked.pod.spec.as_ref().and_then(never) {
        return Some(reason);
    }
    let kept = facts.cluster.nominations.node_of(&facts.key())?;
    let (room, refusals) = refused.iter().find(|(room, _)| room.name == kept)?;
    let priority = facts.asked.needs.priority;
    let mut others = room.pods.values().filter(|other| other.needs.priority < priority);
    let can_help = refusals.iter().all(Refusal::is_due_to_pods);
    (can_help && others.any(is_going_for_another))
        .then_some("not eligible due to a terminating pod on the nominated node.")
}

fn is_going_for_another(resident: &Resident) -> bool {
    let conditions = resident.pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut targets = conditions.filter(|condition| condition.type_ == "DisruptionTarget");
    let mut is_target = || targets.any(|one| one.status == "True" && one.reason.as_deref() == Some(REASON));
    resident.is_preempted || (resident.needs.is_ending && is_target())
}

/// Nodes on which some would go, why the others do not help, and how many were tried.
fn try_out<'a>(
    facts: &Facts<'a>,
    nodes: &[&'a NodeRoom],
    circumstances: Circumstances<'_>,
) -> (Vec<Candidate<'a>>, Reasons, usize) {
    let enough = (nodes.len() * TRIED_PERCENT / 100).max(TRIED_AT_LEAST).min(nodes.len());
    let first = usize::try_from(circumstances.seed % u64::try_from(nodes.len()).unwrap_or(1).max(1)).unwrap_or(0);
    let (mut candidates, mut reasons, mut tried) = (Vec::new(), Reasons::default(), 0);
    let budgets = if nodes.is_empty() { Vec::new() } else { (circumstances.budgets)() };
    for step in 0..nodes.len() {
        let room = nodes[(first + step) % nodes.len()];
        tried += 1;
        match victims(facts, room, &budgets) {
            Ok(candidate) => candidates.push(candidate),
            Err(whys) => whys.into_iter().for_each(|why| reasons.add(why, 1)),
        }
        if candidates.len() >= enough && candidates.iter().any(|candidate| candidate.violations == 0) {
            break;
        }
    }
    (candidates, reasons, tried)
}

/// Who would go on a node, or why it does not help (`SelectVictimsOnNode`): everybody of lower priority, of whom the more
/// important ones are spared as far as the pod still fits, those first whose budgets do not allow it.
fn victims<'a>(
    facts: &Facts<'a>,
    room: &'a NodeRoom,
    budgets: &[Arc<PodDisruptionBudget>],
) -> Result<Candidate<'a>, Vec<String>> {
    let priority = facts.asked.needs.priority;
    let mut possible: Vec<(&Key, &Resident)> =
        room.pods.iter().filter(|(_, other)| other.needs.priority < priority).collect();
    if possible.is_empty() {
        return Err(vec!["No preemption victims found for incoming pod".to_owned()]);
    }
    let (mut supposed, mut now) = (facts.clone(), room.clone());
    for (key, resident) in &possible {
        supposed.suppose(&resident.needs, room, -1);
        now.release(key);
    }
    let refusals = filter_with_nominated(&supposed, room, &now);
    if !refusals.is_empty() {
        return Err(refusals.iter().map(Refusal::to_string).collect());
    }
    possible.sort_by_key(|(key, resident)| (importance(resident), *key));
    let (violating, allowed) = by_budgets(possible, budgets);
    let mut spare = |pods: Vec<(&'a Key, &'a Resident)>| -> Vec<&'a Resident> {
        let mut gone = Vec::new();
        for (key, resident) in pods {
            supposed.suppose(&resident.needs, room, 1);
            now.admit(key.clone(), resident.clone());
            if !filter_with_nominated(&supposed, room, &now).is_empty() {
                supposed.suppose(&resident.needs, room, -1);
                now.release(key);
                gone.push(resident);
            }
        }
        gone
    };
    let mut victims = spare(violating);
    let violations = victims.len();
    victims.extend(spare(allowed));
    victims.sort_by_key(|resident| importance(resident));
    match victims.is_empty() {
        true => Err(vec![format!("expected at least one victim pod on node {:?}", room.name)]),
        false => Ok(Candidate { room, victims, violations }),
    }
}

/// The most important first: by priority, then by how long they have run.
fn importance(resident: &Resident) -> (Reverse<i32>, Timestamp) {
    (Reverse(resident.needs.priority), started(&resident.pod))
}

/// When a pod started; one that has not is younger than any other.
fn started(pod: &Pod) -> Timestamp {
    let since = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    since.map_or(Timestamp::MAX, |time| time.0)
}

type Pods<'a> = Vec<(&'a Key, &'a Resident)>;

/// Those whose budgets do not allow it to go beside the ones before, and the others (`filterPodsWithPDBViolation`).
fn by_budgets<'a>(pods: Pods<'a>, budgets: &[Arc<PodDisruptionBudget>]) -> (Pods<'a>, Pods<'a>) {
    let mut left: Vec<i32> = budgets
        .iter()
        .map(|budget| budget.status.as_ref().and_then(|status| status.disruptions_allowed).unwrap_or(0))
        .collect();
    let selectors: Vec<LabelSelector> = budgets.iter().map(|budget| selector(budget)).collect();
    pods.into_iter().partition(|(key, resident)| {
        let mut is_violated = false;
        for (index, budget) in budgets.iter().enumerate() {
            let is_its = budget.metadata.namespace.as_deref() == Some(&*resident.needs.namespace)
                && !resident.needs.labels.is_empty()
                && covers(&selectors[index], &resident.needs.labels);
            let noted = budget.status.as_ref().and_then(|status| status.disrupted_pods.as_ref());
            if is_its && !noted.is_some_and(|noted| noted.contains_key(&key.name)) {
                left[index] -= 1;
                is_violated |= left[index] < 0;
            }
        }
        is_violated
    })
}

/// The pods of a budget; an empty selector is none here.
fn selector(budget: &PodDisruptionBudget) -> LabelSelector {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let selector = workload::selector(&selector);
    if selector.is_everything() { LabelSelector::nothing() } else { selector }
}

/// The lower the better (`pickOneNodeForPreemption`): budgets violated, the highest priority of a victim, the sum of
/// priorities, the number of victims, and how long the most important one has run.
fn rank(candidate: &Candidate<'_>) -> (usize, i32, i64, usize, Reverse<Timestamp>) {
    let priorities = || candidate.victims.iter().map(|resident| resident.needs.priority);
    let highest = priorities().max().unwrap_or(i32::MIN);
    // Priorities may be below zero, where more victims would make the sum smaller.
    let sum = priorities().map(|priority| i64::from(priority) + i64::from(i32::MAX) + 1).sum();
    let highest_ones = candidate.victims.iter().filter(|resident| resident.needs.priority == highest);
    let since = highest_ones.map(|resident| started(&resident.pod)).min().unwrap_or(Timestamp::MAX);
    (candidate.violations, highest, sum, candidate.victims.len(), Reverse(since))
}

fn preemption(facts: &Facts<'_>, candidate: &Candidate<'_>) -> Preemption {
    let priority = facts.asked.needs.priority;
    let node = &candidate.room.name;
    let nominees = facts.cluster.nominations.on(node).filter(|(_, nominee)| nominee.needs.priority < priority);
    let victim =
        |resident: &&Resident| (Key::of(&resident.pod.metadata), resident.pod.metadata.uid.clone().unwrap_or_default());
    Preemption {
        node: node.clone(),
        victims: candidate.victims.iter().map(victim).collect(),
        demoted: nominees.map(|(key, _)| key.clone()).collect(),
    }
}
