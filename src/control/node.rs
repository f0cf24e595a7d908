//! The life of nodes: which ones have fallen silent, and which taints their conditions ask for.
//!
//! After `pkg/controller/nodelifecycle`. A node shows life by renewing its lease in `kube-node-lease` or by a new
//! heartbeat in its status. How long it has been silent is measured here, by when the sign was seen to change, never by
//! comparing wall clocks of two hosts; so nobody is declared dead because the controller itself was away. [`decide`] is
//! pure.

mod decide;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use client::events::{EventType, Recorder, Source, reference};
use client::reconcile::{self, Outcome, Queue};
use client::{Client, ClientError, Informer, Key, ListOptions, Patch, Scope};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use serde_json::json;
use task::{SharedClock, Tasks};
use tokio::time::Instant;

pub use decide::{Action, decide};

/// How long a node may show no sign of life: the default of `nodeLeaseDurationSeconds`.
const GRACE: Duration = Duration::from_secs(40);
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
    leases: Informer<Lease>,
    /// The last sign of each node, and when it was first seen.
    pulses: Mutex<HashMap<String, (Sign, Instant)>>,
}

/// Starts the controller.
pub fn spawn(client: &Client, clock: &SharedClock, tasks: &Tasks, nodes: &Informer<Node>) {
    let source = Source { component: "node-controller".to_owned(), host: String::new() };
    let shell = Arc::new(Shell {
        client: client.clone(),
        clock: Arc::clone(clock),
        recorder: Recorder::spawn(client, tasks, Arc::clone(clock), source),
        nodes: nodes.clone(),
        leases: Informer::spawn(client, tasks, Scope::namespace(LEASES), ListOptions::default()),
        pulses: Mutex::new(HashMap::new()),
    });
    let queue = Queue::default();
    let (mut leases, leases_queue) = (shell.leases.subscribe(), queue.clone());
    tasks.spawn("node-feed", reconcile::feed(nodes.subscribe(), queue.clone()));
    tasks.spawn("node-leases", async move {
        loop {
            leases_queue.add(Key::cluster(&leases.next().await.name));
        }
    });
    tasks.spawn("node-controller", async move {
        shell.leases.synced().await;
        reconcile::run(queue, WORKERS, |key| sync(Arc::clone(&shell), key)).await;
    });
}

async fn sync(shell: Arc<Shell>, key: Key) -> Result<Outcome, ClientError> {
    let Some(node) = shell.nodes.get(&key) else {
        shell.pulses.lock().unwrap_or_else(PoisonError::into_inner).remove(&key.name);
        return Ok(Outcome::Done);
    };
    let silent_since = shell.observe(&key.name, &node);
    let silence = silent_since.elapsed();
    for action in decide(&node, silence >= GRACE, shell.clock.now()) {
        shell.act(&key, &node, action).await?;
    }
    // A node that is silent already comes back by its next sign.
    Ok(if silence >= GRACE { Outcome::Done } else { Outcome::Again(GRACE - silence) })
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
