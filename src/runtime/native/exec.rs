//! Commands inside containers.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use oci::container::compile::{compile_exec, open};
use oci::protocol::{Exec, Outcome, Reply, Request};
use oci_spec::runtime::Spec;
use rustix::pipe::PipeFlags;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

use super::foreign::Foreign;
use super::layout::{CONFIG, read_json};
use super::recover::has_ended;
use super::sandbox::Sandbox;
use super::{Node, failed, groups};
use crate::{ContainerId, ExecResult, ExecSpec, RuntimeError, SandboxId};

/// How long to read on after the command has ended: a process that it left behind may hold its output open for ever.
const DRAIN: Duration = Duration::from_millis(200);

/// A command that is ready to be sent, and our ends of its output.
struct Prepared {
    exec: Exec,
    descriptors: Vec<OwnedFd>,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

/// Runs a command and waits for it; dropping the future kills the command.
pub(super) async fn exec(
    node: &Arc<Node>,
    id: &SandboxId,
    container: &ContainerId,
    wanted: ExecSpec,
) -> Result<ExecResult, RuntimeError> {
    let sandbox = node.find(id)?;
    sandbox.live()?;
    let no_container = || RuntimeError::NoContainer { container: container.clone() };
    if has_ended(&sandbox.container(container).ok_or_else(no_container)?.record) {
        return Err(no_container());
    }
    let Some(command) = wanted.args.first().cloned() else {
        return Err(RuntimeError::Invalid { message: "no command specified".to_owned() });
    };
    let limit = wanted.output_limit;
    let prepared = {
        let (node, sandbox, container) = (Arc::clone(node), Arc::clone(&sandbox), container.clone());
        task::blocking(move || prepare(&node, &sandbox, &container, &wanted)).await?
    };
    let receive = |pipe| Receiver::from_owned_fd(pipe).map_err(|source| failed("read output", source));
    let (stdout, stderr) = (receive(prepared.stdout)?, receive(prepared.stderr)?);
    let asked = sandbox.ask(Request::Exec(Box::new(prepared.exec)), prepared.descriptors);
    let (reply, stdout, stderr) = collect(asked, (stdout, stderr), limit).await;
    match reply? {
        Reply::Exited { outcome, timed_out } => {
            let code = match outcome {
                _ if timed_out => None,
                Outcome::Code(code) => Some(code),
                Outcome::Signal(signal) => Some(128 + signal),
            };
            Ok(ExecResult { code, stdout, stderr })
        }
        Reply::Failed(failure) => Err(sandbox.error(failure, container, &command)),
        other => Err(sandbox.protocol_error(&other)),
    }
}

/// Waits for the reply while reading both streams, and then for the rest of them.
async fn collect<F: Future>(asked: F, streams: (Receiver, Receiver), limit: usize) -> (F::Output, Vec<u8>, Vec<u8>) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let reply = {
        let reading = async { tokio::join!(keep(streams.0, &mut stdout, limit), keep(streams.1, &mut stderr, limit)) };
        tokio::pin!(reading);
        tokio::pin!(asked);
        tokio::select! {
            reply = &mut asked => {
                // Beyond this, what is read is what a process left behind writes.
                let _ = tokio::time::timeout(DRAIN, reading).await;
                reply
            }
            _ = &mut reading => asked.await,
        }
    };
    (reply, stdout, stderr)
}

/// Reads a stream to its end and keeps its beginning.
async fn keep(mut stream: Receiver, kept: &mut Vec<u8>, limit: usize) {
    let mut buffer = vec![0; 8192];
    // An error of a pipe is the end of what can be had from it.
    while let Ok(count) = stream.read(&mut buffer).await
        && count > 0
    {
        let room = limit.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..count.min(room)]);
    }
}

fn prepare(
    node: &Node,
    sandbox: &Sandbox,
    container: &ContainerId,
    wanted: &ExecSpec,
) -> Result<Prepared, RuntimeError> {
    let config = node.layout.container(sandbox.id(), container).join(CONFIG);
    let spec: Option<Spec> = read_json(&config).map_err(|source| failed("read container configuration", source))?;
    let no_container = || RuntimeError::NoContainer { container: container.clone() };
    let spec = spec.ok_or_else(no_container)?;
    let mut process = spec.process().clone().ok_or_else(no_container)?;
    process.set_args(Some(wanted.args.clone()));
    process.set_terminal(Some(false));
    let directory = node.layout.container(sandbox.id(), container);
    let compiled = match node.other_runtime(&sandbox.record.spec)? {
        Some(program) => Foreign { program, directory: &directory, id: container }.exec(&process)?,
        None => {
            let compiled = compile_exec(&spec, &process, &node.host);
            compiled.map_err(|error| RuntimeError::Invalid { message: error.to_string() })?
        }
    };
    let group = groups::container(&node.host.cgroups, &sandbox.record.spec, container)?;
    let joins = group.open_joins().map_err(groups::cgroup_failed)?;
    let opened = open(&compiled.descriptors, None, &joins);
    let opened = opened.map_err(|error| failed("open what the command needs", io::Error::other(error)))?;
    let null = File::open("/dev/null").map_err(|source| failed("open null device", source))?;
    let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed("make pipe", errno));
    let ((stdout, its_stdout), (stderr, its_stderr)) = (pipe()?, pipe()?);
    for ours in [&stdout, &stderr] {
        rustix::io::ioctl_fionbio(ours, true).map_err(|errno| failed("make pipe", errno))?;
    }
    let script = compiled.script.to_bytes().map_err(|error| failed("write script", io::Error::other(error)))?;
    let timeout_ms = wanted.timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
    let mut descriptors = vec![OwnedFd::from(null), its_stdout, its_stderr];
    descriptors.extend(opened);
    let exec = Exec { container: container.0.clone(), script, timeout_ms };
    Ok(Prepared { exec, descriptors, stdout, stderr })
}
