//! Who may ask a node now, so that the claims of nodes that are silent leave those of others alone.
//!
//! A node is asked about few directories at a time, and not at all for a while after it gave no answer. Pure but for the
//! lock: the clock is the caller's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

/// Requests to one node at a time.
const AT_A_TIME: usize = 2;
/// How long a node is left alone that gave no answer.
const REST: Duration = Duration::from_secs(30);
/// When it is worth trying again while a node has enough to do.
const SOON: Duration = Duration::from_secs(1);

/// What is known of nodes that are asked, or were silent.
#[derive(Debug, Clone, Default)]
pub(super) struct Gate(Arc<Mutex<BTreeMap<String, Turn>>>);

#[derive(Debug, Default)]
struct Turn {
    asked: usize,
    rests_until: Option<Timestamp>,
}

/// The right to ask a node; given back by being dropped.
#[derive(Debug)]
pub(super) struct Pass {
    gate: Gate,
    node: String,
}

impl Gate {
    /// A pass, or how long to wait for one.
    pub(super) fn enter(&self, node: &str, now: Timestamp) -> Result<Pass, Duration> {
        let mut turns = self.turns();
        let turn = turns.entry(node.to_owned()).or_default();
        if let Some(until) = turn.rests_until.filter(|until| *until > now) {
            return Err(Duration::try_from(until.duration_since(now)).unwrap_or(SOON).max(SOON));
        }
        if turn.asked >= AT_A_TIME {
            return Err(SOON);
        }
        turn.asked += 1;
        Ok(Pass { gate: self.clone(), node: node.to_owned() })
    }

    fn turns(&self) -> MutexGuard<'_, BTreeMap<String, Turn>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// Who may be asked.
    pub(super) fn node(&self) -> &str {
        &self.node
    }

    /// Notes that the node gave no answer.
    pub(super) fn was_silent(&self, now: Timestamp) {
        self.gate.turns().entry(self.node.clone()).or_default().rests_until = Some(now + REST);
    }

    /// Notes that it did.
    pub(super) fn was_answered(&self) {
        self.gate.turns().entry(self.node.clone()).or_default().rests_until = None;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut turns = self.gate.turns();
        if let Some(turn) = turns.get_mut(&self.node) {
            turn.asked -= 1;
            if turn.asked == 0 && turn.rests_until.is_none() {
                turns.remove(&self.node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_node_is_left_alone_for_a_while_and_keeps_nobody_from_another() {
        let (gate, start) = (Gate::default(), Timestamp::from_second(1_800_000_000).unwrap());
        let at = |seconds| start + Duration::from_secs(seconds);
        let (first, second) = (gate.enter("silent", at(0)).unwrap(), gate.enter("silent", at(0)).unwrap());
        assert_eq!(gate.enter("silent", at(0)).unwrap_err(), SOON);
        assert!(gate.enter("other", at(0)).is_ok());
        first.was_silent(at(10));
        drop((first, second));
        assert_eq!(gate.enter("silent", at(15)).unwrap_err(), Duration::from_secs(25));
        let again = gate.enter("silent", at(40)).unwrap();
        again.was_answered();
        drop(again);
        assert!(gate.turns().is_empty(), "nothing is remembered of those who answer");
    }
}
