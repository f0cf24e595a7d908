//! Preferences about pods that are there (`plugins/interpodaffinity/scoring.go`), in both directions.

use std::collections::HashMap;

use super::{BEST, float, whole};
use crate::scheduler::cluster::NodeRoom;
use crate::scheduler::facts::{Facts, all};
use crate::scheduler::terms::Pull;

/// The scores of nodes that fit, the worst 0 and the best 100.
pub(super) fn scores(facts: &Facts<'_>, nodes: &[&NodeRoom]) -> Vec<i64> {
    let cluster = facts.cluster;
    // Weights by label and its value.
    let mut weights: HashMap<&str, HashMap<&str, i64>> = HashMap::new();
    let mut weigh = |topology, number, weight: i64| {
        let room: Option<&NodeRoom> = cluster.numbered(number);
        if let Some(place) = room.and_then(|room| room.label(topology)) {
            *weights.entry(topology).or_default().entry(place).or_default() += weight;
        }
    };
    for (weight, term) in &facts.asked.needs.company.liked {
        let counts = cluster.counts(&all(std::slice::from_ref(term)));
        for (number, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            weigh(&*term.topology, number, weight * i64::from(*count));
        }
    }
    for held in cluster.pulls_on(facts.asked.needs) {
        let Pull::Weighs(weight) = held.pull else { continue };
        for (number, count) in &held.at {
            weigh(&*held.term.topology, *number, weight * count);
        }
    }
    if weights.is_empty() {
        return vec![0; nodes.len()];
    }
    let weight = |room: &&NodeRoom| -> i64 {
        let at = |(topology, places): (&&str, &HashMap<&str, i64>)| places.get(room.label(topology)?).copied();
        weights.iter().filter_map(at).sum()
    };
    stretch(nodes.iter().map(weight).collect())
}

fn stretch(mut scores: Vec<i64>) -> Vec<i64> {
    let least = scores.iter().copied().min().unwrap_or(0);
    let most = scores.iter().copied().max().unwrap_or(0);
    let range = float(most - least);
    for score in &mut scores {
        *score = if most > least { whole(float(BEST) * (float(*score - least) / range)) } else { 0 };
    }
    scores
}
