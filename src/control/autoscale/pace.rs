//! How fast the number of replicas follows what metrics ask for.
//!
//! After `normalizeDesiredReplicas` and `…WithBehaviors` of `horizontal.go`, and KEP-853. What was recommended and done
//! before is in [`History`], which its owner keeps between two decisions.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerBehavior};

/// For so long the highest recommendation holds unless a scaler says otherwise
/// (`--horizontal-pod-autoscaler-downscale-stabilization`).
const WINDOW: i32 = 300;
/// Without a behavior of its own a scaler at most doubles, or goes to this.
const SMALL: i32 = 4;

/// What a scaler has wanted and done lately. A controller that starts anew knows nothing of it, as upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct History {
    /// What was recommended, before anything held it back.
    recommended: Vec<(Timestamp, i32)>,
    added: Vec<(Timestamp, i32)>,
    removed: Vec<(Timestamp, i32)>,
}

/// Between what bounds a target is kept, and what it has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) min: i32,
    pub(super) max: i32,
    pub(super) current: i32,
}

/// A condition's reason and message.
pub(super) type Says = (&'static str, &'static str);

/// What is to be done, and why not what was wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Paced {
    pub(super) replicas: i32,
    pub(super) able: Says,
    pub(super) is_limited: bool,
    pub(super) limit: Says,
}

const WITHIN: Says = ("DesiredWithinRange", "the desired count is within the acceptable range");
const FAST_UP: Says = ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const FAST_DOWN: Says =
    ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");
const TOO_MANY: Says = ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FEW: Says = ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
const READY: Says = ("ReadyForNewScale", "recommended size matches current size");
const HELD_UP: Says = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const HELD_DOWN: Says = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);

impl History {
    /// What there is counts as recommended when nothing is known yet.
    pub(super) fn begin(&mut self, replicas: i32, now: Timestamp) {
        if self.recommended.is_empty() {
            self.recommended.push((now, replicas));
        }
    }

    /// Takes note of a change that was made.
    pub(super) fn changed(
        &mut self,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        (from, to): (i32, i32),
        now: Timestamp,
    ) {
        let Some(behavior) = behavior else { return };
        let (events, rules, change) = if to > from {
            (&mut self.added, behavior.scale_up.as_ref(), to - from)
        } else {
            (&mut self.removed, behavior.scale_down.as_ref(), from - to)
        };
        let longest = policies(rules).iter().map(|policy| policy.period_seconds).max().unwrap_or(0);
        events.retain(|(at, _)| *at >= before(now, longest));
        events.push((now, change));
    }

    /// Slows down what is wanted.
    pub(super) fn pace(
        &mut self,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        bounds: Bounds,
        wanted: i32,
        now: Timestamp,
    ) -> Paced {
        let (steady, held) = self.stabilize(behavior, bounds.current, wanted, now);
        let (replicas, limit) = match behavior {
            None => limit_usually(bounds, steady),
            Some(behavior) => self.limit(behavior, bounds, steady, now),
        };
        let able = if steady == wanted { READY } else { held };
        Paced { replicas, able, is_limited: replicas != steady, limit }
    }

    /// What recent recommendations allow, and what to say if that is not what is wanted.
    fn stabilize(
        &mut self,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        current: i32,
        wanted: i32,
        now: Timestamp,
    ) -> (i32, Says) {
        let window = |rules: Option<&HPAScalingRules>, usual| {
            rules.and_then(|rules| rules.stabilization_window_seconds).unwrap_or(usual)
        };
        let up = window(behavior.and_then(|behavior| behavior.scale_up.as_ref()), 0);
        let down = window(behavior.and_then(|behavior| behavior.scale_down.as_ref()), WINDOW);
        let since = |seconds| self.recommended.iter().filter(move |(at, _)| *at > before(now, seconds));
        let lowest = since(up).map(|(_, replicas)| *replicas).chain([wanted]).min().unwrap_or(wanted);
        let highest = since(down).map(|(_, replicas)| *replicas).chain([wanted]).max().unwrap_or(wanted);
        self.recommended.retain(|(at, _)| *at >= before(now, up.max(down)));
        self.recommended.push((now, wanted));
        let held = if wanted >= current { HELD_UP } else { HELD_DOWN };
        match behavior {
            // Without a behavior only going down is held back.
            None => (highest, HELD_DOWN),
            Some(_) => (current.max(lowest).min(highest), held),
        }
    }

    fn limit(
        &self,
        behavior: &HorizontalPodAutoscalerBehavior,
        Bounds { min, max, current }: Bounds,
        wanted: i32,
        now: Timestamp,
    ) -> (i32, Says) {
        if wanted > current {
            let limit = self.highest(behavior.scale_up.as_ref(), current, now).max(current);
            let (limit, says) = if max > limit { (limit, FAST_UP) } else { (max, TOO_MANY) };
            if wanted > limit {
                return (limit, says);
            }
        } else if wanted < current {
            let limit = self.lowest(behavior.scale_down.as_ref(), current, now).min(current);
            let (limit, says) = if min < limit { (limit, FAST_DOWN) } else { (min, TOO_FEW) };
            if wanted < limit {
                return (limit, says);
            }
        }
        (wanted, WITHIN)
    }

    /// With how many replicas a period of a policy began.
    fn at_start(&self, policy: &HPAScalingPolicy, current: i32, now: Timestamp) -> i32 {
        let since = before(now, policy.period_seconds);
        let sum = |events: &[(Timestamp, i32)]| -> i32 {
            events.iter().filter(|(at, _)| *at > since).map(|(_, change)| change).sum()
        };
        current - sum(&self.added) + sum(&self.removed)
    }

    fn highest(&self, rules: Option<&HPAScalingRules>, current: i32, now: Timestamp) -> i32 {
        let allowed = policies(rules).iter().map(|policy| {
            let start = self.at_start(policy, current, now);
            match policy.type_.as_str() {
                "Pods" => start.saturating_add(policy.value),
                // Rounded up, lest a small number never grows.
                _ => whole((f64::from(start) * (1.0 + f64::from(policy.value) / 100.0)).ceil()),
            }
        });
        match selection(rules) {
            "Disabled" => current,
            "Min" => allowed.min().unwrap_or(i32::MAX),
            _ => allowed.max().unwrap_or(i32::MIN),
        }
    }

    fn lowest(&self, rules: Option<&HPAScalingRules>, current: i32, now: Timestamp) -> i32 {
        let allowed = policies(rules).iter().map(|policy| {
            let start = self.at_start(policy, current, now);
            match policy.type_.as_str() {
                "Pods" => start.saturating_sub(policy.value),
                _ => whole(f64::from(start) * (1.0 - f64::from(policy.value) / 100.0)),
            }
        });
        match selection(rules) {
            "Disabled" => current,
            "Min" => allowed.max().unwrap_or(i32::MIN),
            _ => allowed.min().unwrap_or(i32::MAX),
        }
    }
}

/// Without a behavior: at most twice as many.
fn limit_usually(Bounds { min, max, current }: Bounds, wanted: i32) -> (i32, Says) {
    let limit = current.saturating_mul(2).max(SMALL);
    let (limit, says) = if max > limit { (limit, FAST_UP) } else { (max, TOO_MANY) };
    if wanted < min {
        (min, TOO_FEW)
    } else if wanted > limit {
        (limit, says)
    } else {
        (wanted, WITHIN)
    }
}

fn policies(rules: Option<&HPAScalingRules>) -> &[HPAScalingPolicy] {
    rules.and_then(|rules| rules.policies.as_deref()).unwrap_or_default()
}

fn selection(rules: Option<&HPAScalingRules>) -> &str {
    rules.and_then(|rules| rules.select_policy.as_deref()).unwrap_or("Max")
}

fn before(now: Timestamp, seconds: i32) -> Timestamp {
    now.saturating_sub(SignedDuration::from_secs(i64::from(seconds))).unwrap_or(Timestamp::MIN)
}

#[expect(clippy::cast_possible_truncation, reason = "the cast saturates, and what is behind the point is to go")]
fn whole(number: f64) -> i32 {
    number as i32
}
