//! Looking at everything that belongs to a pod.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use runtime::{ContainerState, ContainerStatus, Image, SandboxId, SandboxStatus};

use super::files::PodDirs;
use super::operation;
use super::parts;
use super::plan::{Observed, PresentImage};
use super::worker::Worker;
use crate::container::Context;
use crate::logs;
use crate::shared::Shared;

/// Longest last words that are shown, as upstream's `MaxContainerTerminationMessageLength`.
const MESSAGE_LIMIT: usize = 4096;
/// Longest last words taken from the log, as upstream's `MaxContainerTerminationMessageLogLength` and `…Lines`.
const LOG_MESSAGE_LIMIT: usize = 2048;
const LOG_MESSAGE_LINES: usize = 80;

/// Looks at everything that belongs to the worker's pod. What is in flight is for the worker to add.
pub(super) async fn observe(worker: &mut Worker, pod: &Pod) -> Observed {
    let sandboxes = sandboxes(worker).await;
    let newest = sandboxes.iter().max_by_key(|sandbox| sandbox.spec.attempt);
    let attachment = newest.and_then(|newest| worker.shared.seams.network.attachment(&newest.spec.id.0));
    read_last_words(worker, pod, &sandboxes).await;
    let images = images(&worker.shared, pod, &sandboxes).await;
    Observed {
        addresses: attachment.map(|attachment| attachment.addresses).unwrap_or_default(),
        host_addresses: worker.shared.config.node_ips.clone(),
        images,
        messages: worker.messages.clone(),
        probes: worker.prober.verdicts(),
        pulls: worker.pulling.look(worker.shared.now()),
        in_flight: Default::default(),
        sandboxes,
    }
}

/// The sandboxes of a pod, by asking for all of them: for a worker that has forgotten which there are.
pub(super) async fn all_sandboxes(shared: &Shared, uid: &str) -> Vec<SandboxId> {
    let all = shared.seams.runtime.list().await.unwrap_or_default();
    all.into_iter().filter(|sandbox| sandbox.spec.pod_uid == uid).map(|sandbox| sandbox.spec.id).collect()
}

/// The sandboxes that exist. One that cannot be looked at is looked at again until it can: taken for absent, its
/// containers would count as lost, and a second sandbox would be made beside it.
async fn sandboxes(worker: &Worker) -> Vec<SandboxStatus> {
    let mut found = Vec::new();
    for id in &worker.known {
        let status = loop {
            match worker.shared.seams.runtime.status(id).await {
                Ok(status) => break status,
                Err(error) => {
                    tracing::warn!(sandbox = %id, error = &error as &dyn std::error::Error, "cannot look at sandbox")
                }
            }
            tokio::time::sleep(operation::PAUSE).await;
        };
        found.extend(status);
    }
    found
}

/// The images that a start may need: those of containers that do not run.
async fn images(shared: &Shared, pod: &Pod, sandboxes: &[SandboxStatus]) -> BTreeMap<String, PresentImage> {
    let running = |name: &str| {
        let records = sandboxes.iter().flat_map(|sandbox| &sandbox.containers);
        records
            .filter(|record| record.name == name)
            .any(|record| matches!(record.state, ContainerState::Running { .. }))
    };
    let asleep = parts::containers(pod).filter(|container| !running(&container.name));
    let references: BTreeSet<String> = asleep.filter_map(|container| container.image.clone()).collect();
    let mut images = BTreeMap::new();
    for reference in references {
        match shared.seams.images.find(&reference).await {
            Ok(Some(image)) => {
                images.insert(reference, present(image));
            }
            Ok(None) => {}
            // A name that nobody understands is absent; the pull that follows says why.
            Err(error) => tracing::debug!(reference, error = &error as &dyn std::error::Error, "cannot find image"),
        }
    }
    images
}

fn present(image: Image) -> PresentImage {
    let status_id = image.digests.first().cloned().unwrap_or_else(|| image.id.0.clone());
    PresentImage { id: image.id, status_id }
}

/// Reads the last words of containers that have ended since the last look.
async fn read_last_words(worker: &mut Worker, pod: &Pod, sandboxes: &[SandboxStatus]) {
    let records: Vec<&ContainerStatus> = sandboxes.iter().flat_map(|sandbox| &sandbox.containers).collect();
    worker.messages.retain(|id, _| records.iter().any(|record| record.id == *id));
    let ended = records.iter().filter_map(|record| match record.state {
        ContainerState::Exited(exit) if !worker.messages.contains_key(&record.id) => Some((record, exit)),
        _ => None,
    });
    let dirs = PodDirs::of(pod, &worker.shared.config);
    let mut asked = Vec::new();
    for (record, exit) in ended {
        let words = dirs.last_words(&record.name, &record.id);
        let fall_back = exit.code != 0 && falls_back_to_logs(pod, &record.name);
        asked.push((record.id.clone(), words, fall_back.then(|| record.log_path.clone())));
    }
    if asked.is_empty() {
        return;
    }
    let read = task::blocking(move || {
        asked.into_iter().map(|(id, words, log)| (id, last_words(&words, log))).collect::<Vec<_>>()
    });
    worker.messages.extend(read.await);
}

fn last_words(words: &Path, log: Option<PathBuf>) -> String {
    let own = logs::read_head(words, MESSAGE_LIMIT);
    match log {
        Some(log) if own.is_empty() => logs::last_lines(&log, LOG_MESSAGE_LINES, LOG_MESSAGE_LIMIT),
        _ => own,
    }
}

fn falls_back_to_logs(pod: &Pod, name: &str) -> bool {
    let own = parts::container(pod, name);
    own.is_some_and(|own| own.termination_message_policy.as_deref() == Some("FallbackToLogsOnError"))
}

/// What the pod's containers must know about where they run.
pub(super) fn context(shared: &Shared, pod: &Pod, sandbox: Option<&SandboxId>) -> Context {
    let mut context = shared.context();
    let host_network = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
    context.pod_ips = match sandbox.and_then(|sandbox| shared.seams.network.attachment(&sandbox.0)) {
        Some(attachment) => attachment.addresses,
        None if host_network => context.host_ips.clone(),
        None => Vec::new(),
    };
    context
}
