//! Control groups of sandboxes and their containers.
//!
//! ```text
//! <pod>                  limits of the pod as a whole
//!   shim-<attempt>       the shim
//!   <container>          each container
//! ```

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::PoisonError;

use oci::cgroup::{CgroupError, Controller, Group, Hierarchies, Limits, Warning};
use oci::protocol::Role;

use super::{Node, failed};
use crate::{ContainerId, Resources, RuntimeError, SandboxSpec};

/// The pod's group.
pub(super) fn pod(host: &Hierarchies, sandbox: &SandboxSpec) -> Result<Group, RuntimeError> {
    Group::new(host, &sandbox.cgroup).map_err(cgroup_failed)
}

/// The shim's group.
pub(super) fn shim(host: &Hierarchies, sandbox: &SandboxSpec) -> Result<Group, RuntimeError> {
    pod(host, sandbox)?.child(&format!("shim-{}", sandbox.attempt)).map_err(cgroup_failed)
}

/// A container's group.
pub(super) fn container(
    host: &Hierarchies,
    sandbox: &SandboxSpec,
    container: &ContainerId,
) -> Result<Group, RuntimeError> {
    pod(host, sandbox)?.child(&container.0).map_err(cgroup_failed)
}

/// Creates a group, and those above it, with limits.
pub(super) fn create(node: &Node, group: &Group, resources: &Resources) -> Result<(), RuntimeError> {
    let _tree = node.group_tree.lock().unwrap_or_else(PoisonError::into_inner);
    let missing = group.create().map_err(cgroup_failed)?;
    let refused = group.apply(&limits(resources)).map_err(cgroup_failed)?;
    report(group, &missing, tracing::Level::DEBUG);
    report(group, &refused, tracing::Level::WARN);
    Ok(())
}

fn report(group: &Group, warnings: &[Warning], level: tracing::Level) {
    for warning in warnings {
        if level == tracing::Level::WARN {
            tracing::warn!(group = %group.path().display(), %warning, "limit has no effect");
        } else {
            tracing::debug!(group = %group.path().display(), %warning, "limit has no effect");
        }
    }
}

fn limits(resources: &Resources) -> Limits {
    Limits {
        cpu_shares: resources.cpu_shares,
        cpu_quota: resources.cpu_quota,
        cpu_period: resources.cpu_period,
        memory: resources.memory_limit,
        pids: resources.pids_limit,
        ..Limits::default()
    }
}

/// Opens what the shim watches of a container's group; what the host lacks is left out.
pub(super) fn watched(host: &Hierarchies, group: &Group) -> Vec<(Role, OwnedFd)> {
    let path = group.path();
    let v2 = host.v2.as_ref().map(|unified| unified.mount.join(path));
    let memory_v1 = host.v1.iter().find(|hierarchy| hierarchy.controllers.contains(&Controller::Memory));
    let processes = v2.clone().or(host.used_v1().next().map(|hierarchy| hierarchy.mount.join(path)));
    let events = match memory_v1 {
        Some(hierarchy) => Some(hierarchy.mount.join(path).join("memory.oom_control")),
        None => v2.as_ref().map(|directory| directory.join("memory.events")),
    };
    let read = |path: PathBuf| File::open(path).ok().map(OwnedFd::from);
    let write = |path: PathBuf| OpenOptions::new().write(true).open(path).ok().map(OwnedFd::from);
    let found = [
        (Role::Processes, processes.and_then(|directory| read(directory.join("cgroup.procs")))),
        (Role::Kill, v2.and_then(|directory| write(directory.join("cgroup.kill")))),
        (Role::MemoryEvents, events.and_then(read)),
    ];
    found.into_iter().filter_map(|(role, file)| Some((role, file?))).collect()
}

/// Removes groups above a pod's that have become empty, up to the mount points.
pub(super) fn prune(node: &Node, sandbox: &SandboxSpec) {
    let _tree = node.group_tree.lock().unwrap_or_else(PoisonError::into_inner);
    let host = &node.host.cgroups;
    let mounts = host.used_v1().map(|hierarchy| &hierarchy.mount).chain(host.v2.iter().map(|unified| &unified.mount));
    for mount in mounts {
        for path in sandbox.cgroup.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()) {
            // One that is in use stays, and so do those above it.
            if rustix::fs::rmdir(mount.join(path)).is_err() {
                break;
            }
        }
    }
}

pub(super) fn cgroup_failed(error: CgroupError) -> RuntimeError {
    failed("cgroup", std::io::Error::other(error))
}
