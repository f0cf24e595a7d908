//! Keeps the status of PodDisruptionBudgets: how many of their pods there are, should be healthy, are, and may go.
//!
//! After `pkg/controller/disruption`. Evictions spend from this status and note the pod in it; this controller takes the
//! note away once the pod is going, or has not gone within [`decide::PATIENCE`]. [`decide`] is pure. Invariant: a budget
//! that cannot be worked out allows nothing.

mod decide;
mod scale;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::resources::disruption;
use api::selector::LabelSelector;
use client::events::{EventType, Recorder, Source, reference};
use client::reconcile::{self, Outcome, Queue};
use client::{Client, ClientError, Informer, Key, ListOptions, Scope, unless_overtaken};
use http::Method;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::Value;
use task::{SharedClock, Tasks};

use decide::{Member, Scales, Verdict, decide};

/// Budgets worked on at a time.
const WORKERS: usize = 2;

struct Shell {
    client: Client,
    clock: SharedClock,
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<Pod>,
    recorder: Recorder,
}

/// Starts the controller.
pub fn spawn(client: &Client, clock: &SharedClock, tasks: &Tasks, pods: &Informer<Pod>) {
    let source = Source { component: "controllermanager".to_owned(), host: String::new() };
    let shell = Arc::new(Shell {
        client: client.clone(),
        clock: SharedClock::clone(clock),
        budgets: Informer::spawn(client, tasks, Scope::Cluster, ListOptions::default()),
        pods: pods.clone(),
        recorder: Recorder::spawn(client, tasks, SharedClock::clone(clock), source),
    });
    let queue = Queue::default();
    tasks.spawn("disruption-budgets", reconcile::feed(shell.budgets.subscribe(), queue.clone()));
    tasks.spawn("disruption-pods", feed_by_pods(Arc::clone(&shell), queue.clone()));
    tasks.spawn("disruption-controller", async move {
        shell.pods.synced().await;
        reconcile::run(queue, WORKERS, move |key| sync(Arc::clone(&shell), key)).await;
    });
}

/// A pod that changes concerns all budgets of its namespace: its labels may have been others before.
async fn feed_by_pods(shell: Arc<Shell>, queue: Queue<Key>) {
    let mut dirty = shell.pods.subscribe();
    loop {
        let pod = dirty.next().await;
        let keys = shell.budgets.snapshot().into_iter().map(|budget| Key::of(&budget.metadata));
        keys.filter(|key| key.namespace == pod.namespace).for_each(|key| queue.add(key));
    }
}

async fn sync(shell: Arc<Shell>, key: Key) -> Result<Outcome, ClientError> {
    let Some(budget) = shell.budgets.get(&key) else { return Ok(Outcome::Done) };
    let value = as_value(&*budget);
    let pods = shell.covered(&value, &key.namespace);
    let scales = match decide::wants_scales(&value) {
        true => scale::of_pods(&shell.client, &pods).await?,
        false => Ok(Scales::default()),
    };
    let now = shell.clock.now();
    let members: Vec<Member> = pods.iter().map(decide::member).collect();
    let verdict = match scales {
        Ok(scales) => {
            shell.tell_unmanaged(&budget, &scales);
            decide(&value, &members, &scales, now)
        }
        Err(message) => {
            let text = format!("Failed to calculate the number of expected pods: {message}");
            shell.recorder.event(&reference(&*budget), EventType::Warning, "CalculateExpectedPodCountFailed", &text);
            let mut status = value["status"].clone();
            status["disruptionsAllowed"] = 0.into();
            disruption::failed_condition(&mut status, &message, &decide::stamp(now));
            Verdict { status, again: None }
        }
    };
    if verdict.status != value["status"] {
        // Told when it is news: all pods of the namespace lead here, also those that the budget never covered.
        if pods.is_empty() {
            shell.recorder.event(&reference(&*budget), EventType::Normal, "NoPods", "No matching pods found");
        }
        let mut new = value;
        new["status"] = verdict.status;
        let path = format!("/apis/policy/v1/namespaces/{}/poddisruptionbudgets/{}/status", key.namespace, key.name);
        if unless_overtaken(shell.client.request(Method::PUT, &path, Some(&new)).await)?.is_none() {
            return Ok(Outcome::Done);
        }
    }
    Ok(verdict.again.map_or(Outcome::Done, Outcome::Again))
}

impl Shell {
    /// The pods that a budget selects.
    fn covered(&self, budget: &Value, namespace: &str) -> Vec<Value> {
        let Ok(selector) = LabelSelector::from_object(&budget["spec"]["selector"]) else { return Vec::new() };
        let inside = |pod: &&Arc<Pod>| pod.metadata.namespace.as_deref() == Some(namespace);
        let pods = self.pods.snapshot();
        let pods = pods.iter().filter(inside).map(|pod| as_value(&**pod));
        pods.filter(|pod| selector.matches(pod["metadata"]["labels"].as_object())).collect()
    }

    fn tell_unmanaged(&self, budget: &PodDisruptionBudget, scales: &Scales) {
        if scales.unmanaged.is_empty() {
            return;
        }
        let text = "Pods selected by this PodDisruptionBudget were found to be unmanaged. As a result, the status of the \
                    PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods \
                    please set \".spec.minAvailable\" field of the PDB to an integer value.";
        self.recorder.event(&reference(budget), EventType::Warning, "UnmanagedPods", text);
    }
}

fn as_value<T: serde::Serialize>(object: &T) -> Value {
    serde_json::to_value(object).expect("types of the API are maps with text keys")
}

/// How many replicas each controller wants, by uid.
type Wanted = BTreeMap<String, i64>;
