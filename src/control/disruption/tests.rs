use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::*;

fn now() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

fn ready(count: usize) -> Vec<Member> {
    (0..count).map(|number| Member { name: number.to_string(), is_ready: true, is_deleting: false }).collect()
}

fn budget(spec: Value) -> Value {
    json!({ "metadata": { "generation": 3 }, "spec": spec })
}

fn scales(wanted: &[i64]) -> Scales {
    let wanted = wanted.iter().enumerate().map(|(number, count)| (number.to_string(), *count)).collect();
    Scales { wanted, unmanaged: Vec::new() }
}

/// Expected, desired, healthy, allowed.
fn numbers(spec: Value, members: &[Member], wanted: &[i64]) -> [i64; 4] {
    let status = decide(&budget(spec), members, &scales(wanted), now()).status;
    ["expectedPods", "desiredHealthy", "currentHealthy", "disruptionsAllowed"]
        .map(|field| status[field].as_i64().unwrap())
}

#[test]
fn a_number_of_pods_that_must_stay_is_counted_among_the_pods_that_are_there() {
    assert_eq!(numbers(json!({ "minAvailable": 2 }), &ready(3), &[]), [3, 2, 3, 1]);
    assert_eq!(numbers(json!({ "minAvailable": 5 }), &ready(3), &[]), [3, 5, 3, 0]);
    assert_eq!(numbers(json!({ "minAvailable": 0 }), &[], &[]), [0, 0, 0, 0]);
}

#[test]
fn percentages_and_missing_pods_are_counted_by_what_controllers_want() {
    assert_eq!(numbers(json!({ "minAvailable": "50%" }), &ready(5), &[3, 2]), [5, 3, 5, 2]);
    assert_eq!(numbers(json!({ "maxUnavailable": 1 }), &ready(3), &[4]), [4, 3, 3, 0]);
    assert_eq!(numbers(json!({ "maxUnavailable": "34%" }), &ready(3), &[3]), [3, 1, 3, 2]);
    assert_eq!(numbers(json!({ "maxUnavailable": 9 }), &ready(1), &[3]), [3, 0, 1, 1]);
    assert_eq!(numbers(json!({}), &ready(1), &[]), [0, 0, 1, 0]);
}

#[test]
fn only_pods_that_are_ready_and_stay_are_healthy() {
    let mut members = ready(4);
    members[0].is_ready = false;
    members[1].is_deleting = true;
    let mut budget = budget(json!({ "minAvailable": 1 }));
    budget["status"] = json!({ "disruptedPods": {
        "1": "2026-01-02T03:04:00Z", "2": "2026-01-02T03:03:05Z", "3": "2026-01-02T03:02:05Z", "gone": "2026-01-02T03:04:00Z",
    } });
    let verdict = decide(&budget, &members, &scales(&[]), now());
    assert_eq!(
        verdict.status["disruptedPods"],
        json!({ "2": "2026-01-02T03:03:05Z" }),
        "notes of what goes are not kept"
    );
    assert_eq!(verdict.status["currentHealthy"], 1);
    assert_eq!(verdict.again, Some(decide::PATIENCE / 2));
}

#[test]
fn the_condition_keeps_its_transition_time_until_its_answer_changes() {
    let spec = json!({ "minAvailable": 1 });
    let first = decide(&budget(spec.clone()), &ready(2), &scales(&[]), now()).status;
    let condition = json!([{
        "type": "DisruptionAllowed", "status": "True", "reason": "SufficientPods", "message": "",
        "lastTransitionTime": "2026-01-02T03:04:05Z", "observedGeneration": 3,
    }]);
    assert_eq!((&first["conditions"], &first["observedGeneration"]), (&condition, &json!(3)));
    let later = now() + Duration::from_secs(60);
    let mut known = budget(spec);
    known["status"] = first.clone();
    assert_eq!(decide(&known, &ready(2), &scales(&[]), later).status, first, "it has come to rest");
    let fewer = decide(&known, &ready(1), &scales(&[]), later).status;
    assert_eq!(fewer["conditions"][0]["reason"], "InsufficientPods");
    assert_eq!(fewer["conditions"][0]["lastTransitionTime"], "2026-01-02T03:05:05Z");
}
