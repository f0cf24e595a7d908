//! Probes: asking containers how they are.
//!
//! Owned by the pod's worker, which tells what runs ([`Prober::follow`]) and reads the verdicts for its observation. What
//! results mean is decided in `verdict.rs` without input or output; `runner.rs` asks, `http.rs` and `grpc.rs` speak the
//! protocols. Invariants: liveness and readiness wait for the startup probe; a container without probes has no task here; tasks end with their container or worker.

mod grpc;
pub(crate) mod http;
mod runner;
pub mod verdict;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus, Probe};
use runtime::{ContainerId, ContainerState, SandboxId, SandboxState};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::pod::plan::Probed;
use crate::pod::{Observed, parts};
use crate::shared::Shared;
use runner::Target;

/// Runs the probes of one pod.
pub(crate) struct Prober {
    shared: Arc<Shared>,
    look: Arc<Notify>,
    verdicts: Arc<Verdicts>,
    running: BTreeMap<ContainerId, JoinSet<()>>,
    /// The pod is being ended: nobody shall be restarted any more.
    ending: Arc<AtomicBool>,
}

/// What the probes of a pod say at the moment.
#[derive(Default)]
pub(crate) struct Verdicts(Mutex<BTreeMap<ContainerId, Probed>>);

impl Verdicts {
    fn all(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Probed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is said of a container; tells whether that is news.
    fn change(&self, id: &ContainerId, change: impl FnOnce(&mut Probed)) -> bool {
        let mut all = self.all();
        let Some(own) = all.get_mut(id) else { return false };
        let before = *own;
        change(own);
        *own != before
    }
}

impl Prober {
    pub(crate) fn new(shared: Arc<Shared>, look: Arc<Notify>) -> Self {
        Self { shared, look, verdicts: Arc::default(), running: BTreeMap::new(), ending: Arc::default() }
    }

    /// What the probes say.
    pub(crate) fn verdicts(&self) -> BTreeMap<ContainerId, Probed> {
        self.verdicts.all().clone()
    }

    /// Probes what is shown as running, and nothing else. What ends is asked for its readiness only.
    pub(crate) fn follow(&mut self, pod: &Arc<Pod>, observed: &Observed, status: &PodStatus) {
        let shown = shown_as_running(status);
        let over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        self.ending.store(over || pod.metadata.deletion_timestamp.is_some(), Ordering::Relaxed);
        let mut alive: BTreeMap<ContainerId, (SandboxId, String, jiff::Timestamp)> = BTreeMap::new();
        for sandbox in observed.sandboxes.iter().filter(|sandbox| sandbox.state == SandboxState::Ready) {
            for record in sandbox.containers.iter().filter(|record| shown.contains_key(record.id.0.as_str())) {
                if let ContainerState::Running { started_at, .. } = record.state {
                    alive.insert(record.id.clone(), (sandbox.spec.id.clone(), record.name.clone(), started_at));
                }
            }
        }
        self.running.retain(|id, _| alive.contains_key(id));
        self.verdicts.all().retain(|id, _| alive.contains_key(id));
        for (id, (sandbox, name, started_at)) in alive {
            let Some(container) = parts::container(pod, &name).filter(|_| !self.running.contains_key(&id)) else {
                continue;
            };
            if probes(&container).into_iter().all(|probe| probe.is_none()) {
                continue;
            }
            let addresses = if observed.addresses.is_empty() { &observed.host_addresses } else { &observed.addresses };
            let last = shown.get(id.0.as_str());
            let target = Target {
                started: last.is_some_and(|last| last.started == Some(true)),
                pod: Arc::clone(pod),
                container: container.into_owned(),
                id: id.clone(),
                sandbox,
                started_at,
                address: addresses.first().copied(),
                ending: Arc::clone(&self.ending),
            };
            self.start(id, target, last.is_some_and(|last| last.ready));
        }
    }

    /// Begins with what was said last: an agent that starts again disturbs nobody who is well.
    fn start(&mut self, id: ContainerId, target: Target, ready: bool) {
        let [startup, readiness, _] = probes(&target.container);
        let started = startup.is_none() || target.started;
        let first = Probed { started, ready: readiness.is_none() || ready, failed: None };
        self.verdicts.all().insert(id.clone(), first);
        let mut tasks = JoinSet::new();
        tasks.spawn(runner::probe_container(
            Arc::clone(&self.shared),
            Arc::clone(&self.verdicts),
            Arc::clone(&self.look),
            target,
        ));
        self.running.insert(id, tasks);
    }
}

/// The containers that a status shows as running, by their ids.
fn shown_as_running(status: &PodStatus) -> BTreeMap<&str, &ContainerStatus> {
    let all = [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    let running = all
        .into_iter()
        .flatten()
        .flatten()
        .filter(|one| one.state.as_ref().is_some_and(|state| state.running.is_some()));
    running.filter_map(|one| Some((one.container_id.as_deref()?.rsplit_once("://")?.1, one))).collect()
}

/// Startup, readiness and liveness probe.
fn probes(container: &Container) -> [Option<&Probe>; 3] {
    [&container.startup_probe, &container.readiness_probe, &container.liveness_probe].map(Option::as_ref)
}
