//! Feeds the scheduler from informers and carries out what it decides.
//!
//! One task; requests run beside it, at most [`REQUESTS`] at a time. Nothing polls: a pod is decided on in the moment in
//! which the informer shows it.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;

use client::events::{EventType, Recorder, Source, reference};
use client::{Client, ClientError, Dirty, Informer, Key, ListOptions, Patch, Scope};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod, PodCondition};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use task::{SharedClock, Tasks};
use tokio::time::Instant;

use super::bind::{self, BindError, Binding};
use super::claims::Bindings;
use super::cluster::Cluster;
use super::decide::{Decision, decide};
use super::needs::Needs;
use super::pending::{Change, Pending, Waiting};

/// The name that pods ask for.
const NAME: &str = "default-scheduler";
/// Requests under way at most.
const REQUESTS: usize = 128;
/// Longest message of an event (`k8s.io/api/events`, note).
const MESSAGE: usize = 1024;

/// Starts the scheduler.
pub fn spawn(client: &Client, clock: &SharedClock, tasks: &Tasks, pods: Informer<Pod>, nodes: Informer<Node>) {
    let source = Source { component: NAME.to_owned(), host: String::new() };
    let recorder = Recorder::spawn(client, tasks, Arc::clone(clock), source);
    let scheduler = Scheduler {
        client: client.clone(),
        clock: Arc::clone(clock),
        recorder,
        pods,
        nodes,
        claims: Informer::spawn(client, tasks, Scope::Cluster, ListOptions::default()),
        volumes: Informer::spawn(client, tasks, Scope::Cluster, ListOptions::default()),
        classes: Informer::spawn(client, tasks, Scope::Cluster, ListOptions::default()),
        cluster: Cluster::default(),
        pending: Pending::default(),
        requests: FuturesUnordered::new(),
        waiting: FuturesUnordered::new(),
    };
    tasks.spawn("scheduler", scheduler.run());
}

struct Scheduler {
    client: Client,
    clock: SharedClock,
    recorder: Recorder,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
    cluster: Cluster,
    pending: Pending,
    requests: FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send>>>,
    /// Bindings that wait for volumes, at most one a pod: slow ones must not keep other pods from being decided on.
    waiting: FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send>>>,
}

/// A request that has come to its end.
enum Done {
    Bind { key: Key, pod: Arc<Pod>, node: String, bindings: Bindings, result: Result<(), BindError> },
    Condition { key: Key, result: Result<(), ClientError> },
}

/// What the loop wakes for.
enum Event {
    Pods(Vec<Key>),
    Nodes(Vec<Key>),
    Claims(Vec<Key>),
    Volumes(Vec<Key>),
    Classes(Vec<Key>),
    Done(Done),
    Time,
}

/// What a pod is to the scheduler.
enum Standing<'a> {
    /// It has ended, or is none of ours.
    Nothing,
    /// It takes room on a node.
    On(&'a str),
    /// It must not be scheduled yet.
    Gated,
    /// It needs a node.
    Waits,
}

fn standing(pod: &Pod) -> Standing<'_> {
    let Some(spec) = &pod.spec else { return Standing::Nothing };
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return Standing::Nothing;
    }
    if let Some(node) = spec.node_name.as_deref().filter(|node| !node.is_empty()) {
        return Standing::On(node);
    }
    let is_ours = spec.scheduler_name.as_deref().unwrap_or(NAME) == NAME;
    if !is_ours || pod.metadata.deletion_timestamp.is_some() {
        return Standing::Nothing;
    }
    if spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
        Standing::Gated
    } else {
        Standing::Waits
    }
}

impl Scheduler {
    async fn run(mut self) {
        self.nodes.synced().await;
        self.pods.synced().await;
        self.claims.synced().await;
        self.volumes.synced().await;
        self.classes.synced().await;
        let mut nodes = self.nodes.subscribe();
        let mut pods = self.pods.subscribe();
        let (mut claims, mut volumes) = (self.claims.subscribe(), self.volumes.subscribe());
        let mut classes = self.classes.subscribe();
        loop {
            // What is known by now is taken in before anything is decided; nodes first.
            drain(&mut nodes).iter().for_each(|key| self.observe_node(key));
            drain(&mut classes).iter().for_each(|key| self.observe_class(key));
            drain(&mut volumes).iter().for_each(|key| self.observe_volume(key));
            drain(&mut claims).iter().for_each(|key| self.observe_claim(key));
            drain(&mut pods).iter().for_each(|key| self.observe_pod(key));
            self.decide_all();
            let wake_at = self.pending.wake_at();
            let event = tokio::select! {
                keys = pods.batch() => Event::Pods(keys),
                keys = nodes.batch() => Event::Nodes(keys),
                keys = claims.batch() => Event::Claims(keys),
                keys = volumes.batch() => Event::Volumes(keys),
                keys = classes.batch() => Event::Classes(keys),
                Some(done) = self.requests.next() => Event::Done(done),
                Some(done) = self.waiting.next() => Event::Done(done),
                () = tokio::time::sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => Event::Time,
            };
            self.handle(event);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Pods(keys) => keys.iter().for_each(|key| self.observe_pod(key)),
            Event::Nodes(keys) => keys.iter().for_each(|key| self.observe_node(key)),
            Event::Claims(keys) => keys.iter().for_each(|key| self.observe_claim(key)),
            Event::Classes(keys) => keys.iter().for_each(|key| self.observe_class(key)),
            Event::Volumes(keys) => keys.iter().for_each(|key| self.observe_volume(key)),
            Event::Done(done) => self.finish(done),
            Event::Time => {}
        }
    }

    fn observe_node(&mut self, key: &Key) {
        let Some(node) = self.nodes.get(key) else { return self.cluster.remove_node(&key.name) };
        let is_news = self.cluster.node(&key.name).is_none_or(|before| decides_differently(before, &node));
        self.cluster.set_node(&key.name, &node);
        if is_news {
            self.pending.wake(Change::Node);
        }
    }

    fn observe_claim(&mut self, key: &Key) {
        self.cluster.claims.set_claim(key, self.claims.get(key));
        self.pending.wake(Change::Volume);
    }

    fn observe_volume(&mut self, key: &Key) {
        self.cluster.claims.set_volume(&key.name, self.volumes.get(key));
        self.pending.wake(Change::Volume);
    }

    fn observe_class(&mut self, key: &Key) {
        self.cluster.claims.set_class(&key.name, self.classes.get(key));
        self.pending.wake(Change::Volume);
    }

    fn observe_pod(&mut self, key: &Key) {
        let Some(pod) = self.pods.get(key) else { return self.forget(key) };
        match standing(&pod) {
            Standing::On(node) => {
                self.pending.remove(key);
                let uid = pod.metadata.uid.as_deref().unwrap_or_default();
                self.cluster.place(key, uid, node, &Arc::new(Needs::of(&pod)));
            }
            Standing::Waits => {
                self.forget_former(key, &pod);
                self.pending.observe(key, &pod);
            }
            Standing::Gated => {
                self.forget(key);
                let message = "Scheduling is blocked due to non-empty scheduling gates";
                self.set_condition(key, &pod, "SchedulingGated", message);
            }
            Standing::Nothing => self.forget(key),
        }
    }

    fn forget(&mut self, key: &Key) {
        self.free(key);
        self.pending.remove(key);
    }

    /// A pod of the same name that had room before is gone. The room of this very pod stays, if it was just given some.
    fn forget_former(&mut self, key: &Key, pod: &Pod) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if !self.cluster.is_assumed(key, uid) {
            self.free(key);
        }
    }

    fn free(&mut self, key: &Key) {
        if self.cluster.remove(key) {
            self.pending.wake(Change::Room);
        }
    }

    fn decide_all(&mut self) {
        self.pending.ripen(Instant::now());
        while self.requests.len() < REQUESTS
            && let Some((key, waiting)) = self.pending.take()
        {
            match decide(&waiting.pod, &waiting.needs, &self.cluster) {
                Decision::Bind { node, bindings } => self.bind(key, &waiting, node, bindings),
                Decision::Unschedulable { message, refusals } => {
                    self.pending.park(&key, refusals, Instant::now());
                    self.report(&key, &waiting.pod, &message);
                }
            }
        }
    }

    fn bind(&mut self, key: Key, waiting: &Waiting, node: String, bindings: Bindings) {
        let pod = Arc::clone(&waiting.pod);
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        self.cluster.assume(&key, &uid, &node, &waiting.needs);
        self.cluster.claims.promise(&bindings, &node);
        let binding = Binding {
            client: self.client.clone(),
            claims: self.claims.clone(),
            pod: key.clone(),
            uid,
            node: node.clone(),
            steps: bind::steps(&bindings, &self.cluster.claims, &node),
        };
        let queue = if bindings.is_empty() { &self.requests } else { &self.waiting };
        queue.push(Box::pin(async move {
            let result = binding.carry_out(&bindings).await;
            Done::Bind { key, pod, node, bindings, result }
        }));
    }

    fn finish(&mut self, done: Done) {
        match done {
            Done::Bind { key, pod, node, bindings, result: Ok(()) } => {
                self.cluster.claims.release(&bindings);
                tracing::debug!(pod = %key, node, "pod bound");
                let message = format!("Successfully assigned {key} to {node}");
                self.recorder.event(&reference(&*pod), EventType::Normal, "Scheduled", &message);
            }
            Done::Bind { key, pod, bindings, result: Err(error), .. } => {
                self.cluster.claims.release(&bindings);
                let uid = pod.metadata.uid.as_deref().unwrap_or_default();
                if self.cluster.is_assumed(&key, uid) {
                    self.free(&key);
                }
                self.pending.rest(&key, Instant::now());
                if !matches!(&error, BindError::Rejected(error) if error.is_not_found()) {
                    self.report(&key, &pod, &error.to_string());
                }
            }
            Done::Condition { key, result: Err(error) } if !error.is_not_found() => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(pod = %key, error, "cannot report why a pod is not scheduled");
            }
            Done::Condition { .. } => {}
        }
    }

    fn report(&mut self, key: &Key, pod: &Arc<Pod>, message: &str) {
        let short: String = message.chars().take(MESSAGE).collect();
        self.recorder.event(&reference(&**pod), EventType::Warning, "FailedScheduling", &short);
        self.set_condition(key, pod, "Unschedulable", message);
    }

    /// Sets `PodScheduled` to false, unless it says the same already.
    fn set_condition(&mut self, key: &Key, pod: &Pod, reason: &str, message: &str) {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let former = conditions.iter().find(|condition| condition.type_ == "PodScheduled");
        let says_it = |former: &PodCondition| {
            former.status == "False"
                && former.reason.as_deref() == Some(reason)
                && former.message.as_deref() == Some(message)
        };
        if former.is_some_and(says_it) {
            return;
        }
        let since = former.filter(|former| former.status == "False").and_then(|f| f.last_transition_time.clone());
        let since = since.unwrap_or_else(|| Time(self.clock.now()));
        let patch = Patch::Strategic(json!({
            "metadata": {"uid": pod.metadata.uid},
            "status": {"conditions": [{
                "type": "PodScheduled", "status": "False", "reason": reason, "message": message,
                "lastProbeTime": null, "lastTransitionTime": since,
            }]},
        }));
        let (client, key) = (self.client.clone(), key.clone());
        self.requests.push(Box::pin(async move {
            let result = client.patch_status::<Pod>(&key, &patch).await.map(drop);
            Done::Condition { key, result }
        }));
    }
}

fn drain(dirty: &mut Dirty) -> BTreeSet<Key> {
    std::iter::from_fn(|| dirty.try_next()).collect()
}

/// Whether a node has changed in what decides; heartbeats do not.
fn decides_differently(before: &Node, after: &Node) -> bool {
    let allocatable = |node: &Node| node.status.as_ref().and_then(|status| status.allocatable.clone());
    before.spec != after.spec
        || before.metadata.labels != after.metadata.labels
        || allocatable(before) != allocatable(after)
}
