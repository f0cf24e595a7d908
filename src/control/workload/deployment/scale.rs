//! Another number of pods in the middle of whatever happens (`pkg/controller/deployment/sync.go`, `scale`).

use super::annotations;
use super::decide::{Held, Work, available, size};

/// Gives the sets sizes of which the sum is what is wanted.
pub(super) fn scale(work: &mut Work<'_>) {
    let (wanted, sizes) = (work.wanted(), work.sizes());
    if let Some(only) = only_one(work) {
        if size(&only.set) != wanted {
            Work::resize(only, wanted, sizes);
        }
        return;
    }
    if is_saturated(work) {
        for held in work.old.iter_mut().filter(|held| size(&held.set) > 0) {
            Work::resize(held, 0, sizes);
        }
        return;
    }
    if work.is_rolling() {
        in_proportion(work);
    }
}

/// The set that has pods, if it is one alone; the newest, if none has (`FindActiveOrLatest`).
fn only_one<'w>(work: &'w mut Work<'_>) -> Option<&'w mut Held> {
    let with_pods = work.all().filter(|held| size(&held.set) > 0).count();
    match with_pods {
        0 if work.new.is_some() => work.new.as_mut(),
        0 => work.old.last_mut(),
        1 => work.old.iter_mut().chain(&mut work.new).find(|held| size(&held.set) > 0),
        _ => None,
    }
}

/// Whether the new set has all pods that are wanted.
fn is_saturated(work: &Work<'_>) -> bool {
    let wanted = work.wanted();
    work.new.as_ref().is_some_and(|held| {
        let set = &held.set;
        annotations::desired(set) == Some(wanted) && size(set) == wanted && available(set) == wanted
    })
}

/// Each set gets its share of what is to be added or taken, the largest what is left over.
fn in_proportion(work: &mut Work<'_>) {
    let (wanted, maximum) = work.sizes();
    let allowed = if wanted > 0 { maximum } else { 0 };
    let before = work.deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or(0);
    let mut sets: Vec<&mut Held> =
        work.old.iter_mut().chain(&mut work.new).filter(|held| size(&held.set) > 0).collect();
    let to_add = allowed - sets.iter().map(|held| size(&held.set)).sum::<i32>();
    // The newest of the largest gains, the oldest of the largest loses what is left over. They come oldest first.
    if to_add > 0 {
        sets.reverse();
    }
    sets.sort_by_key(|held| std::cmp::Reverse(size(&held.set)));
    let mut added = 0;
    let mut to: Vec<i32> = Vec::with_capacity(sets.len());
    for held in &sets {
        let share = share(held, (wanted, maximum), before, to_add - added);
        added += share;
        to.push(size(&held.set) + share);
    }
    if let Some(first) = to.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    for (held, to) in sets.into_iter().zip(to) {
        Work::resize(held, to, (wanted, maximum));
    }
}

/// What a set gets of `left`, which is negative if pods are to be taken (`GetReplicaSetProportion`).
fn share(held: &Held, (wanted, maximum): (i32, i32), before: i32, left: i32) -> i32 {
    if left == 0 {
        return 0;
    }
    let own = size(&held.set);
    if wanted == 0 {
        return -own;
    }
    let before = annotations::maximum(&held.set).filter(|before| *before != 0).unwrap_or(before);
    let (own, maximum, before) = (i64::from(own), i64::from(maximum), i64::from(before.max(1)));
    // Rounded to the nearest, halves away from zero.
    let new = (2 * own * maximum + before) / (2 * before);
    let share = i32::try_from(new - own).unwrap_or(i32::MAX);
    if left > 0 { share.min(left) } else { share.max(left) }
}
