//! Follows a shim: what changes in it, and its end.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use oci::protocol::{ContainerRecord, Reply, Request, RunState};
use rustix::process::{WaitId, WaitIdOptions};
use tokio::io::unix::AsyncFd;

use super::layout::{CONTAINER, RECORD, read_json, replace};
use super::sandbox::{Known, Life, Live, Sandbox, lost};
use super::{Node, groups, recover, remove};
use crate::{ContainerId, RuntimeError};

/// How long to wait before connecting again to a shim that lives but has closed the connection.
const RECONNECT: Duration = Duration::from_millis(500);

/// Follows a shim until it has ended.
pub(super) fn watch(node: &Arc<Node>, sandbox: &Arc<Sandbox>, live: Live) {
    node.tasks.spawn("watch-shim", follow(Arc::clone(node), Arc::clone(sandbox), live));
}

async fn follow(node: Arc<Node>, sandbox: Arc<Sandbox>, live: Live) {
    let pidfd = Arc::clone(&live.pidfd);
    let mut changes = live.link.changes();
    loop {
        tokio::select! {
            () = ended(&pidfd) => break,
            changed = changes.changed() => if changed.is_ok() {
                refresh(&node, &sandbox).await;
            } else {
                tokio::select! {
                    () = ended(&pidfd) => break,
                    () = tokio::time::sleep(RECONNECT) => {}
                }
                match recover::connect(&node, &sandbox).await {
                    Ok(live) if !live.is_over() => {
                        changes = live.link.changes();
                        sandbox.set_life_unless_ending(Life::Ready(live));
                        refresh(&node, &sandbox).await;
                    }
                    Ok(_) => {}
                    Err(error) => tracing::debug!(sandbox = %sandbox.id(), error = %error, "cannot connect to shim"),
                }
            }
        }
    }
    tracing::debug!(sandbox = %sandbox.id(), "shim has ended");
    bury(&node, &sandbox).await;
}

/// Makes a process's descriptor one that tasks can wait for.
#[expect(
    deprecated,
    reason = "its replacement is unsafe for types that are not known to own a descriptor; this one is"
)]
pub(super) fn register(pidfd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(pidfd)
}

/// Completes when the process has ended; reaps it if it is our child.
pub(super) async fn ended(pidfd: &AsyncFd<OwnedFd>) {
    loop {
        let Ok(mut ready) = pidfd.readable().await else { return };
        match rustix::process::waitid(
            WaitId::PidFd(pidfd.get_ref().as_fd()),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        ) {
            // Not readable after all.
            Ok(None) => ready.clear_ready(),
            // Reaped now, or somebody else's to reap.
            Ok(Some(_)) | Err(_) => return,
        }
    }
}

/// Learns what the shim knows.
pub(super) async fn refresh(node: &Arc<Node>, sandbox: &Arc<Sandbox>) {
    // The end of the shim is noticed elsewhere.
    let Ok(reply) = sandbox.ask(Request::List, Vec::new()).await else { return };
    let Reply::Containers { containers, .. } = reply else {
        tracing::warn!(sandbox = %sandbox.id(), "shim does not answer what was asked");
        return;
    };
    for record in containers {
        if let Err(error) = learn(node, sandbox, record).await {
            tracing::warn!(sandbox = %sandbox.id(), error = %error, "cannot read the record of a container");
        }
    }
    node.changed(sandbox.id());
}

async fn learn(node: &Node, sandbox: &Sandbox, record: ContainerRecord) -> std::io::Result<()> {
    let id = ContainerId(record.container.clone());
    let known = match sandbox.container(&id) {
        Some(known) => {
            if record.log_errno.is_some() && known.record.log_errno != record.log_errno {
                let error = std::io::Error::from_raw_os_error(record.log_errno.unwrap_or_default());
                tracing::warn!(sandbox = %sandbox.id(), container = %id, error = %error, "log cannot be written; output is held back");
            }
            Some(known.started)
        }
        None => {
            let path = node.layout.container(sandbox.id(), &id).join(CONTAINER);
            task::blocking(move || read_json(&path)).await?
        }
    };
    if let Some(started) = known {
        sandbox.learn(Known { started, record });
    }
    Ok(())
}

/// A dead shim's sandbox: what is left of it is killed, and its containers have ended. A removal needs no such help, and
/// nothing may be written into a directory that is being removed.
pub(super) async fn bury(node: &Arc<Node>, sandbox: &Arc<Sandbox>) {
    if !sandbox.set_life_unless_ending(Life::Dead) {
        return;
    }
    let _turn = sandbox.turn().await;
    let (inner, buried) = (Arc::clone(node), Arc::clone(sandbox));
    let swept = task::blocking(move || {
        let swept = sweep(&inner, &buried);
        settle(&inner, &buried);
        swept
    });
    if let Err(error) = swept.await {
        tracing::warn!(sandbox = %sandbox.id(), error = %error, "cannot kill what a dead shim has left");
    }
    node.changed(sandbox.id());
}

/// Kills all that is in the groups of the sandbox.
pub(super) fn sweep(node: &Node, sandbox: &Sandbox) -> Result<(), RuntimeError> {
    for group in remove::groups_of(node, sandbox)? {
        group.kill_all().map_err(groups::cgroup_failed)?;
    }
    Ok(())
}

/// Keeps an end for every container whose end nobody saw, and what the shim last wrote for the others.
fn settle(node: &Node, sandbox: &Sandbox) {
    if !node.layout.sandbox(sandbox.id()).exists() {
        return;
    }
    for known in sandbox.containers() {
        let directory = node.layout.container(sandbox.id(), &known.started.id);
        let written = recover::read_record(&directory).ok().flatten();
        let last = written.filter(|written| written.sequence >= known.record.sequence).unwrap_or(known.record);
        let record = match last.state {
            RunState::Running { .. } => lost(&last, node.clock.now()),
            RunState::Exited { .. } => last,
        };
        if let Err(error) = keep(&directory, &record) {
            tracing::warn!(container = %known.started.id, error = %error, "cannot keep the end of a container");
        }
        sandbox.learn(Known { started: known.started, record });
    }
}

fn keep(directory: &std::path::Path, record: &ContainerRecord) -> std::io::Result<()> {
    replace(&directory.join(RECORD), &postcard::to_stdvec(record).map_err(std::io::Error::other)?)
}
