//! What a decision about one pod has to know of all other pods, put together once: how many of which sort are where.
//!
//! After the state that `PodTopologySpread` and `InterPodAffinity` compute before they filter. [`Facts::suppose`] changes
//! it as if a pod came or went, for room that is kept and for preemption.

use std::collections::HashMap;

use api::placement::{admits, untolerated};
use api::selector::LabelSelector;
use client::Key;
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};

use super::census::Crowd;
use super::claims::Used;
use super::cluster::{Cluster, NodeRoom};
use super::filter::Refusal;
use super::needs::Needs;
use super::terms::{Cover, Pull, Spread, Term, covers};

/// The pod that is decided on.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// What it needs.
    pub needs: &'a Needs,
    /// The pods that Services and its controller put together with it.
    pub family: Option<&'a LabelSelector>,
}

impl Asked<'_> {
    /// The sorts of pods that a decision asks for.
    pub fn crowds(&self) -> Vec<Crowd> {
        let company = &self.needs.company;
        let mut crowds = Vec::new();
        if !company.near.is_empty() {
            crowds.push(all(&company.near));
        }
        let terms = company.apart.iter().chain(company.liked.iter().map(|(_, term)| term));
        crowds.extend(terms.map(|term| all(std::slice::from_ref(term))));
        let selectors = company.spread.iter().map(|spread| &spread.selector).chain(self.family());
        crowds.extend(selectors.filter_map(|selector| kin(self.needs, selector)));
        crowds
    }

    /// The pods among which it is spread by default.
    pub(super) fn family(&self) -> Option<&LabelSelector> {
        self.family.filter(|family| self.needs.company.spread.is_empty() && !family.is_everything())
    }
}

/// Those that all terms cover.
pub(super) fn all(terms: &[Term]) -> Crowd {
    Crowd { covers: terms.iter().map(|term| term.cover.clone()).collect(), with_ending: true }
}

/// Pods of the same namespace among which a pod is spread; a selector of everything selects none there, as upstream
/// (`countPodsMatchSelector`).
pub(super) fn kin(needs: &Needs, selector: &LabelSelector) -> Option<Crowd> {
    let cover = || Cover::within(&needs.namespace, selector.clone());
    (!selector.is_everything()).then(|| Crowd { covers: vec![cover()], with_ending: false })
}

/// Counts by place.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally<'a> {
    topology: &'a str,
    counts: HashMap<&'a str, i64>,
}

impl<'a> Tally<'a> {
    /// Of the pods with these counts by node.
    fn of(topology: &'a str, cluster: &'a Cluster, counts: &[u32]) -> Self {
        let mut tally = Self { topology, counts: HashMap::new() };
        for (number, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            if let Some(room) = cluster.numbered(number) {
                tally.add(room, i64::from(*count));
            }
        }
        tally
    }

    fn add(&mut self, room: &'a NodeRoom, count: i64) {
        if let Some(place) = room.label(self.topology) {
            *self.counts.entry(place).or_default() += count;
        }
    }

    fn at(&self, place: &str) -> i64 {
        self.counts.get(place).copied().unwrap_or(0)
    }

    fn is_empty(&self) -> bool {
        self.counts.values().all(|count| *count <= 0)
    }
}

/// A constraint that must hold, with how many pods there are in each place that counts.
#[derive(Debug, Clone)]
struct Spreading<'a> {
    constraint: &'a Spread,
    places: Tally<'a>,
    /// The fewest of them.
    least: i64,
    counts_itself: bool,
}

impl Spreading<'_> {
    fn update(&mut self) {
        let least = self.places.counts.values().copied().min().unwrap_or(i64::from(i32::MAX));
        self.least = if self.places.counts.len() < self.constraint.min_domains { 0 } else { least };
    }
}

/// What a decision has to know of all other pods.
#[derive(Debug, Clone)]
pub(super) struct Facts<'a> {
    pub(super) asked: Asked<'a>,
    pub(super) cluster: &'a Cluster,
    /// Its claims.
    pub(super) used: &'a Used<'a>,
    /// How many other pods use claims that it must have for itself.
    users: usize,
    spread: Vec<Spreading<'a>>,
    near: Vec<Tally<'a>>,
    apart: Vec<Tally<'a>>,
    /// Where pods are that bear it not near them.
    rejected: Vec<Tally<'a>>,
}

fn spec(pod: &Pod) -> Option<&PodSpec> {
    pod.spec.as_ref()
}

/// Whether a node counts for a constraint.
pub(super) fn is_included(constraint: &Spread, pod: &Pod, node: &Node) -> bool {
    let Some(spec) = spec(pod) else { return true };
    let bears = || {
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        let tolerations = spec.tolerations.as_deref().unwrap_or_default();
        untolerated(taints, tolerations, |effect| effect == "NoSchedule" || effect == "NoExecute").is_none()
    };
    (!constraint.honours_affinity || admits(spec, node)) && (!constraint.honours_taints || bears())
}

impl<'a> Facts<'a> {
    pub(super) fn of(asked: Asked<'a>, cluster: &'a Cluster, used: &'a Used<'a>) -> Self {
        let company = &asked.needs.company;
        let tally = |term: &'a Term, crowd: &Crowd| Tally::of(&term.topology, cluster, &cluster.counts(crowd));
        let near = (!company.near.is_empty()).then(|| all(&company.near));
        let mut facts = Self {
            asked,
            cluster,
            used,
            users: cluster.users_of(&used.exclusive),
            spread: Vec::new(),
            near: near.iter().flat_map(|crowd| company.near.iter().map(|term| tally(term, crowd))).collect(),
            apart: company.apart.iter().map(|term| tally(term, &all(std::slice::from_ref(term)))).collect(),
            rejected: Vec::new(),
        };
        for held in cluster.pulls_on(asked.needs).filter(|held| held.pull == Pull::Rejects) {
            let tally = facts.rejected_at(&held.term.topology);
            for (number, count) in &held.at {
                if let Some(room) = cluster.numbered(*number) {
                    tally.add(room, *count);
                }
            }
        }
        facts.count_spread();
        facts
    }

    fn rejected_at(&mut self, topology: &'a str) -> &mut Tally<'a> {
        let known = self.rejected.iter().position(|tally| tally.topology == topology);
        let index = known.unwrap_or_else(|| {
            self.rejected.push(Tally { topology, counts: HashMap::new() });
            self.rejected.len() - 1
        });
        &mut self.rejected[index]
    }

    fn count_spread(&mut self) {
        let (asked, cluster) = (self.asked, self.cluster);
        for constraint in asked.needs.company.spread.iter().filter(|constraint| constraint.is_hard) {
            let crowd = kin(asked.needs, &constraint.selector);
            let counts = crowd.map(|crowd| cluster.counts(&crowd)).unwrap_or_default();
            let mut places = Tally { topology: &constraint.topology, counts: HashMap::new() };
            for room in cluster.nodes().filter(|room| self.counts_for(constraint, room)) {
                places.add(room, i64::from(counts.get(room.number).copied().unwrap_or(0)));
            }
            let counts_itself = covers(&constraint.selector, &asked.needs.labels);
            let mut spreading = Spreading { constraint, places, least: 0, counts_itself };
            spreading.update();
            self.spread.push(spreading);
        }
    }

    /// Whether a node is one of the places of a constraint; it must have the labels of all of them.
    fn counts_for(&self, constraint: &Spread, room: &NodeRoom) -> bool {
        let mut hard = self.asked.needs.company.spread.iter().filter(|constraint| constraint.is_hard);
        hard.all(|one| room.label(&one.topology).is_some()) && is_included(constraint, self.asked.pod, &room.node)
    }

    /// Changes everything as if another pod came to a node (1) or left it (-1).
    pub(super) fn suppose(&mut self, other: &'a Needs, room: &'a NodeRoom, by: i64) {
        let (needs, namespaces) = (self.asked.needs, self.cluster.namespaces());
        if other.uses_any(&self.used.exclusive) {
            self.users = if by > 0 { self.users + 1 } else { self.users.saturating_sub(1) };
        }
        let company = &needs.company;
        if company.near.iter().all(|term| term.cover.covers(other, namespaces)) {
            self.near.iter_mut().for_each(|tally| tally.add(room, by));
        }
        for (tally, term) in self.apart.iter_mut().zip(&company.apart) {
            if term.cover.covers(other, namespaces) {
                tally.add(room, by);
            }
        }
        for term in other.company.apart.iter().filter(|term| term.cover.covers(needs, namespaces)) {
            self.rejected_at(&term.topology).add(room, by);
        }
        self.suppose_spread(other, room, by);
    }

    fn suppose_spread(&mut self, other: &Needs, room: &'a NodeRoom, by: i64) {
        if other.namespace != self.asked.needs.namespace || other.is_ending {
            return;
        }
        for index in 0..self.spread.len() {
            let constraint = self.spread[index].constraint;
            let is_kin = !constraint.selector.is_everything() && covers(&constraint.selector, &other.labels);
            if is_kin && self.counts_for(constraint, room) {
                self.spread[index].places.add(room, by);
                self.spread[index].update();
            }
        }
    }

    /// Whether another pod has a claim that only one may use.
    pub(super) fn has_claim_in_use(&self) -> bool {
        self.users > 0
    }

    /// Why the pod is not to be on a node for the sake of an even spread.
    pub(super) fn spread_refusal(&self, room: &NodeRoom) -> Option<Refusal> {
        for spreading in &self.spread {
            let Some(place) = room.label(&spreading.constraint.topology) else {
                return Some(Refusal::SpreadLabel);
            };
            let own = i64::from(spreading.counts_itself);
            if spreading.places.at(place) + own - spreading.least > spreading.constraint.max_skew {
                return Some(Refusal::Spread);
            }
        }
        None
    }

    /// Why the pod is not to be on a node for the sake of the pods that are there.
    pub(super) fn company_refusal(&self, room: &NodeRoom) -> Option<Refusal> {
        if !self.is_near(room) {
            return Some(Refusal::NotNear);
        }
        let is_at = |tally: &Tally<'_>| room.label(tally.topology).is_some_and(|place| tally.at(place) > 0);
        if self.apart.iter().any(is_at) {
            return Some(Refusal::NotApart);
        }
        self.rejected.iter().any(is_at).then_some(Refusal::Rejected)
    }

    fn is_near(&self, room: &NodeRoom) -> bool {
        let mut is_near = true;
        for tally in &self.near {
            let Some(place) = room.label(tally.topology) else { return false };
            is_near &= tally.at(place) > 0;
        }
        // The first of pods that are to be near each other must be able to start.
        is_near || (self.near.iter().all(Tally::is_empty) && self.is_near_itself())
    }

    fn is_near_itself(&self) -> bool {
        let needs = self.asked.needs;
        needs.company.near.iter().all(|term| term.cover.covers(needs, self.cluster.namespaces()))
    }

    /// The key of the pod.
    pub(super) fn key(&self) -> Key {
        Key::of(&self.asked.pod.metadata)
    }
}
