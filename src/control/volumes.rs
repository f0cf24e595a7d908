//! Binds PersistentVolumeClaims to PersistentVolumes, says what has become of both, and keeps them while they are in use.
//!
//! After `pkg/controller/volume/persistentvolume`: a volume refers to its claim before the claim names it, so that of
//! two claims that want one volume the first write decides. [`claim`] and [`volume`] are pure. It makes no volumes, but asks
//! those who do, as [`crate::localpath`]; it neither empties nor deletes any, and says so. A claim of a class that waits for its first
//! consumer is bound only to a volume that refers to it already, which is for the scheduler to write. Invariant: a claim
//! that was bound once is never bound to another volume.

mod claim;
mod ephemeral;
mod matching;
mod protection;
mod step;
#[cfg(test)]
mod tests;
mod volume;

use std::fmt;
use std::sync::Arc;

use client::events::{Recorder, Source};
use client::reconcile::{self, Outcome, Queue};
use client::{Client, ClientError, Informer, Key, ListOptions, Scope, unless_overtaken};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::json;
use task::{SharedClock, Tasks};

pub(crate) use claim::{PROVISIONER, keep_for};
pub(crate) use matching::{
    SELECTED_NODE, annotation, find, is_bound, is_exclusive, phase, requested, said_class, volume_name,
};
pub(crate) use protection::claims_of;
pub(crate) use volume::PROVISIONED_BY;

use matching::{BIND_COMPLETED, claim_ref};
use step::Step;

/// Live copies of what is worked on, which others may look at as well.
#[derive(Clone)]
pub struct Informers {
    pub(crate) claims: Informer<PersistentVolumeClaim>,
    pub(crate) volumes: Informer<PersistentVolume>,
    pub(crate) classes: Informer<StorageClass>,
}

struct Shell {
    client: Client,
    clock: SharedClock,
    recorder: Recorder,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
    pods: Informer<Pod>,
    queue: Queue<Target>,
}

/// What is worked on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Target {
    Claim(Key),
    Volume(Key),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(key) => write!(f, "claim {key}"),
            Self::Volume(key) => write!(f, "volume {key}"),
        }
    }
}

/// Starts the controller, and the one that makes the claims of single pods.
pub fn spawn(client: &Client, clock: &SharedClock, tasks: &Tasks, pods: &Informer<Pod>) -> Informers {
    ephemeral::spawn(client, clock, tasks, pods);
    let source = Source { component: "persistentvolume-controller".to_owned(), host: String::new() };
    let shell = Arc::new(Shell {
        client: client.clone(),
        clock: SharedClock::clone(clock),
        recorder: Recorder::spawn(client, tasks, SharedClock::clone(clock), source),
        claims: Informer::spawn(client, tasks, Scope::Cluster, ListOptions::default()),
        volumes: Informer::spawn(client, tasks, Scope::Cluster, ListOptions::default()),
        classes: Informer::spawn(client, tasks, Scope::Cluster, ListOptions::default()),
        pods: pods.clone(),
        queue: Queue::default(),
    });
    let informers =
        Informers { claims: shell.claims.clone(), volumes: shell.volumes.clone(), classes: shell.classes.clone() };
    tasks.spawn("volumes-claims", feed_by_claims(Arc::clone(&shell)));
    tasks.spawn("volumes-volumes", feed_by_volumes(Arc::clone(&shell)));
    tasks.spawn("volumes-classes", feed_by_classes(Arc::clone(&shell)));
    tasks.spawn("volumes-pods", feed_by_pods(Arc::clone(&shell)));
    tasks.spawn("volumes-controller", async move {
        shell.claims.synced().await;
        shell.volumes.synced().await;
        shell.classes.synced().await;
        shell.pods.synced().await;
        // One at a time: two claims would only quarrel about the same volume.
        reconcile::run(shell.queue.clone(), 1, move |target| sync(Arc::clone(&shell), target)).await;
    });
    informers
}

/// A claim concerns itself and the volume that refers to it, if it has gone.
async fn feed_by_claims(shell: Arc<Shell>) {
    let mut dirty = shell.claims.subscribe();
    loop {
        let key = dirty.next().await;
        let volumes = shell.volumes.snapshot();
        for volume in volumes.iter().filter(|volume| claim_key(volume).as_ref() == Some(&key)) {
            shell.queue.add(Target::Volume(Key::of(&volume.metadata)));
        }
        shell.queue.add(Target::Claim(key));
    }
}

/// A volume concerns itself, the claims that name it, and all that have none yet.
async fn feed_by_volumes(shell: Arc<Shell>) {
    let mut dirty = shell.volumes.subscribe();
    loop {
        let key = dirty.next().await;
        shell.add_claims(|claim| volume_name(claim) == key.name || is_unbound(claim));
        shell.queue.add(Target::Volume(key));
    }
}

async fn feed_by_classes(shell: Arc<Shell>) {
    let mut dirty = shell.classes.subscribe();
    loop {
        dirty.batch().await;
        shell.add_claims(is_unbound);
    }
}

/// A pod concerns the claims that wait for it, and one that has gone those that it kept from going.
async fn feed_by_pods(shell: Arc<Shell>) {
    let mut dirty = shell.pods.subscribe();
    loop {
        let key = dirty.next().await;
        let pod = shell.pods.get(&key);
        shell.add_claims(|claim| {
            let is_used = || pod.as_ref().is_some_and(|pod| protection::uses(pod, claim));
            claim.metadata.namespace.as_ref() == Some(&key.namespace)
                && (claim.metadata.deletion_timestamp.is_some() || is_unbound(claim) && is_used())
        });
    }
}

fn is_unbound(claim: &PersistentVolumeClaim) -> bool {
    annotation(&claim.metadata, BIND_COMPLETED).is_none()
}

fn claim_key(volume: &PersistentVolume) -> Option<Key> {
    let reference = claim_ref(volume)?;
    Some(Key::namespaced(reference.namespace.as_deref()?, reference.name.as_deref()?))
}

async fn sync(shell: Arc<Shell>, target: Target) -> Result<Outcome, ClientError> {
    let steps = match &target {
        Target::Claim(key) => shell.claim_steps(key).await?,
        Target::Volume(key) => shell.volume_steps(key).await?,
    };
    for step in steps {
        if unless_overtaken(shell.take(step).await)?.is_none() {
            break;
        }
    }
    Ok(Outcome::Done)
}

impl Shell {
    fn add_claims(&self, is_concerned: impl Fn(&PersistentVolumeClaim) -> bool) {
        for claim in self.claims.snapshot().iter().filter(|claim| is_concerned(claim)) {
            self.queue.add(Target::Claim(Key::of(&claim.metadata)));
        }
    }

    async fn claim_steps(&self, key: &Key) -> Result<Vec<Step>, ClientError> {
        let Some(claim) = self.claims.get(key) else { return Ok(Vec::new()) };
        let pods = self.pods.snapshot();
        let mut is_used = pods.iter().any(|pod| protection::holds(pod, &claim));
        if !is_used && claim.metadata.deletion_timestamp.is_some() {
            // What is kept here may be behind; a claim that goes too early takes data with it.
            let page = self.client.list::<Pod>(&Scope::namespace(&key.namespace), &ListOptions::default()).await?;
            is_used = page.items.iter().any(|pod| protection::holds(pod, &claim));
        }
        if let Some(finalizers) = protection::finalizers(&claim.metadata, protection::OF_CLAIMS, is_used) {
            return Ok(vec![Step::claim(&claim, json!({"metadata": {"finalizers": finalizers}}))]);
        }
        let (volumes, classes) = (self.volumes.snapshot(), self.classes.snapshot());
        let now = self.clock.now();
        Ok(claim::decide(&claim, claim::World { volumes: &volumes, classes: &classes, pods: &pods, now }))
    }

    async fn volume_steps(&self, key: &Key) -> Result<Vec<Step>, ClientError> {
        let Some(volume) = self.volumes.get(key) else { return Ok(Vec::new()) };
        let is_bound = protection::is_bound(&volume);
        if let Some(finalizers) = protection::finalizers(&volume.metadata, protection::OF_VOLUMES, is_bound) {
            return Ok(vec![Step::volume(&volume, json!({"metadata": {"finalizers": finalizers}}))]);
        }
        let claim = match claim_key(&volume) {
            Some(key) => self.claim_of(&volume, &key).await?,
            None => None,
        };
        Ok(volume::decide(&volume, claim.as_deref(), self.clock.now()))
    }

    /// The claim that a volume refers to. That it has gone must be certain, as the volume is then given up.
    async fn claim_of(
        &self,
        volume: &PersistentVolume,
        key: &Key,
    ) -> Result<Option<Arc<PersistentVolumeClaim>>, ClientError> {
        let uid = claim_ref(volume).and_then(|reference| reference.uid.as_ref());
        let known = self.claims.get(key);
        if known.as_ref().is_some_and(|claim| claim.metadata.uid.as_ref() == uid) || uid.is_none() {
            return Ok(known);
        }
        Ok(self.client.get_opt(key).await?.map(Arc::new))
    }

    async fn take(&self, step: Step) -> Result<(), ClientError> {
        match step {
            Step::Volume(key, patch) => self.client.patch::<PersistentVolume>(&key, &patch).await.map(drop),
            Step::VolumeStatus(key, patch) => {
                self.client.patch_status::<PersistentVolume>(&key, &patch).await.map(drop)
            }
            Step::Claim(key, patch) => self.client.patch::<PersistentVolumeClaim>(&key, &patch).await.map(drop),
            Step::ClaimStatus(key, patch) => {
                self.client.patch_status::<PersistentVolumeClaim>(&key, &patch).await.map(drop)
            }
            Step::Tell { subject, kind, reason, message } => {
                self.recorder.event(&subject, kind, reason, &message);
                Ok(())
            }
        }
    }
}
