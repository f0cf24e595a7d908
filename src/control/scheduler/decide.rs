//! The decision: the best node of those that fit, or why there is none and what can be done about it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use super::claims::Bindings;
use super::cluster::{Cluster, NodeRoom};
use super::facts::{Asked, Facts};
use super::filter::{Refusal, filter_with_nominated};
use super::nominations::nominated_node;
use super::preempt::{self, Preemption};
use super::score::score;

/// With fewer nodes all are looked at (`minFeasibleNodesToFind`).
const FEW: usize = 100;

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
        /// What becomes of the room that is kept for it.
        nomination: Nomination,
    },
}

/// What becomes of the room that is kept for a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nomination {
    /// What is kept stays so.
    Stays,
    /// Nothing is kept any more.
    None,
    /// Others go, and their room is kept for it.
    Preempts(Preemption),
}

/// What a decision depends on beside the pod and the cluster.
#[derive(Clone, Copy)]
pub struct Circumstances<'a> {
    /// All budgets; asked for only if somebody may have to go.
    pub budgets: &'a dyn Fn() -> Vec<Arc<PodDisruptionBudget>>,
    /// Where in the order of nodes to begin: large clusters are not looked at as a whole for each pod.
    pub start: usize,
    /// Chooses among equals.
    pub seed: u64,
}

/// A decision, and how many nodes it took: the next one begins behind these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What is to happen.
    pub decision: Decision,
    /// Nodes looked at.
    pub examined: usize,
}

/// Decides where a pod runs.
pub fn decide(asked: Asked<'_>, cluster: &Cluster, circumstances: Circumstances<'_>) -> Verdict {
    let unfit = |message, examined| Verdict {
        decision: Decision::Unschedulable { message, refusals: BTreeSet::new(), nomination: Nomination::None },
        examined,
    };
    let size = cluster.size();
    if size == 0 {
        return unfit("no nodes available to schedule pods".to_owned(), 0);
    }
    let default = PodSpec::default();
    let spec = asked.pod.spec.as_ref().unwrap_or(&default);
    let named = objection(spec).map_or_else(|| named_nodes(spec), Err);
    let (used, named) = match (cluster.claims.of(asked.pod), named) {
        (Ok(used), Ok(named)) => (used, named),
        (Err(objection), _) | (_, Err(objection)) => {
            return unfit(unfit_message(size, &objection, &preempt::hopeless(spec, size)), 0);
        }
    };
    let facts = Facts::of(asked, cluster, &used);
    let search = Search::of(&facts, named.as_ref(), circumstances.start);
    let decision = if search.fitting.is_empty() {
        unschedulable(&facts, &search, circumstances)
    } else {
        let best = best(&facts, &search.fitting, circumstances.seed);
        let bindings = cluster.claims.on(&used, &best.node).unwrap_or_default();
        Decision::Bind { node: best.name.clone(), bindings }
    };
    Verdict { decision, examined: search.examined }
}

/// Nodes that fit, and the others with their reasons.
pub(super) struct Search<'a> {
    fitting: Vec<&'a NodeRoom>,
    pub(super) refused: Vec<(&'a NodeRoom, Vec<Refusal>)>,
    examined: usize,
}

impl<'a> Search<'a> {
    fn of(facts: &Facts<'a>, named: Option<&BTreeSet<&str>>, start: usize) -> Self {
        let cluster = facts.cluster;
        let mut search = Self { fitting: Vec::new(), refused: Vec::new(), examined: 0 };
        let is_named = |room: &NodeRoom| named.is_none_or(|named| named.contains(room.name.as_str()));
        // Room that was made for it is taken if it is enough by now.
        let kept = nominated_node(facts.asked.pod).or_else(|| cluster.nominations.node_of(&facts.key()));
        if let Some(room) = kept.and_then(|kept| cluster.room(kept)).filter(|room| is_named(room))
            && filter_with_nominated(facts, room, room).is_empty()
        {
            search.fitting.push(room);
            return search;
        }
        let (size, enough) = (cluster.size(), enough(cluster.size()));
        for step in 0..size {
            let room = cluster.at((start + step) % size);
            let refusals = match is_named(room) {
                true => filter_with_nominated(facts, room, room),
                false => vec![Refusal::NotNamed],
            };
            search.examined += 1;
            if refusals.is_empty() {
                search.fitting.push(room);
                if search.fitting.len() >= enough {
                    break;
                }
            } else {
                search.refused.push((room, refusals));
            }
        }
        search
    }
}

/// How many nodes that fit are enough to choose from (`numFeasibleNodesToFind` with the default, adaptive percentage).
fn enough(size: usize) -> usize {
    let percentage = 50_usize.saturating_sub(size / 125).max(5);
    if size < FEW { size } else { (size * percentage / 100).max(FEW) }
}

/// The highest score; chance decides among equals.
fn best<'a>(facts: &Facts<'_>, fitting: &[&'a NodeRoom], seed: u64) -> &'a NodeRoom {
    if let [only] = fitting {
        return only;
    }
    let scores = score(facts, fitting);
    let most = scores.iter().copied().max().unwrap_or(0);
    let equals: Vec<&NodeRoom> =
        fitting.iter().zip(scores).filter(|(_, score)| *score == most).map(|(room, _)| *room).collect();
    let choice = mix(seed) % u64::try_from(equals.len()).unwrap_or(1).max(1);
    usize::try_from(choice).ok().and_then(|choice| equals.get(choice).copied()).unwrap_or(fitting[0])
}

/// Spreads seeds that are close to each other (the finalizer of SplitMix64).
fn mix(seed: u64) -> u64 {
    let seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let seed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let seed = (seed ^ (seed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    seed ^ (seed >> 31)
}

fn unschedulable(facts: &Facts<'_>, search: &Search<'_>, circumstances: Circumstances<'_>) -> Decision {
    let mut reasons = Reasons::default();
    search.refused.iter().flat_map(|(_, refusals)| refusals).for_each(|refusal| reasons.add(refusal.to_string(), 1));
    let nodes = search.refused.len();
    let why = format!("0/{nodes} nodes are available: {reasons}.");
    let (message, nomination) = match preempt::consider(facts, &search.refused, circumstances) {
        Ok(preemption) => (why, Nomination::Preempts(preemption)),
        Err(preempt::Futile { message, keeps }) => {
            let nomination = if keeps { Nomination::Stays } else { Nomination::None };
            (format!("{why} {}", post_filter(&message)), nomination)
        }
    };
    let refusals = search.refused.iter().flat_map(|(_, refusals)| refusals.iter().cloned()).collect();
    Decision::Unschedulable { message, refusals, nomination }
}

/// Reasons with how many nodes have them, in the order in which upstream prints them.
#[derive(Debug, Default)]
pub(super) struct Reasons(BTreeMap<String, usize>);

impl Reasons {
    pub(super) fn add(&mut self, reason: String, count: usize) {
        *self.0.entry(reason).or_default() += count;
    }
}

impl std::fmt::Display for Reasons {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counted = self.0.iter().filter(|(_, count)| **count > 0);
        let mut texts: Vec<String> = counted.map(|(reason, count)| format!("{count} {reason}")).collect();
        texts.sort_unstable();
        f.write_str(&texts.join(", "))
    }
}

/// What upstream's plugins `DynamicResources` and `DefaultPreemption` add (`RunPostFilterPlugins`).
fn post_filter(preemption: &str) -> String {
    format!("no new claims to deallocate, preemption: {preemption}")
}

/// Upstream's `FitError.Error()` of a pod that is itself at fault.
fn unfit_message(nodes: usize, objection: &str, preemption: &str) -> String {
    format!("0/{nodes} nodes are available: {objection}. {}", post_filter(preemption))
}

/// The nodes that required affinity names, if every term names some (`NodeAffinity.PreFilter`).
fn named_nodes(spec: &PodSpec) -> Result<Option<BTreeSet<&str>>, String> {
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let Some(required) = affinity.and_then(|one| one.required_during_scheduling_ignored_during_execution.as_ref())
    else {
        return Ok(None);
    };
    let mut named: Option<BTreeSet<&str>> = None;
    for term in &required.node_selector_terms {
        let fields = term.match_fields.iter().flatten();
        let names = fields.filter(|field| field.key == "metadata.name" && field.operator == "In");
        let sets = names.map(|field| field.values.iter().flatten().map(String::as_str).collect::<BTreeSet<_>>());
        match sets.reduce(|one, other| &one & &other) {
            Some(names) => named.get_or_insert_default().extend(names),
            None => return Ok(None),
        }
    }
    match named {
        Some(named) if named.is_empty() => Err("pod affinity terms conflict".to_owned()),
        named => Ok(named),
    }
}

/// What the pod asks for that no node of ours can give.
fn objection(spec: &PodSpec) -> Option<String> {
    let claims = spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty());
    claims.then(|| "spec.resourceClaims is not supported by this scheduler".to_owned())
}
