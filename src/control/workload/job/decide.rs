//! From a Job and its pods to what is to be done. Pure.

use std::sync::Arc;
use std::time::Duration;

use client::events::EventType;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::super::members::BURST;
use super::super::{has_ended, is_deleting, number, ready_since};
use super::indexes::{self, Indexes};
use super::policy::{self, Verdict};
use super::{Told, backoff, is_tracked, pods};

/// What is known.
pub(super) struct Picture<'a> {
    pub(super) job: &'a Job,
    pub(super) pods: Vec<Arc<Pod>>,
    /// Whether everything that was done can be seen.
    pub(super) is_settled: bool,
    pub(super) now: Timestamp,
}

/// What is to be done, in this order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The Job has been over for long enough: it goes.
    pub(super) is_over: bool,
    pub(super) delete: Vec<Arc<Pod>>,
    pub(super) create: Vec<Pod>,
    pub(super) status: JobStatus,
    pub(super) events: Vec<Told>,
    /// Pods that are counted once the status is written.
    pub(super) counted: Vec<Arc<Pod>>,
    pub(super) again: Option<Duration>,
}

/// How a pod has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Succeeded,
    Failed,
}

/// How a pod has ended; one that is being deleted counts as failed unless only what has really failed is replaced.
pub(super) fn end_of(pod: &Pod, counts_deleting: bool) -> Option<End> {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let is_bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    match phase {
        Some("Succeeded") => Some(End::Succeeded),
        Some("Failed") => Some(End::Failed),
        // Nobody will ever tell how a pod ended that no node had.
        _ if is_deleting(&pod.metadata) && (counts_deleting || !is_bound) => Some(End::Failed),
        _ => None,
    }
}

/// The decision in the making.
struct Work<'a> {
    job: &'a Job,
    spec: &'a JobSpec,
    pods: &'a [Arc<Pod>],
    now: Timestamp,
    plan: Plan,
    /// Counted ones and those about to be.
    succeeded: i32,
    failed: i32,
    completed: Indexes,
    failed_indexes: Indexes,
    /// A failure that ends the whole Job.
    fatal: Option<(&'static str, String)>,
}

/// Decides what happens next.
pub(super) fn decide(picture: &Picture<'_>) -> Plan {
    let Picture { job, pods, is_settled, now } = picture;
    let status = job.status.clone().unwrap_or_default();
    let plan = Plan { status, ..Plan::default() };
    let Some(spec) = &job.spec else { return plan };
    let completions = spec.completions.unwrap_or(i32::MAX);
    let mut work = Work {
        job,
        spec,
        pods,
        now: *now,
        succeeded: 0,
        failed: 0,
        completed: indexes::parse(plan.status.completed_indexes.as_deref(), completions),
        failed_indexes: indexes::parse(plan.status.failed_indexes.as_deref(), completions),
        fatal: None,
        plan,
    };
    work.count();
    if is_deleting(&job.metadata) || work.is("Complete") || work.is("Failed") {
        work.plan.counted = pods.iter().filter(|pod| is_tracked(pod)).cloned().collect();
        work.wait_for_removal();
        return work.plan;
    }
    work.start_or_suspend();
    work.judge();
    if work.is("FailureTarget") || work.is("SuccessCriteriaMet") {
        work.end();
    } else if *is_settled {
        work.manage();
    }
    work.tell();
    work.plan
}

impl Work<'_> {
    fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    /// Whether pods that are being deleted are replaced at once and count as failed.
    fn counts_deleting(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() != Some("Failed")
    }

    fn is_suspended(&self) -> bool {
        self.spec.suspend.unwrap_or(false)
    }

    fn is(&self, kind: &str) -> bool {
        let conditions = self.plan.status.conditions.iter().flatten();
        conditions.into_iter().any(|one| one.type_ == kind && one.status == "True")
    }

    fn active(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.iter().filter(|pod| !has_ended(pod) && !is_deleting(&pod.metadata))
    }

    fn ending(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.iter().filter(|pod| !has_ended(pod) && is_deleting(&pod.metadata))
    }

    /// Counts what has ended; see the module's drawing.
    fn count(&mut self) {
        let uid = |pod: &Pod| pod.metadata.uid.clone().unwrap_or_default();
        let waits = |wanted: &String| self.pods.iter().any(|pod| is_tracked(pod) && uid(pod) == *wanted);
        let status = &mut self.plan.status;
        let uncounted = status.uncounted_terminated_pods.take().unwrap_or_default();
        let settle = |uids: Option<Vec<String>>, total: &mut i32| {
            let (waiting, gone): (Vec<_>, Vec<_>) = uids.unwrap_or_default().into_iter().partition(&waits);
            *total += number(gone.len());
            waiting
        };
        let (mut succeeded, mut failed) = (status.succeeded.unwrap_or(0), status.failed.unwrap_or(0));
        let mut new_succeeded = settle(uncounted.succeeded, &mut succeeded);
        let mut new_failed = settle(uncounted.failed, &mut failed);
        for pod in self.pods.iter().filter(|pod| is_tracked(pod)) {
            let Some(end) = end_of(pod, self.counts_deleting()) else { continue };
            self.plan.counted.push(Arc::clone(pod));
            let uid = uid(pod);
            let is_new = !new_succeeded.contains(&uid) && !new_failed.contains(&uid);
            match end {
                End::Succeeded if self.is_indexed() => self.completed.extend(pods::index(pod)),
                End::Succeeded if is_new => new_succeeded.push(uid),
                End::Failed if is_new => match policy::verdict(self.spec, pod) {
                    Verdict::Ignore => {}
                    verdict => {
                        if let Verdict::FailJob(why) = &verdict {
                            self.fatal = Some(("PodFailurePolicy", why.clone()));
                        }
                        if let Some(index) = pods::index(pod)
                            && (verdict == Verdict::FailIndex || self.is_last_of_index(pod))
                        {
                            self.failed_indexes.insert(index);
                        }
                        new_failed.push(uid);
                    }
                },
                End::Succeeded | End::Failed => {}
            }
        }
        if self.is_indexed() {
            succeeded = number(self.completed.len());
        }
        self.succeeded = succeeded + number(new_succeeded.len());
        self.failed = failed + number(new_failed.len());
        let some = |number: i32| (number > 0).then_some(number);
        let list = |uids: Vec<String>| (!uids.is_empty()).then_some(uids);
        let status = &mut self.plan.status;
        (status.succeeded, status.failed) = (some(succeeded), some(failed));
        status.completed_indexes = indexes::print(&self.completed);
        status.failed_indexes =
            self.spec.backoff_limit_per_index.map(|_| indexes::print(&self.failed_indexes).unwrap_or_default());
        status.uncounted_terminated_pods =
            Some(UncountedTerminatedPods { succeeded: list(new_succeeded), failed: list(new_failed) });
    }

    /// Whether no pod of this one's index may fail any more.
    fn is_last_of_index(&self, pod: &Pod) -> bool {
        self.spec.backoff_limit_per_index.is_some_and(|limit| pods::failures_before(pod) >= limit)
    }

    fn set(&mut self, kind: &str, word: &str, reason: &str, message: &str) {
        let conditions = self.plan.status.conditions.get_or_insert_default();
        conditions.retain(|one| one.type_ != kind);
        conditions.push(JobCondition {
            type_: kind.to_owned(),
            status: word.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_probe_time: Some(Time(self.now)),
            last_transition_time: Some(Time(self.now)),
        });
    }

    fn start_or_suspend(&mut self) {
        let was_suspended = self.is("Suspended");
        match (self.is_suspended(), was_suspended) {
            (true, false) => {
                self.set("Suspended", "True", "JobSuspended", "Job suspended");
                self.plan.status.start_time = None;
                self.plan.events.push((EventType::Normal, "Suspended", "Job suspended".to_owned()));
            }
            (false, true) => {
                self.set("Suspended", "False", "JobResumed", "Job resumed");
                self.plan.events.push((EventType::Normal, "Resumed", "Job resumed".to_owned()));
            }
            _ => {}
        }
        if !self.is_suspended() && self.plan.status.start_time.is_none() {
            self.plan.status.start_time = Some(Time(self.now));
        }
    }

    /// Whether it has come to an end, well or not.
    fn judge(&mut self) {
        if self.is("FailureTarget") || self.is("SuccessCriteriaMet") {
            return;
        }
        if let Some((reason, message)) = self.failure() {
            self.set("FailureTarget", "True", reason, &message);
            return;
        }
        let completions = self.spec.completions;
        if let Some(why) = completions.and_then(|end| policy::is_enough(self.spec, &self.completed, end)) {
            self.set("SuccessCriteriaMet", "True", "SuccessPolicy", &why);
            return;
        }
        let is_complete = match completions {
            // Work from a queue: once one has succeeded the others come to their end.
            None => self.succeeded > 0 && self.active().count() == 0,
            Some(wanted) => self.succeeded >= wanted && self.active().count() == 0,
        };
        if is_complete {
            self.set("SuccessCriteriaMet", "True", "CompletionsReached", "Reached expected number of succeeded pods");
        }
    }

    fn failure(&mut self) -> Option<(&'static str, String)> {
        if let Some(fatal) = self.fatal.take() {
            return Some(fatal);
        }
        let limit = self.spec.backoff_limit.unwrap_or(6);
        if self.failed > limit || self.is_restarted_too_often(limit) {
            return Some(("BackoffLimitExceeded", "Job has reached the specified backoff limit".to_owned()));
        }
        if self.time_left().is_some_and(|left| left.is_zero()) {
            return Some(("DeadlineExceeded", "Job was active longer than specified deadline".to_owned()));
        }
        let failed = number(self.failed_indexes.len());
        if self.spec.max_failed_indexes.is_some_and(|limit| failed > limit) {
            return Some((
                "MaxFailedIndexesExceeded",
                "Job has exceeded the specified maximal number of failed indexes".to_owned(),
            ));
        }
        let total = failed.saturating_add(self.succeeded);
        if failed > 0 && self.is_indexed() && self.spec.completions.is_some_and(|wanted| total >= wanted) {
            return Some(("FailedIndexes", "Job has failed indexes".to_owned()));
        }
        None
    }

    /// Restarts in place count where pods restart their containers (`pastBackoffLimitOnFailure`).
    fn is_restarted_too_often(&self, limit: i32) -> bool {
        let policy = self.spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
        let of = |pod: &Arc<Pod>| -> i32 {
            let status = pod.status.as_ref();
            let lists = status.map(|status| [&status.init_container_statuses, &status.container_statuses]);
            lists.into_iter().flatten().flatten().flatten().map(|one| one.restart_count).sum()
        };
        let restarts: i32 = self.active().map(of).sum();
        policy == Some("OnFailure") && restarts > 0 && restarts >= limit
    }

    /// How long it may still be active, if that is bounded.
    fn time_left(&self) -> Option<Duration> {
        let seconds = self.spec.active_deadline_seconds.filter(|_| !self.is_suspended())?;
        let since = self.plan.status.start_time.as_ref()?.0;
        let left = SignedDuration::from_secs(seconds) - self.now.duration_since(since);
        Some(Duration::try_from(left).unwrap_or_default())
    }

    /// Ends what is left, and says so once nothing is.
    fn end(&mut self) {
        self.plan.delete = self.active().cloned().collect();
        let uncounted = self.plan.status.uncounted_terminated_pods.as_ref();
        let all_counted = uncounted.is_none_or(|all| all.succeeded.is_none() && all.failed.is_none());
        if !self.plan.delete.is_empty() || self.ending().count() > 0 || !all_counted {
            return;
        }
        let (from, to) =
            if self.is("FailureTarget") { ("FailureTarget", "Failed") } else { ("SuccessCriteriaMet", "Complete") };
        let found = self.plan.status.conditions.iter().flatten().find(|one| one.type_ == from).cloned();
        let Some(JobCondition { reason, message, .. }) = found else { return };
        let (reason, message) = (reason.unwrap_or_default(), message.unwrap_or_default());
        self.set(to, "True", &reason, &message);
        if to == "Complete" {
            self.plan.status.completion_time = Some(Time(self.now));
            self.plan.events.push((EventType::Normal, "Completed", "Job completed".to_owned()));
        } else {
            let word = FAILED.iter().find(|word| **word == reason).copied().unwrap_or("Failed");
            self.plan.events.push((EventType::Warning, word, message));
        }
        self.wait_for_removal();
    }

    /// Makes and removes pods.
    fn manage(&mut self) {
        let active: Vec<Arc<Pod>> = self.active().cloned().collect();
        let wanted = if self.is_suspended() { 0 } else { self.wanted(active.len()) };
        if active.len() > wanted {
            // Those that have not come far go first.
            let mut spare = active;
            spare.sort_by_key(|pod| {
                (
                    ready_since(pod).is_some(),
                    pod.metadata.creation_timestamp.as_ref().map(|time| std::cmp::Reverse(time.0)),
                )
            });
            spare.truncate((spare.len() - wanted).min(BURST));
            self.plan.delete = spare;
            return;
        }
        let beside = if self.counts_deleting() { 0 } else { self.ending().count() };
        let missing = wanted.saturating_sub(active.len() + beside).min(BURST);
        if missing == 0 {
            return;
        }
        if self.is_indexed() {
            self.make_indexed(missing);
            return;
        }
        let wait = backoff::after(self.pods.iter().map(|pod| &**pod), self.counts_deleting(), self.now);
        if wait.is_zero() {
            self.plan.create = vec![pods::of(self.job, self.spec); missing];
        } else {
            self.look_again(wait);
        }
    }

    /// How many pods there should be now.
    fn wanted(&self, active: usize) -> usize {
        let parallelism = usize::try_from(self.spec.parallelism.unwrap_or(1)).unwrap_or(0);
        match self.spec.completions {
            None if self.succeeded > 0 => active.min(parallelism),
            None => parallelism,
            Some(completions) => {
                let left = completions - self.succeeded - number(self.failed_indexes.len());
                parallelism.min(usize::try_from(left).unwrap_or(0))
            }
        }
    }

    fn make_indexed(&mut self, missing: usize) {
        let taken: Indexes = self
            .pods
            .iter()
            .filter(|pod| !has_ended(pod) && (!is_deleting(&pod.metadata) || !self.counts_deleting()))
            .filter_map(|pod| pods::index(pod))
            .collect();
        let free = |index: &i32| {
            !taken.contains(index) && !self.completed.contains(index) && !self.failed_indexes.contains(index)
        };
        let free: Vec<i32> = (0..self.spec.completions.unwrap_or(0)).filter(free).take(missing).collect();
        let of_all = backoff::after(self.pods.iter().map(|pod| &**pod), self.counts_deleting(), self.now);
        for index in free {
            let (failures, wait) = match self.spec.backoff_limit_per_index {
                Some(_) => self.of_index(index),
                None => (0, of_all),
            };
            if !wait.is_zero() {
                self.look_again(wait);
                continue;
            }
            let pod = pods::of_index(self.job, self.spec, (index, failures));
            self.plan.create.push(pod);
        }
    }

    /// How often pods of an index have failed, and how long to wait for the next.
    fn of_index(&self, wanted: i32) -> (i32, Duration) {
        let of_it = self.pods.iter().filter(|pod| pods::index(pod) == Some(wanted));
        let failed = of_it.filter(|pod| end_of(pod, self.counts_deleting()) == Some(End::Failed));
        let last = failed.max_by_key(|pod| pods::failures_before(pod));
        last.map_or((0, Duration::ZERO), |pod| {
            let failures = pods::failures_before(pod) + 1;
            let at = backoff::ended_at(pod, self.now);
            (failures, backoff::left(u32::try_from(failures).unwrap_or(0), at, self.now))
        })
    }

    /// The numbers of pods that are there after this.
    fn tell(&mut self) {
        let active = self.active().count() + self.plan.create.len() - self.plan.delete.len();
        let is_kept = |pod: &&Arc<Pod>| !self.plan.delete.iter().any(|deleted| Arc::ptr_eq(deleted, pod));
        let ready = self.active().filter(is_kept).filter(|pod| ready_since(pod).is_some()).count();
        let ending = self.ending().count() + self.plan.delete.len();
        let status = &mut self.plan.status;
        status.active = Some(number(active)).filter(|active| *active > 0);
        status.ready = Some(number(ready));
        status.terminating = Some(number(ending));
        if let Some(left) = self.time_left() {
            self.look_again(left);
        }
    }

    fn look_again(&mut self, after: Duration) {
        self.plan.again = Some(self.plan.again.map_or(after, |sooner| sooner.min(after)));
    }

    /// A Job that is over goes after a time, if one is said (KEP-592).
    fn wait_for_removal(&mut self) {
        let conditions = self.plan.status.conditions.iter().flatten();
        let ended = conditions
            .into_iter()
            .find(|one| matches!(one.type_.as_str(), "Complete" | "Failed") && one.status == "True");
        let since = ended.and_then(|one| one.last_transition_time.as_ref()).map(|time| time.0);
        let (Some(seconds), Some(since)) = (self.spec.ttl_seconds_after_finished, since) else { return };
        if is_deleting(&self.job.metadata) {
            return;
        }
        let left = SignedDuration::from_secs(i64::from(seconds)) - self.now.duration_since(since);
        match Duration::try_from(left).ok().filter(|left| !left.is_zero()) {
            Some(left) => self.look_again(left),
            // Only once its end is on disk.
            None if self.job.status.as_ref() == Some(&self.plan.status) && self.plan.counted.is_empty() => {
                self.plan.is_over = true;
            }
            None => self.look_again(Duration::from_secs(1)),
        }
    }
}

/// Reasons that are told as events of the same name.
const FAILED: [&str; 5] =
    ["BackoffLimitExceeded", "DeadlineExceeded", "PodFailurePolicy", "MaxFailedIndexesExceeded", "FailedIndexes"];
