//! StatefulSets: pods with names and volumes that stay theirs.
//!
//! After `pkg/controller/statefulset` upstream. [`decide`](decide::decide) is pure. Names are said, so that a pod or a claim can
//! never be made twice.

mod decide;
mod member;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::events::{EventType, Recorder, Source, reference};
use client::reconcile::{self, Outcome, Queue};
use client::{Client, ClientError, Informer, Key, ListOptions, Patch, Scope, unless_overtaken};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use serde_json::json;
use task::{SharedClock, Tasks};

use super::members::{Members, in_words};
use super::owned::{Owned, Routes};
use super::unseen::PATIENCE;
use super::{is_deleting, revision, selector};
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
    let selector = selector(&spec.selector);
    if selector.is_everything() {
        return Ok(Outcome::Done);
    }
    let is_settled = shell.members.settle(&shell.pods, &key).await?;
    let client = &shell.members.client;
    let pods = shell.pods.claim(client, &*set, &selector, None).await?;
    let mut status = set.status.clone().unwrap_or_default();
    let template = (&spec.template, status.collision_count);
    let history = shell.members.history(&shell.revisions, &*set, &selector, template).await?;
    if !shell.members.keep(&history).await? {
        // The hash is another template's: the next one is taken.
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        shell.tell(&set, status).await?;
        return Ok(Outcome::Done);
    }
    let mut plan = decide(&Picture { set: &set, pods: &pods, history: &history, is_settled, now: shell.clock.now() });
    for old in revision::surplus(&history.former, spec.revision_history_limit, |hash| plan.live.contains(hash)) {
        shell.members.forget(old).await?;
    }
    let again = plan.again;
    let failure = shell.carry_out(&set, &mut plan).await;
    shell.tell(&set, plan.status).await?;
    failure?;
    Ok(if is_settled { again.map_or(Outcome::Done, Outcome::Again) } else { Outcome::Again(PATIENCE) })
}

impl Shell {
    async fn carry_out(&self, set: &StatefulSet, plan: &mut Plan) -> Result<(), ClientError> {
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
        self.members.create(set, std::mem::take(&mut plan.create)).await.1.map_or(Ok(()), Err)
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
        unless_overtaken(self.members.client.replace_status(&told).await).map(drop)
    }
}
