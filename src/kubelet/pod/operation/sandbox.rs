//! Making, connecting and removing sandboxes.

use std::sync::Arc;

use client::Key;
use client::events::EventType;
use k8s_openapi::api::node::v1::RuntimeClass;
use net::Attach;
use runtime::{RuntimeError, SandboxId};
use task::chain;

use super::super::files::PodDirs;
use super::super::{report, users};
use super::{Job, Outcome, retry};
use crate::container::{ResolvConf, host_ports, huge_pages, kernel_name, name_resolution, sandbox_spec};

/// Why nobody knows which runtime a pod wants.
#[derive(Debug, thiserror::Error)]
enum ClassError {
    #[error("failed to lookup RuntimeClass {name}: runtimeclass.node.k8s.io {name:?} not found")]
    Absent { name: String },
    #[error("failed to lookup RuntimeClass {name}: there is no API server")]
    NoServer { name: String },
    #[error("failed to lookup RuntimeClass {name}")]
    Fetch {
        name: String,
        #[source]
        source: Box<client::ClientError>,
    },
}

/// Why a sandbox is not connected.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("failed to set up pod network")]
    Network(#[from] net::NetworkError),
}

pub(super) async fn create(job: &Job, attempt: u32) -> Outcome {
    let shared = &job.shared;
    let logs = PodDirs::of(&job.pod, &shared.config).logs;
    let mut spec = sandbox_spec(&job.pod, attempt, &shared.config.cgroup_prefix, logs);
    spec.resources.huge_pages = huge_pages::of_pod(&job.pod, &shared.context().huge_page_sizes);
    spec.hostname = match kernel_name(&job.pod, &shared.config.cluster_domain) {
        Ok(name) => name,
        Err(error) => return failed(job, &error),
    };
    spec.handler = match handler(job).await {
        Ok(handler) => handler,
        Err(error) => return failed(job, &error),
    };
    tell_of_name_resolution(job).await;
    let (sandbox, shared_network) = (spec.id.clone(), spec.network == runtime::Sharing::Host);
    if users::are_own(&job.pod) {
        let (inner, pod) = (Arc::clone(shared), Arc::clone(&job.pod));
        match task::blocking(move || users::of_pod(&inner, &pod)).await {
            Ok(range) => spec.user_namespace = Some(range),
            Err(error) => return failed(job, &error),
        }
    }
    if attempt > 0 {
        let message = "Pod sandbox changed, it will be killed and re-created.";
        report::of_pod(shared, &job.pod, EventType::Normal, "SandboxChanged", message);
    }
    match shared.seams.runtime.create_sandbox(spec).await {
        Ok(()) if shared_network => Outcome::SandboxReady,
        Ok(()) => attach(job, sandbox).await,
        Err(error) => failed(job, &error),
    }
}

/// The runtime that the pod's class names; none for this one. After `runtimeclass.Manager.LookupRuntimeHandler` upstream.
async fn handler(job: &Job) -> Result<Option<String>, ClassError> {
    let name = job.pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.clone()).filter(|name| !name.is_empty());
    let Some(name) = name else { return Ok(None) };
    let Some(client) = &job.shared.client else { return Err(ClassError::NoServer { name }) };
    let found = client.get_opt::<RuntimeClass>(&Key { namespace: String::new(), name: name.clone() }).await;
    match found.map_err(|source| ClassError::Fetch { name: name.clone(), source: Box::new(source) })? {
        Some(class) => Ok(Some(class.handler).filter(|handler| !handler.is_empty())),
        None => Err(ClassError::Absent { name }),
    }
}

/// Says once for each sandbox what its containers' resolver configuration lacks.
async fn tell_of_name_resolution(job: &Job) {
    let path = job.shared.config.resolv_conf.clone();
    // What cannot be read is told when the file is written.
    let host = task::blocking(move || std::fs::read_to_string(path)).await.unwrap_or_default();
    for (reason, message) in name_resolution(&job.pod, &ResolvConf::parse(&host), &job.shared.dns()) {
        report::of_pod(&job.shared, &job.pod, EventType::Warning, reason, &message);
    }
}

pub(super) async fn attach(job: &Job, sandbox: SandboxId) -> Outcome {
    match connect(job, sandbox).await {
        Ok(()) => Outcome::SandboxReady,
        Err(error) => failed(job, &error),
    }
}

async fn connect(job: &Job, sandbox: SandboxId) -> Result<(), ConnectError> {
    let namespace = job.shared.seams.runtime.network_namespace(&sandbox).await?;
    let ports = host_ports(&job.pod);
    job.shared.seams.network.attach(Attach { sandbox: sandbox.0, namespace, ports }).await?;
    Ok(())
}

fn failed(job: &Job, error: &dyn std::error::Error) -> Outcome {
    let message = format!("Failed to create pod sandbox: {}", chain(error));
    report::of_pod(&job.shared, &job.pod, EventType::Warning, "FailedCreatePodSandBox", &message);
    Outcome::SandboxFailed(message)
}

pub(super) async fn remove(job: &Job, sandbox: SandboxId) -> Outcome {
    // The address goes first (it rests until its link is gone): once the sandbox cannot be seen any more, nobody would
    // ask for that.
    if let Err(error) = job.shared.seams.network.detach(&sandbox.0).await {
        return retry(job, "detach network", &error).await;
    }
    if let Err(error) = job.shared.seams.runtime.remove_sandbox(&sandbox).await {
        return retry(job, "remove sandbox", &error).await;
    }
    Outcome::SandboxRemoved(sandbox)
}
