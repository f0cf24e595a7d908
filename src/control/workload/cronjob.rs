//! CronJobs: Jobs by the clock.
//!
//! After `pkg/controller/cronjob` upstream. [`decide`](decide::decide) is pure. The name of a Job follows from the time
//! that it is for, so that the same time never makes two.

mod decide;
#[cfg(test)]
mod tests;
mod times;

use std::sync::Arc;

use client::events::{EventType, Recorder, Source, reference};
use client::reconcile::{self, Outcome, Queue};
use client::{Client, ClientError, DeleteOptions, Informer, Key, ListOptions, Scope, unless_overtaken};
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use task::{SharedClock, Tasks};

use super::is_ending_namespace;
use super::members::in_words;
use super::owned::{self, Owned, Routes};
use decide::{Picture, Plan, decide, reference_of};

/// CronJobs worked on at a time.
const WORKERS: usize = 2;
/// Where the system keeps its time zones.
const ZONES: &str = "/usr/share/zoneinfo";

struct Shell {
    client: Client,
    recorder: Recorder,
    clock: SharedClock,
    crons: Informer<CronJob>,
    jobs: Arc<Owned<Job>>,
}

/// Starts the controller.
pub(super) fn spawn(client: &Client, clock: &SharedClock, tasks: &Tasks, jobs: &Arc<Owned<Job>>, routes: &mut Routes) {
    let source = Source { component: "cronjob-controller".to_owned(), host: String::new() };
    let shell = Arc::new(Shell {
        client: client.clone(),
        recorder: Recorder::spawn(client, tasks, SharedClock::clone(clock), source),
        clock: SharedClock::clone(clock),
        crons: Informer::spawn(client, tasks, Scope::Cluster, ListOptions::default()),
        jobs: Arc::clone(jobs),
    });
    let queue = Queue::default();
    routes.add(&queue, &shell.crons);
    tasks.spawn("cronjobs", reconcile::feed(shell.crons.subscribe(), queue.clone()));
    tasks.spawn("cronjob-controller", async move {
        shell.jobs.informer().synced().await;
        reconcile::run(queue, WORKERS, move |key| sync(Arc::clone(&shell), key)).await;
    });
}

async fn sync(shell: Arc<Shell>, key: Key) -> Result<Outcome, ClientError> {
    let Some(cron) = shell.crons.get(&key) else { return Ok(Outcome::Done) };
    let zone = match zone(cron.spec.time_zone.as_deref()).await {
        Ok(zone) => zone,
        Err(problem) => {
            shell.recorder.event(&reference(&*cron), EventType::Warning, "UnknownTimeZone", &problem);
            return Ok(Outcome::Done);
        }
    };
    let jobs = shell.jobs.managed(cron.metadata.uid.as_deref().unwrap_or_default());
    let plan = decide(&Picture { cron: &cron, jobs, zone, now: shell.clock.now() });
    if plan.is_surprised && !shell.is_present(&cron).await? {
        return Ok(Outcome::Done);
    }
    shell.carry_out(&cron, plan).await
}

/// A zone by its name; its rules are those of the system.
async fn zone(name: Option<&str>) -> Result<TimeZone, String> {
    let Some(name) = name.filter(|name| !matches!(*name, "UTC" | "Etc/UTC")).map(str::to_owned) else {
        return Ok(TimeZone::UTC);
    };
    let unknown = format!("invalid timeZone: {name:?}: unknown time zone {name}");
    let read = task::blocking(move || {
        let bytes = std::fs::read(std::path::Path::new(ZONES).join(&name)).ok()?;
        TimeZone::tzif(&name, &bytes).ok()
    });
    read.await.ok_or(unknown)
}

impl Shell {
    /// Whether a CronJob is still as it was seen; if not, the informer will tell.
    async fn is_present(&self, cron: &CronJob) -> Result<bool, ClientError> {
        let present = self.client.get_opt::<CronJob>(&Key::of(&cron.metadata)).await?;
        Ok(present.is_some_and(|present| present.metadata.resource_version == cron.metadata.resource_version))
    }

    async fn carry_out(&self, cron: &CronJob, plan: Plan) -> Result<Outcome, ClientError> {
        let subject = reference(cron);
        for job in &plan.delete {
            let name = job.metadata.name.as_deref().unwrap_or_default();
            let uid = job.metadata.uid.clone().unwrap_or_default();
            let options = DeleteOptions { uid, propagation: "Background", ..DeleteOptions::default() };
            match self.client.delete::<Job>(&Key::of(&job.metadata), &options).await {
                Ok(()) => {
                    self.recorder.event(
                        &subject,
                        EventType::Normal,
                        "SuccessfulDelete",
                        &format!("Deleted job {name}"),
                    );
                }
                Err(error) if error.is_overtaken() => {}
                Err(error) => {
                    let text = format!("Deleted job: {}", in_words(&error));
                    self.recorder.event(&subject, EventType::Warning, "FailedDelete", &text);
                    return Err(error);
                }
            }
        }
        let mut status = plan.status;
        if let Some(job) = plan.create {
            self.create(cron, &job, &mut status).await?;
        }
        if Some(&status) != cron.status.as_ref() {
            let told = CronJob { status: Some(status), ..cron.clone() };
            // What was seen of an older state was told when that was written.
            if unless_overtaken(self.client.replace_status(&told).await)?.is_none() {
                return Ok(Outcome::Done);
            }
        }
        for (kind, reason, message) in &plan.events {
            self.recorder.event(&subject, *kind, reason, message);
        }
        Ok(plan.again.map_or(Outcome::Done, Outcome::Again))
    }

    async fn create(&self, cron: &CronJob, job: &Job, status: &mut CronJobStatus) -> Result<(), ClientError> {
        let subject = reference(cron);
        let made = match self.client.create(job).await {
            Ok(made) => {
                let text = format!("Created job {}", made.metadata.name.as_deref().unwrap_or_default());
                self.recorder.event(&subject, EventType::Normal, "SuccessfulCreate", &text);
                made
            }
            // It was made before, and nobody lived to write it down; or it is somebody else's.
            Err(error) if error.is_already_exists() => {
                let found = self.client.get_opt::<Job>(&Key::of(&job.metadata)).await?;
                let is_ours = |job: &Job| {
                    owned::manager(&job.metadata).is_some_and(|owner| Some(&owner.uid) == cron.metadata.uid.as_ref())
                };
                match found.filter(is_ours) {
                    Some(found) => found,
                    None => return Err(error),
                }
            }
            Err(error) if is_ending_namespace(&error) => return Ok(()),
            Err(error) => {
                let text = format!("Error creating job: {}", in_words(&error));
                self.recorder.event(&subject, EventType::Warning, "FailedCreate", &text);
                return Err(error);
            }
        };
        let active = status.active.get_or_insert_default();
        if !active.iter().any(|one| one.uid == made.metadata.uid) {
            active.push(reference_of(&made));
        }
        Ok(())
    }
}
