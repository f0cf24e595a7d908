//! Removes pods of nodes that no longer exist: nobody else can end them.
//!
//! After `pkg/controller/podgc`. A node must have been absent for [`QUARANTINE`], and the API server itself must
//! confirm it, before its pods are failed and removed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use client::reconcile::{self, Outcome, Queue};
use client::{Client, ClientError, DeleteOptions, Informer, Key, Patch};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use task::{SharedClock, Tasks};
use tokio::time::Instant;

/// How long a node must have been absent.
const QUARANTINE: Duration = Duration::from_secs(40);

struct Shell {
    client: Client,
    clock: SharedClock,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    /// Since when each node that pods name has been seen to be absent.
    absent: Mutex<HashMap<String, Instant>>,
}

/// Starts the controller.
pub fn spawn(client: &Client, clock: &SharedClock, tasks: &Tasks, nodes: &Informer<Node>, pods: &Informer<Pod>) {
    let shell = Arc::new(Shell {
        client: client.clone(),
        clock: Arc::clone(clock),
        nodes: nodes.clone(),
        pods: pods.clone(),
        absent: Mutex::default(),
    });
    let queue = Queue::default();
    tasks.spawn("podgc-nodes", reconcile::feed(nodes.subscribe(), queue.clone()));
    tasks.spawn("podgc-pods", feed_nodes_of_pods(Arc::clone(&shell), queue.clone()));
    tasks.spawn("podgc", reconcile::run(queue, 1, move |key| sync(Arc::clone(&shell), key)));
}

/// Pods may name nodes that were removed while nobody looked, or that never were.
async fn feed_nodes_of_pods(shell: Arc<Shell>, queue: Queue<Key>) {
    shell.nodes.synced().await;
    let mut dirty = shell.pods.subscribe();
    loop {
        let pod = shell.pods.get(&dirty.next().await);
        if let Some(node) = pod.as_deref().and_then(node_of)
            && shell.nodes.get(&Key::cluster(node)).is_none()
        {
            queue.add(Key::cluster(node));
        }
    }
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|node| !node.is_empty())
}

async fn sync(shell: Arc<Shell>, node: Key) -> Result<Outcome, ClientError> {
    let pods: Vec<Arc<Pod>> =
        shell.pods.snapshot().into_iter().filter(|pod| node_of(pod) == Some(node.name.as_str())).collect();
    let absence = shell.absence(&node.name, shell.nodes.get(&node).is_none() && !pods.is_empty());
    let Some(absence) = absence else { return Ok(Outcome::Done) };
    if absence < QUARANTINE {
        return Ok(Outcome::Again(QUARANTINE - absence));
    }
    if shell.client.get_opt::<Node>(&node).await?.is_none() {
        for pod in pods {
            shell.remove(&pod).await?;
        }
    }
    Ok(Outcome::Done)
}

impl Shell {
    /// Since when a node has been absent, if it is.
    fn absence(&self, node: &str, is_absent: bool) -> Option<Duration> {
        let mut absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_absent {
            absent.remove(node);
            return None;
        }
        Some(absent.entry(node.to_owned()).or_insert_with(Instant::now).elapsed())
    }

    async fn remove(&self, pod: &Pod) -> Result<(), ClientError> {
        let key = Key::of(&pod.metadata);
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        tracing::info!(pod = %key, uid, "removing a pod whose node is gone");
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if !matches!(phase, Some("Succeeded" | "Failed")) {
            let patch = Patch::Strategic(json!({
                "metadata": {"uid": uid},
                "status": {"phase": "Failed", "conditions": [{
                    "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
                    "message": "PodGC: node no longer exists", "lastTransitionTime": Time(self.clock.now()),
                }]},
            }));
            match self.client.patch_status::<Pod>(&key, &patch).await {
                Err(error) if error.is_overtaken() => return Ok(()),
                result => drop(result?),
            }
        }
        match self.client.delete::<Pod>(&key, &DeleteOptions::now(uid)).await {
            Err(error) if error.is_overtaken() => Ok(()),
            result => result,
        }
    }
}
