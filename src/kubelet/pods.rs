//! Which pods this node has: sources in, workers out.
//!
//! One task owns the table of workers. It is told by the API server's informer, by the static manifests and by what the
//! runtime and the checkpoints held when the agent started, and gives every pod UID one worker. Invariant: nothing is
//! removed because a source is merely silent; a pod goes when its source says so or, for what was found at start, once
//! the API server's list is complete and does not have it.

mod own;
mod room;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use client::{Dirty, Informer, Key, Object};
use k8s_openapi::api::core::v1::{Node, Pod};
use runtime::{Changed, SandboxId};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, mpsc, watch};

use crate::admission::Amounts;
use crate::allocation;
use crate::container::Qos;
use crate::groups::{self, Groups};
use crate::pod::{Assignment, Handle, work};
use crate::shared::Shared;
use crate::sources::{Found, MIRROR, Manifests, StaticPod};

/// What the table reacts to.
enum Event {
    ApiPod(Key),
    ApiSynced,
    NodeSynced,
    Manifests(Vec<StaticPod>),
    Runtime(Changed),
    RuntimeLagged,
    WorkerEnded(String),
}

/// Where pods come from.
pub(crate) struct Sources {
    pub(crate) api: Option<Informer<Pod>>,
    /// The node itself.
    pub(crate) nodes: Option<Informer<Node>>,
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
    nodes: Option<Informer<Node>>,
    /// Pods that are new while it is not known yet what the node is; none once it is.
    before_node: Option<BTreeSet<Key>>,
}

/// Keeps the workers in step with the sources for ever.
pub(crate) async fn run(shared: Arc<Shared>, sources: Sources) {
    let (ended, mut ended_workers) = mpsc::channel(64);
    let mut changes = shared.seams.runtime.changes();
    let mut dirty = sources.api.as_ref().map(Informer::subscribe);
    let (sender, wishes) = watch::channel(Groups::new());
    let mut table = Table::new(Arc::clone(&shared), &sources, ended, sender);
    let mut manifests = sources.manifests;
    table.adopt(sources.found);
    table.share_out();
    shared.seams.tasks.spawn("groups of all pods", groups::keep(Arc::clone(&shared), wishes));
    let mut synced = sources.api.is_none();
    loop {
        let event = tokio::select! {
            key = next_key(&mut dirty) => Event::ApiPod(key),
            () = all_synced(sources.api.as_ref()), if !synced => Event::ApiSynced,
            () = all_synced(sources.nodes.as_ref()), if table.before_node.is_some() => Event::NodeSynced,
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

async fn all_synced<K: Object>(informer: Option<&Informer<K>>) {
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
    fn new(shared: Arc<Shared>, sources: &Sources, ended: mpsc::Sender<String>, groups: watch::Sender<Groups>) -> Self {
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
            api: sources.api.clone(),
            nodes: sources.nodes.clone(),
            before_node: sources.nodes.as_ref().map(|_| BTreeSet::new()),
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::ApiPod(key) => self.look_at(&key),
            Event::ApiSynced => self.take_list(),
            Event::NodeSynced => {
                for key in self.before_node.take().unwrap_or_default() {
                    self.look_at(&key);
                }
            }
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

    /// The API server's first list is complete: what is not in it goes. Of what is in it not all may have been looked at,
    /// because the list is announced as a whole beside its single pods.
    fn take_list(&mut self) {
        let listed = self.api.as_ref().map(Informer::snapshot).unwrap_or_default();
        for pod in listed {
            self.look_at(&Key::of(&pod.metadata));
        }
        self.drop_unclaimed();
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
        if pod.is_none() {
            self.mirror_gone(key);
        }
        let uid = pod.as_ref().and_then(|pod| pod.metadata.uid.clone());
        let before = self.names.get(key).cloned();
        if before.is_some() && before != uid {
            self.names.remove(key);
            self.end_api_pod(before.as_deref().unwrap_or_default());
        }
        let (Some(pod), Some(uid)) = (pod, uid) else { return };
        self.unclaimed.remove(&uid);
        if let Some(waiting) = self.before_node.as_mut().filter(|_| !started(&pod) && !self.workers.contains_key(&uid))
        {
            waiting.insert(key.clone());
            return;
        }
        self.names.insert(key.clone(), uid);
        self.assign(Assignment::of_api(pod));
    }

    fn end_api_pod(&mut self, uid: &str) {
        if let Some(handle) = self.workers.get(uid).filter(|_| !self.own.contains_key(uid)) {
            let pod = Arc::clone(&handle.assignment.borrow().pod);
            self.assign(Assignment::gone(pod));
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

    /// A worker has found nothing left of its pod. If its source still has the pod, by another state, it starts anew.
    fn worker_ended(&mut self, uid: &str) {
        let ended = self.workers.remove(uid).map(|handle| Key::of(&handle.assignment.borrow().pod.metadata));
        self.admitted.remove(uid);
        self.deferred.remove(uid);
        self.room_made = true;
        if let Some(key) = ended {
            self.begin_waiting(&key);
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
