//! What pods say about other pods: affinity terms and spread constraints, in a form that is quick to compare.
//!
//! Read once per pod. The keys of `matchLabelKeys` and `mismatchLabelKeys` are in the selectors already: the API server
//! merges them when a pod is made, as upstream's (`pkg/registry/core/pod/strategy.go`). Selectors that cannot be read
//! cover nothing; the API server admits none.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use api::selector::LabelSelector;
use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm, TopologySpreadConstraint, WeightedPodAffinityTerm};

use super::needs::Needs;
use crate::workload::selector;

/// Labels of an object.
pub(super) type Labels = BTreeMap<String, String>;
/// The labels of all namespaces.
pub(super) type Namespaces = HashMap<String, Labels>;

/// Weight of a required affinity of a pod that is there already; upstream's `hardPodAffinityWeight`.
const REQUIRED_WEIGHT: i64 = 1;

/// Whether labels are what a selector selects.
pub(super) fn covers(selector: &LabelSelector, labels: &Labels) -> bool {
    selector.covers(|key| labels.get(key).map(String::as_str))
}

/// A selection of pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cover {
    /// In these namespaces,
    namespaces: BTreeSet<String>,
    /// or in those with such labels,
    inside: Option<LabelSelector>,
    /// those with such labels.
    selector: LabelSelector,
}

impl Cover {
    /// Pods of one namespace.
    pub(super) fn within(namespace: &str, selector: LabelSelector) -> Self {
        Self { namespaces: BTreeSet::from([namespace.to_owned()]), inside: None, selector }
    }

    /// Whether it is affected by labels of namespaces.
    pub(super) fn looks_at_namespaces(&self) -> bool {
        self.inside.as_ref().is_some_and(|selector| !selector.is_everything())
    }

    /// Whether a pod is one of them.
    pub(super) fn covers(&self, pod: &Needs, namespaces: &Namespaces) -> bool {
        let is_inside = |selector: &LabelSelector| {
            selector.covers(|key| namespaces.get(&pod.namespace)?.get(key).map(String::as_str))
        };
        covers(&self.selector, &pod.labels)
            && (self.namespaces.contains(&pod.namespace) || self.inside.as_ref().is_some_and(is_inside))
    }
}

/// Pods, and how near to them is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// The pods.
    pub cover: Cover,
    /// Nodes with the same value of this label are the same place.
    pub topology: String,
}

/// What a pod that is there already means for those to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pull {
    /// It bears none of them near it.
    Rejects,
    /// They would better be there, or not, by weight.
    Weighs(i64),
}

/// That pods of a sort are to be spread evenly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spread {
    /// Nodes with the same value of this label are the same place.
    pub topology: String,
    /// The pods, of the same namespace.
    pub selector: LabelSelector,
    /// By how many a place may have more than the one with the fewest.
    pub max_skew: i64,
    /// With fewer places than this the fewest counts as none.
    pub min_domains: usize,
    /// Whether it must be so.
    pub is_hard: bool,
    /// Whether only nodes count that the pod selects.
    pub honours_affinity: bool,
    /// Whether only nodes count whose taints the pod tolerates.
    pub honours_taints: bool,
}

fn term(term: &PodAffinityTerm, own: &str) -> Term {
    let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
    if namespaces.is_empty() && term.namespace_selector.is_none() {
        namespaces.insert(own.to_owned());
    }
    let inside = term.namespace_selector.as_ref().map(selector);
    let cover = Cover { namespaces, inside, selector: selector(&term.label_selector) };
    Term { cover, topology: term.topology_key.clone() }
}

/// Everything that a pod says about other pods.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Company {
    /// It must be near those that all of these cover.
    pub near: Vec<Term>,
    /// It must not be near any of these.
    pub apart: Vec<Term>,
    /// It would better be near these, or not, by weight.
    pub liked: Vec<(i64, Term)>,
    /// How it is to be spread.
    pub spread: Vec<Spread>,
}

impl Company {
    /// What a pod says.
    pub(super) fn of(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Self::default() };
        let own = pod.metadata.namespace.as_deref().unwrap_or_default();
        let mut company =
            Self { spread: spec.topology_spread_constraints.iter().flatten().map(spread).collect(), ..Self::default() };
        let weighed = |sign: i64, list: Option<&Vec<WeightedPodAffinityTerm>>| -> Vec<(i64, Term)> {
            let weigh =
                |one: &WeightedPodAffinityTerm| (sign * i64::from(one.weight), term(&one.pod_affinity_term, own));
            list.into_iter().flatten().map(weigh).collect()
        };
        let required = |list: Option<&Vec<PodAffinityTerm>>| -> Vec<Term> {
            list.into_iter().flatten().map(|one| term(one, own)).collect()
        };
        let affinity = spec.affinity.as_ref();
        if let Some(near) = affinity.and_then(|affinity| affinity.pod_affinity.as_ref()) {
            company.near = required(near.required_during_scheduling_ignored_during_execution.as_ref());
            company.liked = weighed(1, near.preferred_during_scheduling_ignored_during_execution.as_ref());
        }
        if let Some(apart) = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref()) {
            company.apart = required(apart.required_during_scheduling_ignored_during_execution.as_ref());
            company.liked.extend(weighed(-1, apart.preferred_during_scheduling_ignored_during_execution.as_ref()));
        }
        company
    }

    /// What it means for others once it is somewhere.
    pub(super) fn pulls(&self) -> impl Iterator<Item = (Pull, &Term)> {
        let rejects = self.apart.iter().map(|term| (Pull::Rejects, term));
        let requires = self.near.iter().map(|term| (Pull::Weighs(REQUIRED_WEIGHT), term));
        let likes = self.liked.iter().map(|(weight, term)| (Pull::Weighs(*weight), term));
        rejects.chain(requires).chain(likes)
    }
}

fn spread(constraint: &TopologySpreadConstraint) -> Spread {
    Spread {
        topology: constraint.topology_key.clone(),
        selector: selector(&constraint.label_selector),
        max_skew: i64::from(constraint.max_skew),
        min_domains: constraint.min_domains.and_then(|least| usize::try_from(least).ok()).unwrap_or(1),
        is_hard: constraint.when_unsatisfiable == "DoNotSchedule",
        honours_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
        honours_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
    }
}

impl Spread {
    /// How pods are spread that do not say: upstream's `systemDefaultConstraints`, for pods that a Service or controller
    /// puts together.
    pub(super) fn defaults(family: &LabelSelector) -> [Self; 2] {
        let constraint = |topology: &str, max_skew| Self {
            topology: topology.to_owned(),
            selector: family.clone(),
            max_skew,
            min_domains: 1,
            is_hard: false,
            honours_affinity: true,
            honours_taints: false,
        };
        [constraint(HOSTNAME, 3), constraint(ZONE, 5)]
    }
}

/// Label of nodes with their name.
pub(super) const HOSTNAME: &str = "kubernetes.io/hostname";
/// Label of nodes with where they stand.
pub(super) const ZONE: &str = "topology.kubernetes.io/zone";
