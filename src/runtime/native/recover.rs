//! Takes over what an earlier agent has left: live sandboxes, dead ones, and beginnings.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use oci::protocol::{ContainerRecord, Frames, FromShim, RunState, ToShim, VERSION};
use rustix::process::PidfdFlags;

use super::layout::{CONTAINER, ContainerStarted, RECORD, SANDBOX, SandboxRecord, names, read, read_json};
use super::link::{Link, Socket};
use super::sandbox::{Known, Life, Live, Sandbox};
use super::{Node, create, failed, groups, program, tree, watch};
use crate::{ContainerId, RuntimeError, SandboxId};

/// How long a shim may take to answer.
const ANSWER: Duration = Duration::from_secs(30);

/// How long to wait before connecting once more.
const AGAIN: Duration = Duration::from_millis(10);

/// Finds all sandboxes.
pub(super) async fn recover(node: &Arc<Node>) -> Result<(), RuntimeError> {
    let directory = node.layout.sandboxes();
    let found = task::blocking(move || names(&directory)).await;
    for name in found.map_err(|source| failed("list sandboxes", source))? {
        let id = SandboxId(name);
        // What cannot be read or removed of one sandbox, because its disk or a process of it hangs, must not keep the
        // node from the others.
        if let Err(error) = take_over(node, id.clone()).await {
            tracing::warn!(sandbox = %id, error = %error, "cannot take over all of a sandbox");
        }
    }
    Ok(())
}

async fn take_over(node: &Arc<Node>, id: SandboxId) -> Result<(), RuntimeError> {
    let directory = node.layout.sandbox(&id);
    let record = {
        let path = directory.join(SANDBOX);
        task::blocking(move || read_json::<SandboxRecord>(&path)).await
    };
    let Some(record) = record.map_err(|source| failed("read sandbox record", source))? else {
        // The record comes first: without it there is nothing but the directory.
        let removed = task::blocking(move || tree::remove_tree(&directory)).await;
        return removed.map_err(|source| failed("remove sandbox directory", source));
    };
    let sandbox = Arc::new(Sandbox::new(record));
    node.sandboxes().insert(id, Arc::clone(&sandbox));
    // What is not remembered is learnt from the shim; but a sandbox that nobody looks after would be created twice.
    if let Err(error) = remember(node, &sandbox).await {
        tracing::warn!(sandbox = %sandbox.id(), error = %error, "cannot read the records of all containers");
    }
    match connect(node, &sandbox).await {
        Ok(live) if !live.is_over() => {
            sandbox.set_life(Life::Ready(live.clone()));
            watch::refresh(node, &sandbox).await;
            // What stays is removed with the sandbox; that this is followed matters more.
            let discarded = discard_beginnings(node, &sandbox).await;
            watch::watch(node, &sandbox, live);
            discarded?;
        }
        Ok(_) => watch::bury(node, &sandbox).await,
        Err(error) => {
            tracing::debug!(sandbox = %sandbox.id(), error = %error, "sandbox has no shim");
            watch::bury(node, &sandbox).await;
        }
    }
    Ok(())
}

/// Connects to the shim of a sandbox and makes sure that it is the one behind the process id. One that does not answer in
/// time counts as dead, so that it does not keep the node from starting.
pub(super) async fn connect(node: &Node, sandbox: &Sandbox) -> Result<Live, RuntimeError> {
    let late = |_| Err(failed("hear from shim", io::Error::from(io::ErrorKind::TimedOut)));
    tokio::time::timeout(ANSWER, connect_patiently(node, sandbox)).await.unwrap_or_else(late)
}

async fn connect_patiently(node: &Node, sandbox: &Sandbox) -> Result<Live, RuntimeError> {
    let (socket, pid) = loop {
        let directory = node.layout.sandbox(sandbox.id());
        match task::blocking(move || program::connect(&directory)).await {
            Ok(connected) => break connected,
            // Its queue is full: it lives, and somebody else wants to speak to it as well.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(AGAIN).await,
            Err(error) => return Err(failed("connect to shim", error)),
        }
    };
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK).map_err(|errno| failed("find shim", errno))?;
    let pidfd = watch::register(pidfd).map_err(|source| failed("watch shim", source))?;
    let socket = Socket::new(socket).map_err(|source| failed("watch shim's socket", source))?;
    let hello = ToShim::Hello { version: VERSION };
    socket.say(&hello, &[]).await.map_err(|source| failed("speak to shim", source))?;
    // An answer that comes after the descriptor was opened proves that the process still was the shim then.
    let answer = tokio::select! {
        answer = socket_answer(&socket) => answer,
        () = watch::ended(&pidfd) => Err(failed("hear from shim", io::Error::from(io::ErrorKind::UnexpectedEof))),
    };
    match answer? {
        FromShim::Hello { pid, version } => {
            let (keeps, attaches) = (version >= 2, version >= 3);
            Ok(Live { pid, pidfd: Arc::new(pidfd), link: Link::new(socket, &node.tasks), keeps, attaches })
        }
        other => Err(create::protocol(sandbox.id(), &other)),
    }
}

async fn socket_answer(socket: &Socket) -> Result<FromShim, RuntimeError> {
    socket.read(&mut Frames::new()).await.map_err(|source| failed("hear from shim", source))
}

/// Learns of the containers that are on disk with a record.
async fn remember(node: &Arc<Node>, sandbox: &Arc<Sandbox>) -> Result<(), RuntimeError> {
    let directory = node.layout.containers(sandbox.id());
    let found = task::blocking(move || {
        let mut found = Vec::new();
        for name in names(&directory)? {
            let directory = directory.join(name);
            let started: Option<ContainerStarted> = read_json(&directory.join(CONTAINER))?;
            if let (Some(started), Some(record)) = (started, read_record(&directory)?) {
                found.push(Known { started, record });
            }
        }
        Ok(found)
    });
    let found: Vec<Known> = found.await.map_err(|source: io::Error| failed("read container records", source))?;
    found.into_iter().for_each(|known| sandbox.learn(known));
    Ok(())
}

/// What the shim wrote of a container, if it did; what follows it in the file is the rest of a former record.
pub(super) fn read_record(directory: &Path) -> io::Result<Option<ContainerRecord>> {
    Ok(read(&directory.join(RECORD))?.and_then(|bytes| postcard::from_bytes(&bytes).ok()))
}

/// Removes what was prepared for containers that the shim never started. No earlier agent's request can start them any
/// more, because the shim listens to the one that said hello last.
async fn discard_beginnings(node: &Arc<Node>, sandbox: &Arc<Sandbox>) -> Result<(), RuntimeError> {
    let (inner, sandbox) = (Arc::clone(node), Arc::clone(sandbox));
    let discarded = task::blocking(move || {
        let directory = inner.layout.containers(sandbox.id());
        for name in names(&directory).map_err(|source| failed("list containers", source))? {
            let id = ContainerId(name);
            if sandbox.container(&id).is_none() {
                let group = groups::container(&inner.host.cgroups, &sandbox.record.spec, &id)?;
                group.kill_all().and_then(|()| group.remove()).map_err(groups::cgroup_failed)?;
                tree::remove_tree(&directory.join(&id.0)).map_err(|source| failed("remove container", source))?;
            }
        }
        Ok(())
    });
    discarded.await
}

/// Whether a record tells of an end.
pub(super) fn has_ended(record: &ContainerRecord) -> bool {
    matches!(record.state, RunState::Exited { .. })
}
