//! ReplicaSets and ReplicationControllers: so many pods of one kind.
//!
//! After `pkg/controller/replicaset` upstream, where the older kind is served by the code of the newer one as well.
//! [`Seen`] is what is known, [`plan`] what is to be done, [`status`] what is to be told; all three are pure.

mod ranking;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use api::selector::LabelSelector;
use client::events::{Recorder, Source};
use client::reconcile::{self, Outcome, Queue};
use client::{Client, ClientError, Informer, Key, ListOptions, Object, Scope, unless_overtaken};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    Pod, PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;
use task::{SharedClock, Tasks};

use super::members::{BURST, Members, created, in_words, pod_of};
use super::owned::{Owned, Routes};
use super::unseen::PATIENCE;
use super::{availability, is_active, is_deleting, number, ready_since, selector};

/// Sets worked on at a time.
const WORKERS: usize = 8;

/// What both kinds have.
trait Set: Object {
    /// Whether its status tells of pods that are ending (KEP-3973).
    const TELLS_OF_ENDING: bool;

    fn wanted(&self) -> i32;
    fn min_ready(&self) -> i32;
    fn selector(&self) -> LabelSelector;
    fn template(&self) -> Option<PodTemplateSpec>;
    /// The status as it is written, in the form of the newer kind.
    fn status(&self) -> ReplicaSetStatus;
    fn with_status(&self, status: ReplicaSetStatus) -> Self;
}

impl Set for ReplicaSet {
    const TELLS_OF_ENDING: bool = true;

    fn wanted(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    fn min_ready(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
    }

    fn selector(&self) -> LabelSelector {
        let selector = selector(&self.spec.as_ref().map(|spec| &spec.selector));
        // One that selects everything would take pods that were never meant.
        if selector.is_everything() { LabelSelector::nothing() } else { selector }
    }

    fn template(&self) -> Option<PodTemplateSpec> {
        self.spec.as_ref()?.template.clone()
    }

    fn status(&self) -> ReplicaSetStatus {
        self.status.clone().unwrap_or_default()
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Self {
        Self { status: Some(status), ..self.clone() }
    }
}

impl Set for ReplicationController {
    const TELLS_OF_ENDING: bool = false;

    fn wanted(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    fn min_ready(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
    }

    fn selector(&self) -> LabelSelector {
        let labels = self.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default();
        if labels.is_empty() {
            return LabelSelector::nothing();
        }
        let labels = labels.into_iter().map(|(key, value)| (key, Value::String(value))).collect();
        LabelSelector::from_labels(Some(&labels))
    }

    fn template(&self) -> Option<PodTemplateSpec> {
        self.spec.as_ref()?.template.clone()
    }

    fn status(&self) -> ReplicaSetStatus {
        let own = self.status.clone().unwrap_or_default();
        let condition = |own: ReplicationControllerCondition| ReplicaSetCondition {
            last_transition_time: own.last_transition_time,
            message: own.message,
            reason: own.reason,
            status: own.status,
            type_: own.type_,
        };
        ReplicaSetStatus {
            available_replicas: own.available_replicas,
            conditions: own.conditions.map(|all| all.into_iter().map(condition).collect()),
            fully_labeled_replicas: own.fully_labeled_replicas,
            observed_generation: own.observed_generation,
            ready_replicas: own.ready_replicas,
            replicas: own.replicas,
            terminating_replicas: None,
        }
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Self {
        let condition = |own: ReplicaSetCondition| ReplicationControllerCondition {
            last_transition_time: own.last_transition_time,
            message: own.message,
            reason: own.reason,
            status: own.status,
            type_: own.type_,
        };
        let status = ReplicationControllerStatus {
            available_replicas: status.available_replicas,
            conditions: status.conditions.map(|all| all.into_iter().map(condition).collect()),
            fully_labeled_replicas: status.fully_labeled_replicas,
            observed_generation: status.observed_generation,
            ready_replicas: status.ready_replicas,
            replicas: status.replicas,
        };
        Self { status: Some(status), ..self.clone() }
    }
}

struct Shell<S> {
    members: Members,
    clock: SharedClock,
    sets: Informer<S>,
    pods: Arc<Owned<Pod>>,
}

/// Starts the controllers of both kinds.
pub(super) fn spawn(
    client: &Client,
    clock: &SharedClock,
    tasks: &Tasks,
    pods: &Arc<Owned<Pod>>,
    sets: &Informer<ReplicaSet>,
    routes: &mut Routes,
) {
    let older = Informer::<ReplicationController>::spawn(client, tasks, Scope::Cluster, ListOptions::default());
    spawn_one(client, clock, tasks, (pods, sets, "replicaset-controller"), routes);
    spawn_one(client, clock, tasks, (pods, &older, "replication-controller"), routes);
}

fn spawn_one<S: Set>(
    client: &Client,
    clock: &SharedClock,
    tasks: &Tasks,
    (pods, sets, name): (&Arc<Owned<Pod>>, &Informer<S>, &'static str),
    routes: &mut Routes,
) {
    let source = Source { component: name.to_owned(), host: String::new() };
    let recorder = Recorder::spawn(client, tasks, SharedClock::clone(clock), source);
    let members = Members { client: client.clone(), recorder, unseen: Default::default(), words: created };
    let shell =
        Arc::new(Shell { members, clock: SharedClock::clone(clock), sets: sets.clone(), pods: Arc::clone(pods) });
    let queue = Queue::default();
    routes.add(&queue, sets);
    tasks.spawn(name, reconcile::feed(sets.subscribe(), queue.clone()));
    tasks.spawn(name, async move {
        shell.pods.informer().synced().await;
        reconcile::run(queue, WORKERS, move |key| sync(Arc::clone(&shell), key)).await;
    });
}

async fn sync<S: Set>(shell: Arc<Shell<S>>, key: Key) -> Result<Outcome, ClientError> {
    let Some(set) = shell.sets.get(&key) else {
        shell.members.unseen.forget(&key);
        return Ok(Outcome::Done);
    };
    let is_settled = shell.members.settle(&shell.pods, &key).await?;
    let pods = shell.pods.claim(&shell.members.client, &*set, &set.selector(), None).await?;
    let mut failure = None;
    if is_settled && !is_deleting(set.metadata()) {
        failure = carry_out(&shell, &*set, &pods).await;
    }
    let now = shell.clock.now();
    let seen = Seen { min_ready: set.min_ready(), pods: &pods, now };
    let told = status(&seen, &*set, failure.as_ref());
    let again = next_look(&seen);
    if told != set.status() {
        unless_overtaken(shell.members.client.replace_status(&set.with_status(told)).await)?;
    }
    match failure {
        Some((_, error)) => Err(error),
        None if !is_settled => Ok(Outcome::Again(PATIENCE)),
        None => Ok(again.map_or(Outcome::Done, Outcome::Again)),
    }
}

/// Makes and removes pods; what was refused, with its reason word.
async fn carry_out<S: Set>(shell: &Shell<S>, set: &S, pods: &[Arc<Pod>]) -> Option<(&'static str, ClientError)> {
    match plan(set.wanted(), pods, shell.clock.now()) {
        Plan::Nothing => None,
        Plan::Create(count) => {
            let pod = pod_of(set, &set.template()?);
            let (_, error) = shell.members.create(set, vec![pod; count]).await;
            error.map(|error| ("FailedCreate", error))
        }
        Plan::Delete(pods) => {
            let error = shell.members.delete(set, pods.iter().map(|pod| &**pod)).await;
            error.map(|error| ("FailedDelete", error))
        }
    }
}

/// What is known of a set.
struct Seen<'a> {
    min_ready: i32,
    pods: &'a [Arc<Pod>],
    now: Timestamp,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
enum Plan {
    Nothing,
    Create(usize),
    Delete(Vec<Arc<Pod>>),
}

fn plan(wanted: i32, pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    let active: Vec<&Arc<Pod>> = pods.iter().filter(|pod| is_active(pod)).collect();
    let wanted = usize::try_from(wanted).unwrap_or(0);
    match (wanted, active.len()) {
        (wanted, there) if there < wanted => Plan::Create((wanted - there).min(BURST)),
        (wanted, there) if there > wanted => {
            let worst = ranking::worst_first(&active, now);
            Plan::Delete(worst.into_iter().take((there - wanted).min(BURST)).map(Arc::clone).collect())
        }
        _ => Plan::Nothing,
    }
}

/// When a pod becomes available though nothing changes.
fn next_look(seen: &Seen<'_>) -> Option<Duration> {
    let active = seen.pods.iter().filter(|pod| is_active(pod));
    active.filter_map(|pod| availability(pod, seen.min_ready, seen.now).1).min()
}

fn count<'a>(pods: impl Iterator<Item = &'a Arc<Pod>>) -> i32 {
    number(pods.count())
}

/// What is told of a set.
fn status<S: Set>(seen: &Seen<'_>, set: &S, failure: Option<&(&'static str, ClientError)>) -> ReplicaSetStatus {
    let template = set.template().and_then(|template| template.metadata).and_then(|metadata| metadata.labels);
    let template = template.unwrap_or_default();
    let is_labelled = |pod: &&Arc<Pod>| {
        let labels = pod.metadata.labels.as_ref();
        template.iter().all(|(key, value)| labels.is_some_and(|labels| labels.get(key) == Some(value)))
    };
    let active = || seen.pods.iter().filter(|pod| is_active(pod));
    let some = |number: i32| (number > 0).then_some(number);
    let former = set.status();
    let ending = || seen.pods.iter().filter(|pod| is_deleting(&pod.metadata) && !super::has_ended(pod));
    ReplicaSetStatus {
        replicas: count(active()),
        fully_labeled_replicas: some(count(active().filter(is_labelled))),
        ready_replicas: some(count(active().filter(|pod| ready_since(pod).is_some()))),
        available_replicas: some(count(active().filter(|pod| availability(pod, seen.min_ready, seen.now).0))),
        terminating_replicas: S::TELLS_OF_ENDING.then(|| count(ending())),
        observed_generation: set.metadata().generation,
        conditions: conditions(former.conditions, failure, seen.now),
    }
}

/// The condition `ReplicaFailure` is there while something is refused.
fn conditions(
    former: Option<Vec<ReplicaSetCondition>>,
    failure: Option<&(&'static str, ClientError)>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut all = former.unwrap_or_default();
    let place = all.iter().position(|condition| condition.type_ == "ReplicaFailure");
    match (place, failure) {
        (Some(place), None) => drop(all.remove(place)),
        (None, Some((reason, error))) => all.push(ReplicaSetCondition {
            type_: "ReplicaFailure".to_owned(),
            status: "True".to_owned(),
            reason: Some((*reason).to_owned()),
            message: Some(in_words(error)),
            last_transition_time: Some(Time(now)),
        }),
        (Some(_), Some(_)) | (None, None) => {}
    }
    (!all.is_empty()).then_some(all)
}
