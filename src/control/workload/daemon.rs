//! DaemonSets: a pod on every node that is meant.
//!
//! After `pkg/controller/daemon` upstream. [`decide`](decide::decide) is pure. Which node a pod is for stands in its affinity;
//! the scheduler binds it like any other.

mod decide;
mod node;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::events::{EventType, Recorder, Source, reference};
use client::reconcile::{self, Outcome, Queue};
use client::{Client, ClientError, Informer, Key, ListOptions, Scope, unless_overtaken};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use task::{SharedClock, Tasks};

use super::members::{Members, created};
use super::owned::{Owned, Routes};
use super::unseen::PATIENCE;
use super::{is_deleting, revision, selector};
use decide::{Picture, decide};

/// DaemonSets worked on at a time.
const WORKERS: usize = 2;

struct Shell {
    members: Members,
    clock: SharedClock,
    sets: Informer<DaemonSet>,
    nodes: Informer<Node>,
    pods: Arc<Owned<Pod>>,
    revisions: Arc<Owned<ControllerRevision>>,
}

/// What the controller looks at.
pub(super) struct Objects<'a> {
    pub(super) pods: &'a Arc<Owned<Pod>>,
    pub(super) nodes: &'a Informer<Node>,
    pub(super) revisions: &'a Arc<Owned<ControllerRevision>>,
}

/// Starts the controller.
pub(super) fn spawn(
    client: &Client,
    clock: &SharedClock,
    tasks: &Tasks,
    objects: &Objects<'_>,
    (of_pods, of_revisions): (&mut Routes, &mut Routes),
) {
    let source = Source { component: "daemonset-controller".to_owned(), host: String::new() };
    let recorder = Recorder::spawn(client, tasks, SharedClock::clone(clock), source);
    let shell = Arc::new(Shell {
        members: Members { client: client.clone(), recorder, unseen: Default::default(), words: created },
        clock: SharedClock::clone(clock),
        sets: Informer::spawn(client, tasks, Scope::Cluster, ListOptions::default()),
        nodes: objects.nodes.clone(),
        pods: Arc::clone(objects.pods),
        revisions: Arc::clone(objects.revisions),
    });
    let queue = Queue::default();
    of_pods.add(&queue, &shell.sets);
    of_revisions.add(&queue, &shell.sets);
    tasks.spawn("daemonsets", reconcile::feed(shell.sets.subscribe(), queue.clone()));
    tasks.spawn("daemonsets-nodes", feed_by_nodes(Arc::clone(&shell), queue.clone()));
    tasks.spawn("daemonset-controller", async move {
        shell.nodes.synced().await;
        shell.pods.informer().synced().await;
        shell.revisions.informer().synced().await;
        reconcile::run(queue, WORKERS, move |key| sync(Arc::clone(&shell), key)).await;
    });
}

/// A node that comes, goes or changes concerns all of them.
async fn feed_by_nodes(shell: Arc<Shell>, queue: Queue<Key>) {
    let mut dirty = shell.nodes.subscribe();
    loop {
        dirty.batch().await;
        shell.sets.snapshot().iter().for_each(|set| queue.add(Key::of(&set.metadata)));
    }
}

async fn sync(shell: Arc<Shell>, key: Key) -> Result<Outcome, ClientError> {
    let Some(set) = shell.sets.get(&key) else {
        shell.members.unseen.forget(&key);
        return Ok(Outcome::Done);
    };
    let Some(spec) = &set.spec else { return Ok(Outcome::Done) };
    let selector = selector(&spec.selector);
    if selector.is_everything() {
        let text = "This daemon set is selecting all pods. A non-empty selector is required.";
        shell.members.recorder.event(&reference(&*set), EventType::Warning, "SelectingAll", text);
        return Ok(Outcome::Done);
    }
    let is_settled = shell.members.settle(&shell.pods, &key).await?;
    let pods = shell.pods.claim(&shell.members.client, &*set, &selector, None).await?;
    let collisions = set.status.as_ref().and_then(|status| status.collision_count);
    let template = (&spec.template, collisions);
    let history = shell.members.history(&shell.revisions, &*set, &selector, template).await?;
    if is_deleting(&set.metadata) {
        return Ok(Outcome::Done);
    }
    let mut status = set.status.clone().unwrap_or_default();
    if !shell.members.keep(&history).await? {
        // The hash is another template's: the next one is taken.
        status.collision_count = Some(collisions.unwrap_or(0) + 1);
        shell.tell(&set, status).await?;
        return Ok(Outcome::Done);
    }
    let is_live = |hash: &str| pods.iter().any(|pod| decide::has_hash(pod, hash));
    for old in revision::surplus(&history.former, spec.revision_history_limit, is_live) {
        shell.members.forget(old).await?;
    }
    let picture = Picture {
        set: &set,
        nodes: shell.nodes.snapshot(),
        pods,
        hash: revision::hash_of(&history.present),
        is_settled,
        now: shell.clock.now(),
    };
    let plan = decide(&picture);
    for (kind, reason, message) in &plan.events {
        shell.members.recorder.event(&reference(&*set), *kind, reason, message);
    }
    let mut failure = shell.members.delete(&*set, plan.delete.iter().map(|pod| &**pod)).await;
    if failure.is_none() {
        failure = shell.members.create(&*set, plan.create).await.1;
    }
    shell.tell(&set, plan.status).await?;
    match failure {
        Some(error) => Err(error),
        None if !is_settled => Ok(Outcome::Again(PATIENCE)),
        None => Ok(plan.again.map_or(Outcome::Done, Outcome::Again)),
    }
}

impl Shell {
    async fn tell(&self, set: &DaemonSet, status: decide::Status) -> Result<(), ClientError> {
        if Some(&status) == set.status.as_ref() {
            return Ok(());
        }
        let told = DaemonSet { status: Some(status), ..set.clone() };
        unless_overtaken(self.members.client.replace_status(&told).await).map(drop)
    }
}
