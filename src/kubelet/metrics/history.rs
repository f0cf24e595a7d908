//! Rates of CPU time: pure.
//!
//! Two looks back are kept, so that a rate spans ten to thirty seconds whenever it is asked for. What has started since has
//! used nothing before, so that its rate is right from its first second on.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use runtime::{ContainerId, SandboxId, Usage};

/// A shorter span is too much a matter of chance.
const SHORT: Duration = Duration::from_secs(10);
/// A span that is shorter than this says nothing at all.
const NOTHING: Duration = Duration::from_secs(1);

/// Whose time it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Whose {
    Host,
    Sandbox(SandboxId),
    Container(ContainerId),
}

/// How fast time is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    /// Billionths of a processor.
    pub(super) nano_cores: u64,
    /// The time in which they were used.
    pub(super) window: Duration,
}

#[derive(Debug)]
struct Sample {
    at: Timestamp,
    nanos: BTreeMap<Whose, u64>,
}

/// What was seen lately.
#[derive(Debug, Default)]
pub(crate) struct History {
    last: Option<Sample>,
    before: Option<Sample>,
}

impl History {
    /// Keeps what is seen now.
    pub(super) fn add(&mut self, at: Timestamp, usage: &Usage) {
        let host = usage.host.cpu_nanos.map(|nanos| (Whose::Host, nanos));
        let sandboxes = usage.sandboxes.iter().flat_map(|(id, sandbox)| {
            let whole = sandbox.whole.cpu_nanos.map(|nanos| (Whose::Sandbox(id.clone()), nanos));
            let of = sandbox.containers.iter();
            let each = of.filter_map(|(id, stats)| Some((Whose::Container(id.clone()), stats.cpu_nanos?)));
            whole.into_iter().chain(each)
        });
        let nanos = host.into_iter().chain(sandboxes).collect();
        self.before = self.last.replace(Sample { at, nanos });
    }

    /// The rate of somebody who has used so much until now, and that since `started`.
    pub(super) fn rate(&self, whose: &Whose, nanos: u64, now: Timestamp, started: Option<Timestamp>) -> Option<Rate> {
        let (last, before) = (self.last.as_ref(), self.before.as_ref());
        let base = last.filter(|last| since(now, last.at) >= Some(SHORT)).or(before).or(last);
        let seen = base.and_then(|base| Some((since(now, base.at)?, *base.nanos.get(whose)?)));
        let seen = seen.filter(|(_, then)| *then <= nanos);
        let whole = started.and_then(|started| Some((since(now, started)?, 0)));
        let (window, then) = seen.filter(|(span, _)| *span >= NOTHING).or(whole).or(seen)?;
        let nano_cores = u128::from(nanos - then).checked_mul(1_000_000_000)?.checked_div(window.as_nanos())?;
        Some(Rate { nano_cores: u64::try_from(nano_cores).ok()?, window })
    }
}

/// The time from then to now; none if there is none.
fn since(now: Timestamp, then: Timestamp) -> Option<Duration> {
    Duration::try_from(now.duration_since(then)).ok().filter(|span| !span.is_zero())
}

#[cfg(test)]
mod tests {
    use runtime::{SandboxUsage, Stats};

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    fn usage(host: u64, container: Option<u64>) -> Usage {
        let stats = |nanos| Stats { cpu_nanos: Some(nanos), ..Stats::default() };
        let containers = container.map(|nanos| (ContainerId("c".to_owned()), stats(nanos))).into_iter().collect();
        let sandbox = SandboxUsage { whole: stats(container.unwrap_or(0)), containers };
        Usage { host: stats(host), sandboxes: [(SandboxId("s".to_owned()), sandbox)].into() }
    }

    const SECOND: u64 = 1_000_000_000;

    fn shown(rate: Option<Rate>) -> Option<(u64, u64)> {
        rate.map(|rate| (rate.nano_cores / 1_000_000, rate.window.as_secs()))
    }

    #[test]
    fn a_rate_spans_at_least_ten_seconds_where_it_can() {
        let (mut history, host) = (History::default(), Whose::Host);
        assert_eq!(shown(history.rate(&host, SECOND, at(0), None)), None);
        history.add(at(0), &usage(0, None));
        assert_eq!(shown(history.rate(&host, SECOND, at(4), None)), Some((250, 4)));
        history.add(at(15), &usage(15 * SECOND, None));
        assert_eq!(shown(history.rate(&host, 15 * SECOND, at(20), None)), Some((750, 20)));
        assert_eq!(shown(history.rate(&host, 16 * SECOND, at(25), None)), Some((100, 10)));
    }

    #[test]
    fn what_has_just_started_has_a_rate_since_then() {
        let container = Whose::Container(ContainerId("c".to_owned()));
        let mut history = History::default();
        history.add(at(0), &usage(0, None));
        assert_eq!(shown(history.rate(&container, SECOND, at(20), Some(at(18)))), Some((500, 2)));
        history.add(at(21), &usage(0, Some(2 * SECOND)));
        // The look before saw nothing of it.
        assert_eq!(shown(history.rate(&container, 3 * SECOND, at(22), Some(at(18)))), Some((750, 4)));
        assert_eq!(shown(history.rate(&container, 3 * SECOND, at(31), Some(at(18)))), Some((100, 10)));
    }

    #[test]
    fn an_agent_that_has_just_started_says_what_was_used_on_the_average() {
        let container = Whose::Container(ContainerId("c".to_owned()));
        let mut history = History::default();
        history.add(at(100), &usage(0, Some(50 * SECOND)));
        assert_eq!(shown(history.rate(&container, 50 * SECOND, at(100), Some(at(0)))), Some((500, 100)));
        assert_eq!(shown(history.rate(&container, 50 * SECOND, at(102), Some(at(0)))), Some((0, 2)));
    }

    #[test]
    fn a_clock_that_went_back_and_a_count_that_shrank_make_no_rate() {
        let mut history = History::default();
        history.add(at(100), &usage(50 * SECOND, None));
        assert_eq!(shown(history.rate(&Whose::Host, 60 * SECOND, at(90), None)), None);
        assert_eq!(shown(history.rate(&Whose::Host, 40 * SECOND, at(120), None)), None);
    }
}
