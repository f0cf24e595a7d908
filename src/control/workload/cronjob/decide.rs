//! From a CronJob, its Jobs and the time to what is to be done. Pure.

use std::sync::Arc;
use std::time::Duration;

use api::cron::Schedule;
use client::events::EventType;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::super::is_deleting;
use super::super::owned::managed_by;
use super::times;

/// The time that a Job is for.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// What is known.
pub(super) struct Picture<'a> {
    pub(super) cron: &'a CronJob,
    pub(super) jobs: Vec<Arc<Job>>,
    pub(super) zone: TimeZone,
    pub(super) now: Timestamp,
}

/// What is to be done, in this order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Whether there is a Job that this was not known to have made, as far as could be seen.
    pub(super) is_surprised: bool,
    pub(super) events: Vec<(EventType, &'static str, String)>,
    pub(super) delete: Vec<Arc<Job>>,
    pub(super) create: Option<Job>,
    /// Without the Job that is created, which joins the active ones.
    pub(super) status: CronJobStatus,
    pub(super) again: Option<Duration>,
}

/// Which way a Job has ended, if it has.
fn end_of(job: &Job) -> Option<&str> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let ended = |kind: &str| matches!(kind, "Complete" | "Failed");
    conditions.iter().find(|one| ended(&one.type_) && one.status == "True").map(|one| one.type_.as_str())
}

fn name(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

pub(super) fn reference_of(job: &Job) -> ObjectReference {
    ObjectReference {
        api_version: Some("batch/v1".to_owned()),
        kind: Some("Job".to_owned()),
        name: job.metadata.name.clone(),
        namespace: job.metadata.namespace.clone(),
        uid: job.metadata.uid.clone(),
        resource_version: job.metadata.resource_version.clone(),
        field_path: None,
    }
}

/// Decides what happens next.
pub(super) fn decide(picture: &Picture<'_>) -> Plan {
    let Picture { cron, jobs, zone, now } = picture;
    let mut plan = Plan { status: cron.status.clone().unwrap_or_default(), ..Plan::default() };
    let spec = &cron.spec;
    follow_jobs(&mut plan, jobs);
    forget_old_jobs(&mut plan, spec, jobs);
    if is_deleting(&cron.metadata) || spec.suspend.unwrap_or(false) {
        return plan;
    }
    let schedule: Schedule = match spec.schedule.parse() {
        Ok(schedule) => schedule,
        Err(error) => {
            let text = format!("unparseable schedule: {} : {error}", spec.schedule);
            plan.events.push((EventType::Warning, "UnParseableCronJobSchedule", text));
            return plan;
        }
    };
    let at = due(&mut plan, cron, spec, (&schedule, zone, *now));
    if let Some(at) = at {
        start(&mut plan, cron, spec, (at, zone, *now), jobs);
    }
    let next = times::next(&schedule, *now, zone);
    plan.again = next.and_then(|next| Duration::try_from(next.duration_since(*now)).ok());
    plan
}

/// Keeps the list of active Jobs, of which those of others are none (`syncCronJob`).
fn follow_jobs(plan: &mut Plan, jobs: &[Arc<Job>]) {
    let mut active = plan.status.active.take().unwrap_or_default();
    for job in jobs {
        let place = active.iter().position(|one| one.uid == job.metadata.uid);
        match (place, end_of(job)) {
            (Some(place), Some(end)) => {
                active.remove(place);
                let text = format!("Saw completed job: {}, condition: {end}", name(&job.metadata));
                plan.events.push((EventType::Normal, "SawCompletedJob", text));
            }
            // Made by hand (`create job --from`), most likely; what this made and could not note is met again when it is due.
            (None, None) => {
                plan.is_surprised = true;
                let text = format!("Saw a job that the controller did not create or forgot: {}", name(&job.metadata));
                plan.events.push((EventType::Warning, "UnexpectedJob", text));
            }
            _ => {}
        }
        let completed = job.status.as_ref().and_then(|status| status.completion_time.clone());
        let is_newer = |time: &Time| plan.status.last_successful_time.as_ref().is_none_or(|last| last.0 < time.0);
        if let Some(time) = completed.filter(|_| end_of(job) == Some("Complete")).filter(is_newer) {
            plan.status.last_successful_time = Some(time);
        }
    }
    active.retain(|one| {
        let is_there = jobs.iter().any(|job| job.metadata.uid == one.uid);
        if !is_there {
            let text = format!("Active job went missing: {}", one.name.as_deref().unwrap_or_default());
            plan.events.push((EventType::Normal, "MissingJob", text));
        }
        is_there
    });
    plan.status.active = (!active.is_empty()).then_some(active);
}

/// Removes the oldest Jobs that are over, beyond those that are kept.
fn forget_old_jobs(plan: &mut Plan, spec: &CronJobSpec, jobs: &[Arc<Job>]) {
    let limits = [("Complete", spec.successful_jobs_history_limit), ("Failed", spec.failed_jobs_history_limit)];
    for (end, limit) in limits {
        let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else { continue };
        let over = jobs.iter().filter(|job| end_of(job) == Some(end) && !is_deleting(&job.metadata));
        let mut over: Vec<&Arc<Job>> = over.collect();
        let started = |job: &&Arc<Job>| {
            let time = job.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
            (time, job.metadata.name.clone())
        };
        over.sort_by_key(started);
        let surplus = over.len().saturating_sub(limit);
        plan.delete.extend(over.into_iter().take(surplus).cloned());
    }
}

/// The time that a Job is to be started for, if there is one.
fn due(
    plan: &mut Plan,
    cron: &CronJob,
    spec: &CronJobSpec,
    (schedule, zone, now): (&Schedule, &TimeZone, Timestamp),
) -> Option<Timestamp> {
    let created = cron.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    let last = plan.status.last_schedule_time.as_ref().map(|time| time.0);
    let deadline = spec.starting_deadline_seconds.map(SignedDuration::from_secs);
    let earliest = deadline.and_then(|deadline| now.checked_sub(deadline).ok());
    let since = last.unwrap_or(created).max(earliest.unwrap_or(Timestamp::MIN));
    let (found, too_many) = times::due(schedule, since, now, zone);
    if too_many {
        let text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        plan.events.push((EventType::Warning, "TooManyMissedTimes", text.to_owned()));
    }
    found.filter(|found| last != Some(*found))
}

fn start(
    plan: &mut Plan,
    cron: &CronJob,
    spec: &CronJobSpec,
    (at, zone, now): (Timestamp, &TimeZone, Timestamp),
    jobs: &[Arc<Job>],
) {
    if let Some(deadline) = spec.starting_deadline_seconds
        && now.duration_since(at) > SignedDuration::from_secs(deadline)
    {
        let text = format!("Missed scheduled time to start a job: {}", at.strftime("%a, %d %b %Y %H:%M:%S %z"));
        plan.events.push((EventType::Warning, "MissSchedule", text));
        return;
    }
    match spec.concurrency_policy.as_deref() {
        Some("Forbid") if plan.status.active.is_some() => {
            let text = "Not starting job because prior execution is running and concurrency policy is Forbid";
            plan.events.push((EventType::Normal, "JobAlreadyActive", text.to_owned()));
            return;
        }
        Some("Replace") => {
            let active = plan.status.active.take().unwrap_or_default();
            let is_active = |job: &&Arc<Job>| active.iter().any(|one| one.uid == job.metadata.uid);
            plan.delete.extend(jobs.iter().filter(is_active).cloned());
        }
        _ => {}
    }
    plan.create = Some(job(cron, spec, at, zone));
    plan.status.last_schedule_time = Some(Time(at));
}

fn job(cron: &CronJob, spec: &CronJobSpec, at: Timestamp, zone: &TimeZone) -> Job {
    let template = spec.job_template.metadata.clone().unwrap_or_default();
    let mut annotations = template.annotations.unwrap_or_default();
    let shown = at.to_zoned(zone.clone());
    let shown =
        if *zone == TimeZone::UTC { at.to_string() } else { shown.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string() };
    annotations.insert(SCHEDULED.to_owned(), shown);
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{}-{}", name(&cron.metadata), at.as_second() / 60)),
            namespace: cron.metadata.namespace.clone(),
            labels: template.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![managed_by(cron)]),
            ..ObjectMeta::default()
        },
        spec: spec.job_template.spec.clone(),
        status: None,
    }
}
