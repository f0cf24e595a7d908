//! The native runtime: a shim per sandbox, all state on disk and in the shims.
//!
//! Composed by the command line and used through [`crate::Runtime`]. It never enters a namespace, never forks, and
//! holds no state that a restart would lose: [`NativeRuntime::start`] rebuilds its view from the directories and from
//! the shims that answer. Invariants: intent is on disk before anything of it exists; one structural operation at a time
//! per sandbox, and none is torn by a caller that stops waiting; a shim's death is the sandbox's death.
//!
//! ```text
//! create_sandbox ──► record, groups, shim, namespaces ──► Ready ──shim dies──► Dead
//!                                                           └───remove_sandbox───┴──► (nothing)
//! ```

mod attach;
mod create;
mod descriptors;
mod devices;
mod exec;
mod foreign;
mod groups;
mod kept;
mod layout;
mod link;
mod nfs;
mod parts;
mod program;
mod recover;
mod remove;
mod sandbox;
mod spec;
mod start;
mod terminal;
#[cfg(test)]
mod tests;
mod tree;
mod usage;
mod user_namespace;
mod users;
mod volume;
mod watch;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use oci::container::compile::HostFacts;
use oci::sys::NetNs;
use task::{SharedClock, Tasks};
use tokio::sync::broadcast;

use crate::{
    Attachment, Changed, ContainerId, ContainerSpec, ExecResult, ExecSpec, Images, Measure, Resize, Resources, Runtime,
    RuntimeError, SandboxId, SandboxSpec, SandboxStatus, Session, SessionSpec, Stop, Typing, Usage, VolumeSource,
};
pub use descriptors::raise_open_files;
pub use groups::PidLimits;
use layout::Layout;
use sandbox::Sandbox;
pub use tree::remove_tree;

/// How many changes a slow listener may lag behind before it has to look at everything.
const CHANGES: usize = 1024;

/// When logs are rotated, and how much of them is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLimits {
    /// Bytes of one file.
    pub max_size: u64,
    /// Number of files of a container, the current one included.
    pub max_files: u32,
}

impl Default for LogLimits {
    /// The kubelet's `containerLogMaxSize` and `containerLogMaxFiles`.
    fn default() -> Self {
        Self { max_size: 10 << 20, max_files: 5 }
    }
}

/// What the native runtime needs.
pub struct NativeConfig {
    /// Directory for all that it keeps; created if absent.
    pub root: PathBuf,
    /// The per-pod program.
    pub shim: &'static [u8],
    /// Where root file systems come from.
    pub images: Arc<dyn Images>,
    /// Wall time.
    pub clock: SharedClock,
    /// Owns the runtime's tasks.
    pub tasks: Tasks,
    /// Limits of container logs.
    pub logs: LogLimits,
    /// How many tasks pods may have.
    pub pids: PidLimits,
    /// How long the start of a container may take inside its shim.
    pub start_deadline: Duration,
    /// Programs of other OCI runtimes, by the handlers that name them.
    pub handlers: BTreeMap<String, PathBuf>,
}

/// Runs sandboxes on this host. Clones share everything.
#[derive(Clone)]
pub struct NativeRuntime(Arc<Node>);

/// What all operations share.
struct Node {
    layout: Layout,
    program: PathBuf,
    host: HostFacts,
    images: Arc<dyn Images>,
    clock: SharedClock,
    tasks: Tasks,
    logs: LogLimits,
    pids: PidLimits,
    start_deadline: Duration,
    handlers: BTreeMap<String, PathBuf>,
    sandboxes: Mutex<BTreeMap<SandboxId, Arc<Sandbox>>>,
    changes: broadcast::Sender<Changed>,
    /// Limits of groups above those of sandboxes. Held, on blocking threads only, while such groups come and go.
    group_tree: Mutex<BTreeMap<PathBuf, Resources>>,
}

impl NativeRuntime {
    /// Installs the shim program and takes over what an earlier agent has left.
    ///
    /// # Errors
    /// When the directory or the host's control groups cannot be used.
    pub async fn start(config: NativeConfig) -> Result<Self, RuntimeError> {
        let NativeConfig { root, shim, images, clock, tasks, logs, pids, start_deadline, handlers } = config;
        let layout = Layout::new(root);
        let (libexec, sandboxes) = (layout.libexec(), layout.sandboxes());
        let prepared = task::blocking(move || {
            layout::make_private(&sandboxes).map_err(|source| failed("create state directory", source))?;
            let program = program::install(&libexec, shim).map_err(|source| failed("install shim", source))?;
            let host = HostFacts::detect().map_err(|error| failed("examine host", io::Error::other(error)))?;
            Ok((program, host))
        });
        let (program, host) = prepared.await?;
        let (changes, _) = broadcast::channel(CHANGES);
        let (sandboxes, group_tree) = (Mutex::default(), Mutex::default());
        let node = Node {
            layout,
            program,
            host,
            images,
            clock,
            tasks,
            logs,
            pids,
            start_deadline,
            handlers,
            sandboxes,
            changes,
            group_tree,
        };
        let node = Arc::new(node);
        recover::recover(&node).await?;
        Ok(Self(node))
    }

    /// Runs an operation to its end, whether or not the caller waits for it.
    async fn complete<T: Send + 'static>(
        &self,
        name: &'static str,
        operation: impl Future<Output = Result<T, RuntimeError>> + Send + 'static,
    ) -> Result<T, RuntimeError> {
        match self.0.tasks.spawn(name, operation).await {
            Ok(Some(result)) => result,
            Ok(None) | Err(_) => Err(failed("operation", io::Error::from(io::ErrorKind::Interrupted))),
        }
    }
}

impl Node {
    fn sandboxes(&self) -> MutexGuard<'_, BTreeMap<SandboxId, Arc<Sandbox>>> {
        self.sandboxes.lock().expect("no code panics while it holds the table")
    }

    fn find(&self, id: &SandboxId) -> Result<Arc<Sandbox>, RuntimeError> {
        let found = self.sandboxes().get(id).cloned();
        found.ok_or_else(|| RuntimeError::NoSandbox { sandbox: id.clone() })
    }

    /// The program of the other runtime that a sandbox asks for, if it asks for one.
    fn other_runtime(&self, spec: &SandboxSpec) -> Result<Option<&Path>, RuntimeError> {
        let Some(handler) = &spec.handler else { return Ok(None) };
        let program = self.handlers.get(handler).map(PathBuf::as_path);
        program.map(Some).ok_or_else(|| RuntimeError::NoHandler { handler: handler.clone() })
    }

    fn changed(&self, id: &SandboxId) {
        // Without a receiver nobody wants to know.
        let _ = self.changes.send(Changed(id.clone()));
    }
}

/// A step that failed.
fn failed(step: impl Into<String>, source: impl Into<io::Error>) -> RuntimeError {
    RuntimeError::Step { step: step.into(), source: source.into() }
}

#[async_trait]
impl Runtime for NativeRuntime {
    async fn create_sandbox(&self, spec: SandboxSpec) -> Result<(), RuntimeError> {
        self.complete("create-sandbox", create::create(Arc::clone(&self.0), spec)).await
    }

    async fn network_namespace(&self, sandbox: &SandboxId) -> Result<NetNs, RuntimeError> {
        self.0.find(sandbox)?.network_namespace().map(NetNs::new)
    }

    async fn start_container(&self, sandbox: &SandboxId, spec: ContainerSpec) -> Result<(), RuntimeError> {
        let operation = start::start(Arc::clone(&self.0), sandbox.clone(), spec);
        self.complete("start-container", operation).await
    }

    async fn stop_container(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
        stop: Stop,
    ) -> Result<(), RuntimeError> {
        start::stop(&self.0, sandbox, container, stop).await
    }

    async fn resize_container(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
        resize: Resize,
    ) -> Result<(), RuntimeError> {
        let (node, sandbox, container) = (Arc::clone(&self.0), sandbox.clone(), container.clone());
        task::blocking(move || groups::resize(&node, &sandbox, &container, &resize)).await
    }

    async fn limit_groups(&self, groups: BTreeMap<PathBuf, Resources>) -> Result<(), RuntimeError> {
        let node = Arc::clone(&self.0);
        task::blocking(move || groups::limit_shared(&node, groups)).await
    }

    async fn remove_container(&self, sandbox: &SandboxId, container: &ContainerId) -> Result<(), RuntimeError> {
        let operation = remove::container(Arc::clone(&self.0), sandbox.clone(), container.clone());
        self.complete("remove-container", operation).await
    }

    async fn remove_sandbox(&self, sandbox: &SandboxId) -> Result<(), RuntimeError> {
        let operation = remove::sandbox(Arc::clone(&self.0), sandbox.clone());
        self.complete("remove-sandbox", operation).await
    }

    async fn exec(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
        exec: ExecSpec,
    ) -> Result<ExecResult, RuntimeError> {
        exec::exec(&self.0, sandbox, container, exec).await
    }

    async fn open_session(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
        spec: SessionSpec,
    ) -> Result<Session, RuntimeError> {
        exec::open_session(&self.0, sandbox, container, spec).await
    }

    async fn attach(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
        typing: Typing,
    ) -> Result<Attachment, RuntimeError> {
        attach::attach(&self.0, sandbox, container, typing).await
    }

    async fn mount_volume(&self, at: &Path, source: VolumeSource) -> Result<(), RuntimeError> {
        volume::mount_at(at.to_owned(), source).await
    }

    async fn unmount_volume(&self, at: &Path) -> Result<(), RuntimeError> {
        let at = at.to_owned();
        task::blocking(move || volume::unmount_at(&at)).await
    }

    async fn list(&self) -> Result<Vec<SandboxStatus>, RuntimeError> {
        let sandboxes: Vec<_> = self.0.sandboxes().values().cloned().collect();
        Ok(sandboxes.iter().filter_map(|sandbox| sandbox.status()).collect())
    }

    async fn status(&self, sandbox: &SandboxId) -> Result<Option<SandboxStatus>, RuntimeError> {
        let found = self.0.sandboxes().get(sandbox).cloned();
        Ok(found.and_then(|sandbox| sandbox.status()))
    }

    async fn usage(&self, measure: Measure) -> Result<Usage, RuntimeError> {
        let node = Arc::clone(&self.0);
        task::blocking(move || usage::read(&node, measure)).await
    }

    async fn layers(&self, sandbox: &SandboxId) -> Result<BTreeMap<ContainerId, PathBuf>, RuntimeError> {
        let status = self.status(sandbox).await?.ok_or_else(|| RuntimeError::NoSandbox { sandbox: sandbox.clone() })?;
        let layer = |id: &ContainerId| self.0.layout.container(sandbox, id).join(start::LAYER);
        Ok(status.containers.iter().map(|one| (one.id.clone(), layer(&one.id))).collect())
    }

    fn changes(&self) -> broadcast::Receiver<Changed> {
        self.0.changes.subscribe()
    }
}
