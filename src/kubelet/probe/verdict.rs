//! What a series of probe results means: pure.
//!
//! ```text
//!            successThreshold in a row
//!   failing ───────────────────────────► passing
//!           ◄───────────────────────────
//!            failureThreshold in a row
//! ```

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;

/// The first wait of an eager pace.
const EAGER: Duration = Duration::from_millis(100);

/// What a probe has established.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Enough successes in a row.
    Passing,
    /// Enough failures in a row.
    Failing,
}

/// When to probe and how many results count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// After the container's start.
    pub initial_delay: Duration,
    /// Between two probes.
    pub period: Duration,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// Successes in a row until it passes.
    pub successes: u32,
    /// Failures in a row until it fails.
    pub failures: u32,
}

impl Rule {
    /// The rule of a probe, with the API's defaults.
    pub fn of(probe: &Probe) -> Self {
        let number = |field: Option<i32>, default: u32| {
            field.and_then(|value| u32::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(default)
        };
        let seconds = |field, default| Duration::from_secs(u64::from(number(field, default)));
        Self {
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            successes: number(probe.success_threshold, 1),
            failures: number(probe.failure_threshold, 3),
        }
    }
}

/// How long to wait between two questions.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    period: Duration,
    next: Duration,
}

impl Pace {
    /// The pace of a rule. An eager one is fast until the first success: whoever waits for readiness shall not wait for a
    /// period.
    pub fn new(rule: Rule, eager: bool) -> Self {
        Self { period: rule.period, next: if eager { EAGER.min(rule.period) } else { rule.period } }
    }

    /// The wait after a result.
    pub fn after(&mut self, success: bool) -> Duration {
        if success {
            self.next = self.period;
        }
        let wait = self.next;
        self.next = (wait * 2).min(self.period);
        wait
    }
}

/// A series of results.
#[derive(Debug, Clone, Copy)]
pub struct Series {
    rule: Rule,
    last: Option<bool>,
    in_a_row: u32,
}

impl Series {
    /// No results yet.
    pub fn new(rule: Rule) -> Self {
        Self { rule, last: None, in_a_row: 0 }
    }

    /// Takes in a result and tells what is established by it, if anything.
    pub fn add(&mut self, success: bool) -> Option<Verdict> {
        self.in_a_row = if self.last == Some(success) { self.in_a_row.saturating_add(1) } else { 1 };
        self.last = Some(success);
        let needed = if success { self.rule.successes } else { self.rule.failures };
        let verdict = if success { Verdict::Passing } else { Verdict::Failing };
        (self.in_a_row >= needed).then_some(verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(probe: &Probe, results: &[bool]) -> Vec<Option<Verdict>> {
        let mut series = Series::new(Rule::of(probe));
        results.iter().map(|result| series.add(*result)).collect()
    }

    #[test]
    fn three_failures_in_a_row_fail_and_one_success_passes_by_default() {
        use Verdict::{Failing, Passing};
        let seen = verdicts(&Probe::default(), &[false, false, false, true, false, false, true]);
        assert_eq!(seen, [None, None, Some(Failing), Some(Passing), None, None, Some(Passing)]);
    }

    #[test]
    fn a_success_between_failures_starts_the_count_anew() {
        let probe = Probe { failure_threshold: Some(2), success_threshold: Some(2), ..Probe::default() };
        let seen = verdicts(&probe, &[false, true, false, true, true, false, false]);
        assert_eq!(seen, [None, None, None, None, Some(Verdict::Passing), None, Some(Verdict::Failing)]);
    }

    #[test]
    fn an_eager_pace_doubles_its_waits_up_to_the_period_and_keeps_that_after_the_first_success() {
        let rule = Rule::of(&Probe { period_seconds: Some(1), ..Probe::default() });
        let mut pace = Pace::new(rule, true);
        let waits = [false, false, false, true, false].map(|success| pace.after(success).as_millis());
        assert_eq!(waits, [100, 200, 400, 1000, 1000]);
        assert_eq!(Pace::new(rule, false).after(false).as_millis(), 1000);
    }

    #[test]
    fn absent_and_senseless_numbers_are_the_defaults() {
        let probe = Probe { period_seconds: Some(0), timeout_seconds: Some(-1), ..Probe::default() };
        let rule = Rule::of(&probe);
        assert_eq!((rule.period, rule.timeout), (Duration::from_secs(10), Duration::from_secs(1)));
        assert_eq!((rule.successes, rule.failures, rule.initial_delay), (1, 3, Duration::ZERO));
    }
}
