//! Which pods this node has: sources in, workers out.
//!
//! One task owns the table of workers. It is told by the API server's informer, by the static manifests and by what the
//! runtime and the checkpoints held when the agent started, and gives every pod UID one worker. Invariant: nothing is
//! removed because a source is merely silent; a pod goes when its source says so or, for what was found at start, once
//! the API server's list is complete and does not have it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use client::{Dirty, Informer, Key};
use k8s_openapi::api::core::v1::Pod;
use runtime::{Changed, SandboxId};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, mpsc, watch};

use crate::admission::{self, Amounts, Rejection, isolation};
use crate::allocation;
use crate::container::{Qos, qos};
use crate::groups::{self, Groups};
use crate::pod::{Assignment, Handle, Target, Wish, work};
use crate::shared::Shared;
use crate::sources::{Found, MIRROR, Manifests, StaticPod, mirror};

/// What the table reacts to.
enum Event {
    ApiPod(Key),
    ApiSynced,
    Manifests(Vec<StaticPod>),
    Runtime(Changed),
    RuntimeLagged,
    WorkerEnded(String),
}

/// Where pods come from.
pub(crate) struct Sources {
    pub(crate) api: Option<Informer<Pod>>,
    pub(crate) manifests: Option<Manifests>,
    pub(crate) found: Vec<Found>,
}

/// What a pod that was taken holds.
struct Held {
    amounts: Amounts,
    class: Qos,
}

struct Table {
    shared: Arc<Shared>,
    workers: BTreeMap<String, Handle>,
    /// Which pod had a name last.
    names: BTreeMap<Key, String>,
    /// Pods of the manifests, by UID.
    own: BTreeMap<String, StaticPod>,
    /// Pods found at start that no source has named yet.
    unclaimed: BTreeSet<String>,
    /// Pods of which nothing but sandboxes was found.
    strangers: Vec<Pod>,
    /// Sandboxes that were there at start, by pod.
    sandboxes: BTreeMap<String, Vec<SandboxId>>,
    /// What pods that were taken hold.
    admitted: BTreeMap<String, Held>,
    /// Pods that ask for a size for which there is no room.
    deferred: BTreeSet<String>,
    /// Whether a pod has given up what it held since they were asked last.
    room_made: bool,
    /// Whether the groups of the pods' classes may have to have other limits.
    held_changed: bool,
    groups: watch::Sender<Groups>,
    ended: mpsc::Sender<String>,
    api: Option<Informer<Pod>>,
}

/// Keeps the workers in step with the sources for ever.
pub(crate) async fn run(shared: Arc<Shared>, sources: Sources) {
    let (ended, mut ended_workers) = mpsc::channel(64);
    let mut changes = shared.seams.runtime.changes();
    let mut dirty = sources.api.as_ref().map(Informer::subscribe);
    let mut manifests = sources.manifests;
    let (sender, wishes) = watch::channel(Groups::new());
    let mut table = Table::new(Arc::clone(&shared), sources.api.clone(), ended, sender);
    table.adopt(sources.found);
    table.share_out();
    shared.seams.tasks.spawn("groups of all pods", groups::keep(Arc::clone(&shared), wishes));
    let mut synced = sources.api.is_none();
    loop {
        let event = tokio::select! {
            key = next_key(&mut dirty) => Event::ApiPod(key),
            () = all_synced(sources.api.as_ref()), if !synced => Event::ApiSynced,
            pods = next_manifests(&mut manifests) => Event::Manifests(pods),
            Some(uid) = ended_workers.recv() => Event::WorkerEnded(uid),
            changed = changes.recv() => match changed {
                Ok(changed) => Event::Runtime(changed),
                Err(RecvError::Lagged(_)) => Event::RuntimeLagged,
                Err(RecvError::Closed) => return,
            },
        };
        synced |= matches!(event, Event::ApiSynced);
        table.handle(event);
        table.share_out();
        table.ask_deferred();
    }
}

async fn next_key(dirty: &mut Option<Dirty>) -> Key {
    match dirty {
        Some(dirty) => dirty.next().await,
        None => std::future::pending().await,
    }
}

async fn all_synced(informer: Option<&Informer<Pod>>) {
    match informer {
        Some(informer) => informer.synced().await,
        None => std::future::pending().await,
    }
}

async fn next_manifests(manifests: &mut Option<Manifests>) -> Vec<StaticPod> {
    match manifests {
        Some(manifests) => manifests.next().await,
        None => std::future::pending().await,
    }
}

impl Table {
    fn new(
        shared: Arc<Shared>,
        api: Option<Informer<Pod>>,
        ended: mpsc::Sender<String>,
        groups: watch::Sender<Groups>,
    ) -> Self {
        Self {
            shared,
            workers: BTreeMap::new(),
            names: BTreeMap::new(),
            own: BTreeMap::new(),
            unclaimed: BTreeSet::new(),
            strangers: Vec::new(),
            sandboxes: BTreeMap::new(),
            admitted: BTreeMap::new(),
            deferred: BTreeSet::new(),
            room_made: false,
            held_changed: true,
            groups,
            ended,
            api,
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::ApiPod(key) => self.look_at(&key),
            Event::ApiSynced => self.drop_unclaimed(),
            Event::Manifests(pods) => self.take_manifests(pods),
            Event::Runtime(Changed(sandbox)) => {
                if let Some(handle) = sandbox.0.rsplit_once('-').and_then(|(uid, _)| self.workers.get(uid)) {
                    handle.look.notify_one();
                }
            }
            Event::RuntimeLagged => self.workers.values().for_each(|handle| handle.look.notify_one()),
            Event::WorkerEnded(uid) => self.worker_ended(&uid),
        }
    }

    /// Takes over what was found at start: checkpointed pods go on as they were, sandboxes keep their pods.
    fn adopt(&mut self, found: Vec<Found>) {
        for Found { pod, sandboxes, known } in found {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            self.sandboxes.insert(uid.clone(), sandboxes);
            self.unclaimed.insert(uid);
            if known {
                self.assign(Assignment::of_api(Arc::new(pod)));
            } else if self.api.is_none() {
                self.assign(Assignment::gone(Arc::new(pod)));
            } else {
                // A sandbox whose pod nobody has described waits until the API server's list is complete.
                self.strangers.push(pod);
            }
        }
    }

    fn drop_unclaimed(&mut self) {
        let unclaimed = std::mem::take(&mut self.unclaimed);
        for uid in unclaimed.iter().filter(|uid| !self.own.contains_key(*uid)).cloned().collect::<Vec<_>>() {
            if let Some(handle) = self.workers.get(&uid) {
                let pod = Arc::clone(&handle.assignment.borrow().pod);
                self.assign(Assignment::gone(pod));
            }
        }
        for pod in std::mem::take(&mut self.strangers) {
            if pod.metadata.uid.as_ref().is_some_and(|uid| unclaimed.contains(uid)) {
                self.assign(Assignment::gone(Arc::new(pod)));
            }
        }
    }

    /// Looks at a pod of the API server again.
    fn look_at(&mut self, key: &Key) {
        let pod = self.api.as_ref().and_then(|api| api.get(key));
        if let Some(pod) = &pod
            && let Some(hash) = pod.metadata.annotations.as_ref().and_then(|notes| notes.get(MIRROR))
        {
            self.look_at_mirror(&hash.clone(), pod);
            return;
        }
        let uid = pod.as_ref().and_then(|pod| pod.metadata.uid.clone());
        let before = self.names.get(key).cloned();
        if before.is_some() && before != uid {
            self.names.remove(key);
            self.end_api_pod(before.as_deref().unwrap_or_default());
        }
        let (Some(pod), Some(uid)) = (pod, uid) else { return };
        self.unclaimed.remove(&uid);
        self.names.insert(key.clone(), uid);
        self.assign(Assignment::of_api(pod));
    }

    fn end_api_pod(&mut self, uid: &str) {
        if let Some(handle) = self.workers.get(uid).filter(|_| !self.own.contains_key(uid)) {
            let pod = Arc::clone(&handle.assignment.borrow().pod);
            self.assign(Assignment::gone(pod));
        }
    }

    /// A mirror pod shows the status of a pod of the manifests; one without such a pod is removed.
    fn look_at_mirror(&mut self, hash: &str, object: &Arc<Pod>) {
        let Some(own) = self.own.get(hash).cloned() else {
            mirror::remove(&self.shared, object);
            return;
        };
        let target = Target { key: Key::of(&object.metadata), uid: object.metadata.uid.clone().unwrap_or_default() };
        self.assign(Assignment {
            pod: own.pod,
            wish: Wish::Keep,
            report_to: Some(target),
            delete_object: false,
            resize_pending: None,
        });
    }

    fn take_manifests(&mut self, pods: Vec<StaticPod>) {
        let new: BTreeMap<String, StaticPod> = pods.into_iter().map(|own| (own.uid.clone(), own)).collect();
        for (uid, own) in std::mem::replace(&mut self.own, new) {
            if !self.own.contains_key(&uid) {
                self.assign(Assignment::gone(Arc::clone(&own.pod)));
                let key = Key::of(&own.pod.metadata);
                if let Some(object) = self.api.as_ref().and_then(|api| api.get(&key)) {
                    mirror::remove(&self.shared, &object);
                }
            }
        }
        for (uid, own) in self.own.clone() {
            self.unclaimed.remove(&uid);
            let key = Key::of(&own.pod.metadata);
            let object = self.api.as_ref().and_then(|api| api.get(&key));
            let target = object.filter(|object| mirror::is_of(object, &uid));
            let report_to = target.map(|object| Target { key, uid: object.metadata.uid.clone().unwrap_or_default() });
            if report_to.is_none() {
                mirror::create(&self.shared, &own);
            }
            self.assign(Assignment {
                pod: own.pod,
                wish: Wish::Keep,
                report_to,
                delete_object: false,
                resize_pending: None,
            });
        }
    }

    /// Tells a pod's worker what it shall do; makes the worker if there is none.
    fn assign(&mut self, assignment: Assignment) {
        let uid = assignment.pod.metadata.uid.clone().unwrap_or_default();
        let current = self.workers.get(&uid).map(|handle| Arc::clone(&handle.assignment.borrow().pod));
        if let Some(current) = current {
            let assignment = self.allocate(&uid, assignment, &current);
            if let Some(handle) = self.workers.get(&uid) {
                handle.assignment.send_replace(assignment);
            }
            return;
        }
        let sandboxes = self.sandboxes.remove(&uid).unwrap_or_default();
        let has_run = !sandboxes.is_empty() || started(&assignment.pod);
        let rejection = self.admit(&uid, &assignment, has_run);
        let assignment = if has_run {
            let current = allocation::with_actual_sizes(&assignment.pod);
            self.allocate(&uid, assignment, &current)
        } else {
            assignment
        };
        let look = Arc::new(Notify::new());
        let (sender, receiver) = watch::channel(assignment);
        let job = work(Arc::clone(&self.shared), receiver, Arc::clone(&look), sandboxes, rejection);
        let ended = self.ended.clone();
        let name = uid.clone();
        self.shared.seams.tasks.spawn("pod worker", async move {
            job.await;
            // The table lives as long as the workers; if it does not, nobody needs to know.
            let _ = ended.send(name).await;
        });
        self.workers.insert(uid, Handle { assignment: sender, look });
    }

    /// Whether the node takes a pod of which it hears for the first time; why not, if it does not.
    fn admit(&mut self, uid: &str, assignment: &Assignment, has_run: bool) -> Option<Rejection> {
        let pod = &assignment.pod;
        if assignment.wish == Wish::Gone || pod.metadata.deletion_timestamp.is_some() || is_over(pod) {
            return None;
        }
        if has_run {
            self.hold(uid, admission::wants(&allocation::with_actual_sizes(pod)), pod);
            return None;
        }
        let wants = admission::wants(pod);
        let finished = self.shared.finished();
        let others = self.workers.iter().filter(|(other, _)| self.counts(other, uid, &finished));
        let others: Vec<Arc<Pod>> = others.map(|(_, own)| own.assignment.borrow().pod.clone()).collect();
        let allowed = &self.shared.config.allowed_unsafe_sysctls;
        if let Err(rejection) = isolation::admit(pod, others.iter().map(Arc::as_ref), allowed) {
            return Some(rejection);
        }
        if let Err(rejection) = admission::admit(pod, &wants, &self.used_beside(uid), &self.allocatable()) {
            return Some(rejection);
        }
        self.hold(uid, wants, pod);
        None
    }

    /// Notes what a pod holds from now on.
    fn hold(&mut self, uid: &str, amounts: Amounts, pod: &Pod) {
        self.admitted.insert(uid.to_owned(), Held { amounts, class: qos(pod) });
        self.held_changed = true;
    }

    /// Gives the classes of pods what their pods hold, if that may have changed.
    fn share_out(&mut self) {
        if !std::mem::take(&mut self.held_changed) && !self.room_made {
            return;
        }
        let finished = self.shared.finished();
        let burstable = self.admitted.iter().filter(|(_, held)| held.class == Qos::Burstable);
        let burstable = burstable.filter(|(uid, _)| self.counts(uid, "", &finished));
        let cpu =
            burstable.filter_map(|(_, held)| held.amounts.get("cpu")).fold(0_i64, |sum, own| sum.saturating_add(*own));
        let config = &self.shared.config;
        let groups = groups::groups(&config.cgroup_prefix, &self.shared.capacity.for_pods(config), cpu);
        self.groups.send_if_modified(|current| {
            let differs = *current != groups;
            *current = groups;
            differs
        });
    }

    fn allocatable(&self) -> Amounts {
        self.shared.capacity.allocatable(&self.shared.config).amounts()
    }

    /// Whether a pod beside `uid` holds anything. Of one that nobody has any more only the last traces can be left.
    fn counts(&self, other: &str, uid: &str, finished: &BTreeSet<String>) -> bool {
        let is_gone = || self.workers.get(other).is_some_and(|own| own.assignment.borrow().wish == Wish::Gone);
        other != uid && !finished.contains(other) && !is_gone()
    }

    /// What all other pods hold.
    fn used_beside(&self, uid: &str) -> Amounts {
        let finished = self.shared.finished();
        let counts = |other: &String| self.counts(other, uid, &finished);
        let mut used = Amounts::new();
        for (name, amount) in self.admitted.iter().filter(|(uid, _)| counts(uid)).flat_map(|(_, held)| &held.amounts) {
            let sum = used.entry(name.clone()).or_insert(0);
            *sum = sum.saturating_add(*amount);
        }
        used
    }

    /// Gives a pod that is here the size that it asks for, if there is room; else it keeps that of `current`.
    fn allocate(&mut self, uid: &str, assignment: Assignment, current: &Pod) -> Assignment {
        let pod = &assignment.pod;
        self.room_made |= assignment.wish == Wish::Gone || is_over(pod);
        let Some(held) = self.admitted.get(uid).filter(|_| assignment.wish == Wish::Keep) else {
            self.deferred.remove(uid);
            return assignment;
        };
        let wants = admission::wants(pod);
        if held.amounts == wants {
            self.deferred.remove(uid);
            return assignment;
        }
        let grown = allocation::grow(&held.amounts, &wants, &self.used_beside(uid), &self.allocatable());
        match grown {
            Err(pending) if !admission::is_critical(pod) => {
                self.deferred.insert(uid.to_owned());
                let pod = Arc::new(allocation::with_sizes(pod, current));
                Assignment { pod, resize_pending: Some(pending), ..assignment }
            }
            _ => {
                self.room_made = true;
                self.deferred.remove(uid);
                self.hold(uid, wants, &assignment.pod);
                assignment
            }
        }
    }

    /// Looks again at pods for which there was no room, if some has been made.
    fn ask_deferred(&mut self) {
        if !std::mem::take(&mut self.room_made) || self.deferred.is_empty() {
            return;
        }
        let keys = self.names.iter().filter(|(_, uid)| self.deferred.contains(*uid));
        for key in keys.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.look_at(&key);
        }
        // Those that got what they asked for have made no room.
        self.room_made = false;
    }

    /// A worker has found nothing left of its pod. If its source still has the pod, by another state, it starts anew.
    fn worker_ended(&mut self, uid: &str) {
        self.workers.remove(uid);
        self.admitted.remove(uid);
        self.deferred.remove(uid);
        self.room_made = true;
        if let Some(own) = self.own.get(uid).cloned() {
            tracing::info!(uid, "static pod starts anew");
            self.assign(Assignment {
                pod: own.pod,
                wish: Wish::Keep,
                report_to: None,
                delete_object: false,
                resize_pending: None,
            });
        }
    }
}

fn is_over(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")))
}

/// Whether the status says that a node has taken the pod.
fn started(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| status.start_time.is_some())
}
