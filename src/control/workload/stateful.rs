//! StatefulSets: pods with names and volumes that stay theirs.
//!
//! After `pkg/controller/statefulset` upstream. [`decide`](decide::decide) is pure. Names are said, so that a pod or a claim can
//! never be made twice.

mod decide;
mod member;
mod retention;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use client::events::{EventType, Recorder, Source, reference};
use client::reconcile::{self, Outcome, Queue};
use client::{Client, ClientError, Informer, Key, ListOptions, Patch, Scope, unless_overtaken};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use serde_json::json;
use task::{SharedClock, Tasks};

use super::members::{Deed, Members, in_words};
use super::owned::{Owned, Routes};
use super::unseen::PATIENCE;
use super::{is_deleting, revision, selector};
use decide::{Claims, Inheritance, Picture, Plan, decide};

/// StatefulSets worked on at a time.
const WORKERS: usize = 2;

struct Shell {
    members: Members,
    clock: SharedClock,
    sets: Informer<StatefulSet>,
    pods: Arc<Owned<Pod>>,
    revisions: Arc<Owned<ControllerRevision>>,
    claims: Informer<PersistentVolumeClaim>,
}

/// Starts the controller.
pub(super) fn spawn(
    client: &Client,
    clock: &SharedClock,
    tasks: &Tasks,
    (pods, revisions): (&Arc<Owned<Pod>>, &Arc<Owned<ControllerRevision>>),
    (of_pods, of_revisions): (&mut Routes, &mut Routes),
    claims: &Informer<PersistentVolumeClaim>,
) {
    let source = Source { component: "statefulset-controller".to_owned(), host: String::new() };
    let recorder = Recorder::spawn(client, tasks, SharedClock::clone(clock), source);
    let shell = Arc::new(Shell {
        members: Members { client: client.clone(), recorder, unseen: Default::default(), words },
        clock: SharedClock::clone(clock),
        sets: Informer::spawn(client, tasks, Scope::Cluster, ListOptions::default()),
        pods: Arc::clone(pods),
        revisions: Arc::clone(revisions),
        claims: claims.clone(),
    });
    let queue = Queue::default();
    of_pods.add(&queue, &shell.sets);
    of_revisions.add(&queue, &shell.sets);
    tasks.spawn("statefulsets", reconcile::feed(shell.sets.subscribe(), queue.clone()));
    tasks.spawn("statefulset-controller", async move {
        shell.pods.informer().synced().await;
        shell.revisions.informer().synced().await;
        shell.claims.synced().await;
        reconcile::run(queue, WORKERS, move |key| sync(Arc::clone(&shell), key)).await;
    });
}

fn words(deed: &Deed<'_>, refusal: Option<&str>) -> String {
    let (verb, pod, set) = (deed.verb, deed.pod, deed.owner);
    let end = refusal.map_or_else(|| "successful".to_owned(), |refusal| format!("failed error: {refusal}"));
    format!("{verb} Pod {pod} in StatefulSet {set} {end}")
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
    let claims = shell.claims_of(&set, &pods).await?;
    let now = shell.clock.now();
    let mut plan = decide(&Picture { set: &set, pods: &pods, history: &history, claims: &claims, is_settled, now });
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
        for (set_pod, claim) in &plan.awaited {
            let deed = Deed { verb: "create", pod: set_pod, owner: set.metadata.name.as_deref().unwrap_or_default() };
            let text = words(&deed, Some(&format!("pvc {claim} is being deleted")));
            self.members.recorder.event(&reference(set), EventType::Warning, "FailedCreate", &text);
        }
        // A pod that is too much goes only after its claims have been told, so that they go with it.
        for one in &plan.bequeathed {
            self.bequeath(one).await?;
        }
        if let Some(error) = self.members.delete(set, plan.delete.iter().map(|pod| &**pod)).await {
            return Err(error);
        }
        self.members.create(set, std::mem::take(&mut plan.create)).await.1.map_or(Ok(()), Err)
    }

    /// The claims of a set's pods, as far as they are there. Those of pods that are there are asked for if they cannot be
    /// seen: they may have been made only now.
    async fn claims_of(&self, set: &StatefulSet, pods: &[Arc<Pod>]) -> Result<Claims, ClientError> {
        let mut found = Claims::default();
        let Some(spec) = &set.spec else { return Ok(found) };
        let present: Vec<i32> = pods.iter().filter_map(|pod| member::ordinal(set, pod)).collect();
        let ordinals: BTreeSet<i32> = member::ordinals(spec).chain(present.iter().copied()).collect();
        for ordinal in ordinals {
            for member::Claim { key, .. } in member::claims(set, spec, ordinal) {
                let claim = match self.claims.get(&key) {
                    None if present.contains(&ordinal) => self.members.client.get_opt(&key).await?.map(Arc::new),
                    known => known,
                };
                found.extend(claim.map(|claim| (key.name, claim)));
            }
        }
        Ok(found)
    }

    async fn bequeath(&self, one: &Inheritance) -> Result<(), ClientError> {
        let seen = &one.claim.metadata;
        let patch = Patch::Merge(json!({ "metadata": {
            "uid": seen.uid, "resourceVersion": seen.resource_version, "ownerReferences": one.owners,
        } }));
        match self.members.client.patch::<PersistentVolumeClaim>(&Key::of(seen), &patch).await {
            Err(error) if error.is_not_found() => Ok(()),
            result => result.map(drop),
        }
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
