//! Preferences about an even spread (`plugins/podtopologyspread/scoring.go`): the fewer of a sort in a place, the better.

use std::borrow::Cow;
use std::collections::HashMap;

use super::{BEST, count, float, whole};
use crate::scheduler::cluster::NodeRoom;
use crate::scheduler::facts::{Facts, is_included, kin};
use crate::scheduler::terms::{HOSTNAME, Spread};

/// A constraint that should hold.
struct Soft<'a> {
    constraint: &'a Spread,
    /// Pods of the sort by number of the node.
    counts: Cow<'a, [u32]>,
    /// The same by place, for constraints by anything but the name of the node.
    places: HashMap<&'a str, i64>,
    /// Places count for more the more of them there are.
    weight: f64,
}

/// The scores of nodes that fit, from 0 to 100.
pub(super) fn scores(facts: &Facts<'_>, nodes: &[&NodeRoom]) -> Vec<i64> {
    let own = &facts.asked.needs.company.spread;
    let defaults = facts.asked.family().map(Spread::defaults);
    // A node without one of the labels is left out, unless nobody has asked for them.
    let needs_all = !own.is_empty();
    let soft: Vec<&Spread> = match &defaults {
        Some(defaults) => defaults.iter().collect(),
        None => own.iter().filter(|constraint| !constraint.is_hard).collect(),
    };
    if soft.is_empty() {
        return vec![0; nodes.len()];
    }
    let has_all = |room: &NodeRoom| !needs_all || soft.iter().all(|one| room.label(&one.topology).is_some());
    let eligible: Vec<&NodeRoom> = nodes.iter().copied().filter(|room| has_all(room)).collect();
    let counted: Vec<Soft<'_>> =
        soft.iter().map(|constraint| count_places(facts, constraint, &eligible, has_all)).collect();
    let raw = |room: &&NodeRoom| has_all(room).then(|| crowding(&counted, room));
    normalize(nodes.iter().map(raw).collect())
}

fn count_places<'a>(
    facts: &Facts<'a>,
    constraint: &'a Spread,
    eligible: &[&'a NodeRoom],
    has_all: impl Fn(&NodeRoom) -> bool,
) -> Soft<'a> {
    let crowd = kin(facts.asked.needs, &constraint.selector);
    let counts = crowd.map(|crowd| facts.cluster.counts(&crowd)).unwrap_or_default();
    let mut places: HashMap<&str, i64> = HashMap::new();
    let mut size = eligible.len();
    if constraint.topology != HOSTNAME {
        let place = |room: &'a NodeRoom| room.label(&constraint.topology).unwrap_or_default();
        places = eligible.iter().map(|room| (place(room), 0)).collect();
        size = places.len();
        for room in facts.cluster.nodes().filter(|room| has_all(room)) {
            if let Some(sum) = places.get_mut(place(room))
                && is_included(constraint, facts.asked.pod, &room.node)
            {
                *sum += at(&counts, room);
            }
        }
    }
    Soft { constraint, counts, places, weight: (float(count(size)) + 2.0).ln() }
}

fn at(counts: &[u32], room: &NodeRoom) -> i64 {
    counts.get(room.number).copied().map_or(0, i64::from)
}

fn crowding(counted: &[Soft<'_>], room: &NodeRoom) -> i64 {
    let mut sum = 0.0;
    for soft in counted {
        let Some(place) = room.label(&soft.constraint.topology) else { continue };
        let count = match soft.constraint.topology.as_str() {
            HOSTNAME => at(&soft.counts, room),
            _ => soft.places.get(place).copied().unwrap_or(0),
        };
        // A greater permitted skew makes differences matter less.
        sum += float(count) * soft.weight + float(soft.constraint.max_skew - 1);
    }
    whole(sum.round())
}

/// The less crowded the better; nodes that are left out get nothing.
fn normalize(raw: Vec<Option<i64>>) -> Vec<i64> {
    let least = raw.iter().flatten().copied().min().unwrap_or(0);
    let most = raw.iter().flatten().copied().max().unwrap_or(0);
    let turn = |crowding| if most == 0 { BEST } else { BEST * (most + least - crowding) / most };
    raw.into_iter().map(|crowding| crowding.map_or(0, turn)).collect()
}
