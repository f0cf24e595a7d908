//! The decisions of an informer, without any input or output.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// First back-off; client-go's reflector starts at 800 ms, which would dominate a cold start.
const FIRST: Duration = Duration::from_millis(100);
/// Longest back-off, as client-go's reflector.
const LONGEST: Duration = Duration::from_secs(30);

/// What is known.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Nothing.
    Empty,
    /// Everything up to a revision, and no watch runs.
    Behind { revision: String },
    /// Everything up to a revision, and a watch tells of what follows.
    Live { revision: String },
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Sleep.
    Wait(Duration),
    /// List everything.
    List,
    /// Open a watch after this revision.
    Watch { revision: String },
    /// Read an event from the open watch.
    Read,
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The wait is over.
    Waited,
    /// The listing is complete as of this revision.
    Listed { revision: String },
    /// The watch is open.
    Opened,
    /// An event or a bookmark brought the copy to this revision.
    Progress { revision: String },
    /// The server ended the watch in good order; early if it had hardly begun.
    Ended { early: bool },
    /// History between the copy's revision and now is gone.
    Expired,
    /// Anything else that went wrong; the server may have said when to come again.
    Failed { retry_after: Option<Duration> },
}

/// Decides the steps of an informer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Machine {
    state: State,
    failures: u32,
    pause: Option<Duration>,
    seed: u64,
}

impl Machine {
    /// A machine that knows nothing yet; `name` seeds its jitter.
    pub(super) fn new(name: &str) -> Self {
        Self { state: State::Empty, failures: 0, pause: None, seed: hash(&name) }
    }

    /// What to do next.
    pub(super) fn step(&self) -> Step {
        if let Some(pause) = self.pause {
            return Step::Wait(pause);
        }
        match &self.state {
            State::Empty => Step::List,
            State::Behind { revision } => Step::Watch { revision: revision.clone() },
            State::Live { .. } => Step::Read,
        }
    }

    /// Takes in what came of the step.
    pub(super) fn advance(&mut self, outcome: Outcome) {
        let state = std::mem::replace(&mut self.state, State::Empty);
        self.state = match (state, outcome) {
            (state, Outcome::Waited) => {
                self.pause = None;
                state
            }
            (_, Outcome::Listed { revision }) => State::Behind { revision },
            (State::Behind { revision }, Outcome::Opened) => State::Live { revision },
            (State::Live { revision: before }, Outcome::Progress { revision }) => {
                self.failures = 0;
                State::Live { revision: if revision.is_empty() { before } else { revision } }
            }
            (_, Outcome::Expired) => {
                self.fail(None);
                State::Empty
            }
            (State::Live { revision } | State::Behind { revision }, Outcome::Ended { early: false }) => {
                State::Behind { revision }
            }
            (state, Outcome::Failed { retry_after }) => {
                self.fail(retry_after);
                state.without_watch()
            }
            // An early end, or an outcome that answers no step of this state: resume with care.
            (state, Outcome::Ended { .. } | Outcome::Opened | Outcome::Progress { .. }) => {
                self.fail(None);
                state.without_watch()
            }
        };
    }

    fn fail(&mut self, retry_after: Option<Duration>) {
        self.failures = self.failures.saturating_add(1);
        let base = FIRST.saturating_mul(1 << (self.failures - 1).min(16)).min(LONGEST);
        let jitter = u32::try_from(hash(&(self.seed, self.failures)) % 1000).unwrap_or_default();
        self.pause = Some((base + base * jitter / 1000).max(retry_after.unwrap_or_default()));
    }
}

impl State {
    fn without_watch(self) -> Self {
        match self {
            Self::Live { revision } => Self::Behind { revision },
            other => other,
        }
    }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> Machine {
        let mut machine = Machine::new("test");
        machine.advance(Outcome::Listed { revision: "7".into() });
        machine.advance(Outcome::Opened);
        machine
    }

    fn after(outcomes: &[Outcome]) -> Step {
        let mut machine = live();
        for outcome in outcomes {
            machine.advance(outcome.clone());
        }
        machine.step()
    }

    fn failed() -> Outcome {
        Outcome::Failed { retry_after: None }
    }

    #[test]
    fn it_lists_then_watches_from_the_listing_then_reads() {
        let mut machine = Machine::new("test");
        assert_eq!(machine.step(), Step::List);
        machine.advance(Outcome::Listed { revision: "7".into() });
        assert_eq!(machine.step(), Step::Watch { revision: "7".into() });
        machine.advance(Outcome::Opened);
        assert_eq!(machine.step(), Step::Read);
    }

    #[test]
    fn a_watch_that_ended_resumes_from_the_last_revision_at_once() {
        let progress = Outcome::Progress { revision: "9".into() };
        assert_eq!(after(&[progress, Outcome::Ended { early: false }]), Step::Watch { revision: "9".into() });
    }

    #[test]
    fn an_early_end_is_resumed_after_a_pause() {
        assert!(matches!(after(&[Outcome::Ended { early: true }]), Step::Wait(_)));
        let resumed = after(&[Outcome::Ended { early: true }, Outcome::Waited]);
        assert_eq!(resumed, Step::Watch { revision: "7".into() });
    }

    #[test]
    fn expired_history_is_listed_again_after_a_pause() {
        assert!(matches!(after(&[Outcome::Expired]), Step::Wait(_)));
        assert_eq!(after(&[Outcome::Expired, Outcome::Waited]), Step::List);
    }

    #[test]
    fn a_failure_keeps_the_revision() {
        assert_eq!(after(&[failed(), Outcome::Waited]), Step::Watch { revision: "7".into() });
    }

    #[test]
    fn pauses_double_with_jitter_up_to_a_minute_and_start_over_after_progress() {
        let mut machine = live();
        let mut base = FIRST;
        for _ in 0..20 {
            machine.advance(failed());
            let Step::Wait(pause) = machine.step() else { panic!("no pause after a failure") };
            assert!(pause >= base && pause < base * 2, "{pause:?} for {base:?}");
            base = (base * 2).min(LONGEST);
        }
        for outcome in [Outcome::Waited, Outcome::Opened, Outcome::Progress { revision: "8".into() }, failed()] {
            machine.advance(outcome);
        }
        let Step::Wait(pause) = machine.step() else { panic!("no pause after a failure") };
        assert!(pause < FIRST * 2);
    }

    #[test]
    fn the_server_may_ask_for_a_longer_pause() {
        let minute = Duration::from_secs(60);
        assert_eq!(after(&[Outcome::Failed { retry_after: Some(minute) }]), Step::Wait(minute));
    }

    #[test]
    fn a_frame_without_revision_keeps_the_former_one() {
        let outcomes = [Outcome::Progress { revision: String::new() }, Outcome::Ended { early: false }];
        assert_eq!(after(&outcomes), Step::Watch { revision: "7".into() });
    }
}
