//! What a node must have left, and which conditions it has when it has less: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use api::quantity::Quantity;
use jiff::Timestamp;

use super::Pressure;

/// How long a condition lasts after the last time that it was observed: `evictionPressureTransitionPeriod`.
const TRANSITION: Duration = Duration::from_secs(300);

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// Memory of the node.
    MemoryAvailable,
    /// Bytes of the file system of pods.
    NodefsAvailable,
    /// Files of that.
    NodefsInodesFree,
    /// Bytes of the file system of images, which is the same here.
    ImagefsAvailable,
    /// Files of that.
    ImagefsInodesFree,
    /// Ids of processes.
    PidAvailable,
}

impl Signal {
    const ALL: [(Self, &'static str); 6] = [
        (Self::MemoryAvailable, "memory.available"),
        (Self::NodefsAvailable, "nodefs.available"),
        (Self::NodefsInodesFree, "nodefs.inodesFree"),
        (Self::ImagefsAvailable, "imagefs.available"),
        (Self::ImagefsInodesFree, "imagefs.inodesFree"),
        (Self::PidAvailable, "pid.available"),
    ];

    /// The one of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, own)| *own == name).map(|(signal, _)| *signal)
    }

    /// What is given back by those who are evicted.
    pub(super) const fn resource(self) -> Resource {
        match self {
            Self::MemoryAvailable => Resource::Memory,
            Self::NodefsAvailable | Self::ImagefsAvailable => Resource::Storage,
            Self::NodefsInodesFree | Self::ImagefsInodesFree => Resource::Inodes,
            Self::PidAvailable => Resource::Pids,
        }
    }
}

/// What a node can run out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource {
    Memory,
    Storage,
    Inodes,
    Pids,
}

impl Resource {
    /// As amounts of it are written.
    pub(super) fn amount(self, amount: i64) -> Quantity {
        match self {
            Self::Memory | Self::Storage => Quantity::from_bytes(amount),
            Self::Inodes | Self::Pids => Quantity::from_whole(amount),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Storage => "ephemeral-storage",
            Self::Inodes => "inodes",
            Self::Pids => "pids",
        })
    }
}

/// What must be left of something, in upstream's form: `memory.available<100Mi`, `nodefs.available<10%`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    pub(super) signal: Signal,
    least: Least,
    /// How long it may be missed; none for a hard one.
    pub(super) grace: Option<Duration>,
    /// What must be left beyond it once somebody was ended for its sake.
    pub(super) reclaim: Option<Least>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Least {
    Amount(i64),
    /// Of the whole.
    Share(f64),
    /// Of the whole, but not more than an amount.
    ShareUpTo(f64, i64),
}

/// What is said of thresholds and makes no sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ThresholdError {
    /// A text that is no threshold.
    #[error("{text:?} is not like memory.available<100Mi or nodefs.available<10%")]
    Threshold { text: String },
    /// A text that says nothing of a threshold.
    #[error(
        "{text:?} is not like memory.available=1m30s, for a grace period, or memory.available=100Mi, for an amount"
    )]
    Setting { text: String },
    /// A signal of which something is said again.
    #[error("{text:?} says again what was said before")]
    Twice { text: String },
    /// A soft threshold that is never due.
    #[error("grace period must be specified for the soft eviction threshold {text}")]
    NoGrace { text: String },
}

impl FromStr for Threshold {
    type Err = ThresholdError;

    fn from_str(text: &str) -> Result<Self, ThresholdError> {
        let wrong = || ThresholdError::Threshold { text: text.to_owned() };
        let (name, least) = text.split_once('<').ok_or_else(wrong)?;
        let (signal, least) = (Signal::named(name).ok_or_else(wrong)?, Least::parse(least).ok_or_else(wrong)?);
        Ok(Self { signal, least, grace: None, reclaim: None })
    }
}

impl Least {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let Some(share) = text.strip_suffix('%') else {
            let amount = Quantity::parse(text).ok().filter(|amount| !amount.is_negative());
            return amount.map(|amount| Self::Amount(amount.value()));
        };
        let share = share.parse::<f64>().ok().filter(|share| (0.0..100.0).contains(share));
        share.map(|share| Self::Share(share / 100.0))
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a share of a whole, of which nobody counts the last byte"
    )]
    fn of(self, capacity: i64) -> i64 {
        match self {
            Self::Amount(amount) => amount,
            Self::Share(share) => (capacity as f64 * share) as i64,
            Self::ShareUpTo(share, most) => most.min((capacity as f64 * share) as i64),
        }
    }
}

impl Threshold {
    /// What a node keeps unless it is told otherwise. Upstream wants a tenth of the disk and more to be free, of which a
    /// host of one's own with a large disk is easily short though there is plenty: here 1 GiB is enough.
    pub fn usual() -> Vec<Self> {
        let hard = |signal, least| Self { signal, least, grace: None, reclaim: None };
        let amount = |signal, amount: i64| hard(signal, Least::Amount(amount));
        let disk = |signal| hard(signal, Least::ShareUpTo(0.1, 1 << 30));
        let share = |signal| hard(signal, Least::Share(0.05));
        vec![
            amount(Signal::MemoryAvailable, 100 << 20),
            disk(Signal::NodefsAvailable),
            share(Signal::NodefsInodesFree),
            disk(Signal::ImagefsAvailable),
            share(Signal::ImagefsInodesFree),
        ]
    }

    /// What must be left of so much.
    pub(super) fn least_of(&self, capacity: i64) -> i64 {
        self.least.of(capacity)
    }

    /// What pods cannot ask for because it must be left: bytes of memory and of storage (`hardEvictionReservation`).
    pub(crate) fn reserved(thresholds: &[Self], memory: i64, storage: i64) -> (i64, i64) {
        let of = |signal, capacity| {
            let own = thresholds.iter().find(|own| own.signal == signal && own.grace.is_none());
            own.map_or(0, |own| own.least_of(capacity))
        };
        (of(Signal::MemoryAvailable, memory), of(Signal::NodefsAvailable, storage))
    }
}

/// How much there is of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Observation {
    pub(super) signal: Signal,
    pub(super) available: i64,
    pub(super) capacity: i64,
}

/// A threshold that is not kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Starved {
    pub(super) resource: Resource,
    pub(super) least: i64,
    pub(super) available: i64,
    /// Whether it was missed long enough, and who goes may take his time.
    pub(super) is_soft: bool,
}

/// What was seen so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Seen {
    memory: Option<Timestamp>,
    disk: Option<Timestamp>,
    pids: Option<Timestamp>,
    /// Since when thresholds are missed, by their places.
    since: BTreeMap<usize, Timestamp>,
    /// Those for whose sake somebody had to go when they were last looked at.
    due: BTreeSet<usize>,
}

/// What follows from a look at the node.
#[derive(Debug, PartialEq)]
pub(super) struct Found {
    pub(super) pressure: Pressure,
    /// For whose sake somebody must go; memory first, which cannot wait.
    pub(super) due: Vec<Starved>,
}

impl Seen {
    /// Takes in what there is, and says which conditions the node has and what must be done. A condition holds from the
    /// first moment, also for a threshold that may be missed for some time.
    pub(super) fn observe(&mut self, thresholds: &[Threshold], observed: &[Observation], now: Timestamp) -> Found {
        let missed = self.missed(thresholds, observed);
        self.since.retain(|place, _| missed.iter().any(|(other, _)| other == place));
        for (place, one) in &missed {
            self.since.entry(*place).or_insert(now);
            let of = match one.resource {
                Resource::Memory => &mut self.memory,
                Resource::Storage | Resource::Inodes => &mut self.disk,
                Resource::Pids => &mut self.pids,
            };
            *of = Some(now);
        }
        let lasts = |since: Timestamp, time: Duration| {
            now.duration_since(since) >= jiff::SignedDuration::try_from(time).unwrap_or(jiff::SignedDuration::MAX)
        };
        let is_due = |place: &usize| {
            let grace = thresholds.get(*place).and_then(|threshold| threshold.grace).unwrap_or_default();
            self.since.get(place).is_some_and(|since| lasts(*since, grace))
        };
        let due: Vec<_> = missed.into_iter().filter(|(place, _)| is_due(place)).collect();
        self.due = due.iter().map(|(place, _)| *place).collect();
        let holds = |at: Option<Timestamp>| at.is_some_and(|at| !lasts(at, TRANSITION));
        let pressure = Pressure { memory: holds(self.memory), disk: holds(self.disk), pids: holds(self.pids) };
        Found { pressure, due: due.into_iter().map(|(_, starved)| starved).collect() }
    }

    /// The thresholds that are missed, by their places: those for whose sake somebody had to go until there is as much
    /// beyond them as they ask for. What is not known is not missed.
    fn missed(&self, thresholds: &[Threshold], observed: &[Observation]) -> Vec<(usize, Starved)> {
        let of = |(place, threshold): (usize, &Threshold)| {
            let seen = observed.iter().find(|seen| seen.signal == threshold.signal)?;
            let least = threshold.least_of(seen.capacity);
            let beyond =
                threshold.reclaim.filter(|_| self.due.contains(&place)).map_or(0, |more| more.of(seen.capacity));
            let (resource, is_soft) = (threshold.signal.resource(), threshold.grace.is_some());
            let starved = Starved { resource, least, available: seen.available, is_soft };
            (least.saturating_add(beyond) > seen.available).then_some((place, starved))
        };
        let mut found: Vec<_> = thresholds.iter().enumerate().filter_map(of).collect();
        // What is hard before what is soft.
        found.sort_by_key(|(_, one)| (one.resource != Resource::Memory, one.is_soft));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threshold(text: &str) -> Threshold {
        text.parse().expect("a threshold")
    }

    fn seen(signal: Signal, available: i64, capacity: i64) -> Observation {
        Observation { signal, available, capacity }
    }

    #[test]
    fn thresholds_are_read_as_upstream_writes_them() {
        assert_eq!(threshold("memory.available<100Mi").least_of(1 << 40), 100 << 20);
        assert_eq!(threshold("nodefs.available<10%").least_of(1000), 100);
        assert_eq!(threshold("pid.available<1k").least_of(0), 1000);
        for wrong in
            ["memory.available", "memory.available>1Gi", "memory<1Gi", "nodefs.available<x", "nodefs.available<-5%"]
        {
            assert!(wrong.parse::<Threshold>().is_err(), "{wrong}");
        }
        let list = [threshold("nodefs.available<10%"), threshold("memory.available<1Ki")];
        assert_eq!(Threshold::reserved(&list, 5000, 5000), (1024, 500));
    }

    fn at(seconds: i64) -> Timestamp {
        let start: Timestamp = "2026-11-20T15:00:00Z".parse().expect("a time");
        start + jiff::SignedDuration::from_secs(seconds)
    }

    #[test]
    fn a_small_disk_is_not_short_of_what_it_never_had() {
        let usual = Threshold::usual();
        let of = |capacity: i64| Threshold::reserved(&usual, 0, capacity).1;
        assert_eq!(of(1000 << 20), 100 << 20);
        assert_eq!(of(1 << 40), 1 << 30);
    }

    #[test]
    fn what_is_not_kept_is_told_memory_first_and_what_is_not_known_is_kept() {
        let list = ["nodefs.available<10%", "memory.available<100", "pid.available<5"].map(threshold);
        let observed = [seen(Signal::NodefsAvailable, 99, 1000), seen(Signal::MemoryAvailable, 99, 1000)];
        let found = Seen::default().observe(&list, &observed, at(0));
        let expected = |resource| Starved { resource, least: 100, available: 99, is_soft: false };
        assert_eq!(found.due, [expected(Resource::Memory), expected(Resource::Storage)]);
        let enough = [seen(Signal::MemoryAvailable, 100, 1000)];
        assert_eq!(Seen::default().observe(&list, &enough, at(0)).due, []);
    }

    #[test]
    fn a_condition_lasts_some_time_beyond_its_cause() {
        let (mut memory, list) = (Seen::default(), [threshold("nodefs.inodesFree<2")]);
        let mut look =
            |free, seconds| memory.observe(&list, &[seen(Signal::NodefsInodesFree, free, 10)], at(seconds)).pressure;
        let disk = Pressure { disk: true, ..Pressure::default() };
        assert_eq!(look(2, 0), Pressure::default());
        assert_eq!(look(1, 10), disk);
        assert_eq!(look(2, 309), disk);
        assert_eq!(look(2, 310), Pressure::default());
    }

    #[test]
    fn a_soft_threshold_is_due_when_it_was_missed_without_a_break_for_its_grace() {
        let soft = Threshold { grace: Some(Duration::from_secs(90)), ..threshold("memory.available<100") };
        let mut memory = Seen::default();
        let mut look = |available, seconds| {
            let found = memory.observe(&[soft], &[seen(Signal::MemoryAvailable, available, 1000)], at(seconds));
            (found.pressure.memory, found.due.len())
        };
        assert_eq!(look(99, 0), (true, 0), "the condition comes at once");
        assert_eq!(look(99, 89), (true, 0));
        assert_eq!(look(100, 95), (true, 0), "a break");
        assert_eq!(look(99, 100), (true, 0));
        assert_eq!(look(99, 190), (true, 1));
    }

    #[test]
    fn once_somebody_had_to_go_as_much_must_be_free_as_is_asked_for() {
        let hard = Threshold { reclaim: Some(Least::Amount(50)), ..threshold("memory.available<100") };
        let mut memory = Seen::default();
        let mut look =
            |available| memory.observe(&[hard], &[seen(Signal::MemoryAvailable, available, 1000)], at(0)).due.len();
        assert_eq!([look(120), look(99), look(120), look(149), look(150), look(120)], [0, 1, 1, 1, 0, 0]);
    }
}
