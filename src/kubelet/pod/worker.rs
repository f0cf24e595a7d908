//! The worker of one pod: observe, plan, act, and again whenever anything may have changed.
//!
//! Spawned by the pods' loop, one per UID. It decides nothing. Everything that takes time is an operation: an owned task
//! whose subject is busy until it has come back. Events, timers and results only mean "look again". Invariant: a worker
//! that panics is started anew from what can be observed; its operations end with it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use client::events::EventType;
use futures_util::FutureExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use runtime::{PullProgress, SandboxId};
use tokio::sync::{Notify, watch};
use tokio::task::{Id, JoinSet};

use super::assignment::{Assignment, Target};
use super::files::PodDirs;
use super::memory::{Files, Memory};
use super::operation::{self, Job, Outcome};
use super::plan::{Action, Cut, Desired, Plan, Subject, Wish, plan};
use super::pulling::Pulling;
use super::{observe, report, status};
use crate::admission::Rejection;
use crate::container::unsupported_fields;
use crate::probe::Prober;
use crate::shared::Shared;
use crate::volumes::Follower;

/// Pause before a worker that panicked is started again.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// A handle on a worker.
pub(crate) struct Handle {
    pub(crate) assignment: watch::Sender<Assignment>,
    pub(crate) look: Arc<Notify>,
}

/// Takes care of a pod until nothing is left of it. `sandboxes` are those that exist already; a pod that is rejected is
/// told so and not run.
pub(crate) async fn work(
    shared: Arc<Shared>,
    assignment: watch::Receiver<Assignment>,
    look: Arc<Notify>,
    sandboxes: Vec<SandboxId>,
    rejection: Option<Rejection>,
) {
    let mut known: BTreeSet<SandboxId> = sandboxes.into_iter().collect();
    loop {
        let mut worker = Worker::new(Arc::clone(&shared), assignment.clone(), Arc::clone(&look), known.clone());
        if let Some(rejection) = &rejection {
            worker.reject(rejection);
        }
        let uid = worker.uid.clone();
        match AssertUnwindSafe(worker.run()).catch_unwind().await {
            Ok(()) => return,
            Err(_) => tracing::error!(uid, "worker of a pod panicked and is started again"),
        }
        tokio::time::sleep(AFTER_PANIC).await;
        known.extend(observe::all_sandboxes(&shared, &uid).await);
    }
}

pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) uid: String,
    assignment: watch::Receiver<Assignment>,
    look: Arc<Notify>,
    pub(super) memory: Memory,
    pub(super) known: BTreeSet<SandboxId>,
    /// The object whose status is written.
    told: Option<Target>,
    /// The version of the object whose word about readiness has been answered.
    corrected: Option<String>,
    pub(super) messages: BTreeMap<runtime::ContainerId, String>,
    pub(super) prober: Prober,
    pub(super) pulling: Pulling,
    follower: Follower,
    jobs: JoinSet<Outcome>,
    busy: HashMap<Id, Subject>,
    /// The pod whose fields were last looked at.
    checked: Option<Arc<Pod>>,
    warned: Vec<String>,
    retry_status_at: Option<Timestamp>,
    /// Why the pod fails as a whole, as it was told.
    cut: Option<Cut>,
    /// The checkpoint as this worker wrote it last.
    kept: Option<Box<Pod>>,
}

impl Worker {
    fn new(
        shared: Arc<Shared>,
        assignment: watch::Receiver<Assignment>,
        look: Arc<Notify>,
        known: BTreeSet<SandboxId>,
    ) -> Self {
        let pod = Arc::clone(&assignment.borrow().pod);
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let mut memory = Memory::of(&pod);
        memory.longest_backoff = shared.config.longest_restart_backoff;
        memory.next_sandbox = known.iter().filter_map(SandboxId::attempt).max().unwrap_or(0);
        let prober = Prober::new(Arc::clone(&shared), Arc::clone(&look));
        let follower = Follower::new(Arc::clone(&look));
        Self {
            shared,
            uid,
            assignment,
            look,
            memory,
            known,
            told: None,
            corrected: None,
            messages: BTreeMap::new(),
            prober,
            pulling: Pulling::default(),
            follower,
            jobs: JoinSet::new(),
            busy: HashMap::new(),
            checked: None,
            warned: Vec::new(),
            retry_status_at: None,
            cut: None,
            kept: None,
        }
    }

    /// Says that the pod is not taken; it never runs then.
    fn reject(&mut self, rejection: &Rejection) {
        let Rejection { reason, message } = rejection;
        report::of_pod(&self.shared, &self.assignment.borrow().pod, EventType::Warning, reason, message);
        self.memory.reject(reason, message);
    }

    async fn run(mut self) {
        self.recall().await;
        loop {
            let assignment = self.assignment.borrow_and_update().clone();
            let Some(plan) = self.step(&assignment).await else {
                self.shared.unpost(&self.uid);
                return;
            };
            self.wait(plan.wake_at).await;
        }
    }

    /// Looks, plans and begins what is planned; none once nothing is left.
    async fn step(&mut self, assignment: &Assignment) -> Option<Plan> {
        let pod = &assignment.pod;
        self.warn_of_unsupported_fields(pod);
        let mut observed = observe::observe(self, pod).await;
        observed.in_flight = self.busy.values().cloned().collect();
        if assignment.report_to.is_none() {
            self.memory.acknowledged = true;
        } else if self.told != assignment.report_to {
            // A new mirror shows nothing yet. Any other object is the one that the pod was read from.
            self.memory.acknowledged &= assignment.delete_object;
            self.told.clone_from(&assignment.report_to);
        }
        let wish = assignment.wish;
        if status::is_marked_unready(pod, &self.memory.status) && self.corrected != pod.metadata.resource_version {
            // The node was given up for a while. One answer to each such word; what comes of it shows later.
            self.corrected.clone_from(&pod.metadata.resource_version);
            self.memory.acknowledged = false;
        }
        self.memory.heed(pod);
        self.memory.resize_pending.clone_from(&assignment.resize_pending);
        let records = || observed.sandboxes.iter().flat_map(|sandbox| &sandbox.containers);
        self.memory.forget_all_but(|id| records().any(|record| record.id == *id));
        if self.memory.evicted.is_none() {
            self.memory.evicted = self.shared.eviction(&self.uid);
        }
        if self.follower.is_stale(pod) {
            self.memory.volumes_changed(self.shared.now());
        }
        let mut plan = plan(Desired { pod, wish }, &observed, &self.memory, self.shared.now());
        self.prober.follow(pod, &observed, &plan.status);
        if plan.finished {
            return None;
        }
        tracing::debug!(uid = self.uid, actions = ?plan.actions, wake_at = ?plan.wake_at, "planned");
        self.memory.adopt(&plan);
        self.take_status(assignment, &plan);
        Box::pin(self.keep_checkpoint(pod)).await;
        self.report(assignment, &mut plan);
        self.begin(assignment, &plan);
        self.shared.post(&self.uid, Arc::clone(pod), self.memory.status.clone(), &self.look);
        Some(plan)
    }

    /// Takes over what the last agent knew of the pod's status. It is never older than what that told the API server,
    /// and may not have been told at all.
    async fn recall(&mut self) {
        let dirs = PodDirs::of(&self.assignment.borrow().pod, &self.shared.config);
        if let Some(status) = task::blocking(move || dirs.recall()).await.and_then(|pod| pod.status) {
            self.memory.status = status;
            self.memory.acknowledged = false;
        }
    }

    /// Writes down what the pod is and how it stands before anything is done about it: the agent may die at any moment,
    /// and the next one shall neither run a finished pod again nor bring an old definition back.
    async fn keep_checkpoint(&mut self, pod: &Pod) {
        if self.memory.files == Files::Removed {
            return;
        }
        let mut current = Box::new(pod.clone());
        current.metadata.managed_fields = None;
        current.metadata.resource_version = None;
        current.status = Some(self.memory.status.clone());
        if self.kept.as_ref() == Some(&current) {
            return;
        }
        let dirs = PodDirs::of(pod, &self.shared.config);
        let written = current.clone();
        match task::blocking(move || dirs.keep(&written)).await {
            Ok(kept) => self.kept = kept.then_some(current),
            Err(error) => tracing::warn!(uid = self.uid, %error, "checkpoint of the pod not written"),
        }
    }

    fn warn_of_unsupported_fields(&mut self, pod: &Arc<Pod>) {
        if self.checked.as_ref().is_some_and(|known| Arc::ptr_eq(known, pod)) {
            return;
        }
        self.checked = Some(Arc::clone(pod));
        let fields = unsupported_fields(pod);
        if !fields.is_empty() && fields != self.warned {
            report::unsupported(&self.shared, pod, &fields);
        }
        self.warned = fields;
    }

    /// Takes over the status.
    fn take_status(&mut self, assignment: &Assignment, plan: &Plan) {
        if let Some(cut) = plan.cut.as_ref().filter(|_| self.cut.is_none()) {
            report::cut_short(&self.shared, &assignment.pod, cut);
        }
        self.cut.clone_from(&plan.cut);
        if plan.status != self.memory.status {
            report::transitions(&self.shared, &assignment.pod, &self.memory.status, &plan.status);
            let pending = self.memory.resize_pending.as_ref();
            report::resizes(&self.shared, &assignment.pod, pending, [&self.memory.status, &plan.status]);
            self.memory.status = plan.status.clone();
            self.memory.acknowledged = false;
        }
    }

    /// Begins to write the status unless it is known.
    fn report(&mut self, assignment: &Assignment, plan: &mut Plan) {
        let Some(target) = assignment.report_to.clone().filter(|_| assignment.wish == Wish::Keep) else { return };
        if self.memory.acknowledged || self.busy.values().any(|subject| *subject == Subject::Object) {
            return;
        }
        if let Some(at) = self.retry_status_at.filter(|at| *at > self.shared.now()) {
            plan.wake_at = Some(plan.wake_at.map_or(at, |known| known.min(at)));
            return;
        }
        plan.actions.retain(|action| !matches!(action, Action::DeleteObject));
        let job = operation::write_status(Arc::clone(&self.shared), target, self.memory.status.clone());
        self.spawn(Subject::Object, job);
    }

    fn begin(&mut self, assignment: &Assignment, plan: &Plan) {
        for action in &plan.actions {
            if matches!(action, Action::DeleteObject) && !assignment.delete_object {
                self.memory.object_gone = true;
                self.look.notify_one();
                continue;
            }
            if let Action::CreateSandbox { attempt } = action {
                self.known.insert(SandboxId::new(&self.uid, *attempt));
            }
            let job = Job {
                shared: Arc::clone(&self.shared),
                pod: Arc::clone(&assignment.pod),
                target: assignment.report_to.clone(),
                fresh_image: self.has_fresh_image(action),
                progress: self.progress_of(action),
            };
            self.spawn(action.subject(), operation::run(job, action.clone()));
        }
    }

    /// Whether the image of a container to be started has just been pulled, which has been told already.
    fn has_fresh_image(&self, action: &Action) -> bool {
        matches!(action, Action::StartContainer(start) if self.memory.pulls.contains_key(&start.name))
    }

    /// What shows how far the action is, if it is a pull.
    fn progress_of(&mut self, action: &Action) -> PullProgress {
        match action {
            Action::PullImage { container, .. } => self.pulling.begin(container, self.shared.now()),
            _ => PullProgress::default(),
        }
    }

    fn spawn(&mut self, subject: Subject, job: impl Future<Output = Outcome> + Send + 'static) {
        let handle = self.jobs.spawn(job);
        self.busy.insert(handle.id(), subject);
    }

    /// Waits until there is a reason to look again, and takes in what has come back.
    async fn wait(&mut self, wake_at: Option<Timestamp>) {
        let now = self.shared.now();
        let until = wake_at.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
        tokio::select! {
            changed = self.assignment.changed() => {
                if changed.is_err() {
                    // Whoever assigns has gone: the program ends, and this task with it.
                    std::future::pending::<()>().await;
                }
            }
            () = self.look.notified() => {}
            () = sleep(until) => {}
            Some(done) = self.jobs.join_next_with_id() => self.take(done),
        }
        while let Some(done) = self.jobs.try_join_next_with_id() {
            self.take(done);
        }
    }

    fn take(&mut self, done: Result<(Id, Outcome), tokio::task::JoinError>) {
        let now = self.shared.now();
        match done {
            Ok((id, outcome)) => {
                self.busy.remove(&id);
                self.apply(outcome, now);
            }
            Err(error) => {
                let subject = self.busy.remove(&error.id());
                tracing::error!(uid = self.uid, ?subject, "operation of a pod panicked");
            }
        }
    }

    fn apply(&mut self, outcome: Outcome, now: Timestamp) {
        let memory = &mut self.memory;
        match outcome {
            Outcome::FilesReady { renew_at, made_of } => {
                memory.files_ready(renew_at);
                let shared = &self.shared;
                self.follower.made(made_of, &shared.watches, shared.client.as_ref(), &shared.seams.tasks);
            }
            Outcome::FilesFailed { message, bad_images, made_of } => {
                memory.files_failed(message, bad_images, now);
                // What is missing may appear.
                let shared = &self.shared;
                self.follower.made(made_of, &shared.watches, shared.client.as_ref(), &shared.seams.tasks);
            }
            Outcome::FilesRemoved => memory.files = super::memory::Files::Removed,
            Outcome::SandboxReady => memory.sandbox = None,
            Outcome::SandboxFailed(message) => memory.sandbox_failed(message, now),
            Outcome::SandboxRemoved(sandbox) => {
                self.known.remove(&sandbox);
            }
            Outcome::Pulled { container, attempt } => {
                self.pulling.end(&container);
                memory.pulled(&container, attempt);
            }
            Outcome::PullFailed { container, reason, message } => {
                self.pulling.end(&container);
                memory.pull_failed(&container, reason, message, now);
            }
            Outcome::Started { container } => memory.started(&container),
            Outcome::StartFailed { start, kind, message } => memory.start_failed(&start, kind, message, now),
            Outcome::StopFailed { container } => memory.stop_failed(&container),
            Outcome::Hooked { container, hook, succeeded } => memory.hooked(container, hook, succeeded),
            Outcome::Resized { container, sizes } => memory.resized(container, sizes),
            Outcome::ResizeFailed { container, message } => memory.resize_failed(container, message, now),
            Outcome::ContainerRemoved | Outcome::Retry => {}
            Outcome::StatusWritten(status) => {
                memory.acknowledged = *status == memory.status;
                self.retry_status_at = None;
            }
            Outcome::StatusNotWritten => self.retry_status_at = Some(now + operation::PAUSE),
            Outcome::ObjectGone => {
                memory.object_gone = true;
                memory.acknowledged = true;
            }
        }
    }
}

async fn sleep(until: Option<Duration>) {
    match until {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}
