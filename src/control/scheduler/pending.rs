//! The pods that have no node yet: which is next, which waits for what.
//!
//! Pure: it is told the time. Back-off doubles from one second to ten per pod, as upstream's
//! `podInitialBackoffDuration` and `podMaxBackoffDuration`; a parked pod is looked at again after five minutes in any
//! case.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use client::Key;
use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

use super::filter::Refusal;
use super::needs::Needs;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(10);
const PARKED_AT_MOST: Duration = Duration::from_secs(300);

/// A pod that has no node yet.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// The pod as last seen.
    pub pod: Arc<Pod>,
    /// What it needs.
    pub needs: Arc<Needs>,
    attempts: u32,
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// To be decided on, in the order of priority and arrival.
    Active { order: Order },
    /// To be decided on from this moment.
    Resting { until: Instant },
    /// No node fits until something changes.
    Parked { rested: Instant, until: Instant, refusals: BTreeSet<Refusal> },
    /// Its binding is under way.
    Binding,
}

/// Higher priority first, then first come.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Order {
    priority: std::cmp::Reverse<i32>,
    number: u64,
}

/// What has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A node came or became different.
    Node,
    /// A claim, volume or class came or became different.
    Volume,
    /// A pod has freed its room.
    Room,
}

/// The pods that have no node yet.
#[derive(Debug, Default)]
pub struct Pending {
    pods: HashMap<Key, Waiting>,
    active: std::collections::BTreeMap<Order, Key>,
    count: u64,
}

impl Pending {
    /// Takes in a pod that needs a node. One that is known already is decided on again only if it has changed in what
    /// decides.
    pub fn observe(&mut self, key: &Key, pod: &Arc<Pod>) {
        if let Some(known) = self.pods.get_mut(key) {
            let same = known.pod.metadata.uid == pod.metadata.uid;
            if same && (known.pod.spec == pod.spec || known.state == State::Binding) {
                known.pod = Arc::clone(pod);
                return;
            }
        }
        self.remove(key);
        let needs = Arc::new(Needs::of(pod));
        let order = self.order(&needs);
        self.active.insert(order.clone(), key.clone());
        let waiting = Waiting { pod: Arc::clone(pod), needs, attempts: 0, state: State::Active { order } };
        self.pods.insert(key.clone(), waiting);
    }

    fn order(&mut self, needs: &Needs) -> Order {
        self.count += 1;
        Order { priority: std::cmp::Reverse(needs.priority), number: self.count }
    }

    /// Forgets a pod.
    pub fn remove(&mut self, key: &Key) {
        if let Some(Waiting { state: State::Active { order }, .. }) = self.pods.remove(key) {
            self.active.remove(&order);
        }
    }

    /// The next pod to decide on; it counts as being bound until it is parked, rests or is removed.
    pub fn take(&mut self) -> Option<(Key, Waiting)> {
        let (_, key) = self.active.pop_first()?;
        let waiting = self.pods.get_mut(&key)?;
        waiting.state = State::Binding;
        waiting.attempts = waiting.attempts.saturating_add(1);
        Some((key, waiting.clone()))
    }

    /// Makes the pods active whose time has come.
    pub fn ripen(&mut self, now: Instant) {
        let is_due = |state: &State| match state {
            State::Resting { until } | State::Parked { until, .. } => *until <= now,
            State::Active { .. } | State::Binding => false,
        };
        let due = self.pods.iter().filter(|(_, waiting)| is_due(&waiting.state));
        let due: Vec<(Key, Arc<Needs>)> = due.map(|(key, w)| (key.clone(), Arc::clone(&w.needs))).collect();
        for (key, needs) in due {
            let order = self.order(&needs);
            self.active.insert(order.clone(), key.clone());
            if let Some(waiting) = self.pods.get_mut(&key) {
                waiting.state = State::Active { order };
            }
        }
    }

    /// No node fits a pod that was taken.
    pub fn park(&mut self, key: &Key, refusals: BTreeSet<Refusal>, now: Instant) {
        if let Some(waiting) = self.pods.get_mut(key) {
            let rested = now + backoff(waiting.attempts);
            waiting.state = State::Parked { rested, until: now + PARKED_AT_MOST, refusals };
        }
    }

    /// A pod that was taken could not be bound.
    pub fn rest(&mut self, key: &Key, now: Instant) {
        if let Some(waiting) = self.pods.get_mut(key) {
            waiting.state = State::Resting { until: now + backoff(waiting.attempts) };
        }
    }

    /// Lets parked pods that the change can help be decided on again once they have rested.
    pub fn wake(&mut self, change: Change) {
        for waiting in self.pods.values_mut() {
            if let State::Parked { rested, refusals, .. } = &waiting.state {
                let helps = match change {
                    Change::Node => true,
                    Change::Volume => !waiting.needs.claims.is_empty(),
                    Change::Room => refusals.iter().any(Refusal::is_due_to_pods),
                };
                if helps {
                    waiting.state = State::Resting { until: *rested };
                }
            }
        }
    }

    /// When a pod is to be decided on next without anything having changed.
    pub fn wake_at(&self) -> Option<Instant> {
        let moments = self.pods.values().filter_map(|waiting| match &waiting.state {
            State::Resting { until } | State::Parked { until, .. } => Some(*until),
            State::Active { .. } | State::Binding => None,
        });
        moments.min()
    }
}

fn backoff(attempts: u32) -> Duration {
    FIRST.saturating_mul(1 << attempts.saturating_sub(1).min(10)).min(LONGEST)
}

#[cfg(test)]
mod tests;
