//! Provides volumes of nodes' own disks to claims of the class `local-path`, which is the default one.
//!
//! Behaves as rancher's local-path-provisioner on top of `sig-storage-lib-external-provisioner` does; what there is done by
//! a pod on the node is asked of its kubelet (`PUT` and `DELETE /storage/<name>` through `nodes/proxy`), which knows where.
//! [`decide`] is pure. The directory is made before the volume exists and removed before it goes, both repeated until they
//! work, so that neither is forgotten when the program dies in between; [`decide::FINALIZER`] keeps a volume whose directory
//! is there. A node that gives no answer holds up its own volumes only ([`Gate`]). Invariant: no data is removed but of a released volume that was made here and is to be deleted.

mod decide;
mod gate;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use client::events::{EventType, Recorder, Source, reference};
use client::reconcile::{self, Backoff, Outcome, Queue};
use client::{Client, ClientError, DeleteOptions, Informer, Key, Patch};
use http::Method;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};
use task::{SharedClock, Tasks};

use crate::volumes::Informers;
use decide::{OfClaim, OfVolume};
use gate::{Gate, Pass};

pub use decide::{CLASS, PROVISIONER};

/// Volumes made or removed at a time.
const WORKERS: usize = 8;
/// How long a node may take to make a directory or to remove one.
const PATIENCE: Duration = Duration::from_secs(20);
/// A node that does not answer is asked again this often at least.
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(60) };

/// Whether volumes are provided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalStorage {
    /// There is a class for them.
    On,
    /// Neither class nor provider.
    Off,
}

/// What is worked on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Target {
    Class,
    Claim(Key),
    Volume(Key),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Class => write!(f, "class {CLASS}"),
            Self::Claim(key) => write!(f, "claim {key}"),
            Self::Volume(key) => write!(f, "volume {key}"),
        }
    }
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("node {node:?} gives no answer within {} s", PATIENCE.as_secs())]
    Silent { node: String },
    #[error("node {node:?} is not asked now")]
    Later { node: String, wait: Duration },
}

struct Shell {
    client: Client,
    clock: SharedClock,
    gate: Gate,
    recorder: Recorder,
    objects: Informers,
    nodes: Informer<Node>,
    wanted: LocalStorage,
}

/// Starts the controller.
pub fn spawn(
    client: &Client,
    clock: &SharedClock,
    tasks: &Tasks,
    (objects, nodes): (Informers, &Informer<Node>),
    wanted: LocalStorage,
) {
    let source = Source { component: PROVISIONER.to_owned(), host: String::new() };
    let recorder = Recorder::spawn(client, tasks, SharedClock::clone(clock), source);
    let shell = Arc::new(Shell {
        client: client.clone(),
        clock: SharedClock::clone(clock),
        gate: Gate::default(),
        recorder,
        objects,
        nodes: nodes.clone(),
        wanted,
    });
    let queue = Queue::new(BACKOFF);
    queue.add(Target::Class);
    if wanted == LocalStorage::On {
        tasks.spawn("local-path-claims", feed_by_claims(shell.objects.claims.clone(), queue.clone()));
        tasks.spawn("local-path-volumes", feed_by_volumes(shell.objects.volumes.clone(), queue.clone()));
        tasks.spawn("local-path-classes", feed_by_classes(Arc::clone(&shell), queue.clone()));
    }
    tasks.spawn("local-path-controller", async move {
        shell.objects.claims.synced().await;
        shell.objects.volumes.synced().await;
        shell.objects.classes.synced().await;
        shell.nodes.synced().await;
        reconcile::run(queue, WORKERS, move |target| sync(Arc::clone(&shell), target)).await;
    });
}

async fn feed_by_claims(claims: Informer<PersistentVolumeClaim>, queue: Queue<Target>) {
    let mut dirty = claims.subscribe();
    loop {
        queue.add(Target::Claim(dirty.next().await));
    }
}

async fn feed_by_volumes(volumes: Informer<PersistentVolume>, queue: Queue<Target>) {
    let mut dirty = volumes.subscribe();
    loop {
        queue.add(Target::Volume(dirty.next().await));
    }
}

/// A class concerns the claims that have no volume yet.
async fn feed_by_classes(shell: Arc<Shell>, queue: Queue<Target>) {
    let mut dirty = shell.objects.classes.subscribe();
    loop {
        dirty.batch().await;
        let claims = shell.objects.claims.snapshot();
        claims.iter().for_each(|claim| queue.add(Target::Claim(Key::of(&claim.metadata))));
    }
}

async fn sync(shell: Arc<Shell>, target: Target) -> Result<Outcome, Failure> {
    let done = match &target {
        Target::Class => shell.class().await.map_err(Failure::from),
        Target::Claim(key) => shell.claim(key).await,
        Target::Volume(key) => shell.volume(key).await,
    };
    match done {
        // The informer will tell of the newer state.
        Err(Failure::Client(error)) if error.is_conflict() => Ok(Outcome::Done),
        Err(Failure::Later { wait, .. }) => Ok(Outcome::Again(wait)),
        result => result.map(|()| Outcome::Done),
    }
}

impl Shell {
    /// Makes the class, or takes it away; once a start, so that who removes it meanwhile is not contradicted.
    async fn class(&self) -> Result<(), ClientError> {
        let classes = self.objects.classes.snapshot();
        let found = self.objects.classes.get(&Key::cluster(CLASS));
        match (self.wanted, found) {
            (LocalStorage::On, None) => match self.client.create(&decide::class(&classes)).await {
                Err(error) if error.is_already_exists() => Ok(()),
                result => result.map(drop),
            },
            (LocalStorage::Off, Some(class)) if class.provisioner == PROVISIONER => {
                let (key, options) = (Key::cluster(CLASS), DeleteOptions::as_seen(&class.metadata));
                match self.client.delete::<StorageClass>(&key, &options).await {
                    Err(error) if error.is_not_found() => Ok(()),
                    result => result,
                }
            }
            _ => Ok(()),
        }
    }

    async fn claim(&self, key: &Key) -> Result<(), Failure> {
        let Some(claim) = self.objects.claims.get(key) else { return Ok(()) };
        let classes = self.objects.classes.snapshot();
        let class = decide::class_of(&claim, &classes);
        match decide::of_claim(&claim, class) {
            OfClaim::NotOurs => Ok(()),
            OfClaim::Refused(why) => {
                self.failed(&claim, &why);
                Ok(())
            }
            OfClaim::Wanted { node, class } => self.provide(&claim, class, &node).await,
        }
    }

    async fn provide(&self, claim: &PersistentVolumeClaim, class: &StorageClass, node: &str) -> Result<(), Failure> {
        if self.objects.volumes.get(&Key::cluster(&decide::volume_name(claim))).is_some() {
            return Ok(());
        }
        let Some(found) = self.node(node).await? else {
            self.failed(claim, &format!("node {node:?} not found"));
            let key = Key::of(&claim.metadata);
            return Ok(self.client.patch::<PersistentVolumeClaim>(&key, &decide::elsewhere(claim)).await.map(drop)?);
        };
        let pass = self.pass(node)?;
        let namespaced = Key::of(&claim.metadata);
        let text = format!("External provisioner is provisioning volume for claim \"{namespaced}\"");
        self.recorder.event(&reference(claim), EventType::Normal, "Provisioning", &text);
        let made = async {
            let place = self.ask(&pass, Method::PUT, &decide::directory(claim)).await?;
            let path = place["path"].as_str().unwrap_or_default();
            match self.client.create(&decide::volume(claim, class, &found, path)).await {
                Err(error) if error.is_already_exists() => Ok::<(), Failure>(()),
                result => Ok(result.map(drop)?),
            }
        };
        if let Err(error) = made.await {
            self.failed(claim, &error.to_string());
            return Err(error);
        }
        let text = format!("Successfully provisioned volume {}", decide::volume_name(claim));
        self.recorder.event(&reference(claim), EventType::Normal, "ProvisioningSucceeded", &text);
        Ok(())
    }

    fn failed(&self, claim: &PersistentVolumeClaim, why: &str) {
        let class = crate::volumes::said_class(claim).unwrap_or_default();
        let text = format!("failed to provision volume with StorageClass {class:?}: {why}");
        self.recorder.event(&reference(claim), EventType::Warning, "ProvisioningFailed", &text);
    }

    /// A node; that it is none must be certain.
    async fn node(&self, name: &str) -> Result<Option<Arc<Node>>, ClientError> {
        match self.nodes.get(&Key::cluster(name)) {
            Some(node) => Ok(Some(node)),
            None => Ok(self.client.get_opt(&Key::cluster(name)).await?.map(Arc::new)),
        }
    }

    fn pass(&self, node: &str) -> Result<Pass, Failure> {
        self.gate.enter(node, self.clock.now()).map_err(|wait| Failure::Later { node: node.to_owned(), wait })
    }

    /// Asks a node's kubelet for a directory, or to remove one.
    async fn ask(&self, pass: &Pass, method: Method, directory: &str) -> Result<Value, Failure> {
        let node = pass.node();
        let path = format!("/api/v1/nodes/{node}/proxy/storage/{directory}");
        match tokio::time::timeout(PATIENCE, self.client.request(method, &path, None)).await {
            Ok(answer) => {
                pass.was_answered();
                Ok(answer?)
            }
            Err(_) => {
                pass.was_silent(self.clock.now());
                Err(Failure::Silent { node: node.to_owned() })
            }
        }
    }

    async fn volume(&self, key: &Key) -> Result<(), Failure> {
        let Some(volume) = self.objects.volumes.get(key) else { return Ok(()) };
        match decide::of_volume(&volume) {
            OfVolume::Stays => Ok(()),
            OfVolume::Keep(finalizers) => Ok(self.set_finalizers(&volume, &finalizers).await?),
            OfVolume::Strange(why) => {
                self.not_deleted(&volume, &why);
                Ok(())
            }
            OfVolume::Remove { node, directory, finalizers } => {
                match self.remove(&node, &directory).await {
                    Err(Failure::Later { node, wait }) => return Err(Failure::Later { node, wait }),
                    Err(error) => {
                        self.not_deleted(&volume, &error.to_string());
                        return Err(error);
                    }
                    Ok(()) => {}
                }
                if volume.metadata.deletion_timestamp.is_none() {
                    let options = DeleteOptions::as_seen(&volume.metadata);
                    // It comes back as one that is being deleted.
                    return Ok(self.client.delete::<PersistentVolume>(key, &options).await?);
                }
                Ok(self.set_finalizers(&volume, &finalizers).await?)
            }
        }
    }

    fn not_deleted(&self, volume: &PersistentVolume, why: &str) {
        self.recorder.event(&reference(volume), EventType::Warning, "VolumeFailedDelete", why);
    }

    /// Removes data. With its node they have gone.
    async fn remove(&self, node: &str, directory: &str) -> Result<(), Failure> {
        if self.node(node).await?.is_none() {
            tracing::info!(node, directory, "a volume goes without its data, as its node is gone");
            return Ok(());
        }
        self.ask(&self.pass(node)?, Method::DELETE, directory).await.map(drop)
    }

    async fn set_finalizers(&self, volume: &PersistentVolume, finalizers: &[String]) -> Result<(), ClientError> {
        let metadata = json!({"resourceVersion": volume.metadata.resource_version, "finalizers": finalizers});
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        match self.client.patch::<PersistentVolume>(&Key::of(&volume.metadata), &patch).await {
            Err(error) if error.is_not_found() => Ok(()),
            result => result.map(drop),
        }
    }
}
