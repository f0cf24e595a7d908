//! What a node must have left, and which conditions it has when it has less: pure.

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
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Least {
    Amount(i64),
    /// Of the whole.
    Share(f64),
    /// Of the whole, but not more than an amount.
    ShareUpTo(f64, i64),
}

/// A text that is no threshold.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not like memory.available<100Mi or nodefs.available<10%")]
pub struct ThresholdError {
    text: String,
}

impl FromStr for Threshold {
    type Err = ThresholdError;

    fn from_str(text: &str) -> Result<Self, ThresholdError> {
        let wrong = || ThresholdError { text: text.to_owned() };
        let (name, least) = text.split_once('<').ok_or_else(wrong)?;
        let (signal, _) = *Signal::ALL.iter().find(|(_, own)| *own == name).ok_or_else(wrong)?;
        let least = match least.strip_suffix('%') {
            Some(share) => {
                let share = share.parse::<f64>().ok().filter(|share| (0.0..100.0).contains(share));
                Least::Share(share.ok_or_else(wrong)? / 100.0)
            }
            None => {
                let amount = Quantity::parse(least).ok().filter(|amount| !amount.is_negative());
                Least::Amount(amount.ok_or_else(wrong)?.value())
            }
        };
        Ok(Self { signal, least })
    }
}

impl Threshold {
    /// What a node keeps unless it is told otherwise. Upstream wants a tenth of the disk and more to be free, of which a
    /// host of one's own with a large disk is easily short though there is plenty: here 1 GiB is enough.
    pub fn usual() -> Vec<Self> {
        let amount = |signal, amount: i64| Self { signal, least: Least::Amount(amount) };
        let disk = |signal| Self { signal, least: Least::ShareUpTo(0.1, 1 << 30) };
        let share = |signal| Self { signal, least: Least::Share(0.05) };
        vec![
            amount(Signal::MemoryAvailable, 100 << 20),
            disk(Signal::NodefsAvailable),
            share(Signal::NodefsInodesFree),
            disk(Signal::ImagefsAvailable),
            share(Signal::ImagefsInodesFree),
        ]
    }

    /// What must be left of so much.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a share of a whole, of which nobody counts the last byte"
    )]
    pub(super) fn least_of(&self, capacity: i64) -> i64 {
        match self.least {
            Least::Amount(amount) => amount,
            Least::Share(share) => (capacity as f64 * share) as i64,
            Least::ShareUpTo(share, most) => most.min((capacity as f64 * share) as i64),
        }
    }

    /// What pods cannot ask for because it must be left: bytes of memory and of storage (`hardEvictionReservation`).
    pub(crate) fn reserved(thresholds: &[Self], memory: i64, storage: i64) -> (i64, i64) {
        let of = |signal, capacity| {
            let own = thresholds.iter().find(|own| own.signal == signal);
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
}

/// What there is too little of; memory first, which cannot wait.
pub(super) fn starved(thresholds: &[Threshold], observed: &[Observation]) -> Vec<Starved> {
    let of = |threshold: &Threshold| {
        let seen = observed.iter().find(|seen| seen.signal == threshold.signal)?;
        let least = threshold.least_of(seen.capacity);
        let found = Starved { resource: threshold.signal.resource(), least, available: seen.available };
        (least > seen.available).then_some(found)
    };
    let mut found: Vec<Starved> = thresholds.iter().filter_map(of).collect();
    found.sort_by_key(|one| one.resource != Resource::Memory);
    found
}

/// When each condition was last observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Seen {
    memory: Option<Timestamp>,
    disk: Option<Timestamp>,
    pids: Option<Timestamp>,
}

impl Seen {
    /// Takes in what there is too little of, and says which conditions the node has.
    pub(super) fn observe(&mut self, starved: &[Starved], now: Timestamp) -> Pressure {
        for one in starved {
            let of = match one.resource {
                Resource::Memory => &mut self.memory,
                Resource::Storage | Resource::Inodes => &mut self.disk,
                Resource::Pids => &mut self.pids,
            };
            *of = Some(now);
        }
        let holds = |at: Option<Timestamp>| {
            at.is_some_and(|at| now.duration_since(at) < jiff::SignedDuration::try_from(TRANSITION).unwrap_or_default())
        };
        Pressure { memory: holds(self.memory), disk: holds(self.disk), pids: holds(self.pids) }
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
        let found = starved(&list, &observed);
        let expected = |resource| Starved { resource, least: 100, available: 99 };
        assert_eq!(found, [expected(Resource::Memory), expected(Resource::Storage)]);
        assert_eq!(starved(&list, &[seen(Signal::MemoryAvailable, 100, 1000)]), []);
    }

    #[test]
    fn a_condition_lasts_some_time_beyond_its_cause() {
        let start: Timestamp = "2026-11-20T15:00:00Z".parse().expect("a time");
        let at = |seconds: i64| start + jiff::SignedDuration::from_secs(seconds);
        let mut memory = Seen::default();
        let cause = [Starved { resource: Resource::Inodes, least: 2, available: 1 }];
        let disk = Pressure { disk: true, ..Pressure::default() };
        assert_eq!(memory.observe(&[], at(0)), Pressure::default());
        assert_eq!(memory.observe(&cause, at(10)), disk);
        assert_eq!(memory.observe(&[], at(309)), disk);
        assert_eq!(memory.observe(&[], at(310)), Pressure::default());
    }
}
