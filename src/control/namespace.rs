//! Deletes what is in a namespace that is being deleted, then lets the namespace go.
//!
//! After `pkg/controller/namespace/deletion`: pods first, then everything else; conditions of the namespace say what
//! is in the way. What kinds there are is asked of the server's discovery, so kinds that came at run time are included.
//! [`decide`] is pure; `contents.rs` looks. Invariant: a namespace is finalized only after a listing of every kind in it
//! was empty.

mod contents;
mod decide;

#[cfg(test)]
mod tests;

use std::time::Duration;

use client::reconcile::{self, Outcome, Queue};
use client::{Client, ClientError, Informer, Key, Patch};
use http::Method;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use serde_json::{Value, json};
use task::{SharedClock, Tasks};

use contents::observe;
pub use decide::{Contents, Remaining, Resource, Verdict, decide};

/// Namespaces worked on at a time.
const WORKERS: usize = 4;
/// How long to wait for what is on its way out, other than pods, which announce their end.
const PATIENCE: Duration = Duration::from_secs(2);
/// Rounds of deleting and looking again: pods, everything else, and what the deletion of these brought to light.
const ROUNDS: usize = 3;
/// The finalizer that is ours.
const FINALIZER: &str = "kubernetes";

/// Starts the controller.
pub fn spawn(
    client: &Client,
    clock: &SharedClock,
    tasks: &Tasks,
    namespaces: &Informer<Namespace>,
    pods: &Informer<Pod>,
) {
    let queue = Queue::default();
    tasks.spawn("namespace-feed", reconcile::feed(namespaces.subscribe(), queue.clone()));
    tasks.spawn("namespace-pods", feed_by_pods(namespaces.clone(), pods.clone(), queue.clone()));
    let (client, clock, namespaces) = (client.clone(), SharedClock::clone(clock), namespaces.clone());
    let work = reconcile::run(queue, WORKERS, move |key| {
        let (client, clock, namespaces) = (client.clone(), SharedClock::clone(&clock), namespaces.clone());
        async move {
            match namespaces.get(&key) {
                Some(namespace) if is_ours(&namespace) => sync(&client, &clock, &namespace).await,
                _ => Ok(Outcome::Done),
            }
        }
    });
    tasks.spawn("namespace-controller", work);
}

/// A pod that has gone may have been the last thing in its namespace.
async fn feed_by_pods(namespaces: Informer<Namespace>, pods: Informer<Pod>, queue: Queue<Key>) {
    let mut dirty = pods.subscribe();
    loop {
        let pod = dirty.next().await;
        let key = Key::cluster(&pod.namespace);
        if pods.get(&pod).is_none() && namespaces.get(&key).is_some_and(|namespace| is_ours(&namespace)) {
            queue.add(key);
        }
    }
}

fn finalizers(namespace: &Namespace) -> &[String] {
    namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_deref()).unwrap_or_default()
}

fn is_ours(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_some() && finalizers(namespace).iter().any(|name| name == FINALIZER)
}

async fn sync(client: &Client, clock: &SharedClock, namespace: &Namespace) -> Result<Outcome, ClientError> {
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    let mut contents = observe(client, name).await?;
    for _ in 0..ROUNDS {
        let delete = decide(&contents).delete;
        if delete.is_empty() {
            break;
        }
        let mut failures = Vec::new();
        for resource in &delete {
            if let Err(error) = contents::delete_all(client, name, resource).await {
                failures.push(format!("{}: {error}", resource.name));
            }
        }
        contents = observe(client, name).await?;
        contents.failures.extend(failures);
    }
    let verdict = decide(&contents);
    set_conditions(client, clock, namespace, &verdict).await?;
    if verdict.is_empty {
        finalize(client, namespace).await?;
        return Ok(Outcome::Done);
    }
    Ok(Outcome::Again(PATIENCE))
}

async fn set_conditions(
    client: &Client,
    clock: &SharedClock,
    namespace: &Namespace,
    verdict: &Verdict,
) -> Result<(), ClientError> {
    let former = namespace.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let conditions = decide::conditions(former, verdict, clock.now());
    if conditions == former {
        return Ok(());
    }
    let patch = Patch::Merge(json!({"status": {"conditions": conditions}}));
    match client.patch_status::<Namespace>(&Key::of(&namespace.metadata), &patch).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

async fn finalize(client: &Client, namespace: &Namespace) -> Result<(), ClientError> {
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    let rest: Vec<&String> = finalizers(namespace).iter().filter(|name| *name != FINALIZER).collect();
    let body: Value = json!({
        "kind": "Namespace", "apiVersion": "v1",
        "metadata": {"name": name, "uid": namespace.metadata.uid},
        "spec": {"finalizers": rest},
    });
    match client.request(Method::PUT, &format!("/api/v1/namespaces/{name}/finalize"), Some(&body)).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
