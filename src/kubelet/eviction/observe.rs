//! What the node has left, and what each pod uses of it.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use runtime::{ContainerId, Measure, SandboxStatus, Stats, Usage};
use task::chain;

use super::rank::{Candidate, Part};
use super::threshold::{Observation, Resource, Signal};
use crate::admission::{is_critical, wants};
use crate::container::amount;
use crate::pod::{PodDirs, parts};
use crate::shared::Shared;
use crate::volumes::usage::tree;

/// What the node has left. What cannot be read is not known.
pub(super) fn node(shared: &Shared) -> Vec<Observation> {
    let proc = &shared.config.proc;
    let read = |file: &str| fs::read_to_string(proc.join(file)).unwrap_or_default();
    let mut found: Vec<Observation> = memory(&read("meminfo")).into_iter().collect();
    found.extend(processes(&read("loadavg"), &read("sys/kernel/pid_max")));
    if let Ok(about) = rustix::fs::statvfs(&shared.config.root) {
        let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(about.f_frsize)).unwrap_or(i64::MAX);
        let (available, capacity) = (bytes(about.f_bavail), bytes(about.f_blocks));
        let of = |signal| Observation { signal, available, capacity };
        found.extend([of(Signal::NodefsAvailable), of(Signal::ImagefsAvailable)]);
        let files = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let (available, capacity) = (files(about.f_favail), files(about.f_files));
        let of = |signal| Observation { signal, available, capacity };
        // Some file systems have no such limit, and say 0.
        found
            .extend([of(Signal::NodefsInodesFree), of(Signal::ImagefsInodesFree)].into_iter().filter(|_| capacity > 0));
    }
    found
}

/// What is free, and what files hold that nobody has looked at for some time: all but the working set of the node, as
/// cAdvisor computes that of the root group.
fn memory(meminfo: &str) -> Option<Observation> {
    let bytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<i64>().ok()?.checked_mul(1024)
    };
    let available = bytes("MemFree")?.saturating_add(bytes("Inactive(file)")?);
    Some(Observation { signal: Signal::MemoryAvailable, available, capacity: bytes("MemTotal")? })
}

/// By proc_loadavg(5), whose fourth field has all tasks behind a slash.
fn processes(loadavg: &str, pid_max: &str) -> Option<Observation> {
    let running: i64 = loadavg.split(' ').nth(3)?.split_once('/')?.1.parse().ok()?;
    let capacity: i64 = pid_max.trim().parse().ok()?;
    Some(Observation { signal: Signal::PidAvailable, available: capacity - running, capacity })
}

/// All pods that could be evicted, and what they use.
pub(super) async fn pods(shared: &Arc<Shared>, resource: Resource) -> Vec<Candidate> {
    let runtime = &shared.seams.runtime;
    let (sandboxes, usage) = match (runtime.list().await, runtime.usage(Measure::All).await) {
        (Ok(sandboxes), Ok(usage)) => (sandboxes, usage),
        (Err(error), _) | (_, Err(error)) => {
            tracing::warn!(error = chain(&error), "what pods use is not known");
            return Vec::new();
        }
    };
    let mut found = Vec::new();
    let running = shared.running(|pod| (!is_critical(pod)).then(|| pod.clone()));
    for (uid, pod) in running.into_iter().filter(|(uid, _)| shared.eviction(uid).is_none()) {
        let own = sandboxes.iter().filter(|sandbox| sandbox.spec.pod_uid == uid && !sandbox.containers.is_empty());
        // One that has nothing running would give nothing back.
        let Some(sandbox) = own.max_by_key(|sandbox| sandbox.spec.attempt) else { continue };
        let request = request(&pod, resource);
        let priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
        let (usage, containers) = match resource {
            Resource::Memory | Resource::Pids => of_groups(&pod, sandbox, &usage, resource),
            Resource::Storage | Resource::Inodes => of_disk(shared, &pod, sandbox, resource).await,
        };
        found.push(Candidate { uid, priority, usage, request, containers });
    }
    found
}

fn request(pod: &Pod, resource: Resource) -> i64 {
    match resource {
        Resource::Memory | Resource::Storage => wants(pod).get(&resource.to_string()).copied().unwrap_or(0),
        Resource::Inodes | Resource::Pids => 0,
    }
}

fn part(pod: &Pod, name: &str, usage: i64, resource: Resource) -> Part {
    let container = parts::container(pod, name);
    let requests = container.as_ref().and_then(|own| own.resources.as_ref()?.requests.as_ref());
    let request = amount(requests, &resource.to_string()).map_or(0, api::quantity::Quantity::value);
    Part { name: name.to_owned(), usage, request }
}

fn of_groups(pod: &Pod, sandbox: &SandboxStatus, usage: &Usage, resource: Resource) -> (Option<i64>, Vec<Part>) {
    let Some(used) = usage.sandboxes.get(&sandbox.spec.id) else { return (None, Vec::new()) };
    let of = |stats: &Stats| {
        let amount = if resource == Resource::Memory { stats.memory_working_set } else { stats.pids };
        amount.and_then(|amount| i64::try_from(amount).ok())
    };
    let name = |id: &ContainerId| sandbox.containers.iter().find(|one| one.id == *id).map(|one| one.name.as_str());
    // Upstream tells of memory only.
    let told = used.containers.iter().filter(|_| resource == Resource::Memory);
    let parts = told.filter_map(|(id, stats)| Some(part(pod, name(id)?, of(stats)?, resource)));
    (of(&used.whole), parts.collect())
}

/// What a pod has on disk: volumes, logs and the layers that its containers write to.
async fn of_disk(
    shared: &Arc<Shared>,
    pod: &Pod,
    sandbox: &SandboxStatus,
    resource: Resource,
) -> (Option<i64>, Vec<Part>) {
    let layers = shared.seams.runtime.layers(&sandbox.spec.id).await.unwrap_or_default();
    let dirs = PodDirs::of(pod, &shared.config);
    let measure = move |directory: PathBuf| {
        let size = tree(&directory).unwrap_or_default();
        let amount = if resource == Resource::Storage { size.bytes } else { size.files };
        i64::try_from(amount).unwrap_or(i64::MAX)
    };
    let logs = dirs.logs.clone();
    let containers: Vec<(String, Option<PathBuf>)> =
        sandbox.containers.iter().map(|one| (one.name.clone(), layers.get(&one.id).cloned())).collect();
    let (volumes, own) = task::blocking(move || {
        let of = |(name, layer): (String, Option<PathBuf>)| {
            let used = measure(logs.join(&name)).saturating_add(layer.map_or(0, &measure));
            (name, used)
        };
        (measure(dirs.root), containers.into_iter().map(of).collect::<Vec<_>>())
    })
    .await;
    let all = own.iter().fold(volumes, |sum, (_, used)| sum.saturating_add(*used));
    let told = own.iter().filter(|_| resource == Resource::Storage);
    (Some(all), told.map(|(name, used)| part(pod, name, *used, resource)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_what_is_free_and_what_files_hold_in_vain() {
        let text = "MemTotal:  1000 kB\nMemFree:  300 kB\nInactive: 9 kB\nInactive(file): 200 kB\n";
        let seen = memory(text).map(|seen| (seen.available, seen.capacity));
        assert_eq!(seen, Some((500 << 10, 1000 << 10)));
        assert_eq!(memory("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn processes_are_counted_with_all_their_tasks() {
        let seen = processes("0.20 0.18 0.12 1/80 11206\n", "32768\n").map(|seen| (seen.available, seen.capacity));
        assert_eq!(seen, Some((32_688, 32_768)));
        assert_eq!(processes("", "32768"), None);
    }
}
