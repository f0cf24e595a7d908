//! The pods that have no node yet: which is next, which waits for what.
//!
//! Pure: it is told the time. Back-off doubles from one second to ten per pod, as upstream's
//! `podInitialBackoffDuration` and `podMaxBackoffDuration`; a pod that something has woken need not wait for its end while
//! no other pod is to be decided on (`SchedulerPopFromBackoffQ`). A parked pod is looked at again after five minutes in any
//! case.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use client::Key;
use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

use super::filter::Refusal;
use super::hints::{Change, Refusals, helps, is_same_pod};
use super::needs::Needs;
use super::terms::Namespaces;

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
    /// To be decided on from this moment; before, if something has woken it and there is nothing else to do.
    Resting { until: Instant, is_woken: bool },
    /// No node fits until something changes.
    Parked { rested: Instant, until: Instant, refusals: BTreeSet<Refusal> },
    /// What was decided is being carried out.
    Busy,
}

impl State {
    /// When it ends by itself.
    fn until(&self) -> Option<Instant> {
        match self {
            Self::Resting { until, .. } | Self::Parked { until, .. } => Some(*until),
            Self::Active { .. } | Self::Busy => None,
        }
    }
}

/// Higher priority first, then first come.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Order {
    priority: std::cmp::Reverse<i32>,
    number: u64,
}

/// The pods that have no node yet.
#[derive(Debug, Default)]
pub struct Pending {
    pods: HashMap<Key, Waiting>,
    active: BTreeMap<Order, Key>,
    /// Those that rest or are parked, by when that ends.
    timed: BTreeSet<(Instant, Key)>,
    /// Those that something has woken, by when their rest ends.
    woken: BTreeSet<(Instant, Key)>,
    parked: BTreeSet<Key>,
    count: u64,
}

impl Pending {
    /// Takes in a pod that needs a node. One that is known already is decided on again only if it has changed in what
    /// decides. Says what it needs.
    pub fn observe(&mut self, key: &Key, pod: &Arc<Pod>) -> Arc<Needs> {
        if let Some(known) = self.pods.get_mut(key) {
            let same = known.pod.metadata.uid == pod.metadata.uid;
            if same && (known.state == State::Busy || is_same_pod(&known.pod, pod)) {
                known.pod = Arc::clone(pod);
                return Arc::clone(&known.needs);
            }
        }
        self.remove(key);
        let needs = Arc::new(Needs::of(pod));
        let waiting = Waiting { pod: Arc::clone(pod), needs: Arc::clone(&needs), attempts: 0, state: State::Busy };
        self.pods.insert(key.clone(), waiting);
        self.activate(key);
        needs
    }

    fn activate(&mut self, key: &Key) {
        self.count += 1;
        let number = self.count;
        if let Some(waiting) = self.pods.get(key) {
            let order = Order { priority: std::cmp::Reverse(waiting.needs.priority), number };
            self.turn(key, State::Active { order });
        }
    }

    /// Puts a pod into a state, and into the orders that go with it.
    fn turn(&mut self, key: &Key, state: State) {
        let Some(waiting) = self.pods.get_mut(key) else { return };
        let former = std::mem::replace(&mut waiting.state, state);
        let state = waiting.state.clone();
        self.unlist(key, &former);
        if let Some(until) = state.until() {
            self.timed.insert((until, key.clone()));
        }
        match state {
            State::Active { order } => drop(self.active.insert(order, key.clone())),
            State::Resting { until, is_woken: true } => drop(self.woken.insert((until, key.clone()))),
            State::Parked { .. } => drop(self.parked.insert(key.clone())),
            State::Resting { .. } | State::Busy => {}
        }
    }

    fn unlist(&mut self, key: &Key, former: &State) {
        if let Some(until) = former.until() {
            let entry = (until, key.clone());
            self.timed.remove(&entry);
            self.woken.remove(&entry);
        }
        match former {
            State::Active { order } => drop(self.active.remove(order)),
            State::Parked { .. } => drop(self.parked.remove(key)),
            State::Resting { .. } | State::Busy => {}
        }
    }

    /// Forgets a pod.
    pub fn remove(&mut self, key: &Key) {
        if let Some(waiting) = self.pods.remove(key) {
            self.unlist(key, &waiting.state);
        }
    }

    /// The pod as last seen, if it waits for a node.
    pub fn get(&self, key: &Key) -> Option<&Waiting> {
        self.pods.get(key)
    }

    /// The next pod to decide on; it counts as busy until it is parked, rests or is removed.
    pub fn take(&mut self) -> Option<(Key, Waiting)> {
        let key = match self.active.first_key_value() {
            Some((_, key)) => key.clone(),
            None => self.woken.first()?.1.clone(),
        };
        self.turn(&key, State::Busy);
        let waiting = self.pods.get_mut(&key)?;
        waiting.attempts = waiting.attempts.saturating_add(1);
        Some((key, waiting.clone()))
    }

    /// Makes the pods active whose time has come.
    pub fn ripen(&mut self, now: Instant) {
        while let Some((until, key)) = self.timed.first().cloned()
            && until <= now
        {
            self.activate(&key);
        }
    }

    /// No node fits a pod that was taken.
    pub fn park(&mut self, key: &Key, refusals: BTreeSet<Refusal>, now: Instant) {
        if let Some(waiting) = self.pods.get(key) {
            let rested = now + backoff(waiting.attempts);
            self.turn(key, State::Parked { rested, until: now + PARKED_AT_MOST, refusals });
        }
    }

    /// A pod that was taken could not be decided on at that moment, and can now.
    pub fn resume(&mut self, key: &Key) {
        if let Some(waiting) = self.pods.get_mut(key).filter(|waiting| waiting.state == State::Busy) {
            waiting.attempts = waiting.attempts.saturating_sub(1);
            self.activate(key);
        }
    }

    /// A pod that was taken could not be bound.
    pub fn rest(&mut self, key: &Key, now: Instant) {
        if let Some(waiting) = self.pods.get(key) {
            let until = now + backoff(waiting.attempts);
            self.turn(key, State::Resting { until, is_woken: false });
        }
    }

    /// Lets parked pods that the change can help be decided on again.
    pub fn wake(&mut self, change: Change<'_>, namespaces: &Namespaces) {
        let mut woken = Vec::new();
        for key in &self.parked {
            if let Some(waiting) = self.pods.get(key)
                && let State::Parked { rested, refusals, .. } = &waiting.state
                && helps(waiting, &Refusals { of: refusals, namespaces }, change)
            {
                woken.push((key.clone(), *rested));
            }
        }
        for (key, until) in woken {
            self.turn(&key, State::Resting { until, is_woken: true });
        }
    }

    /// When a pod is to be decided on next without anything having changed.
    pub fn wake_at(&self) -> Option<Instant> {
        self.timed.first().map(|(until, _)| *until)
    }
}

fn backoff(attempts: u32) -> Duration {
    FIRST.saturating_mul(1 << attempts.saturating_sub(1).min(10)).min(LONGEST)
}

#[cfg(test)]
mod tests;
