//! Jobs: pods that end, until enough of them have.
//!
//! After `pkg/controller/job` upstream. [`decide`](decide::decide) is pure. A pod that has ended is counted exactly once,
//! whoever removes it (KEP-2307): a finalizer keeps it until its uid stands in the Job's status, and the uid stands there
//! until the finalizer is gone.
//!
//! ```text
//! pod ends ─► uid among the uncounted ones ─► status written ─► finalizer removed ─► uid gone, number one higher
//! ```

mod backoff;
mod decide;
mod indexes;
mod pods;
mod policy;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::selector::LabelSelector;
use client::events::{EventType, Recorder, Source, reference};
use client::reconcile::{self, Outcome, Queue};
use client::{Client, ClientError, DeleteOptions, Informer, Key, Patch, unless_overtaken};
use futures_util::future::join_all;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use task::{SharedClock, Tasks};

use super::members::{Members, created};
use super::owned::{self, Owned, Routes};
use super::selector;
use super::unseen::PATIENCE;
use decide::{Picture, Plan, decide};

/// Jobs worked on at a time.
const WORKERS: usize = 5;
/// Keeps a pod until it is counted.
const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// Who acts on a Job that does not say it (KEP-4368).
const OURS: &str = "kubernetes.io/job-controller";

struct Shell {
    members: Members,
    clock: SharedClock,
    jobs: Informer<Job>,
    pods: Arc<Owned<Pod>>,
    /// By uid and number the newest state of each Job that was seen or written here: on an older one nothing may be
    /// decided.
    known: Mutex<HashMap<Key, (String, u64)>>,
}

/// Starts the controller.
pub(super) fn spawn(
    client: &Client,
    clock: &SharedClock,
    tasks: &Tasks,
    pods: &Arc<Owned<Pod>>,
    jobs: &Informer<Job>,
    routes: &mut Routes,
) {
    let source = Source { component: "job-controller".to_owned(), host: String::new() };
    let recorder = Recorder::spawn(client, tasks, SharedClock::clone(clock), source);
    let shell = Arc::new(Shell {
        members: Members { client: client.clone(), recorder, unseen: Default::default(), words: created },
        clock: SharedClock::clone(clock),
        jobs: jobs.clone(),
        pods: Arc::clone(pods),
        known: Mutex::default(),
    });
    let queue = Queue::default();
    routes.add(&queue, jobs);
    tasks.spawn("jobs", reconcile::feed(jobs.subscribe(), queue.clone()));
    tasks.spawn("job-controller", async move {
        shell.jobs.synced().await;
        shell.pods.informer().synced().await;
        reconcile::run(queue, WORKERS, move |key| sync(Arc::clone(&shell), key)).await;
    });
}

async fn sync(shell: Arc<Shell>, key: Key) -> Result<Outcome, ClientError> {
    let job = shell.jobs.get(&key);
    shell.let_go_of_orphans(&key, job.as_deref()).await?;
    let Some(job) = job else {
        shell.members.unseen.forget(&key);
        shell.known().remove(&key);
        return Ok(Outcome::Done);
    };
    let spec = job.spec.as_ref();
    if spec.and_then(|spec| spec.managed_by.as_deref()).is_some_and(|manager| manager != OURS) || shell.is_old(&job) {
        return Ok(Outcome::Done);
    }
    let selector = Some(selector(&spec.map(|spec| &spec.selector))).filter(|selector| !selector.is_everything());
    let selector = selector.unwrap_or_else(LabelSelector::nothing);
    let is_settled = shell.members.settle(&shell.pods, &key).await?;
    let pods = shell.pods.claim(&shell.members.client, &*job, &selector, Some(TRACKING)).await?;
    let plan = decide(&Picture { job: &job, pods, is_settled, now: shell.clock.now() });
    let outcome = shell.carry_out(&job, plan).await?;
    Ok(if is_settled { outcome } else { Outcome::Again(PATIENCE) })
}

impl Shell {
    fn known(&self) -> MutexGuard<'_, HashMap<Key, (String, u64)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a state; whether there was a newer one (KEP-5504: such numbers can be compared).
    fn is_old(&self, job: &Job) -> bool {
        let uid = job.metadata.uid.clone().unwrap_or_default();
        let revision = job.metadata.resource_version.as_ref().and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut known = self.known();
        let newest = known.entry(Key::of(&job.metadata)).or_insert_with(|| (uid.clone(), revision));
        if newest.0 == uid && newest.1 > revision {
            return true;
        }
        *newest = (uid, revision);
        false
    }

    async fn carry_out(&self, job: &Job, plan: Plan) -> Result<Outcome, ClientError> {
        let key = Key::of(&job.metadata);
        if plan.is_over {
            let options = DeleteOptions { propagation: "Background", ..DeleteOptions::as_seen(&job.metadata) };
            return unless_overtaken(self.members.client.delete::<Job>(&key, &options).await).map(|_| Outcome::Done);
        }
        let mut failure = self.members.delete(job, plan.delete.iter().map(|pod| &**pod)).await;
        if failure.is_none() {
            failure = self.members.create(job, plan.create).await.1;
        }
        if Some(&plan.status) != job.status.as_ref() {
            let told = Job { status: Some(plan.status), ..job.clone() };
            let Some(told) = unless_overtaken(self.members.client.replace_status(&told).await)? else {
                return Ok(Outcome::Done);
            };
            self.is_old(&told);
            for (kind, reason, message) in plan.events {
                self.members.recorder.event(&reference(job), kind, reason, &message);
            }
        }
        // Only now: what they have come to is on disk.
        self.let_go(&plan.counted).await?;
        match failure {
            Some(error) => Err(error),
            None => Ok(plan.again.map_or(Outcome::Done, Outcome::Again)),
        }
    }

    /// Removes the finalizer of pods.
    async fn let_go(&self, pods: &[Arc<Pod>]) -> Result<(), ClientError> {
        let remove = async |pod: &Arc<Pod>| {
            let patch = json!({ "metadata": {
                "uid": pod.metadata.uid, "$deleteFromPrimitiveList/finalizers": [TRACKING],
            }});
            unless_overtaken(self.members.client.patch::<Pod>(&Key::of(&pod.metadata), &Patch::Strategic(patch)).await)
                .map(drop)
        };
        join_all(pods.iter().map(remove)).await.into_iter().collect()
    }

    /// Nobody counts the pods of a Job that is gone.
    async fn let_go_of_orphans(&self, key: &Key, job: Option<&Job>) -> Result<(), ClientError> {
        let uid = job.and_then(|job| job.metadata.uid.as_deref());
        let is_orphan =
            |pod: &Arc<Pod>| owned::manager(&pod.metadata).is_some_and(|owner| owner.kind == "Job") && is_tracked(pod);
        let orphans: Vec<_> = self.pods.of_others(key, uid).into_iter().filter(is_orphan).collect();
        self.let_go(&orphans).await
    }
}

/// Whether a pod is kept until it is counted.
fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == TRACKING)
}

/// What is told as an event.
type Told = (EventType, &'static str, String);
