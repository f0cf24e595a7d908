//! What a worker can have done: one function per [`Action`], each an owned task that answers with an [`Outcome`].
//!
//! Spawned by the worker only. An operation decides nothing about the pod; it carries out, reports events and tells how
//! it went. All are idempotent, because an agent that died half-way asks again. One that failed and would be asked for
//! again at once waits for [`PAUSE`] first, so that nothing spins.

mod hook;
mod sandbox;
mod start;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::events::EventType;
use client::{Client, ClientError, DeleteOptions, Patch};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus, ResourceRequirements};
use runtime::{ContainerId, Credentials, ImageError, PullProgress, SandboxId};
use serde_json::json;
use task::chain;

use super::assignment::Target;
use runtime::remove_tree;

use super::files::PodDirs;
use super::memory::{BadImage, StartError};
use super::plan::{Action, FailedProbe, Hook, Start, Stop, StopReason, WaitingReason};
use super::{parts, report};
use crate::container::{self, pull_credentials};
use crate::logs::{self, links};
use crate::references;
use crate::shared::Shared;
use crate::volumes::{self, MadeOf};

/// Pause after a failure that has no wait of its own.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// What an operation works on.
pub(super) struct Job {
    pub(super) shared: Arc<Shared>,
    pub(super) pod: Arc<Pod>,
    pub(super) target: Option<Target>,
    /// The image was pulled for this start.
    pub(super) fresh_image: bool,
    /// Shows how far a pull is.
    pub(super) progress: PullProgress,
}

/// How an operation went.
#[derive(Debug)]
pub(super) enum Outcome {
    FilesReady {
        renew_at: Option<Timestamp>,
        made_of: MadeOf,
    },
    FilesFailed {
        message: String,
        bad_images: BTreeMap<String, BadImage>,
        made_of: MadeOf,
    },
    FilesRemoved,
    SandboxReady,
    SandboxFailed(String),
    SandboxRemoved(SandboxId),
    Pulled {
        container: String,
        attempt: u32,
    },
    PullFailed {
        container: String,
        reason: WaitingReason,
        message: String,
    },
    Started {
        container: String,
    },
    StartFailed {
        start: Start,
        kind: StartError,
        message: String,
    },
    StopFailed {
        container: ContainerId,
    },
    Hooked {
        container: ContainerId,
        hook: Hook,
        succeeded: bool,
    },
    Resized {
        container: ContainerId,
        /// Of the container, and of the pod as a whole if it has one.
        sizes: [Option<ResourceRequirements>; 2],
    },
    ResizeFailed {
        container: ContainerId,
        message: String,
    },
    ContainerRemoved,
    StatusWritten(Box<PodStatus>),
    StatusNotWritten,
    ObjectGone,
    /// It did not work; the next plan asks again.
    Retry,
}

/// Carries out an action.
pub(super) async fn run(job: Job, action: Action) -> Outcome {
    tracing::debug!(uid = ?job.pod.metadata.uid, ?action, "begins");
    match action {
        Action::PrepareFiles => start::prepare_files(&job).await,
        Action::RemoveFiles => remove_files(&job).await,
        Action::CreateSandbox { attempt } => sandbox::create(&job, attempt).await,
        Action::AttachNetwork { sandbox } => sandbox::attach(&job, sandbox).await,
        Action::RemoveSandbox { sandbox } => sandbox::remove(&job, sandbox).await,
        Action::PullImage { container, reference, attempt } => pull(&job, container, &reference, attempt).await,
        Action::StartContainer(start) => Box::pin(start::start(&job, start)).await,
        Action::PostStart { sandbox, container, name } => hook::post_start(&job, &sandbox, container, &name).await,
        Action::PreStop(wanted) => hook::pre_stop(&job, wanted).await,
        Action::StopContainer(wanted) => stop(&job, wanted).await,
        Action::ResizeContainer { sandbox, container, name } => resize(&job, &sandbox, container, &name).await,
        Action::RemoveContainer { sandbox, container, .. } => remove_container(&job, &sandbox, &container).await,
        Action::DeleteObject => delete_object(&job).await,
    }
}

async fn retry(job: &Job, operation: &'static str, error: &(dyn std::error::Error + Send + Sync)) -> Outcome {
    tracing::warn!(uid = ?job.pod.metadata.uid, operation, error = chain(error), "operation failed and is tried again");
    tokio::time::sleep(PAUSE).await;
    Outcome::Retry
}

/// Forgets a life of a container, with its log, which nobody can ask for any more (`removeContainer` upstream).
async fn remove_container(job: &Job, sandbox: &SandboxId, container: &ContainerId) -> Outcome {
    let runtime = &job.shared.seams.runtime;
    let status = match runtime.status(sandbox).await {
        Ok(status) => status,
        Err(error) => return retry(job, "look for container", &error).await,
    };
    let records = status.into_iter().flat_map(|status| status.containers);
    let own: Vec<_> = records.filter(|record| record.id == *container).map(|record| record.log_path).collect();
    let logs = job.shared.config.log_root.clone();
    let removed = task::blocking(move || {
        own.iter().try_for_each(|log| logs::remove(log))?;
        links::sweep(&logs)
    });
    // First of all: once the runtime has forgotten the container, nobody knows of its log.
    if let Err(error) = removed.await {
        return retry(job, "remove log", &error).await;
    }
    match runtime.remove_container(sandbox, container).await {
        Ok(()) => Outcome::ContainerRemoved,
        Err(error) => retry(job, "remove container", &error).await,
    }
}

/// Removes the pod's directories. The logs go last, so that they can be read as long as possible.
async fn remove_files(job: &Job) -> Outcome {
    let dirs = PodDirs::of(&job.pod, &job.shared.config);
    if let Err(error) = volumes::release(&*job.shared.seams.runtime, &dirs).await {
        left_behind(job, &dirs, &error);
    }
    let (inner, logs) = (dirs.clone(), job.shared.config.log_root.clone());
    let removed = task::blocking(move || {
        let results = [&inner.run, &inner.root, &inner.logs].map(|directory| remove_tree(directory));
        results.into_iter().chain([links::sweep(&logs)]).collect::<Result<Vec<()>, _>>()
    });
    match removed.await {
        Ok(_) => Outcome::FilesRemoved,
        Err(error) if is_mounted(&error) => {
            left_behind(job, &dirs, &error);
            Outcome::FilesRemoved
        }
        Err(error) => retry(job, "remove files", &error).await,
    }
}

/// Whether something is mounted where something was to be removed.
fn is_mounted(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::CrossesDevices | std::io::ErrorKind::ResourceBusy)
}

/// Somebody has mounted something of theirs in the pod's directory. It stays, and the pod goes all the same: the next agent
/// that starts tries again.
fn left_behind(job: &Job, dirs: &PodDirs, error: &dyn std::error::Error) {
    let message = format!("something is mounted below {} and is left alone: {}", dirs.root.display(), chain(error));
    report::of_pod(&job.shared, &job.pod, EventType::Warning, "FailedUnmount", &message);
    tracing::warn!(uid = ?job.pod.metadata.uid, message, "files of a pod stay");
}

async fn pull(job: &Job, container: String, reference: &str, attempt: u32) -> Outcome {
    let shared = &job.shared;
    let tell =
        |kind, reason: &str, message: &str| report::of_container(shared, &job.pod, &container, kind, reason, message);
    tell(EventType::Normal, "Pulling", &format!("Pulling image {reference:?}"));
    let credentials: Vec<Credentials> = match references::pull_secrets(shared, &job.pod).await {
        Ok(secrets) => pull_credentials(&secrets, reference),
        Err(error) => {
            tell(EventType::Warning, "FailedToRetrieveImagePullSecret", &chain(&error));
            Vec::new()
        }
    };
    let began = shared.now();
    match shared.seams.images.pull(reference, &credentials, &job.progress).await {
        Ok(image) => {
            let took = Duration::try_from(shared.now().duration_since(began)).unwrap_or_default();
            let took = format!("{:.3}s", took.as_secs_f64());
            let size = image.size;
            let message = format!(
                "Successfully pulled image {reference:?} in {took} ({took} including waiting). Image size: {size} bytes."
            );
            tell(EventType::Normal, "Pulled", &message);
            Outcome::Pulled { container, attempt }
        }
        Err(ImageError::InvalidName { message, .. }) => {
            let message = format!(
                "Failed to apply default image tag {reference:?}: couldn't parse image name {reference:?}: {message}"
            );
            tell(EventType::Warning, "InspectFailed", &message);
            tell(EventType::Warning, "Failed", "Error: InvalidImageName");
            Outcome::PullFailed { container, reason: WaitingReason::InvalidImageName, message }
        }
        Err(error) => {
            let message = chain(&error);
            tell(EventType::Warning, "Failed", &format!("Failed to pull image {reference:?}: {message}"));
            tell(EventType::Warning, "Failed", "Error: ErrImagePull");
            Outcome::PullFailed { container, reason: WaitingReason::ErrImagePull, message }
        }
    }
}

async fn stop(job: &Job, wanted: Stop) -> Outcome {
    if !wanted.told {
        tell_stop(job, &wanted);
    }
    let Stop { sandbox, container, name, deadline, .. } = wanted;
    let signal = start::stop_signal(job, &name).await;
    let grace = Duration::try_from(deadline.duration_since(job.shared.now())).unwrap_or_default();
    match job.shared.seams.runtime.stop_container(&sandbox, &container, runtime::Stop { signal, grace }).await {
        Ok(()) => Outcome::Retry,
        Err(error) => {
            retry(job, "stop container", &error).await;
            Outcome::StopFailed { container }
        }
    }
}

/// Gives a running container and its pod the limits that the pod asks for now.
async fn resize(job: &Job, sandbox: &SandboxId, container: ContainerId, name: &str) -> Outcome {
    let Some(own) = parts::containers(&job.pod).find(|own| own.name == name) else { return Outcome::Retry };
    let limits = container::resize(&job.pod, &own, &job.shared.context());
    let sizes = [Some(super::resize::wanted(&own)), job.pod.spec.as_ref().and_then(|spec| spec.resources.clone())];
    match job.shared.seams.runtime.resize_container(sandbox, &container, limits).await {
        Ok(()) => Outcome::Resized { container, sizes },
        Err(error) => {
            let message = chain(&error);
            let told = format!("Pod resize error: {}", super::resize::summary(&job.pod, Some(&message)));
            report::of_pod(&job.shared, &job.pod, EventType::Warning, "ResizeError", &told);
            Outcome::ResizeFailed { container, message }
        }
    }
}

fn tell_stop(job: &Job, Stop { name, reason, .. }: &Stop) {
    let message = match reason {
        StopReason::PodEnds | StopReason::RestartAll => format!("Stopping container {name}"),
        StopReason::Changed => format!("Container {name} definition changed, will be restarted"),
        StopReason::Probe(FailedProbe::Liveness) => {
            format!("Container {name} failed liveness probe, will be restarted")
        }
        StopReason::Probe(FailedProbe::Startup) => format!("Container {name} failed startup probe, will be restarted"),
        StopReason::PostStart => "FailedPostStartHook".to_owned(),
        StopReason::Resized => format!("Container {name} resize requires restart"),
    };
    report::of_container(&job.shared, &job.pod, name, EventType::Normal, "Killing", &message);
}

/// Writes a status to the API server.
pub(super) async fn write_status(shared: Arc<Shared>, target: Target, status: PodStatus) -> Outcome {
    let Some(client) = &shared.client else { return Outcome::StatusWritten(Box::new(status)) };
    let patch = Patch::Strategic(json!({ "metadata": { "uid": target.uid }, "status": super::status::patch(&status) }));
    match client.patch_status::<Pod>(&target.key, &patch).await {
        Ok(_) => Outcome::StatusWritten(Box::new(status)),
        Err(error) if is_gone(client, &target, &error).await => Outcome::ObjectGone,
        Err(error) => {
            tracing::warn!(pod = %target.key, error = chain(&error), "status not written, trying again");
            Outcome::StatusNotWritten
        }
    }
}

async fn delete_object(job: &Job) -> Outcome {
    let (Some(client), Some(target)) = (&job.shared.client, &job.target) else { return Outcome::ObjectGone };
    match client.delete::<Pod>(&target.key, &DeleteOptions::now(&target.uid)).await {
        Ok(()) => Outcome::ObjectGone,
        Err(error) if is_gone(client, target, &error).await => Outcome::ObjectGone,
        Err(error) => retry(job, "delete object", &error).await,
    }
}

/// Whether the object with our uid does not exist any more. A conflict alone does not say so: the server may have lost a
/// race, so it is asked who has the name now.
async fn is_gone(client: &Client, target: &Target, error: &ClientError) -> bool {
    if !error.is_conflict() {
        return error.is_not_found();
    }
    match client.get_opt::<Pod>(&target.key).await {
        Ok(pod) => pod.is_none_or(|pod| pod.metadata.uid.as_deref() != Some(target.uid.as_str())),
        Err(_) => false,
    }
}
