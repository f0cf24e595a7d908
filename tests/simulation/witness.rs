//! Stands between a kubelet and its seams: delays and fails operations, and watches over what must never happen.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use net::{Attach, Attachment, Network, NetworkError, SimulatedNetwork};
use oci::sys::NetNs;
use runtime::simulated::SimulatedRuntime;
use runtime::{
    Changed, ContainerId, ContainerSpec, ExecResult, ExecSpec, Resize, Resources, Runtime, RuntimeError, SandboxId,
    SandboxSpec, SandboxStatus, Session, SessionSpec, Stop, VolumeSource,
};
use tokio::sync::broadcast;

use crate::wire::Weather;

/// Percent of operations that fail before or after their effect.
const FAILURES: u64 = 4;

/// What was seen in the whole cluster.
#[derive(Default)]
pub(crate) struct Ledger {
    pages: Mutex<Pages>,
}

#[derive(Default)]
struct Pages {
    /// Pod and container that an operation is under way on.
    busy: BTreeSet<(String, String)>,
    /// Attempts of each container that were started.
    starts: BTreeMap<(String, String), Vec<u32>>,
    problems: Vec<String>,
}

impl Ledger {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().expect("no code panics while it holds the pages")
    }

    pub(crate) fn problem(&self, text: String) {
        self.pages().problems.push(text);
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        self.pages().problems.clone()
    }

    /// How often a container of a pod was started.
    pub(crate) fn starts(&self, uid: &str, container: &str) -> usize {
        self.pages().starts.get(&(uid.to_owned(), container.to_owned())).map_or(0, Vec::len)
    }

    fn started(&self, sandbox: &SandboxId, container: &str, attempt: u32) {
        let key = (uid_of(sandbox), container.to_owned());
        let mut pages = self.pages();
        let attempts = pages.starts.entry(key).or_default();
        let stale = attempts.last().is_some_and(|last| *last >= attempt);
        attempts.push(attempt);
        if stale {
            let text = format!("{container} of {sandbox} was started with the attempts {attempts:?}");
            pages.problems.push(text);
        }
    }

    fn begin(self: &Arc<Self>, sandbox: &SandboxId, subject: &str) -> Busy {
        let key = (uid_of(sandbox), subject.to_owned());
        let mut pages = self.pages();
        if !pages.busy.insert(key.clone()) {
            pages.problems.push(format!("two operations at once on {subject} of {sandbox}"));
        }
        Busy { ledger: Arc::clone(self), key }
    }
}

/// An operation under way; it is over when this is dropped.
struct Busy {
    ledger: Arc<Ledger>,
    key: (String, String),
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.ledger.pages().busy.remove(&self.key);
    }
}

fn uid_of(sandbox: &SandboxId) -> String {
    sandbox.0.rsplit_once('-').map_or(sandbox.0.as_str(), |(uid, _)| uid).to_owned()
}

/// A seam with a witness.
pub(crate) struct Witness<S> {
    pub(crate) inner: S,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) weather: Arc<Weather>,
}

impl<S> Witness<S> {
    async fn falter(&self) -> std::io::Result<()> {
        self.weather.delay().await;
        if self.weather.strikes(FAILURES) { Err(std::io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

impl Witness<SimulatedRuntime> {
    async fn step(&self) -> Result<(), RuntimeError> {
        self.falter().await.map_err(|source| RuntimeError::Step { step: "a fault".to_owned(), source })
    }

    async fn name_of(&self, sandbox: &SandboxId, container: &ContainerId) -> String {
        let status = self.inner.status(sandbox).await.ok().flatten();
        let containers = status.map(|status| status.containers).unwrap_or_default();
        let found = containers.into_iter().find(|one| one.id == *container);
        found.map_or_else(|| container.0.clone(), |found| found.name)
    }
}

#[async_trait]
impl Runtime for Witness<SimulatedRuntime> {
    async fn create_sandbox(&self, spec: SandboxSpec) -> Result<(), RuntimeError> {
        let _busy = self.ledger.begin(&spec.id, "the sandbox");
        let id = spec.id.clone();
        self.step().await?;
        let pods = self.inner.list().await?;
        if let Some(other) = pods.iter().find(|one| one.spec.pod_uid == spec.pod_uid && one.spec.id != id) {
            self.ledger.problem(format!("{id} was created beside {}", other.spec.id));
        }
        self.inner.create_sandbox(spec).await?;
        self.step().await
    }

    async fn network_namespace(&self, sandbox: &SandboxId) -> Result<NetNs, RuntimeError> {
        self.inner.network_namespace(sandbox).await
    }

    async fn start_container(&self, sandbox: &SandboxId, spec: ContainerSpec) -> Result<(), RuntimeError> {
        let _busy = self.ledger.begin(sandbox, &spec.name);
        self.step().await?;
        let (name, attempt) = (spec.name.clone(), spec.attempt);
        self.inner.start_container(sandbox, spec).await?;
        self.ledger.started(sandbox, &name, attempt);
        self.step().await
    }

    async fn stop_container(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
        stop: Stop,
    ) -> Result<(), RuntimeError> {
        let _busy = self.ledger.begin(sandbox, &self.name_of(sandbox, container).await);
        self.step().await?;
        self.inner.stop_container(sandbox, container, stop).await?;
        self.step().await
    }

    async fn resize_container(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
        resize: Resize,
    ) -> Result<(), RuntimeError> {
        let _busy = self.ledger.begin(sandbox, &self.name_of(sandbox, container).await);
        self.step().await?;
        self.inner.resize_container(sandbox, container, resize).await?;
        self.step().await
    }

    async fn limit_groups(&self, groups: BTreeMap<PathBuf, Resources>) -> Result<(), RuntimeError> {
        self.step().await?;
        self.inner.limit_groups(groups).await
    }

    async fn remove_container(&self, sandbox: &SandboxId, container: &ContainerId) -> Result<(), RuntimeError> {
        let _busy = self.ledger.begin(sandbox, &self.name_of(sandbox, container).await);
        self.step().await?;
        self.inner.remove_container(sandbox, container).await?;
        self.step().await
    }

    async fn remove_sandbox(&self, sandbox: &SandboxId) -> Result<(), RuntimeError> {
        let _busy = self.ledger.begin(sandbox, "the sandbox");
        self.step().await?;
        self.inner.remove_sandbox(sandbox).await?;
        self.step().await
    }

    async fn open_session(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
        session: SessionSpec,
    ) -> Result<Session, RuntimeError> {
        self.inner.open_session(sandbox, container, session).await
    }

    async fn mount_volume(&self, path: &Path, source: VolumeSource) -> Result<(), RuntimeError> {
        self.step().await?;
        self.inner.mount_volume(path, source).await?;
        self.step().await
    }

    async fn unmount_volume(&self, path: &Path) -> Result<(), RuntimeError> {
        self.step().await?;
        self.inner.unmount_volume(path).await?;
        self.step().await
    }

    async fn attach(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
        typing: runtime::Typing,
    ) -> Result<runtime::Attachment, RuntimeError> {
        self.inner.attach(sandbox, container, typing).await
    }

    async fn exec(&self, sandbox: &SandboxId, id: &ContainerId, exec: ExecSpec) -> Result<ExecResult, RuntimeError> {
        self.inner.exec(sandbox, id, exec).await
    }

    async fn list(&self) -> Result<Vec<SandboxStatus>, RuntimeError> {
        self.inner.list().await
    }

    async fn status(&self, sandbox: &SandboxId) -> Result<Option<SandboxStatus>, RuntimeError> {
        if self.weather.strikes(1) {
            self.step().await?;
        }
        self.inner.status(sandbox).await
    }

    async fn usage(&self, measure: runtime::Measure) -> Result<runtime::Usage, RuntimeError> {
        self.inner.usage(measure).await
    }

    async fn layers(&self, sandbox: &SandboxId) -> Result<BTreeMap<ContainerId, PathBuf>, RuntimeError> {
        self.inner.layers(sandbox).await
    }

    fn changes(&self) -> broadcast::Receiver<Changed> {
        self.inner.changes()
    }
}

impl Witness<Arc<SimulatedNetwork>> {
    async fn step(&self) -> Result<(), NetworkError> {
        self.falter().await.map_err(|source| NetworkError::Kernel { step: "a fault", source })
    }
}

#[async_trait]
impl Network for Witness<Arc<SimulatedNetwork>> {
    async fn attach(&self, request: Attach) -> Result<Attachment, NetworkError> {
        self.step().await?;
        let attachment = self.inner.attach(request).await?;
        self.step().await?;
        Ok(attachment)
    }

    async fn detach(&self, sandbox: &str) -> Result<(), NetworkError> {
        self.step().await?;
        self.inner.detach(sandbox).await?;
        self.step().await
    }

    async fn retain(&self, live: &[String]) -> Result<(), NetworkError> {
        self.inner.retain(live).await
    }

    fn link(&self, sandbox: &str) -> Option<String> {
        self.inner.link(sandbox)
    }

    fn attachment(&self, sandbox: &str) -> Option<Attachment> {
        self.inner.attachment(sandbox)
    }
}
