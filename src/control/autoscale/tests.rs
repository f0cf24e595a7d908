//! Cases are files: `testdata/control/autoscale/<case>.yaml` holds a scaler, its target, pods and what they use;
//! `<case>.expected` holds what is decided. `UPDATE_EXPECT=1` rewrites the latter.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::decide::{Target, changed, decide, no_scale};
use super::pace::{Bounds, History};
use super::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    spec: Value,
    #[serde(default)]
    status: Value,
    replicas: i32,
    #[serde(default)]
    pods: Vec<PodCase>,
    /// Why nothing is known of what pods use.
    error: Option<String>,
    /// What was recommended before: seconds ago and how many.
    #[serde(default)]
    recommended: Vec<(i64, i32)>,
    /// Whether the target refuses to be changed.
    refusal: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PodCase {
    name: String,
    #[serde(default = "running")]
    phase: String,
    /// What its container asks for.
    #[serde(default)]
    requests: Value,
    /// What it uses; nothing is known if that is absent.
    #[serde(default)]
    usage: Value,
    #[serde(default = "yes")]
    ready: bool,
    /// Seconds ago.
    #[serde(default = "long")]
    started: i64,
    #[serde(default = "long")]
    since: i64,
    #[serde(default)]
    deleted: bool,
}

fn running() -> String {
    "Running".to_owned()
}

fn yes() -> bool {
    true
}

fn long() -> i64 {
    3600
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn ago(seconds: i64) -> Timestamp {
    now() - SignedDuration::from_secs(seconds)
}

impl PodCase {
    fn pod(&self) -> Pod {
        let status = if self.ready { "True" } else { "False" };
        let mut pod = json!({
            "metadata": {"name": self.name, "namespace": "default"},
            "spec": {"containers": [{"name": "c", "resources": {"requests": self.requests}}]},
            "status": {
                "phase": self.phase, "startTime": ago(self.started).to_string(),
                "conditions": [{"type": "Ready", "status": status, "lastTransitionTime": ago(self.since).to_string()}],
            },
        });
        if self.deleted {
            pod["metadata"]["deletionTimestamp"] = json!(now().to_string());
        }
        serde_json::from_value(pod).unwrap()
    }

    fn metrics(&self) -> Option<Value> {
        (!self.usage.is_null()).then(|| {
            json!({
                "metadata": {"name": self.name, "namespace": "default"}, "timestamp": ago(5).to_string(),
                "window": "10s", "containers": [{"name": "c", "usage": self.usage}],
            })
        })
    }
}

fn scaler(spec: &Value, status: &Value) -> HorizontalPodAutoscaler {
    let mut value = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec, "status": status});
    value["spec"]["scaleTargetRef"] = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    if value["status"].is_null() {
        value["status"] = json!({"desiredReplicas": 0});
    }
    serde_json::from_value(value).unwrap()
}

fn outcome(case: &Case) -> String {
    let metrics = match &case.error {
        Some(error) => Err(error.clone()),
        None => Ok(case.pods.iter().filter_map(PodCase::metrics).collect()),
    };
    let target = Target {
        replicas: case.replicas,
        pods: Ok(case.pods.iter().map(|pod| Arc::new(pod.pod())).collect()),
        metrics,
    };
    let scaler = scaler(&case.spec, &case.status);
    let mut history = History::default();
    for (seconds, replicas) in &case.recommended {
        let bounds = Bounds { min: 1, max: 1000, current: *replicas };
        history.pace(scaler.spec.behavior.as_ref(), bounds, *replicas, ago(*seconds));
    }
    let mut verdict = decide(&scaler, &target, &mut history, now());
    changed(&mut verdict, case.refusal.clone().map_or(Ok(()), Err), now());
    show(&verdict)
}

fn show(verdict: &Verdict) -> String {
    let mut lines = vec![match &verdict.change {
        Some((replicas, _)) => format!("{replicas} replicas"),
        None => "nothing".to_owned(),
    }];
    lines.push(format!("status: {} of {}", verdict.status.current, verdict.status.desired));
    for condition in &verdict.status.conditions {
        let (reason, message) = (condition.reason.as_deref().unwrap(), condition.message.as_deref().unwrap());
        lines.push(format!("{} {} {reason}: {message}", condition.type_, condition.status));
    }
    lines.extend(verdict.status.metrics.as_array().into_iter().flatten().map(|metric| format!("metric {metric}")));
    lines.extend(verdict.events.iter().map(|(kind, reason, message)| format!("{kind:?} {reason}: {message}")));
    lines.join("\n") + "\n"
}

#[test]
fn every_case_file_is_decided_as_expected() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/control/autoscale");
    let mut cases: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    assert!(cases.len() > 10, "the case files are gone");
    let mut wrong = Vec::new();
    for path in cases {
        let case: Case = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (actual, expected) = (outcome(&case), path.with_extension("expected"));
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&expected, &actual).unwrap();
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != actual {
            wrong.push(format!("{}:\n{actual}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.concat());
}

#[test]
fn a_target_without_a_scale_is_told_of() {
    let scaler = scaler(&json!({"maxReplicas": 3}), &Value::Null);
    let said = show(&no_scale(&scaler, "deployments.apps \"web\" not found", now()));
    let expected = "nothing\nstatus: 0 of 0\nAbleToScale False FailedGetScale: the HPA controller was unable to get the \
                    target's current scale: deployments.apps \"web\" not found\nWarning FailedGetScale: \
                    deployments.apps \"web\" not found\n";
    assert_eq!(said, expected);
}

fn behavior(value: Value) -> k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerBehavior {
    serde_json::from_value(value).unwrap()
}

/// The numbers that a target goes through when the same is wanted every fifteen seconds.
fn steps(behavior: Option<Value>, from: i32, wanted: i32, rounds: i64) -> Vec<i32> {
    let behavior = behavior.map(self::behavior);
    let (mut history, mut current) = (History::default(), from);
    let start = now();
    history.begin(current, start);
    let step = |round: i64| {
        let at = start + SignedDuration::from_secs(15 * round);
        let bounds = Bounds { min: 1, max: 100, current };
        let paced = history.pace(behavior.as_ref(), bounds, wanted, at);
        if paced.replicas != current {
            history.changed(behavior.as_ref(), (current, paced.replicas), at);
        }
        current = paced.replicas;
        current
    };
    (1..=rounds).map(step).collect()
}

#[test]
fn without_a_behavior_it_doubles_at_most_and_goes_down_after_five_minutes() {
    assert_eq!(steps(None, 1, 30, 4), [4, 8, 16, 30]);
    let down = steps(None, 8, 2, 21);
    assert_eq!((down[18], down[20]), (8, 2), "{down:?}");
}

#[test]
fn policies_hold_back_by_number_and_by_share() {
    let up = |select: &str| {
        json!({
            "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": select, "policies": [
                {"type": "Pods", "value": 4, "periodSeconds": 60}, {"type": "Percent", "value": 50, "periodSeconds": 60}]},
            "scaleDown": {"stabilizationWindowSeconds": 0, "selectPolicy": select, "policies": [
                {"type": "Pods", "value": 4, "periodSeconds": 60}, {"type": "Percent", "value": 50, "periodSeconds": 60}]},
        })
    };
    assert_eq!(steps(Some(up("Max")), 4, 50, 6), [8, 8, 8, 8, 12, 12]);
    assert_eq!(steps(Some(up("Min")), 4, 50, 6), [6, 6, 6, 6, 9, 9]);
    assert_eq!(steps(Some(up("Disabled")), 4, 50, 6), [4; 6]);
    assert_eq!(steps(Some(up("Max")), 20, 2, 6), [10, 10, 10, 10, 5, 5]);
    assert_eq!(steps(Some(up("Min")), 20, 2, 6), [16, 16, 16, 16, 12, 12]);
    assert_eq!(steps(Some(up("Disabled")), 20, 2, 6), [20; 6]);
}

#[test]
fn windows_smooth_both_directions() {
    let slow = json!({
        "scaleUp": {"stabilizationWindowSeconds": 60, "selectPolicy": "Max", "policies": [
            {"type": "Percent", "value": 1000, "periodSeconds": 15}]},
        "scaleDown": {"stabilizationWindowSeconds": 60, "selectPolicy": "Max", "policies": [
            {"type": "Percent", "value": 100, "periodSeconds": 15}]},
    });
    assert_eq!(steps(Some(slow.clone()), 2, 10, 5), [2, 2, 2, 10, 10]);
    assert_eq!(steps(Some(slow), 10, 2, 5), [10, 10, 10, 2, 2]);
}
