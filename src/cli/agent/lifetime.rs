//! When certificates are renewed: pure.

use jiff::Timestamp;

/// What a certificate is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// There is none, or it has ended.
    Ended,
    /// It is good, and another is to be had by it.
    Due,
    /// It is good until this moment, at which another is to be had.
    Good(Timestamp),
}

/// Decides by when it begins and ends. It is renewed after 70 to 90 % of its time, each node at a moment of its own, as
/// upstream's kubelet does (`client-go/util/certificate`).
pub(super) fn state(validity: Option<(Timestamp, Timestamp)>, node: &str, now: Timestamp) -> State {
    let Some((begin, end)) = validity else { return State::Ended };
    if end <= now {
        return State::Ended;
    }
    let spread = node.bytes().fold(7_i64, |hash, byte| (hash * 31 + i64::from(byte)) % 201);
    let whole = end.duration_since(begin).as_secs();
    let at = Timestamp::from_second(begin.as_second() + whole.saturating_mul(700 + spread) / 1000).unwrap_or(end);
    if at <= now { State::Due } else { State::Good(at) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_lived_certificate_is_not_renewed_at_once() {
        let begin = Timestamp::from_second(1_800_000_000).unwrap();
        for lifetime in [10, 600, 999, 1001] {
            let after = |per_mille: i64| begin + jiff::SignedDuration::from_secs(lifetime * per_mille / 1000);
            let State::Good(at) = state(Some((begin, after(1000))), "edge-1", begin) else { panic!("{lifetime}") };
            assert!((after(700)..=after(900)).contains(&at), "{lifetime} {at}");
        }
    }

    #[test]
    fn a_certificate_is_renewed_before_it_ends_and_is_nothing_after_that() {
        let moment = |day: i64| Timestamp::from_second(1_800_000_000 + day * 86_400).unwrap();
        let year = Some((moment(0), moment(365)));
        for node in ["a", "edge-1", "edge-2", "a-very-long-name.example.org"] {
            let State::Good(at) = state(year, node, moment(0)) else { panic!("{node}") };
            assert!((moment(255)..moment(330)).contains(&at), "{node} {at}");
            assert_eq!(state(year, node, moment(254)), State::Good(at));
            assert_eq!(state(year, node, moment(330)), State::Due);
            assert_eq!(state(year, node, moment(365)), State::Ended);
            assert_eq!(state(year, node, moment(800)), State::Ended, "it was switched off");
        }
        assert_ne!(state(year, "edge-1", moment(0)), state(year, "edge-2", moment(0)));
        assert_eq!(state(None, "a", moment(0)), State::Ended);
    }
}
