//! CronJobs.

use jiff::Timestamp;
use serde_json::Value;

use super::{BASE, job};
use crate::cron::Schedule;
use crate::resources::cell::{self, column};
use crate::resources::path::{Path, default_text, default_to, ensure_object, items, present, text};
use crate::resources::workload::{self, CONTAINERS, IMAGES, SELECTOR};
use crate::resources::{Resource, pod, rule, selector, status_of};
use crate::status::FieldError;

/// A Job's name is that of the CronJob and eleven characters more.
const LONGEST_NAME: usize = 52;

/// `cronjobs.batch`.
pub(in crate::resources) const ROW: Resource = Resource {
    kind: "CronJob",
    list_kind: "CronJobList",
    plural: "cronjobs",
    singular: "cronjob",
    short_names: &["cj"],
    subresources: &[status_of("batch", "v1", "CronJob")],
    default,
    validate,
    validate_update: |new, old| validate_spec(&new["spec"], Some(&old["spec"])),
    columns: &[
        cell::NAME,
        column("Schedule", "string", "", "When it runs.", 0),
        column("Timezone", "string", "", "The time zone of the schedule.", 0),
        column("Suspend", "boolean", "", "Whether it is paused.", 0),
        column("Active", "integer", "", "How many of its Jobs are running.", 0),
        column("Last Schedule", "string", "", "When it ran last.", 0),
        cell::AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells,
    warn: |object| {
        let pod = &object["spec"]["jobTemplate"]["spec"]["template"]["spec"];
        pod::warn_of_idle_fields(pod, "spec.jobTemplate.spec.template.spec")
    },
    ..BASE
};

fn cells(cron: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&cron["spec"], &cron["status"]);
    let suspend = match spec["suspend"].as_bool() {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    };
    let last = text(status, "lastScheduleTime");
    let last = if last.is_empty() { "<none>".to_owned() } else { cell::since(last, now) };
    let job = &spec["jobTemplate"]["spec"];
    let [containers, images] = workload::container_cells(&job["template"]);
    vec![
        cell::name(cron),
        text(spec, "schedule").into(),
        cell::or(text(spec, "timeZone"), "<none>"),
        suspend.into(),
        items(status, "active").len().into(),
        last.into(),
        cell::age(cron, now),
        containers,
        images,
        selector::cell(&job["selector"]),
    ]
}

/// The Jobs are filled in when they are made; only their pods are here.
fn default(cron: &mut Value) {
    let spec = ensure_object(cron, "spec");
    default_text(spec, "concurrencyPolicy", "Allow");
    default_to(spec, "suspend", false);
    default_to(spec, "successfulJobsHistoryLimit", 3);
    default_to(spec, "failedJobsHistoryLimit", 1);
    let job = ensure_object(ensure_object(spec, "jobTemplate"), "spec");
    pod::default_template(job);
    job::default_policy(job);
}

fn validate(cron: &Value) -> Vec<FieldError> {
    let mut errors = validate_spec(&cron["spec"], None);
    let name = text(&cron["metadata"], "name");
    if name.len() > LONGEST_NAME {
        errors.push(FieldError::invalid("metadata.name", &name.into(), "must be no more than 52 characters"));
    }
    errors
}

fn validate_spec(spec: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let path = Path::new("spec");
    let mut errors = Vec::new();
    match text(spec, "schedule") {
        "" => errors.push(FieldError::required(path.child("schedule"), "")),
        schedule => {
            let allows_zone = old.is_some_and(|old| text(old, "schedule").contains("TZ"));
            check_schedule(schedule, allows_zone, spec, &path.child("schedule"), &mut errors);
        }
    }
    workload::not_negative(spec, &["startingDeadlineSeconds"], &path, &mut errors);
    if old.is_none_or(|old| old["timeZone"] != spec["timeZone"]) {
        errors.extend(time_zone(&spec["timeZone"], &path.child("timeZone")));
    }
    errors.extend(rule::required_one_of(
        &path.child("concurrencyPolicy"),
        text(spec, "concurrencyPolicy"),
        &["Allow", "Forbid", "Replace"],
    ));
    let (job, job_path) = (&spec["jobTemplate"]["spec"], path.child("jobTemplate").child("spec"));
    job::validate_spec(job, &job_path, &mut errors);
    if present(job, "selector") {
        let detail = "`selector` will be auto-generated";
        errors.push(FieldError::invalid(job_path.child("selector"), &job["selector"], detail));
    }
    if job["manualSelector"] == true {
        let known = ["nil", "false"];
        errors.push(FieldError::not_supported(job_path.child("manualSelector"), &true.into(), &known));
    }
    workload::not_negative(spec, &["successfulJobsHistoryLimit", "failedJobsHistoryLimit"], &path, &mut errors);
    errors
}

fn check_schedule(schedule: &str, allows_zone: bool, spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    if let Err(error) = schedule.parse::<Schedule>() {
        errors.push(FieldError::invalid(path, &schedule.into(), &error.to_string()));
    }
    let detail = match (schedule.contains("TZ"), allows_zone) {
        (true, false) => "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
        (true, true) if present(spec, "timeZone") => "cannot use both timeZone field and TZ or CRON_TZ in schedule",
        _ => return,
    };
    errors.push(FieldError::invalid(path, &schedule.into(), detail));
}

/// Names of the time zones, of the IANA's database of 2025b.
const ZONES: &str = include_str!("zones.txt");

/// Checks the name of a time zone. What it means is read of the host's files, by who needs it.
fn time_zone(zone: &Value, path: &Path) -> Option<FieldError> {
    let name = zone.as_str()?;
    let detail = if name.is_empty() {
        "timeZone must be nil or non-empty string".to_owned()
    } else if name.eq_ignore_ascii_case("Local") {
        "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones".to_owned()
    } else if !ZONES.lines().any(|zone| zone == name) {
        format!("unknown time zone {name}")
    } else {
        return None;
    };
    Some(FieldError::invalid(path, zone, &detail))
}
