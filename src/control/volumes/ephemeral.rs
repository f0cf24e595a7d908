//! Makes the claims of volumes that live and die with one pod.
//!
//! After `pkg/controller/volume/ephemeral` (KEP-1698). A claim that has the name and belongs to somebody else is left
//! alone, and the pod is told. The pod owns its claim: the garbage collector removes it.

use std::sync::Arc;

use client::events::{EventType, Recorder, Source, reference};
use client::reconcile::{self, Outcome, Queue};
use client::{Client, ClientError, Informer, Key};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimTemplate, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use task::{SharedClock, Tasks};

use crate::workload::owned::{managed_by, manager};

/// Claims are made for different pods at a time.
const WORKERS: usize = 4;

struct Shell {
    client: Client,
    recorder: Recorder,
    pods: Informer<Pod>,
}

/// Starts the controller.
pub(super) fn spawn(client: &Client, clock: &SharedClock, tasks: &Tasks, pods: &Informer<Pod>) {
    let source = Source { component: "ephemeral-volume".to_owned(), host: String::new() };
    let recorder = Recorder::spawn(client, tasks, SharedClock::clone(clock), source);
    let shell = Arc::new(Shell { client: client.clone(), recorder, pods: pods.clone() });
    let queue = Queue::default();
    tasks.spawn("ephemeral-volumes-pods", reconcile::feed(pods.subscribe(), queue.clone()));
    let sync = move |key| sync(Arc::clone(&shell), key);
    tasks.spawn("ephemeral-volumes", reconcile::run(queue, WORKERS, sync));
}

async fn sync(shell: Arc<Shell>, key: Key) -> Result<Outcome, ClientError> {
    let Some(pod) = shell.pods.get(&key) else { return Ok(Outcome::Done) };
    for (volume, wanted) in wanted(&pod) {
        let claim = Key::of(&wanted.metadata);
        match shell.client.get_opt::<PersistentVolumeClaim>(&claim).await? {
            Some(found) if is_owned(&found, &pod) => {}
            Some(_) => {
                let message =
                    format!("ephemeral volume {volume}: PVC {claim} was not created for pod {key} (pod is not owner)");
                shell.fail(&pod, &message);
            }
            None => match shell.client.create(&wanted).await {
                Err(error) if error.is_already_exists() => return Ok(Outcome::Again(std::time::Duration::ZERO)),
                Err(error) => {
                    shell.fail(&pod, &format!("ephemeral volume {volume}: create PVC {}: {error}", claim.name));
                    return Err(error);
                }
                Ok(_) => {}
            },
        }
    }
    Ok(Outcome::Done)
}

impl Shell {
    fn fail(&self, pod: &Pod, message: &str) {
        self.recorder.event(&reference(pod), EventType::Warning, "FailedBinding", message);
    }
}

fn is_owned(claim: &PersistentVolumeClaim, pod: &Pod) -> bool {
    manager(&claim.metadata).is_some_and(|owner| Some(&owner.uid) == pod.metadata.uid.as_ref())
}

/// The volumes of a pod whose claims nobody else may have, with these.
fn wanted(pod: &Pod) -> Vec<(String, PersistentVolumeClaim)> {
    if pod.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let of = |volume: &k8s_openapi::api::core::v1::Volume| {
        let template = volume.ephemeral.as_ref()?.volume_claim_template.as_ref()?;
        Some((volume.name.clone(), claim(pod, &volume.name, template)))
    };
    volumes.filter_map(of).collect()
}

fn claim(pod: &Pod, volume: &str, template: &PersistentVolumeClaimTemplate) -> PersistentVolumeClaim {
    let (own, shown) = (&pod.metadata, template.metadata.clone().unwrap_or_default());
    let name = own.name.clone().unwrap_or_default();
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{volume}")),
            namespace: own.namespace.clone(),
            labels: shown.labels,
            annotations: shown.annotations,
            owner_references: Some(vec![managed_by(pod)]),
            ..ObjectMeta::default()
        },
        spec: Some(template.spec.clone()),
        status: None,
    }
}
