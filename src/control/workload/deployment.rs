//! Deployments: ReplicaSets of one template after the other.
//!
//! After `pkg/controller/deployment` upstream. [`decide`](decide::decide) is pure: from a Deployment and its sets to the
//! sets as they should be. A step that loses against somebody else's write is not repeated but decided anew.
//!
//! ```text
//! decide ─┬─ paused or another size wanted ─► scale       sets in proportion
//!         ├─ RollingUpdate ────────────────► rolling     up by maxSurge, down by maxUnavailable
//!         ├─ Recreate ─────────────────────► recreate    all down, wait, all up
//!         └─ always ───────────────────────► status      numbers, Available, Progressing, ReplicaFailure
//! ```

mod annotations;
mod decide;
mod scale;
mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use client::events::{EventType, Recorder, Source, reference};
use client::reconcile::{self, Outcome, Queue};
use client::{Client, ClientError, DeleteOptions, Informer, Key, ListOptions, Patch, Scope, unless_overtaken};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use task::{SharedClock, Tasks};

use super::members::in_words;
use super::owned::{self, Owned, Routes};
use super::{has_ended, is_deleting, is_ending_namespace, selector};
use decide::{Picture, Plan, Step, decide};

/// Deployments worked on at a time.
const WORKERS: usize = 4;

struct Shell {
    client: Client,
    recorder: Recorder,
    clock: SharedClock,
    deployments: Informer<Deployment>,
    sets: Arc<Owned<ReplicaSet>>,
    pods: Arc<Owned<Pod>>,
}

/// Starts the controller.
pub(super) fn spawn(
    client: &Client,
    clock: &SharedClock,
    tasks: &Tasks,
    pods: &Arc<Owned<Pod>>,
    sets: &Arc<Owned<ReplicaSet>>,
    routes: &mut Routes,
) {
    let source = Source { component: "deployment-controller".to_owned(), host: String::new() };
    let shell = Arc::new(Shell {
        client: client.clone(),
        recorder: Recorder::spawn(client, tasks, SharedClock::clone(clock), source),
        clock: SharedClock::clone(clock),
        deployments: Informer::spawn(client, tasks, Scope::Cluster, ListOptions::default()),
        sets: Arc::clone(sets),
        pods: Arc::clone(pods),
    });
    let queue = Queue::default();
    routes.add(&queue, &shell.deployments);
    tasks.spawn("deployments", reconcile::feed(shell.deployments.subscribe(), queue.clone()));
    tasks.spawn("deployments-pods", feed_by_pods(Arc::clone(&shell), queue.clone()));
    tasks.spawn("deployment-controller", async move {
        shell.sets.informer().synced().await;
        shell.pods.informer().synced().await;
        reconcile::run(queue, WORKERS, move |key| sync(Arc::clone(&shell), key)).await;
    });
}

/// One that recreates its pods waits for the last former one to be gone, which no set tells of.
async fn feed_by_pods(shell: Arc<Shell>, queue: Queue<Key>) {
    let mut dirty = shell.pods.informer().subscribe();
    loop {
        let key = dirty.next().await;
        if shell.pods.informer().get(&key).is_some_and(|pod| !has_ended(&pod)) {
            continue;
        }
        let all = shell.deployments.snapshot();
        let keys = all.iter().filter(|one| recreates(one)).map(|one| Key::of(&one.metadata));
        keys.filter(|one| one.namespace == key.namespace).for_each(|one| queue.add(one));
    }
}

/// Whether pods of a new template wait for all former ones to be gone.
fn recreates(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

async fn sync(shell: Arc<Shell>, key: Key) -> Result<Outcome, ClientError> {
    let Some(deployment) = shell.deployments.get(&key) else { return Ok(Outcome::Done) };
    let selector = selector(&deployment.spec.as_ref().map(|spec| &spec.selector));
    if selector.is_everything() {
        let text = "This deployment is selecting all pods. A non-empty selector is required.";
        shell.recorder.event(&reference(&*deployment), EventType::Warning, "SelectingAll", text);
        return Ok(Outcome::Done);
    }
    let sets = shell.sets.claim(&shell.client, &*deployment, &selector, None).await?;
    let sets: Vec<ReplicaSet> = sets.into_iter().map(|set| (*set).clone()).collect();
    let running = if recreates(&deployment) { shell.running(&sets) } else { BTreeSet::new() };
    let plan = decide(Picture { deployment: &deployment, sets, running, now: shell.clock.now() });
    shell.carry_out(&deployment, plan).await
}

impl Shell {
    /// Uids of the sets of which pods have not ended yet.
    fn running(&self, sets: &[ReplicaSet]) -> BTreeSet<String> {
        let uids: BTreeSet<&str> = sets.iter().filter_map(|set| set.metadata.uid.as_deref()).collect();
        let pods = self.pods.informer().snapshot();
        let alive = pods.iter().filter(|pod| !has_ended(pod));
        let owners = alive.filter_map(|pod| owned::manager(&pod.metadata)).map(|owner| owner.uid.clone());
        owners.filter(|uid| uids.contains(uid.as_str())).collect()
    }

    async fn carry_out(&self, deployment: &Deployment, plan: Plan) -> Result<Outcome, ClientError> {
        let Plan { steps, mut status, again } = plan;
        let (mut own, mut failed) = (deployment.clone(), None);
        for step in &steps {
            match self.take(deployment, step).await {
                Ok(Taken::Done) => {}
                Ok(Taken::Noted(noted)) => own = *noted,
                // What was decided rests on an old picture; the informers will show the new one.
                Ok(Taken::Late) => return Ok(Outcome::Done),
                Ok(Taken::Collision) => {
                    status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
                    break;
                }
                Err(error) => {
                    if matches!(step, Step::Create(_)) {
                        status::creation_failed(&mut status, deployment, &in_words(&error), self.clock.now());
                    }
                    failed = Some(error);
                    break;
                }
            }
        }
        if Some(&status) != deployment.status.as_ref() {
            own.status = Some(status);
            unless_overtaken(self.client.replace_status(&own).await)?;
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(again.map_or(Outcome::Done, Outcome::Again)),
        }
    }

    async fn take(&self, deployment: &Deployment, step: &Step) -> Result<Taken, ClientError> {
        match step {
            Step::Create(set) => match self.client.create(set).await {
                Ok(created) => {
                    self.tell_scaled(deployment, &created, 0);
                    Ok(Taken::Done)
                }
                Err(error) if is_ending_namespace(&error) => Ok(Taken::Late),
                Err(error) if error.is_already_exists() => self.look_at_namesake(deployment, set).await,
                Err(error) => Err(error),
            },
            Step::Update { set, from } => match self.client.replace(set).await {
                Ok(_) => {
                    self.tell_scaled(deployment, set, *from);
                    Ok(Taken::Done)
                }
                Err(error) if error.is_overtaken() => Ok(Taken::Late),
                Err(error) => Err(error),
            },
            Step::Delete(set) => {
                let options = DeleteOptions::as_seen(&set.metadata);
                unless_overtaken(self.client.delete::<ReplicaSet>(&Key::of(&set.metadata), &options).await)
                    .map(|_| Taken::Done)
            }
            Step::Revision(revision) => {
                let annotations = json!({ annotations::REVISION: revision });
                let patch = json!({ "metadata": { "uid": deployment.metadata.uid, "annotations": annotations } });
                let noted = self.client.patch::<Deployment>(&Key::of(&deployment.metadata), &Patch::Merge(patch)).await;
                Ok(unless_overtaken(noted)?.map_or(Taken::Late, |noted| Taken::Noted(Box::new(noted))))
            }
        }
    }

    /// There is a set of the name that the new one was to have: ours, which the informer does not show yet, or of another
    /// template that has the same hash.
    async fn look_at_namesake(&self, deployment: &Deployment, wanted: &ReplicaSet) -> Result<Taken, ClientError> {
        let found = self.client.get_opt::<ReplicaSet>(&Key::of(&wanted.metadata)).await?;
        let Some(found) = found else { return Ok(Taken::Late) };
        let is_ours =
            owned::manager(&found.metadata).is_some_and(|owner| Some(&owner.uid) == deployment.metadata.uid.as_ref());
        Ok(if is_ours && decide::is_of(&found, deployment) { Taken::Late } else { Taken::Collision })
    }

    fn tell_scaled(&self, deployment: &Deployment, set: &ReplicaSet, from: i32) {
        let to = decide::size(set);
        if from == to {
            return;
        }
        let (direction, name) =
            (if to > from { "up" } else { "down" }, set.metadata.name.as_deref().unwrap_or_default());
        let text = format!("Scaled {direction} replica set {name} from {from} to {to}");
        self.recorder.event(&reference(deployment), EventType::Normal, "ScalingReplicaSet", &text);
    }
}

/// What came of a step.
enum Taken {
    Done,
    /// The Deployment as it is now.
    Noted(Box<Deployment>),
    /// The picture was old.
    Late,
    /// The name of the new set is that of another one.
    Collision,
}

/// Whether a set takes part in what happens.
fn is_in_use(set: &ReplicaSet) -> bool {
    !is_deleting(&set.metadata)
}
