//! Removes pods from nodes whose taints of effect `NoExecute` they do not tolerate, or no longer.
//!
//! After `pkg/controller/tainteviction`. [`decide`] is pure. How long a pod has tolerated is measured here, from when its
//! node was seen with such a taint: when the controller has been away, nobody is removed before nodes could show life again.
//! It is the node controller that gives the taints ([`crate::node`]), or a user. Invariant: a pod goes by an ordinary
//! deletion, with its grace period, and says why in its status first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::placement::tolerates;
use client::events::{EventType, Recorder, Source, reference};
use client::reconcile::{self, Outcome, Queue};
use client::{Client, ClientError, DeleteOptions, Informer, Key, Patch, unless_overtaken};
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use task::{SharedClock, Tasks};
use tokio::time::Instant;

/// Pods removed at a time.
const WORKERS: usize = 8;

/// What is to become of a pod on its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing there drives it away.
    Stays,
    /// It may stay for so long from when its node was seen so.
    Leaves(Duration),
}

/// Decides by what a node is tainted with and what a pod tolerates.
pub fn decide(taints: &[Taint], tolerations: &[Toleration]) -> Verdict {
    let mut shortest = None;
    for taint in taints.iter().filter(|taint| taint.effect == "NoExecute") {
        let mut fitting = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).peekable();
        if fitting.peek().is_none() {
            return Verdict::Leaves(Duration::ZERO);
        }
        // As upstream, the first that fits counts.
        let seconds = fitting.next().and_then(|toleration| toleration.toleration_seconds);
        let patience = seconds.map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
        shortest = [shortest, patience].into_iter().flatten().min();
    }
    shortest.map_or(Verdict::Stays, Verdict::Leaves)
}

struct Shell {
    client: Client,
    clock: SharedClock,
    recorder: Recorder,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    /// Pods that are to leave, by uid, and since when that is known.
    leaving: Mutex<HashMap<Key, (String, Instant)>>,
}

/// Starts the controller.
pub fn spawn(client: &Client, clock: &SharedClock, tasks: &Tasks, (nodes, pods): (&Informer<Node>, &Informer<Pod>)) {
    let source = Source { component: "taint-eviction-controller".to_owned(), host: String::new() };
    let shell = Arc::new(Shell {
        client: client.clone(),
        clock: Arc::clone(clock),
        recorder: Recorder::spawn(client, tasks, Arc::clone(clock), source),
        nodes: nodes.clone(),
        pods: pods.clone(),
        leaving: Mutex::default(),
    });
    let queue = Queue::default();
    tasks.spawn("taint-eviction-pods", reconcile::feed(pods.subscribe(), queue.clone()));
    tasks.spawn("taint-eviction-nodes", feed_by_nodes(Arc::clone(&shell), queue.clone()));
    tasks.spawn("taint-eviction", async move {
        shell.nodes.synced().await;
        shell.pods.synced().await;
        reconcile::run(queue, WORKERS, move |key| sync(Arc::clone(&shell), key)).await;
    });
}

/// A node concerns its pods when its taints change; heartbeats change only the rest of it.
async fn feed_by_nodes(shell: Arc<Shell>, queue: Queue<Key>) {
    let mut dirty = shell.nodes.subscribe();
    let mut known: HashMap<String, Vec<Taint>> = HashMap::new();
    loop {
        let key = dirty.next().await;
        let taints = shell.nodes.get(&key).map(|node| driving(&node)).unwrap_or_default();
        let former = if taints.is_empty() {
            known.remove(&key.name).unwrap_or_default()
        } else {
            known.insert(key.name.clone(), taints.clone()).unwrap_or_default()
        };
        if former != taints {
            let pods = shell.pods.snapshot();
            let own = pods.iter().filter(|pod| node_of(pod) == Some(&key.name));
            own.for_each(|pod| queue.add(Key::of(&pod.metadata)));
        }
    }
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|node| !node.is_empty())
}

/// The taints that drive pods away.
fn driving(node: &Node) -> Vec<Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect == "NoExecute").cloned().collect()
}

async fn sync(shell: Arc<Shell>, key: Key) -> Result<Outcome, ClientError> {
    let pod = shell.pods.get(&key).filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let Some(pod) = pod else {
        shell.forget(&key);
        return Ok(Outcome::Done);
    };
    let node = node_of(&pod).and_then(|node| shell.nodes.get(&Key::cluster(node)));
    let taints = node.map(|node| driving(&node)).unwrap_or_default();
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    match decide(&taints, tolerations) {
        Verdict::Stays => {
            if shell.forget(&key) {
                shell.tell(&pod, &format!("Cancelling deletion of Pod {key}"));
            }
            Ok(Outcome::Done)
        }
        Verdict::Leaves(patience) => match patience.checked_sub(shell.tolerated(&key, &pod)) {
            Some(rest) if !rest.is_zero() => Ok(Outcome::Again(rest)),
            _ => shell.evict(&key, &pod).await.map(|()| Outcome::Done),
        },
    }
}

impl Shell {
    /// Forgets that a pod is to leave; whether it was.
    fn forget(&self, key: &Key) -> bool {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner).remove(key).is_some()
    }

    /// How long this very pod has been to leave.
    fn tolerated(&self, key: &Key, pod: &Pod) -> Duration {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, since) = leaving.entry(key.clone()).or_insert_with(|| (uid.clone(), Instant::now()));
        if *known != uid {
            (*known, *since) = (uid, Instant::now());
        }
        since.elapsed()
    }

    fn tell(&self, pod: &Pod, message: &str) {
        self.recorder.event(&reference(pod), EventType::Normal, "TaintManagerEviction", message);
    }

    async fn evict(&self, key: &Key, pod: &Pod) -> Result<(), ClientError> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        tracing::info!(pod = %key, uid, "removing a pod that does not tolerate the taints of its node");
        self.tell(pod, &format!("Marking for deletion Pod {key}"));
        let patch = Patch::Strategic(json!({
            "metadata": {"uid": uid},
            "status": {"conditions": [{
                "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
                "message": "Taint manager: deleting due to NoExecute taint",
                "lastTransitionTime": Time(self.clock.now()),
            }]},
        }));
        let gone = async {
            self.client.patch_status::<Pod>(key, &patch).await?;
            let options = DeleteOptions { uid: uid.to_owned(), ..DeleteOptions::default() };
            self.client.delete::<Pod>(key, &options).await
        };
        unless_overtaken(gone.await).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    fn read<T: DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn verdict(taints: Value, tolerations: Value) -> Verdict {
        decide(&read::<Vec<Taint>>(taints), &read::<Vec<Toleration>>(tolerations))
    }

    fn for_seconds(key: &str, seconds: i64) -> Value {
        json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds})
    }

    #[test]
    fn only_taints_that_drive_away_count() {
        assert_eq!(verdict(json!([]), json!([])), Verdict::Stays);
        assert_eq!(verdict(json!([{"key": "a", "effect": "NoSchedule"}]), json!([])), Verdict::Stays);
        assert_eq!(verdict(json!([{"key": "a", "effect": "NoExecute"}]), json!([])), Verdict::Leaves(Duration::ZERO));
    }

    #[test]
    fn the_shortest_patience_counts_and_none_is_for_ever() {
        let two = || json!([{"key": "a", "effect": "NoExecute"}, {"key": "b", "effect": "NoExecute"}]);
        let one = json!([{"key": "a", "effect": "NoExecute"}]);
        assert_eq!(verdict(one, json!([{"operator": "Exists"}])), Verdict::Stays);
        let leaves = |seconds| Verdict::Leaves(Duration::from_secs(seconds));
        assert_eq!(verdict(two(), json!([for_seconds("a", 300), for_seconds("b", 20)])), leaves(20));
        assert_eq!(verdict(two(), json!([for_seconds("a", 300), {"key": "b", "operator": "Exists"}])), leaves(300));
        assert_eq!(verdict(two(), json!([for_seconds("a", 300)])), leaves(0));
        assert_eq!(verdict(two(), json!([for_seconds("a", -1), for_seconds("b", 20)])), leaves(0));
    }
}
