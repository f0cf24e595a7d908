//! StatefulSets: pods with names and volumes that stay theirs.
//!
//! After `pkg/controller/statefulset` upstream. [`decide`](decide::decide) is pure. Names are said, so that a pod or a claim can
//! never be made twice.

mod decide;
mod member;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use api::selector::LabelSelector;
use client::events::{EventType, Recorder, Source, reference};
use client::reconcile::{self, Outcome, Queue};
use client::{Client, ClientError, Informer, Key, ListOptions, Patch, Scope};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use serde_json::json;
use task::{SharedClock, Tasks};

use super::members::{Members, in_words};
use super::owned::{Owned, Routes};
use super::unseen::PATIENCE;
use super::{is_deleting, revision};
use decide::{Picture, Plan, decide};

/// StatefulSets worked on at a time.
const WORKERS: usize = 2;

struct Shell {
    members: Members,
    clock: SharedClock,
    sets: Informer<StatefulSet>,
    pods: Arc<Owned<Pod>>,
    revisions: Arc<Owned<ControllerRevision>>,
}

/// Starts the controller.
pub(super) fn spawn(
    client: &Client,
    clock: &SharedClock,
    tasks: &Tasks,
    (pods, revisions): (&Arc<Owned<Pod>>, &Arc<Owned<ControllerRevision>>),
    (of_pods, of_revisions): (&mut Routes, &mut Routes),
) {
    let source = Source { component: "statefulset-controller".to_owned(), host: String::new() };
    let recorder = Recorder::spawn(client, tasks, SharedClock::clone(clock), source);
    let shell = Arc::new(Shell {
        members: Members { client: client.clone(), recorder, unseen: Default::default(), words },
        clock: SharedClock::clone(clock),
        sets: Informer::spawn(client, tasks, Scope::Cluster, ListOptions::default()),
        pods: Arc::clone(pods),
        revisions: Arc::clone(revisions),
    });
    let queue = Queue::default();
    of_pods.add(&queue, &shell.sets);
    of_revisions.add(&queue, &shell.sets);
    tasks.spawn("statefulsets", reconcile::feed(shell.sets.subscribe(), queue.clone()));
    tasks.spawn("statefulset-controller", async move {
        shell.pods.informer().synced().await;
        shell.revisions.informer().synced().await;
        reconcile::run(queue, WORKERS, move |key| sync(Arc::clone(&shell), key)).await;
    });
}

fn words(what: &'static str, pod: &str, set: &str) -> String {
    format!("{what} Pod {pod} in StatefulSet {set} successful")
}

async fn sync(shell: Arc<Shell>, key: Key) -> Result<Outcome, ClientError> {
    let Some(set) = shell.sets.get(&key) else {
        shell.members.unseen.forget(&key);
        return Ok(Outcome::Done);
    };
    let (Some(spec), false) = (&set.spec, is_deleting(&set.metadata)) else { return Ok(Outcome::Done) };
    let selector = serde_json::to_value(&spec.selector).unwrap_or_default();
    let selector = LabelSelector::from_object(&selector).unwrap_or_else(|_| LabelSelector::nothing());
    if selector.is_everything() {
        return Ok(Outcome::Done);
    }
    let is_settled = shell.members.settle(&shell.pods, &key).await?;
    let client = &shell.members.client;
    let pods = shell.pods.claim(client, &*set, &selector, None).await?;
    let revisions = shell.revisions.claim(client, &*set, &selector, None).await?;
    let revisions = revisions.into_iter().map(|one| (*one).clone()).collect();
    let mut status = set.status.clone().unwrap_or_default();
    let history = revision::history(&*set, &spec.template, status.collision_count, revisions);
    if !shell.members.keep(&history).await? {
        // The hash is another template's: the next one is taken.
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        shell.tell(&set, status).await?;
        return Ok(Outcome::Done);
    }
    let plan = decide(&Picture { set: &set, pods: &pods, history: &history, is_settled, now: shell.clock.now() });
    let live: BTreeSet<String> = plan.live.clone();
    for old in revision::surplus(&history.former, spec.revision_history_limit, |hash| live.contains(hash)) {
        shell.members.forget(old).await?;
    }
    let again = plan.again;
    let failure = shell.carry_out(&set, &plan).await;
    shell.tell(&set, plan.status).await?;
    failure?;
    Ok(if is_settled { again.map_or(Outcome::Done, Outcome::Again) } else { Outcome::Again(PATIENCE) })
}

impl Shell {
    async fn carry_out(&self, set: &StatefulSet, plan: &Plan) -> Result<(), ClientError> {
        for (pod, claim) in &plan.claims {
            self.make_claim(set, pod, claim).await?;
        }
        for (claim, owner) in &plan.bequeathed {
            let patch = json!({ "metadata": { "ownerReferences": [owner] } });
            match self.members.client.patch::<PersistentVolumeClaim>(claim, &Patch::Strategic(patch)).await {
                Err(error) if error.is_not_found() => {}
                result => drop(result?),
            }
        }
        if let Some(error) = self.members.delete(set, plan.delete.iter().map(|pod| &**pod)).await {
            return Err(error);
        }
        self.members.create(set, plan.create.clone()).await.1.map_or(Ok(()), Err)
    }

    /// Makes a claim that is not there.
    async fn make_claim(&self, set: &StatefulSet, pod: &str, claim: &PersistentVolumeClaim) -> Result<(), ClientError> {
        let client = &self.members.client;
        if client.get_opt::<PersistentVolumeClaim>(&Key::of(&claim.metadata)).await?.is_some() {
            return Ok(());
        }
        let name = |text: &Option<String>| text.clone().unwrap_or_default();
        let (own, set_name) = (name(&claim.metadata.name), name(&set.metadata.name));
        match client.create(claim).await {
            Ok(_) => {
                let text = format!("create Claim {own} Pod {pod} in StatefulSet {set_name} success");
                self.members.recorder.event(&reference(set), EventType::Normal, "SuccessfulCreate", &text);
                Ok(())
            }
            Err(error) if error.is_already_exists() => Ok(()),
            Err(error) => {
                let text = format!(
                    "create Claim {own} for Pod {pod} in StatefulSet {set_name} failed error: {}",
                    in_words(&error)
                );
                self.members.recorder.event(&reference(set), EventType::Warning, "FailedCreate", &text);
                Err(error)
            }
        }
    }

    async fn tell(&self, set: &StatefulSet, status: StatefulSetStatus) -> Result<(), ClientError> {
        if Some(&status) == set.status.as_ref() {
            return Ok(());
        }
        let told = StatefulSet { status: Some(status), ..set.clone() };
        match self.members.client.replace_status(&told).await {
            // Somebody was faster; the informer will tell of the new state.
            Err(error) if error.is_overtaken() => Ok(()),
            result => result.map(drop),
        }
    }
}
