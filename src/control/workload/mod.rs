//! Controllers of workloads: sets of pods, and what is made of such sets.
//!
//! Each has one pure file that says what is to be done ([`replicas`], [`deployment`]); what they share stands beside it:
//! who manages what ([`owned`]), what was done and cannot be seen yet ([`unseen`]), how pods are made and removed
//! ([`members`]). Invariant: no controller acts on a picture that lacks what it has done itself.

mod cronjob;
mod daemon;
mod deployment;
mod hash;
mod job;
mod members;
pub(crate) mod owned;
mod replicas;
mod revision;
mod rounding;
mod stateful;
pub(crate) mod unseen;

use std::sync::Arc;
use std::time::Duration;

use api::selector::LabelSelector;
use client::{Client, ClientError, Informer, ListOptions, Scope};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, ReplicaSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use task::{SharedClock, Tasks};

use owned::{Owned, Routes};

/// What others follow already.
pub struct Watched<'a> {
    /// All pods.
    pub pods: &'a Informer<Pod>,
    /// All nodes.
    pub nodes: &'a Informer<Node>,
    /// All claims.
    pub claims: &'a Informer<PersistentVolumeClaim>,
}

/// Starts the controllers.
pub fn spawn(client: &Client, clock: &SharedClock, tasks: &Tasks, Watched { pods, nodes, claims }: Watched<'_>) {
    let sets: Informer<ReplicaSet> = Informer::spawn(client, tasks, Scope::Cluster, ListOptions::default());
    let jobs: Informer<Job> = Informer::spawn(client, tasks, Scope::Cluster, ListOptions::default());
    let revisions: Informer<ControllerRevision> =
        Informer::spawn(client, tasks, Scope::Cluster, ListOptions::default());
    let revisions = Arc::new(Owned::new(revisions));
    let mut of_revisions = Routes::default();
    let jobs = Arc::new(Owned::new(jobs));
    let (pods, sets) = (Arc::new(Owned::new(pods.clone())), Arc::new(Owned::new(sets)));
    let (mut of_pods, mut of_sets, mut of_jobs) = (Routes::default(), Routes::default(), Routes::default());
    replicas::spawn(client, clock, tasks, &pods, sets.informer(), &mut of_pods);
    job::spawn(client, clock, tasks, &pods, jobs.informer(), &mut of_pods);
    let objects = daemon::Objects { pods: &pods, nodes, revisions: &revisions };
    daemon::spawn(client, clock, tasks, &objects, (&mut of_pods, &mut of_revisions));
    stateful::spawn(client, clock, tasks, (&pods, &revisions), (&mut of_pods, &mut of_revisions), claims);
    cronjob::spawn(client, clock, tasks, &jobs, &mut of_jobs);
    deployment::spawn(client, clock, tasks, &pods, &sets, &mut of_sets);
    tasks.spawn("owned-pods", owned::follow(pods, of_pods));
    tasks.spawn("owned-revisions", owned::follow(revisions, of_revisions));
    tasks.spawn("owned-jobs", owned::follow(jobs, of_jobs));
    tasks.spawn("owned-replicasets", owned::follow(sets, of_sets));
}

/// An object's selector. One that cannot be read, which the API server does not admit, selects nothing.
pub(crate) fn selector(selector: &impl Serialize) -> LabelSelector {
    let value = serde_json::to_value(selector).unwrap_or_default();
    LabelSelector::from_object(&value).unwrap_or_else(|_| LabelSelector::nothing())
}

/// A number of things as the API has numbers.
fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Whether an object is on its way out.
pub(crate) fn is_deleting(metadata: &ObjectMeta) -> bool {
    metadata.deletion_timestamp.is_some()
}

/// Whether a pod counts among those that should be there: it has not ended and is not being removed.
fn is_active(pod: &Pod) -> bool {
    !is_deleting(&pod.metadata) && !has_ended(pod)
}

pub(crate) fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Since when a pod has been ready, if it is.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    let since = ready.last_transition_time.as_ref().map_or(Timestamp::MIN, |time| time.0);
    (ready.status == "True").then_some(since)
}

/// Whether a pod has been ready for so long that it counts as available; if not yet, how long it takes.
fn availability(pod: &Pod, min_ready: i32, now: Timestamp) -> (bool, Option<Duration>) {
    let Some(since) = ready_since(pod) else { return (false, None) };
    let wanted = Duration::from_secs(u64::try_from(min_ready).unwrap_or(0));
    if wanted.is_zero() {
        return (true, None);
    }
    let ready_for = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    match wanted.checked_sub(ready_for).filter(|left| !left.is_zero()) {
        Some(left) => (false, Some(left)),
        None => (true, None),
    }
}

/// Whether something was refused because its namespace is being deleted, which is nobody's fault.
fn is_ending_namespace(error: &ClientError) -> bool {
    let details = error.api().and_then(|error| error.details.as_ref());
    details.is_some_and(|details| details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating"))
}
