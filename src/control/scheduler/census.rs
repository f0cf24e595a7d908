//! How many pods of a sort there are on each node, and what pods that are there mean for others.
//!
//! Counted once when first asked for, then kept with each pod that comes or goes, so that deciding on a pod does not look
//! at all others: pods of one Deployment ask for the same sort. Invariant: what is kept equals what counting anew gives.

use std::collections::HashMap;

use super::needs::Needs;
use super::terms::{Cover, Namespaces, Pull, Term};

/// Sorts that are kept at most; the one that nobody has asked for longest makes room.
const KEPT: usize = 128;

/// A sort of pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crowd {
    /// Each of these covers them.
    pub covers: Vec<Cover>,
    /// Whether those on their way out count.
    pub with_ending: bool,
}

impl Crowd {
    /// Whether a pod is one of them.
    pub fn has(&self, pod: &Needs, namespaces: &Namespaces) -> bool {
        (self.with_ending || !pod.is_ending) && self.covers.iter().all(|cover| cover.covers(pod, namespaces))
    }
}

/// The sorts that are kept.
#[derive(Debug, Clone, Default)]
pub(super) struct Censuses {
    kept: Vec<Census>,
    time: u64,
}

#[derive(Debug, Clone)]
struct Census {
    crowd: Crowd,
    /// By number of the node.
    counts: Vec<u32>,
    asked: u64,
}

impl Censuses {
    /// The counts of a sort by number of the node, if they are kept; nodes beyond the end have none.
    pub(super) fn find(&self, crowd: &Crowd) -> Option<&[u32]> {
        self.kept.iter().find(|census| census.crowd == *crowd).map(|census| &*census.counts)
    }

    /// Whether a sort is kept; it is asked for at this moment.
    pub(super) fn touch(&mut self, crowd: &Crowd) -> bool {
        self.time += 1;
        let found = self.kept.iter_mut().find(|census| census.crowd == *crowd);
        found.map(|census| census.asked = self.time).is_some()
    }

    /// Keeps a sort.
    pub(super) fn keep(&mut self, crowd: Crowd, counts: Vec<u32>) {
        if self.kept.len() >= KEPT
            && let Some(oldest) = (0..self.kept.len()).min_by_key(|index| self.kept[*index].asked)
        {
            self.kept.swap_remove(oldest);
        }
        self.kept.push(Census { crowd, counts, asked: self.time });
    }

    /// A pod came to a node or left it.
    pub(super) fn count(&mut self, pod: &Needs, node: usize, comes: bool, namespaces: &Namespaces) {
        for census in self.kept.iter_mut().filter(|census| census.crowd.has(pod, namespaces)) {
            if census.counts.len() <= node {
                census.counts.resize(node + 1, 0);
            }
            let count = &mut census.counts[node];
            *count = if comes { count.saturating_add(1) } else { count.saturating_sub(1) };
        }
    }

    /// Labels of a namespace are about to change.
    pub(super) fn forget_namespaces(&mut self) {
        self.kept.retain(|census| !census.crowd.covers.iter().any(Cover::looks_at_namespaces));
    }
}

/// What the pods on nodes mean for others: each different term once, with where pods have it.
#[derive(Debug, Clone, Default)]
pub(super) struct Pulls(Vec<Held>);

/// A term that pods have.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) pull: Pull,
    pub(super) term: Term,
    /// How many of them are on which nodes.
    pub(super) at: HashMap<usize, i64>,
}

impl Pulls {
    /// A pod came to a node or left it.
    pub(super) fn count(&mut self, pod: &Needs, node: usize, comes: bool) {
        for (pull, term) in pod.company.pulls() {
            let known = self.0.iter().position(|held| held.pull == pull && held.term == *term);
            let index = known.unwrap_or_else(|| {
                self.0.push(Held { pull, term: term.clone(), at: HashMap::new() });
                self.0.len() - 1
            });
            let count = self.0[index].at.entry(node).or_default();
            *count += if comes { 1 } else { -1 };
            if *count == 0 {
                self.0[index].at.remove(&node);
            }
            if self.0[index].at.is_empty() {
                self.0.swap_remove(index);
            }
        }
    }

    /// The terms that are about a pod.
    pub(super) fn about<'a>(&'a self, pod: &Needs, namespaces: &Namespaces) -> impl Iterator<Item = &'a Held> {
        self.0.iter().filter(move |held| held.term.cover.covers(pod, namespaces))
    }
}
