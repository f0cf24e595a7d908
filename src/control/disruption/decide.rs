//! The status of a budget, from its pods and the scales of their controllers.

use std::collections::BTreeMap;
use std::time::Duration;

use api::resources::disruption::{allow_condition, is_ready};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Wanted;

/// How long an evicted pod may take until it is marked for deletion, as upstream's `DeletionTimeout`.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// What matters of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) is_ready: bool,
    pub(super) is_deleting: bool,
}

/// What matters of a pod that is an object.
pub(super) fn member(pod: &Value) -> Member {
    Member {
        name: pod["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
        is_ready: is_ready(pod),
        is_deleting: !pod["metadata"]["deletionTimestamp"].is_null(),
    }
}

/// The controllers of the pods.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Scales {
    /// How many replicas each wants, by uid.
    pub(super) wanted: Wanted,
    /// Pods that have none.
    pub(super) unmanaged: Vec<String>,
}

/// What is to be written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Verdict {
    pub(super) status: Value,
    /// When a note of an eviction will have become too old.
    pub(super) again: Option<Duration>,
}

/// Whether a budget depends on how many replicas there should be.
pub(super) fn wants_scales(budget: &Value) -> bool {
    !budget["spec"]["maxUnavailable"].is_null() || budget["spec"]["minAvailable"].is_string()
}

/// Decides the whole status.
pub(super) fn decide(budget: &Value, members: &[Member], scales: &Scales, now: Timestamp) -> Verdict {
    let (expected, desired) = expectation(&budget["spec"], members, scales);
    let (disrupted, again) = still_disrupted(&budget["status"]["disruptedPods"], members, now);
    let counts = |member: &&Member| member.is_ready && !member.is_deleting && !disrupted.contains_key(&member.name);
    let healthy = i64::try_from(members.iter().filter(counts).count()).unwrap_or(i64::MAX);
    // Without any expected pod a budget would let the first one go before it has been seen.
    let allowed = if expected <= 0 { 0 } else { (healthy - desired).max(0) };
    let mut status = json!({
        "currentHealthy": healthy, "desiredHealthy": desired, "expectedPods": expected, "disruptionsAllowed": allowed,
    });
    if !disrupted.is_empty() {
        status["disruptedPods"] = json!(disrupted);
    }
    for (field, value) in
        [("observedGeneration", &budget["metadata"]["generation"]), ("conditions", &budget["status"]["conditions"])]
    {
        if !value.is_null() {
            status[field] = value.clone();
        }
    }
    allow_condition(&mut status, &stamp(now));
    Verdict { status, again }
}

/// How many pods there should be, and how many of them healthy (`getExpectedPodCount`).
fn expectation(spec: &Value, members: &[Member], scales: &Scales) -> (i64, i64) {
    let scale: i64 = scales.wanted.values().sum();
    match (&spec["maxUnavailable"], &spec["minAvailable"]) {
        (Value::Null, Value::Null) => (0, 0),
        (Value::Null, Value::String(percent)) => (scale, part(percent, scale)),
        (Value::Null, least) => (i64::try_from(members.len()).unwrap_or(i64::MAX), least.as_i64().unwrap_or(0)),
        (Value::String(percent), _) => (scale, (scale - part(percent, scale)).max(0)),
        (most, _) => (scale, (scale - most.as_i64().unwrap_or(0)).max(0)),
    }
}

/// A percentage of a number, rounded up.
fn part(percent: &str, whole: i64) -> i64 {
    let percent: i64 = percent.trim_end_matches('%').parse().unwrap_or(0);
    percent.saturating_mul(whole).saturating_add(99) / 100
}

/// Evicted pods that have not been marked for deletion, and when the oldest note will be too old.
fn still_disrupted(noted: &Value, members: &[Member], now: Timestamp) -> (BTreeMap<String, Value>, Option<Duration>) {
    let mut again: Option<Duration> = None;
    let mut kept = BTreeMap::new();
    for member in members.iter().filter(|member| !member.is_deleting) {
        let Some(since) = noted[&member.name].as_str().and_then(|text| text.parse::<Timestamp>().ok()) else {
            continue;
        };
        let age = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        let Some(left) = PATIENCE.checked_sub(age).filter(|left| !left.is_zero()) else { continue };
        again = Some(again.map_or(left, |soonest| soonest.min(left)));
        kept.insert(member.name.clone(), noted[&member.name].clone());
    }
    (kept, again)
}

/// A moment as objects have it.
pub(super) fn stamp(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
