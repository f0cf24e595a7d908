//! The state of simulated sandboxes, changed only by synchronous functions.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::program::{Ending, OnStop, Program};
use crate::{
    Changed, ContainerId, ContainerSpec, ContainerState, ContainerStatus, Exit, LinuxUser, SandboxId, SandboxSpec,
    SandboxState, SandboxStatus, Stop, User,
};

const SIGKILL: i32 = 9;

/// The present moment in both of its forms.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) instant: Instant,
    pub(super) wall: Timestamp,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) sandboxes: BTreeMap<SandboxId, Sandbox>,
    next_pid: u32,
}

#[derive(Debug)]
pub(super) struct Sandbox {
    pub(super) status: SandboxStatus,
    containers: BTreeMap<ContainerId, Container>,
}

#[derive(Debug)]
struct Container {
    program: Program,
    /// The earliest known end.
    end: Option<(Instant, Ending)>,
    /// When SIGKILL comes.
    kill_at: Option<Instant>,
}

impl State {
    pub(super) fn create(&mut self, spec: SandboxSpec, now: Moment) {
        self.sandboxes.entry(spec.id.clone()).or_insert_with(|| Sandbox {
            status: SandboxStatus { spec, state: SandboxState::Ready, created_at: now.wall, containers: Vec::new() },
            containers: BTreeMap::new(),
        });
    }

    /// The sandbox if its shim lives.
    pub(super) fn ready(&mut self, id: &SandboxId) -> Option<&mut Sandbox> {
        self.sandboxes.get_mut(id).filter(|sandbox| sandbox.status.state == SandboxState::Ready)
    }

    /// Starts a container in a live sandbox.
    pub(super) fn start(&mut self, id: &SandboxId, spec: ContainerSpec, program: Program, now: Moment) {
        self.next_pid += 1;
        let pid = 1000 + self.next_pid;
        let Some(sandbox) = self.ready(id) else { return };
        if sandbox.containers.contains_key(&spec.id) {
            return;
        }
        let log_path = log_path(&sandbox.status.spec, &spec);
        let end = program.ending.map(|ending| (now.instant + ending.after, ending));
        sandbox.containers.insert(spec.id.clone(), Container { program, end, kill_at: None });
        sandbox.status.containers.push(ContainerStatus {
            id: spec.id,
            name: spec.name,
            attempt: spec.attempt,
            image: spec.image,
            image_reference: spec.image_reference,
            labels: spec.labels,
            user: Some(user(&spec.user)),
            state: ContainerState::Running { pid, started_at: now.wall },
            log_path,
        });
    }

    /// Sends the stop signal and arms SIGKILL; never later than before.
    pub(super) fn stop(&mut self, id: &SandboxId, container: &ContainerId, stop: Stop, now: Instant) -> bool {
        let Some(container) = self.sandboxes.get_mut(id).and_then(|found| found.containers.get_mut(container)) else {
            return false;
        };
        let deadline = now + stop.grace;
        container.kill_at = Some(container.kill_at.map_or(deadline, |earlier| earlier.min(deadline)));
        let answer = match container.program.on_stop {
            OnStop::Exits { after, code } => Some((after, Ending { code, ..Ending::default() })),
            OnStop::Dies => Some((Duration::ZERO, Ending { signal: Some(stop.signal), ..Ending::default() })),
            OnStop::Ignores => None,
        };
        if let Some((after, ending)) = answer {
            let at = now + after;
            if container.end.is_none_or(|(planned, _)| at < planned) {
                container.end = Some((at, ending));
            }
        }
        true
    }

    pub(super) fn end_now(&mut self, id: &SandboxId, container: &ContainerId, ending: Ending, now: Instant) {
        if let Some(found) = self.sandboxes.get_mut(id).and_then(|found| found.containers.get_mut(container)) {
            found.end = Some((now, ending));
        }
    }

    /// The program of a container, if it runs.
    pub(super) fn running(&self, id: &SandboxId, container: &ContainerId) -> Option<&Program> {
        let sandbox = self.sandboxes.get(id)?;
        let status = sandbox.status.containers.iter().find(|status| status.id == *container)?;
        matches!(status.state, ContainerState::Running { .. }).then(|| &sandbox.containers[container].program)
    }

    pub(super) fn kill_shim(&mut self, id: &SandboxId, now: Moment) {
        let Some(sandbox) = self.sandboxes.get_mut(id) else { return };
        sandbox.status.state = SandboxState::Dead;
        for status in &mut sandbox.status.containers {
            exit(status, Ending { signal: Some(SIGKILL), ..Ending::default() }, now.wall);
        }
    }

    pub(super) fn remove_container(&mut self, id: &SandboxId, container: &ContainerId) {
        let Some(sandbox) = self.sandboxes.get_mut(id) else { return };
        sandbox
            .status
            .containers
            .retain(|status| status.id != *container || matches!(status.state, ContainerState::Running { .. }));
        let kept = &sandbox.status.containers;
        sandbox.containers.retain(|id, _| kept.iter().any(|status| status.id == *id));
    }

    /// When something happens next by itself.
    pub(super) fn next(&self) -> Option<Instant> {
        let running = self.sandboxes.values().flat_map(|sandbox| {
            sandbox
                .status
                .containers
                .iter()
                .filter(|status| matches!(status.state, ContainerState::Running { .. }))
                .map(|status| {
                    let container = &sandbox.containers[&status.id];
                    (container.end.map(|(at, _)| at), container.kill_at)
                })
        });
        running.flat_map(|(end, kill)| [end, kill]).flatten().min()
    }

    /// Lets everything happen that is due.
    pub(super) fn advance(&mut self, now: Moment) -> Vec<Changed> {
        let mut changed = Vec::new();
        for (id, sandbox) in &mut self.sandboxes {
            for status in &mut sandbox.status.containers {
                let container = &sandbox.containers[&status.id];
                let killed = container.kill_at.map(|at| (at, Ending { signal: Some(SIGKILL), ..Ending::default() }));
                let due = [container.end, killed].into_iter().flatten().min_by_key(|(at, _)| *at);
                if let Some((_, ending)) = due.filter(|(at, _)| *at <= now.instant)
                    && exit(status, ending, now.wall)
                {
                    changed.push(Changed(id.clone()));
                }
            }
        }
        changed
    }
}

/// Ends a running container; an exit never changes.
fn exit(status: &mut ContainerStatus, ending: Ending, now: Timestamp) -> bool {
    let ContainerState::Running { started_at, .. } = status.state else { return false };
    let signal = if ending.oom_killed { Some(SIGKILL) } else { ending.signal };
    status.state = ContainerState::Exited(Exit {
        code: signal.map_or(ending.code, |signal| 128 + signal),
        signal,
        oom_killed: ending.oom_killed,
        started_at,
        finished_at: now,
    });
    true
}

/// Who a container is whose image names nobody.
fn user(wanted: &User) -> LinuxUser {
    let (uid, gid) = wanted.user.split_once(':').unwrap_or((&wanted.user, ""));
    let gid = wanted.gid.or_else(|| gid.parse().ok()).unwrap_or(0);
    let mut groups = [&wanted.additional_gids[..], &[gid]].concat();
    groups.sort_unstable();
    groups.dedup();
    LinuxUser { uid: uid.parse().unwrap_or(0), gid, groups }
}

fn log_path(sandbox: &SandboxSpec, container: &ContainerSpec) -> PathBuf {
    sandbox.log_directory.join(&container.name).join(format!("{}.log", container.attempt))
}

/// Writes the lines of a program as the native runtime does: CRI format.
pub(super) fn write_log(path: &Path, lines: &[String], now: Timestamp) -> std::io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    lines.iter().try_for_each(|line| writeln!(file, "{now:.9} stdout F {line}"))
}
