//! Control groups of sandboxes and their containers.
//!
//! ```text
//! <all pods>             what pods may have together, and a limit of tasks that leaves room for the host
//! <all pods>/<class>     what pods of a class have of it
//! …/<pod>                limits of the pod as a whole
//!   shim-<attempt>       the shim
//!   <container>          each container
//! ```
//!
//! A fork bomb is stopped by the pod's limit, long before the host has no process ids left: see [`PidLimits`].

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::PoisonError;

use oci::cgroup::{CgroupError, Controller, Group, Hierarchies, Limits, Warning};
use oci::protocol::Role;
use rustix::io::Errno;

use super::recover::has_ended;
use super::{Node, failed};
use crate::{ContainerId, Resize, Resources, RuntimeError, SandboxId, SandboxSpec};

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

/// How many tasks pods may have. The kernel has ids for so many only (`pid_max`, 32768 by default on small machines), and
/// a container that forks without end takes all of them unless it is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PidLimits {
    /// All pods together; none for no limit.
    pub all_pods: Option<i64>,
    /// A pod that does not say otherwise; none for no limit.
    pub per_pod: Option<i64>,
}

/// What stays for the host at least.
const HOST_TASKS: i64 = 1000;

impl PidLimits {
    /// What suits a host. Upstream lets all pods together have as many as the host has (pkg/kubelet/cm,
    /// `getNodeAllocatableInternalAbsolute`) and does not limit a pod unless `podPidsLimit` is set; here a tenth stays
    /// for the host, and one pod gets a quarter, so that neither the node nor other pods notice its fork bomb.
    #[must_use]
    pub fn of_host() -> Self {
        let read = |file: &str| std::fs::read_to_string(file).ok()?.trim().parse::<i64>().ok();
        let limits = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"].map(read);
        limits.into_iter().flatten().min().map_or_else(Self::default, Self::of_total)
    }

    fn of_total(total: i64) -> Self {
        let all_pods = (total - (total / 10).max(HOST_TASKS)).max(total / 2);
        Self { all_pods: Some(all_pods), per_pod: Some(total / 4) }
    }
}

/// Creates a pod's group.
pub(super) fn create_pod(node: &Node, sandbox: &SandboxSpec) -> Result<(), RuntimeError> {
    let pids_limit = sandbox.resources.pids_limit.or(node.pids.per_pod);
    let own = pod(&node.host.cgroups, sandbox)?;
    let known = node.group_tree.lock().unwrap_or_else(PoisonError::into_inner);
    let mut new = Vec::new();
    for path in sandbox.cgroup.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()) {
        let above = Group::new(&node.host.cgroups, path).map_err(cgroup_failed)?;
        if above.is_whole() {
            break;
        }
        new.push(above);
    }
    for above in new.iter().rev() {
        above.create().map_err(cgroup_failed)?;
        apply_shared(node, above, known.get(above.path()).unwrap_or(&Resources::default()))?;
    }
    make(&own, &limits(&Resources { pids_limit, ..sandbox.resources.clone() }))
}

/// Takes over limits of groups above those of sandboxes, and gives them to those that are there.
pub(super) fn limit_shared(node: &Node, wanted: BTreeMap<PathBuf, Resources>) -> Result<(), RuntimeError> {
    let mut known = node.group_tree.lock().unwrap_or_else(PoisonError::into_inner);
    known.retain(|path, _| wanted.contains_key(path));
    for (path, limits) in wanted {
        if known.get(&path) == Some(&limits) {
            continue;
        }
        let group = Group::new(&node.host.cgroups, &path).map_err(cgroup_failed)?;
        if group.exists() {
            // It may have been made by another version of this program and lack a hierarchy.
            group.create().map_err(cgroup_failed)?;
            apply_shared(node, &group, &limits)?;
        }
        known.insert(path, limits);
    }
    Ok(())
}

/// Gives a group above those of sandboxes its limits. The topmost one has a limit of tasks in any case.
fn apply_shared(node: &Node, group: &Group, own: &Resources) -> Result<(), RuntimeError> {
    let is_top = group.path().iter().count() == 1;
    let pids_limit = own.pids_limit.or(node.pids.all_pods.filter(|_| is_top));
    let refused = group.apply(&limits(&Resources { pids_limit, ..own.clone() })).map_err(cgroup_failed)?;
    report(group, &refused, tracing::Level::WARN);
    Ok(())
}

/// Creates a shim's group.
pub(super) fn create_shim(node: &Node, sandbox: &SandboxSpec) -> Result<Group, RuntimeError> {
    let group = shim(&node.host.cgroups, sandbox)?;
    create(node, &group, &Limits::default())?;
    Ok(group)
}

/// Creates a container's group. As upstream, containers do not swap unless a pod asks for it, which cannot be asked for
/// here (`NoSwap`), and their processes end together for want of memory.
pub(super) fn create_container(node: &Node, group: &Group, resources: &Resources) -> Result<(), RuntimeError> {
    create(node, group, &Limits { no_swap: true, oom_group: true, ..limits(resources) })
}

/// Changes the limits of a container and its pod. The pod goes first, so that it has room for a container that grows. Of
/// processor time it keeps as much as any container still has, because v1 refuses less; the rest goes with the container
/// that shrinks last.
pub(super) fn resize(node: &Node, sandbox: &SandboxId, id: &ContainerId, wanted: &Resize) -> Result<(), RuntimeError> {
    let sandbox = node.find(sandbox)?;
    let known = sandbox.container(id).filter(|known| !has_ended(&known.record));
    known.ok_or_else(|| RuntimeError::NoContainer { container: id.clone() })?;
    let spec = &sandbox.record.spec;
    let pod = pod(&node.host.cgroups, spec)?;
    let own = container(&node.host.cgroups, spec, id)?;
    let limit = wanted.container.memory_limit.and_then(|limit| u64::try_from(limit).ok());
    let in_use = own.stats().ok().and_then(|stats| stats.memory_working_set);
    if let (Some(limit), Some(in_use)) = (limit, in_use)
        && in_use > limit
    {
        // A kernel with v2 would take it and end processes.
        let message = format!("memory limit {limit} is less than the {in_use} bytes in use");
        return Err(failed("resize", std::io::Error::new(std::io::ErrorKind::ResourceBusy, message)));
    }
    let shared = limits(&wanted.pod);
    let with_room = || -> Result<Limits, RuntimeError> {
        let mut limits = shared.clone();
        for other in sandbox.containers().iter().filter(|other| !has_ended(&other.record)) {
            let group = container(&node.host.cgroups, spec, &other.started.id)?;
            // One that ends meanwhile has no group and needs no room.
            let quota = group.cpu_quota_v1().unwrap_or(None);
            limits.cpu_quota = limits.cpu_quota.map(|own| own.max(quota.unwrap_or(0)));
        }
        Ok(limits)
    };
    let first = with_room()?;
    set_anew(&pod, &first)?;
    set_anew(&own, &Limits { no_swap: true, ..limits(&wanted.container) })?;
    let last = with_room()?;
    if last.cpu_quota == first.cpu_quota { Ok(()) } else { set_anew(&pod, &last) }
}

/// Gives a group that is in use other limits; those that are not said end.
fn set_anew(group: &Group, limits: &Limits) -> Result<(), RuntimeError> {
    let whole = Limits {
        cpu_quota: Some(limits.cpu_quota.unwrap_or(-1)),
        memory: Some(limits.memory.unwrap_or(-1)),
        pids: None,
        ..limits.clone()
    };
    for warning in group.apply(&whole).map_err(cgroup_failed)? {
        if matches!(warning, Warning::Refused { .. }) {
            return Err(failed("resize", std::io::Error::other(warning.to_string())));
        }
        tracing::debug!(group = %group.path().display(), %warning, "limit has no effect");
    }
    Ok(())
}

/// Creates a group, and those above it, with limits.
fn create(node: &Node, group: &Group, limits: &Limits) -> Result<(), RuntimeError> {
    let _tree = node.group_tree.lock().unwrap_or_else(PoisonError::into_inner);
    make(group, limits)
}

fn make(group: &Group, limits: &Limits) -> Result<(), RuntimeError> {
    let missing = group.create().map_err(cgroup_failed)?;
    let refused = group.apply(limits).map_err(cgroup_failed)?;
    report(group, &missing, tracing::Level::DEBUG);
    report(group, &refused, tracing::Level::WARN);
    Ok(())
}

fn report(group: &Group, warnings: &[Warning], level: tracing::Level) {
    // Most hosts have no huge pages to give.
    let is_rare = |warning: &Warning| matches!(warning, Warning::Missing { controller: Controller::Hugetlb });
    for warning in warnings {
        if level == tracing::Level::WARN && !is_rare(warning) {
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
        huge_pages: resources.huge_pages.clone(),
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

/// Removes what another runtime has made of containers' groups in hierarchies that nothing is asked of here, such as those
/// of blkio and cpuset. Whoever was in them has ended.
pub(super) fn prune_unused(node: &Node, sandbox: &SandboxSpec, ids: &[ContainerId]) -> Result<(), RuntimeError> {
    if sandbox.handler.is_none() {
        return Ok(());
    }
    let _tree = node.group_tree.lock().unwrap_or_else(PoisonError::into_inner);
    for hierarchy in node.host.cgroups.v1.iter().filter(|hierarchy| !hierarchy.is_used()) {
        for id in ids {
            match rustix::fs::rmdir(hierarchy.mount.join(&sandbox.cgroup).join(&id.0)) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(failed("remove cgroup of another runtime", errno)),
            }
        }
        for path in sandbox.cgroup.ancestors().filter(|path| !path.as_os_str().is_empty()) {
            // One that is in use stays, and so do those above it.
            if rustix::fs::rmdir(hierarchy.mount.join(path)).is_err() {
                break;
            }
        }
    }
    Ok(())
}

pub(super) fn cgroup_failed(error: CgroupError) -> RuntimeError {
    failed("cgroup", std::io::Error::other(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_leave_room_for_the_host_and_for_each_other() {
        let of = |total| {
            let limits = PidLimits::of_total(total);
            (limits.all_pods.unwrap(), limits.per_pod.unwrap())
        };
        assert_eq!(of(32_768), (29_492, 8192));
        assert_eq!(of(4_194_304), (3_774_874, 1_048_576));
        assert_eq!(of(1500), (750, 375), "a host that has hardly enough for itself");
        assert!(PidLimits::of_host().per_pod > Some(0));
    }
}
