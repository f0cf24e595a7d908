use serde_json::{Value, json};

use super::*;

fn now() -> jiff::Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

fn cron(spec: Value, status: Value) -> CronJob {
    let mut cron = json!({
        "metadata": { "name": "c", "namespace": "n", "uid": "u", "creationTimestamp": "2026-01-02T03:00:30Z" },
        "spec": {
            "schedule": "* * * * *", "concurrencyPolicy": "Allow", "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1,
            "jobTemplate": { "metadata": { "labels": { "a": "b" } }, "spec": { "template": { "spec": { "containers": [] } } } },
        },
        "status": status,
    });
    for (field, value) in spec.as_object().unwrap() {
        cron["spec"][field] = value.clone();
    }
    serde_json::from_value(cron).unwrap()
}

/// A Job of a minute; `end` is empty while it runs.
fn job(minute: u32, end: &str) -> Arc<Job> {
    let start = format!("2026-01-02T03:{minute:02}:00Z");
    let mut status = json!({ "startTime": start });
    if !end.is_empty() {
        status["conditions"] = json!([{ "type": end, "status": "True" }]);
        status["completionTime"] = json!(format!("2026-01-02T03:{minute:02}:20Z"));
    }
    let metadata = json!({ "name": format!("c-{minute}"), "namespace": "n", "uid": format!("j{minute}") });
    let job =
        json!({ "metadata": metadata, "spec": { "template": { "spec": { "containers": [] } } }, "status": status });
    Arc::new(serde_json::from_value(job).unwrap())
}

fn plan(cron: &CronJob, jobs: Vec<Arc<Job>>) -> Plan {
    decide(&Picture { cron, jobs, zone: TimeZone::UTC, now: now() })
}

fn reasons(plan: &Plan) -> Vec<&str> {
    plan.events.iter().map(|(_, reason, _)| *reason).collect()
}

#[test]
fn a_job_is_made_for_the_last_time_that_is_due_and_not_for_those_before() {
    let plan = plan(&cron(json!({}), json!({})), Vec::new());
    let job = plan.create.unwrap();
    assert_eq!(job.metadata.name.as_deref(), Some("c-29455384"));
    let annotations = job.metadata.annotations.unwrap();
    assert_eq!(annotations["batch.kubernetes.io/cronjob-scheduled-timestamp"], "2026-01-02T03:04:00Z");
    assert_eq!(plan.again, Some(std::time::Duration::from_secs(55)));
    let told = cron(json!({}), json!({ "lastScheduleTime": "2026-01-02T03:04:00Z" }));
    assert!(
        super::decide(&Picture { cron: &told, jobs: Vec::new(), zone: TimeZone::UTC, now: now() }).create.is_none()
    );
}

#[test]
fn what_runs_still_is_let_be_or_replaced_or_waited_for() {
    let status = json!({ "active": [{ "uid": "j3", "name": "c-3" }], "lastScheduleTime": "2026-01-02T03:03:00Z" });
    let of = |policy: &str| plan(&cron(json!({ "concurrencyPolicy": policy }), status.clone()), vec![job(3, "")]);
    let allowed = of("Allow");
    assert!(allowed.create.is_some() && allowed.delete.is_empty() && allowed.status.active.is_some());
    let forbidden = of("Forbid");
    assert!(forbidden.create.is_none());
    assert_eq!(reasons(&forbidden), ["JobAlreadyActive"]);
    let replaced = of("Replace");
    assert!(replaced.create.is_some() && replaced.delete.len() == 1 && replaced.status.active.is_none());
}

#[test]
fn one_that_somebody_else_made_is_told_of_and_is_in_nobodys_way() {
    for policy in ["Forbid", "Replace"] {
        let plan = plan(&cron(json!({ "concurrencyPolicy": policy }), json!({})), vec![job(3, "")]);
        assert!(plan.create.is_some() && plan.delete.is_empty() && plan.status.active.is_none(), "{policy}");
        assert_eq!(reasons(&plan), ["UnexpectedJob"]);
    }
}

#[test]
fn one_that_is_over_is_told_of_and_the_oldest_go() {
    let status = json!({ "active": [{ "uid": "j4", "name": "c-4" }, { "uid": "gone", "name": "x" }] });
    let jobs = vec![job(0, "Complete"), job(1, "Complete"), job(2, "Failed"), job(3, "Failed"), job(4, "Complete")];
    let spec = json!({ "suspend": true, "successfulJobsHistoryLimit": 2 });
    let plan = plan(&cron(spec, status), jobs);
    assert_eq!(reasons(&plan), ["SawCompletedJob", "MissingJob"]);
    let gone: Vec<_> = plan.delete.iter().map(|job| job.metadata.name.clone().unwrap()).collect();
    assert_eq!(gone, ["c-0", "c-2"]);
    assert_eq!(plan.status.last_successful_time.unwrap().0.to_string(), "2026-01-02T03:04:20Z");
    assert!(plan.create.is_none() && plan.status.active.is_none());
}

#[test]
fn a_time_that_was_missed_for_too_long_is_given_up() {
    let spec = json!({ "schedule": "0 3 * * *", "startingDeadlineSeconds": 60 });
    assert!(plan(&cron(spec, json!({ "lastScheduleTime": "2026-01-01T03:00:00Z" })), Vec::new()).create.is_none());
    let spec = json!({ "schedule": "0 3 * * *", "startingDeadlineSeconds": 600 });
    assert!(plan(&cron(spec, json!({ "lastScheduleTime": "2026-01-01T03:00:00Z" })), Vec::new()).create.is_some());
}
