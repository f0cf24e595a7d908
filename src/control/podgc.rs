//! Removes pods that nobody else can end: those of nodes that no longer exist, that are going and never had a node, or whose
//! node is out of service; and the oldest of those that have ended, when there are very many.
//!
//! After `pkg/controller/podgc`. A node must have been absent for [`QUARANTINE`], and the API server itself must
//! confirm it, before its pods are failed and removed. [`decide`] is pure.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use client::reconcile::{self, Outcome, Queue};
use client::{Client, ClientError, DeleteOptions, Informer, Key, Patch, unless_overtaken};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use task::{SharedClock, Tasks};
use tokio::time::Instant;

use crate::workload::has_ended;

/// How long a node must have been absent.
const QUARANTINE: Duration = Duration::from_secs(40);
/// So many pods that have ended may lie about (`--terminated-pod-gc-threshold`).
const ENDED: usize = 12500;
/// Says of a node that does not answer that it really is down, and what runs there ends with it (KEP-2268).
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Whether a pod that is going would never be gone.
pub fn decide(pod: &Pod, node: Option<&Node>) -> bool {
    if pod.metadata.deletion_timestamp.is_none() {
        return false;
    }
    let Some(node) = node else { return node_of(pod).is_none() };
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let is_ready = conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    !is_ready && is_out_of_service(node)
}

fn is_out_of_service(node: &Node) -> bool {
    let mut taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.any(|taint| taint.key == OUT_OF_SERVICE)
}

/// What is worked on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Target {
    Node(Key),
    Pod(Key),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(key) => write!(f, "node {key}"),
            Self::Pod(key) => write!(f, "pod {key}"),
        }
    }
}

/// Pods that have ended: the youngest, as many as may lie about, and those that are older and too many.
struct Ended {
    allowed: usize,
    created: HashMap<Key, Timestamp>,
    kept: BTreeSet<(Timestamp, Key)>,
    surplus: BTreeSet<(Timestamp, Key)>,
}

impl Ended {
    fn new(allowed: usize) -> Self {
        Self { allowed, created: HashMap::new(), kept: BTreeSet::new(), surplus: BTreeSet::new() }
    }

    /// Takes note of a pod as it is now, if it has ended; which one is too many because of it.
    fn note(&mut self, key: &Key, pod: Option<&Pod>) -> Option<Key> {
        self.forget(key);
        let pod = pod.filter(|pod| has_ended(pod) && pod.metadata.deletion_timestamp.is_none())?;
        let created = pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::MIN, |time| time.0);
        self.created.insert(key.clone(), created);
        let entry = (created, key.clone());
        let gives_way = if self.surplus.last().is_some_and(|youngest| entry < *youngest) {
            entry
        } else {
            self.kept.insert(entry);
            if self.kept.len() <= self.allowed {
                return None;
            }
            self.kept.pop_first()?
        };
        self.surplus.insert(gives_way.clone());
        Some(gives_way.1)
    }

    fn forget(&mut self, key: &Key) {
        let Some(created) = self.created.remove(key) else { return };
        let entry = (created, key.clone());
        if self.surplus.remove(&entry) {
            return;
        }
        self.kept.remove(&entry);
        self.kept.extend(self.surplus.pop_last());
    }

    /// Whether a pod is one of those that are too many.
    fn is_surplus(&self, key: &Key) -> bool {
        self.created.get(key).is_some_and(|created| self.surplus.contains(&(*created, key.clone())))
    }
}

struct Shell {
    client: Client,
    clock: SharedClock,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    /// Since when each node that pods name has been seen to be absent.
    absent: Mutex<HashMap<String, Instant>>,
    ended: Mutex<Ended>,
}

/// Starts the controller.
pub fn spawn(client: &Client, clock: &SharedClock, tasks: &Tasks, nodes: &Informer<Node>, pods: &Informer<Pod>) {
    let shell = Arc::new(Shell {
        client: client.clone(),
        clock: Arc::clone(clock),
        nodes: nodes.clone(),
        pods: pods.clone(),
        absent: Mutex::default(),
        ended: Mutex::new(Ended::new(ENDED)),
    });
    let queue = Queue::default();
    tasks.spawn("podgc-nodes", feed_by_nodes(Arc::clone(&shell), queue.clone()));
    tasks.spawn("podgc-pods", feed_by_pods(Arc::clone(&shell), queue.clone()));
    let sync = move |target| {
        let shell = Arc::clone(&shell);
        async move {
            match target {
                Target::Node(node) => sync_node(shell, node).await,
                Target::Pod(pod) => sync_pod(shell, pod).await,
            }
        }
    };
    tasks.spawn("podgc", reconcile::run(queue, 1, sync));
}

/// A node that is out of service concerns the pods there that are going.
async fn feed_by_nodes(shell: Arc<Shell>, queue: Queue<Target>) {
    let mut dirty = shell.nodes.subscribe();
    loop {
        let key = dirty.next().await;
        if shell.nodes.get(&key).is_some_and(|node| is_out_of_service(&node)) {
            let pods = shell.pods.snapshot();
            let own = pods.iter().filter(|pod| node_of(pod) == Some(&key.name));
            own.for_each(|pod| queue.add(Target::Pod(Key::of(&pod.metadata))));
        }
        queue.add(Target::Node(key));
    }
}

/// Pods may name nodes that were removed while nobody looked, or that never were.
async fn feed_by_pods(shell: Arc<Shell>, queue: Queue<Target>) {
    shell.nodes.synced().await;
    let mut dirty = shell.pods.subscribe();
    loop {
        let key = dirty.next().await;
        let pod = shell.pods.get(&key);
        let surplus = shell.ended.lock().unwrap_or_else(PoisonError::into_inner).note(&key, pod.as_deref());
        surplus.into_iter().for_each(|key| queue.add(Target::Pod(key)));
        let Some(pod) = pod else { continue };
        if let Some(node) = node_of(&pod)
            && shell.nodes.get(&Key::cluster(node)).is_none()
        {
            queue.add(Target::Node(Key::cluster(node)));
        }
        if pod.metadata.deletion_timestamp.is_some() {
            queue.add(Target::Pod(key));
        }
    }
}

async fn sync_pod(shell: Arc<Shell>, key: Key) -> Result<Outcome, ClientError> {
    let Some(pod) = shell.pods.get(&key) else { return Ok(Outcome::Done) };
    let node = node_of(&pod).and_then(|node| shell.nodes.get(&Key::cluster(node)));
    let is_surplus = || shell.ended.lock().unwrap_or_else(PoisonError::into_inner).is_surplus(&key);
    if decide(&pod, node.as_deref()) {
        tracing::info!(pod = %key, "removing a pod that nobody else will");
        shell.remove(&pod, None).await?;
    } else if is_surplus() {
        tracing::info!(pod = %key, "removing one of too many pods that have ended");
        shell.remove(&pod, None).await?;
    }
    Ok(Outcome::Done)
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|node| !node.is_empty())
}

async fn sync_node(shell: Arc<Shell>, node: Key) -> Result<Outcome, ClientError> {
    let pods: Vec<Arc<Pod>> =
        shell.pods.snapshot().into_iter().filter(|pod| node_of(pod) == Some(node.name.as_str())).collect();
    let absence = shell.absence(&node.name, shell.nodes.get(&node).is_none() && !pods.is_empty());
    let Some(absence) = absence else { return Ok(Outcome::Done) };
    if absence < QUARANTINE {
        return Ok(Outcome::Again(QUARANTINE - absence));
    }
    if shell.client.get_opt::<Node>(&node).await?.is_none() {
        for pod in pods {
            tracing::info!(pod = %Key::of(&pod.metadata), "removing a pod whose node is gone");
            shell.remove(&pod, Some("PodGC: node no longer exists")).await?;
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

    /// Says that a pod has failed, and of what disruption if of one, and removes it.
    async fn remove(&self, pod: &Pod, disruption: Option<&str>) -> Result<(), ClientError> {
        let key = Key::of(&pod.metadata);
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if !has_ended(pod) {
            let mut patch = json!({"metadata": {"uid": uid}, "status": {"phase": "Failed"}});
            if let Some(message) = disruption {
                patch["status"]["conditions"] = json!([{
                    "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC", "message": message,
                    "lastTransitionTime": Time(self.clock.now()),
                }]);
            }
            let patch = Patch::Strategic(patch);
            if unless_overtaken(self.client.patch_status::<Pod>(&key, &patch).await)?.is_none() {
                return Ok(());
            }
        }
        unless_overtaken(self.client.delete::<Pod>(&key, &DeleteOptions::now(uid)).await).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn pod(name: &str, change: &Value) -> Pod {
        let mut value = json!({"metadata": {"name": name, "namespace": "default"}});
        for (field, part) in change.as_object().unwrap() {
            value[field] = part.clone();
        }
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_pod_that_is_going_needs_a_node_that_is_in_service() {
        let going = |spec: Value| {
            let metadata = json!({"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"});
            pod("p", &json!({"metadata": metadata, "spec": spec}))
        };
        let placed = json!({"nodeName": "edge-1", "containers": []});
        let node = |ready: &str, taint: &str| -> Node {
            let taints = json!([{"key": taint, "effect": "NoExecute"}]);
            let conditions = json!([{"type": "Ready", "status": ready}]);
            serde_json::from_value(json!({"spec": {"taints": taints}, "status": {"conditions": conditions}})).unwrap()
        };
        assert!(decide(&going(json!({"containers": []})), None));
        assert!(!decide(&pod("p", &json!({})), None), "it is not going");
        assert!(!decide(&going(placed.clone()), None), "its node may only be unknown yet");
        assert!(decide(&going(placed.clone()), Some(&node("Unknown", OUT_OF_SERVICE))));
        assert!(!decide(&going(placed.clone()), Some(&node("True", OUT_OF_SERVICE))));
        assert!(!decide(&going(placed), Some(&node("Unknown", "node.kubernetes.io/unreachable"))));
    }

    #[test]
    fn of_too_many_that_have_ended_the_oldest_go() {
        let mut ended = Ended::new(2);
        let of = |name: &str, day: u8, phase: &str| {
            let metadata =
                json!({"name": name, "namespace": "default", "creationTimestamp": format!("2026-01-0{day}T00:00:00Z")});
            pod(name, &json!({"metadata": metadata, "status": {"phase": phase}}))
        };
        let key = |name: &str| Key::namespaced("default", name);
        let mut note = |name: &str, day: u8, phase: &str| {
            let gone = ended.note(&key(name), Some(&of(name, day, phase)));
            let all = ["a", "b", "c", "d", "e", "f"].into_iter().filter(|name| ended.is_surplus(&key(name)));
            (gone.map_or(String::new(), |key| key.name), all.collect::<String>())
        };
        let none = (String::new(), String::new());
        assert_eq!(note("a", 5, "Failed"), none);
        assert_eq!(note("b", 2, "Succeeded"), none);
        assert_eq!(note("c", 4, "Failed"), ("b".to_owned(), "b".to_owned()));
        assert_eq!(note("d", 1, "Running"), (String::new(), "b".to_owned()));
        assert_eq!(note("e", 1, "Failed"), ("e".to_owned(), "be".to_owned()), "it is older than one that is too many");
        assert_eq!(note("f", 3, "Failed"), ("f".to_owned(), "bef".to_owned()));
        // What goes by itself makes room for the youngest of the others.
        assert_eq!(note("a", 5, "Running"), (String::new(), "be".to_owned()));
        assert_eq!(note("b", 2, "Running"), (String::new(), "e".to_owned()));
    }
}
