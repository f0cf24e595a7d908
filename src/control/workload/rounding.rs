//! Numbers that may be percentages (`k8s.io/apimachinery/pkg/util/intstr`).

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Which way a part of a whole is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Round {
    Up,
    Down,
}

/// A number, or a percentage of `whole`.
pub(super) fn part(of: Option<&IntOrString>, whole: i32, round: Round) -> i32 {
    match of {
        None => 0,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(percent)) => {
            let percent: i64 = percent.trim_end_matches('%').parse().unwrap_or(0);
            let hundredfold = percent.saturating_mul(i64::from(whole));
            let rounded = match round {
                Round::Up => hundredfold.saturating_add(99).div_euclid(100),
                Round::Down => hundredfold.div_euclid(100),
            };
            i32::try_from(rounded).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_is_rounded_as_told() {
        let of = |text: &str, round| part(Some(&IntOrString::String(text.to_owned())), 10, round);
        assert_eq!(
            [of("25%", Round::Up), of("25%", Round::Down), of("0%", Round::Up), of("100%", Round::Down)],
            [3, 2, 0, 10]
        );
        assert_eq!(part(Some(&IntOrString::Int(4)), 10, Round::Down), 4);
    }
}
