//! Hooks: what is done right after a container's start and right before its end.
//!
//! After `pkg/kubelet/lifecycle/handlers.go` upstream, to the letter: the status of an HTTP answer is not judged,
//! `tcpSocket` fails, and events do not say why a hook failed, because its output may be a secret. A hook ends with its
//! container at the latest, so one that hangs is ended by whatever ends the container.

use std::time::Duration;

use client::events::EventType;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler};
use runtime::{ContainerId, ContainerState, ExecSpec, SandboxId};
use task::chain;

use super::super::plan::{Hook, Stop};
use super::super::{observe, parts, report};
use super::{Job, Outcome, PAUSE};
use crate::probe::http::{Get, GetError};

/// How much of a command's output is kept for the log of this program.
const OUTPUT_LIMIT: usize = 10 * 1024;
/// Who we say that we are.
const AGENT: &str = "kube-lifecycle/1.36";

/// Why a hook failed.
#[derive(Debug, thiserror::Error)]
enum HookError {
    #[error("command {command:?} exited with {code}: {output}")]
    Command { command: String, code: i32, output: String },
    #[error(transparent)]
    Runtime(#[from] runtime::RuntimeError),
    #[error(transparent)]
    Get(#[from] GetError),
    #[error("invalid handler")]
    Handler,
    #[error("container terminated before the hook finished")]
    Ended,
}

/// The container that a hook is for.
struct Subject<'a> {
    sandbox: &'a SandboxId,
    id: &'a ContainerId,
    container: &'a Container,
}

/// Runs `postStart`.
pub(super) async fn post_start(job: &Job, sandbox: &SandboxId, id: ContainerId, name: &str) -> Outcome {
    let succeeded = run(job, (sandbox, &id), name, Hook::PostStart).await;
    Outcome::Hooked { container: id, hook: Hook::PostStart, succeeded }
}

/// Says that a container is being stopped and runs `preStop`.
pub(super) async fn pre_stop(job: &Job, stop: Stop) -> Outcome {
    super::tell_stop(job, &stop);
    let succeeded = run(job, (&stop.sandbox, &stop.container), &stop.name, Hook::PreStop).await;
    Outcome::Hooked { container: stop.container, hook: Hook::PreStop, succeeded }
}

/// Runs a hook; tells whether it succeeded.
async fn run(job: &Job, (sandbox, id): (&SandboxId, &ContainerId), name: &str, hook: Hook) -> bool {
    let Some(container) = parts::container(&job.pod, name) else { return true };
    let lifecycle = container.lifecycle.as_ref();
    let (handler, reason, message) = match hook {
        Hook::PostStart => {
            let handler = lifecycle.and_then(|lifecycle| lifecycle.post_start.as_ref());
            (handler, "FailedPostStartHook", "PostStartHook failed")
        }
        Hook::PreStop => {
            let handler = lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref());
            (handler, "FailedPreStopHook", "PreStopHook failed")
        }
    };
    let Some(handler) = handler else { return true };
    let subject = Subject { sandbox, id, container: &container };
    let result = tokio::select! {
        result = handle(job, &subject, handler) => result,
        () = ended(job, sandbox, id) => Err(HookError::Ended),
    };
    let Err(error) = result else { return true };
    tracing::warn!(uid = ?job.pod.metadata.uid, container = name, reason, error = chain(&error), "hook failed");
    report::of_container(&job.shared, &job.pod, name, EventType::Warning, reason, message);
    false
}

async fn handle(job: &Job, subject: &Subject<'_>, handler: &LifecycleHandler) -> Result<(), HookError> {
    if let Some(exec) = &handler.exec {
        command(job, subject, exec.command.clone().unwrap_or_default()).await
    } else if let Some(action) = &handler.http_get {
        get(job, subject, action).await
    } else if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        Ok(())
    } else {
        Err(HookError::Handler)
    }
}

async fn command(job: &Job, subject: &Subject<'_>, args: Vec<String>) -> Result<(), HookError> {
    let command = args.join(" ");
    let spec = ExecSpec { args, timeout: None, output_limit: OUTPUT_LIMIT, again: false };
    let result = job.shared.seams.runtime.exec(subject.sandbox, subject.id, spec).await?;
    match result.code {
        Some(0) => Ok(()),
        code => {
            let output = String::from_utf8_lossy(&[result.stdout, result.stderr].concat()).into_owned();
            Err(HookError::Command { command, code: code.unwrap_or(-1), output })
        }
    }
}

/// A server without TLS that is asked by TLS is asked without, as upstream has it for hooks of old.
async fn get(job: &Job, subject: &Subject<'_>, action: &HTTPGetAction) -> Result<(), HookError> {
    let address = observe::context(&job.shared, &job.pod, Some(subject.sandbox)).pod_ips.first().copied();
    let get = Get::new(action, subject.container, address, AGENT)?;
    match get.send().await {
        Err(GetError::Plain { uri }) => {
            get.without_tls().send().await?;
            let message = format!("request to HTTPS lifecycle hook {uri} got HTTP response, retry with HTTP succeeded");
            let name = &subject.container.name;
            report::of_container(&job.shared, &job.pod, name, EventType::Warning, "LifecycleHTTPFallback", &message);
        }
        answer => drop(answer?),
    }
    Ok(())
}

/// Returns when the container does not run any more.
async fn ended(job: &Job, sandbox: &SandboxId, id: &ContainerId) {
    let runtime = &job.shared.seams.runtime;
    let mut changes = runtime.changes();
    loop {
        let status = match runtime.status(sandbox).await {
            Ok(Some(status)) => status,
            Ok(None) => return,
            Err(_) => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let own = status.containers.iter().find(|one| one.id == *id);
        if status.state == runtime::SandboxState::Dead
            || own.is_none_or(|own| matches!(own.state, ContainerState::Exited(_)))
        {
            return;
        }
        // One that has lagged looks again, and one that is closed belongs to a program that ends.
        while let Ok(changed) = changes.recv().await
            && changed.0 != *sandbox
        {}
    }
}
