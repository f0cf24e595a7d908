//! Removal, which may be interrupted anywhere and asked for again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use oci::cgroup::Group;
use oci::protocol::{Reply, Request};
use rustix::process::Signal;

use super::layout::names;
use super::recover::has_ended;
use super::sandbox::{Life, Live, Sandbox};
use super::{Node, failed, groups, tree, watch};
use crate::{ContainerId, RuntimeError, SandboxId};

/// How long a shim may take to kill its containers before it is killed itself.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// Forgets an exited container.
pub(super) async fn container(node: Arc<Node>, sandbox: SandboxId, id: ContainerId) -> Result<(), RuntimeError> {
    let Ok(sandbox) = node.find(&sandbox) else { return Ok(()) };
    let _turn = sandbox.turn().await;
    let Some(known) = sandbox.container(&id) else { return Ok(()) };
    if !has_ended(&known.record) {
        return Err(RuntimeError::Invalid { message: format!("container {id} runs") });
    }
    if sandbox.live().is_ok() {
        match sandbox.ask(Request::Remove { container: id.0.clone() }, Vec::new()).await {
            Ok(Reply::Done) | Err(RuntimeError::NoSandbox { .. }) => {}
            Ok(Reply::Failed(failure)) => return Err(sandbox.error(failure, &id, "")),
            Ok(other) => return Err(sandbox.protocol_error(&other)),
            Err(error) => return Err(error),
        }
    }
    let removed = {
        let (node, sandbox, id) = (Arc::clone(&node), Arc::clone(&sandbox), id.clone());
        task::blocking(move || container_leftovers(&node, &sandbox, &id))
    };
    removed.await?;
    sandbox.forget(&id);
    node.changed(sandbox.id());
    Ok(())
}

/// What is left of a container: its group and its directory.
pub(super) fn container_leftovers(node: &Node, sandbox: &Sandbox, id: &ContainerId) -> Result<(), RuntimeError> {
    let group = groups::container(&node.host.cgroups, &sandbox.record.spec, id)?;
    group.kill_all().and_then(|()| group.remove()).map_err(groups::cgroup_failed)?;
    groups::prune_unused(node, &sandbox.record.spec, std::slice::from_ref(id))?;
    let directory = node.layout.container(sandbox.id(), id);
    tree::remove_tree(&directory).map_err(|source| failed("remove container directory", source))
}

/// Removes all of a sandbox.
pub(super) async fn sandbox(node: Arc<Node>, id: SandboxId) -> Result<(), RuntimeError> {
    let Ok(sandbox) = node.find(&id) else { return Ok(()) };
    let _turn = sandbox.turn().await;
    if let Life::Ready(live) | Life::Ending(live) = sandbox.life() {
        sandbox.set_life(Life::Ending(live.clone()));
        unthrottle(&node, &sandbox).await?;
        end(&node, &sandbox, &live).await?;
    }
    undo(&node, &sandbox).await?;
    node.sandboxes().remove(&id);
    node.changed(&id);
    Ok(())
}

/// Lets what ends use the processor freely.
async fn unthrottle(node: &Arc<Node>, sandbox: &Arc<Sandbox>) -> Result<(), RuntimeError> {
    if shares_pod(node, sandbox) {
        return Ok(());
    }
    let pod = groups::pod(&node.host.cgroups, &sandbox.record.spec)?;
    task::blocking(move || pod.unthrottle()).await;
    Ok(())
}

/// Ends a shim with all that it runs, and waits until it is gone: its mounts and namespaces are, too, then.
async fn end(node: &Arc<Node>, sandbox: &Arc<Sandbox>, live: &Live) -> Result<(), RuntimeError> {
    let asked = live.link.request(Request::Shutdown, Vec::new());
    tokio::select! {
        () = watch::ended(&live.pidfd) => return Ok(()),
        _ = tokio::time::timeout(SHUTDOWN, asked) => {}
    }
    if tokio::time::timeout(SHUTDOWN, watch::ended(&live.pidfd)).await.is_ok() {
        return Ok(());
    }
    // It may be ending at this moment.
    let _ = rustix::process::pidfd_send_signal(&*live.pidfd, Signal::KILL);
    let (inner, swept) = (Arc::clone(node), Arc::clone(sandbox));
    task::blocking(move || watch::sweep(&inner, &swept)).await?;
    watch::ended(&live.pidfd).await;
    Ok(())
}

/// Removes what a sandbox without a shim has on the host; its directory last.
pub(super) async fn undo(node: &Arc<Node>, sandbox: &Arc<Sandbox>) -> Result<(), RuntimeError> {
    let (node, sandbox) = (Arc::clone(node), Arc::clone(sandbox));
    task::blocking(move || {
        let all = groups_of(&node, &sandbox)?;
        for group in &all {
            group.kill_all().map_err(groups::cgroup_failed)?;
        }
        for group in &all {
            group.remove().map_err(groups::cgroup_failed)?;
        }
        groups::prune_unused(&node, &sandbox.record.spec, &containers_of(&node, &sandbox)?)?;
        if !shares_pod(&node, &sandbox) {
            let pod = groups::pod(&node.host.cgroups, &sandbox.record.spec)?;
            pod.remove().map_err(groups::cgroup_failed)?;
            groups::prune(&node, &sandbox.record.spec);
        }
        let directory = node.layout.sandbox(sandbox.id());
        tree::remove_tree(&directory).map_err(|source| failed("remove sandbox directory", source))
    })
    .await
}

/// The groups that are this sandbox's and not the pod's: those of its containers and of its shim.
pub(super) fn groups_of(node: &Node, sandbox: &Sandbox) -> Result<Vec<Group>, RuntimeError> {
    let spec = &sandbox.record.spec;
    let host = &node.host.cgroups;
    let ids: BTreeSet<ContainerId> = containers_of(node, sandbox)?.into_iter().collect();
    let mut found = vec![groups::shim(host, spec)?];
    for id in ids {
        found.push(groups::container(host, spec, &id)?);
    }
    Ok(found)
}

/// All containers that the sandbox has a directory of.
fn containers_of(node: &Node, sandbox: &Sandbox) -> Result<Vec<ContainerId>, RuntimeError> {
    let on_disk = names(&node.layout.containers(sandbox.id())).map_err(|source| failed("list containers", source))?;
    Ok(on_disk.into_iter().map(ContainerId).collect())
}

/// Whether another attempt at the same pod's sandbox exists, which has the same pod group.
fn shares_pod(node: &Node, sandbox: &Sandbox) -> bool {
    let same =
        |other: &Arc<Sandbox>| other.id() != sandbox.id() && other.record.spec.cgroup == sandbox.record.spec.cgroup;
    node.sandboxes().values().any(same)
}
