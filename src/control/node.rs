//! The life of nodes: which ones have fallen silent, and which taints their conditions ask for.
//!
//! After `pkg/controller/nodelifecycle`. A node shows life by renewing its lease in `kube-node-lease` or by a new
//! heartbeat in its status. How long it has been silent is measured here, by when the sign was seen to change, never by
//! comparing wall clocks of two hosts; so nobody is declared dead because the controller itself was away. [`decide`] is
//! pure. What makes pods leave, a taint `NoExecute`, comes to one node after another, and to none while all are down
//! ([`zones`]); pods of a silent node are said not to be ready at once, so that nobody is led to them.

mod decide;
mod zones;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use client::events::{EventType, Recorder, Source, reference};
use client::reconcile::{self, Outcome, Queue};
use client::{Client, ClientError, Informer, Key, ListOptions, Patch, Scope, unless_overtaken};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use task::{SharedClock, Tasks};
use tokio::time::Instant;

pub use decide::{Action, Eviction, decide};
use zones::Weather;

/// How long a node may show no sign of life unless told otherwise: the default of `nodeLeaseDurationSeconds`.
pub const GRACE: Duration = Duration::from_secs(40);
const LEASES: &str = "kube-node-lease";
/// Nodes worked on at a time.
const WORKERS: usize = 4;

/// What changes while a node lives.
type Sign = (Option<Timestamp>, Option<Timestamp>);

struct Shell {
    client: Client,
    clock: SharedClock,
    recorder: Recorder,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    leases: Informer<Lease>,
    queue: Queue<Key>,
    /// The last sign of each node, and when it was first seen.
    pulses: Mutex<HashMap<String, (Sign, Instant)>>,
    /// Whether each node was ready when it was last looked at.
    ready: Mutex<HashMap<String, bool>>,
    /// When the next node of a zone may be made to let go of its pods.
    next: Mutex<HashMap<String, Instant>>,
    grace: Duration,
}

/// Starts the controller.
pub fn spawn(
    client: &Client,
    clock: &SharedClock,
    tasks: &Tasks,
    (nodes, pods): (&Informer<Node>, &Informer<Pod>),
    grace: Duration,
) {
    let source = Source { component: "node-controller".to_owned(), host: String::new() };
    let shell = Arc::new(Shell {
        client: client.clone(),
        clock: Arc::clone(clock),
        recorder: Recorder::spawn(client, tasks, Arc::clone(clock), source),
        nodes: nodes.clone(),
        pods: pods.clone(),
        leases: Informer::spawn(client, tasks, Scope::namespace(LEASES), ListOptions::default()),
        queue: Queue::default(),
        pulses: Mutex::default(),
        ready: Mutex::default(),
        next: Mutex::default(),
        grace,
    });
    let queue = shell.queue.clone();
    let (mut leases, leases_queue) = (shell.leases.subscribe(), queue.clone());
    tasks.spawn("node-feed", reconcile::feed(nodes.subscribe(), queue.clone()));
    tasks.spawn("node-leases", async move {
        loop {
            leases_queue.add(Key::cluster(&leases.next().await.name));
        }
    });
    tasks.spawn("node-controller", async move {
        shell.leases.synced().await;
        shell.nodes.synced().await;
        shell.pods.synced().await;
        reconcile::run(queue, WORKERS, |key| sync(Arc::clone(&shell), key)).await;
    });
}

async fn sync(shell: Arc<Shell>, key: Key) -> Result<Outcome, ClientError> {
    let Some(node) = shell.nodes.get(&key) else {
        shell.pulses.lock().unwrap_or_else(PoisonError::into_inner).remove(&key.name);
        shell.note_readiness(&key.name, None);
        return Ok(Outcome::Done);
    };
    let silent_since = shell.observe(&key.name, &node);
    let (silence, grace) = (silent_since.elapsed(), shell.grace);
    shell.note_readiness(&key.name, Some(decide::is_ready(&node)));
    let (eviction, wait) = shell.eviction(&node);
    for action in decide(&node, silence >= grace, eviction, shell.clock.now()) {
        shell.act(&key, &node, action).await?;
    }
    if silence >= grace && !decide::is_ready(&node) {
        shell.mark_pods(&key.name).await?;
    }
    // A node that is silent already comes back by its next sign.
    let rest = grace.checked_sub(silence).filter(|rest| !rest.is_zero());
    Ok([rest, wait].into_iter().flatten().min().map_or(Outcome::Done, Outcome::Again))
}

impl Shell {
    /// Takes in the node's sign of life and says since when it has been the same.
    fn observe(&self, name: &str, node: &Node) -> Instant {
        let lease = self.leases.get(&Key::namespaced(LEASES, name));
        let renewed = lease.and_then(|lease| Some(lease.spec.as_ref()?.renew_time.as_ref()?.0));
        let sign = (renewed, decide::heartbeat(node));
        let mut pulses = self.pulses.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = !pulses.contains_key(name);
        let pulse = pulses.entry(name.to_owned()).or_insert_with(|| (sign, Instant::now()));
        if pulse.0 != sign {
            *pulse = (sign, Instant::now());
        }
        if is_new {
            let message = format!("Node {name} event: Registered Node {name} in Controller");
            self.recorder.event(&reference(node), EventType::Normal, "RegisteredNode", &message);
        }
        pulse.1
    }

    /// Takes note of whether a node is ready; what becomes of the others depends on it.
    fn note_readiness(&self, name: &str, is_ready: Option<bool>) {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let former = match is_ready {
            Some(is_ready) => ready.insert(name.to_owned(), is_ready),
            None => ready.remove(name),
        };
        if former != is_ready {
            let others = ready.iter().filter(|(other, is_ready)| !**is_ready && *other != name);
            others.for_each(|(other, _)| self.queue.add(Key::cluster(other)));
        }
    }

    /// Whether a node is to let go of its pods, and when to ask again.
    fn eviction(&self, node: &Node) -> (Eviction, Option<Duration>) {
        let nodes = self.nodes.snapshot();
        let zones = match Weather::of(nodes.iter().map(|node| &**node)) {
            Weather::Storm => return (Eviction::Never, None),
            Weather::Zones(zones) => zones,
        };
        let zone = zones::zone(node);
        // A zone of which nothing is known has no node that counts.
        let Some(pace) = zones.get(&zone).copied().unwrap_or(Some(Duration::ZERO)) else {
            return (Eviction::Later, None);
        };
        if !decide::keeps_its_pods(node) {
            return (Eviction::Later, None);
        }
        let (mut next, now) = (self.next.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        match next.get(&zone).and_then(|at| at.checked_duration_since(now)).filter(|wait| !wait.is_zero()) {
            Some(wait) => (Eviction::Later, Some(wait)),
            None => {
                next.insert(zone, now + pace);
                (Eviction::Now, None)
            }
        }
    }

    /// Says of the pods of a silent node that they are not ready.
    async fn mark_pods(&self, node: &str) -> Result<(), ClientError> {
        for pod in self.pods.snapshot() {
            let is_here = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node);
            let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
            let mut conditions = conditions.filter(|condition| condition.type_ == "Ready");
            if !is_here || !conditions.any(|ready| ready.status == "True") {
                continue;
            }
            let patch = json!({
                "metadata": {"uid": pod.metadata.uid},
                "status": {"conditions": [{
                    "type": "Ready", "status": "False", "lastTransitionTime": Time(self.clock.now()),
                }]},
            });
            let patched = self.client.patch_status::<Pod>(&Key::of(&pod.metadata), &Patch::Strategic(patch)).await;
            if unless_overtaken(patched)?.is_some() {
                self.recorder.event(&reference(&*pod), EventType::Warning, "NodeNotReady", "Node is not ready");
            }
        }
        Ok(())
    }

    async fn act(&self, key: &Key, node: &Node, action: Action) -> Result<(), ClientError> {
        let version = &node.metadata.resource_version;
        match action {
            Action::Conditions(conditions) => {
                tracing::warn!(node = key.name, "node shows no sign of life");
                let patch = json!({"metadata": {"resourceVersion": version}, "status": {"conditions": conditions}});
                self.client.patch_status::<Node>(key, &Patch::Strategic(patch)).await?;
                let message = format!("Node {} status is now: NodeNotReady", key.name);
                self.recorder.event(&reference(node), EventType::Normal, "NodeNotReady", &message);
            }
            Action::Taints(taints) => {
                let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"taints": taints}});
                self.client.patch::<Node>(key, &Patch::Merge(patch)).await?;
            }
        }
        Ok(())
    }
}
