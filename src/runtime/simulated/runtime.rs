//! The simulated runtime.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use oci::sys::NetNs;
use task::{SharedClock, Tasks};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{Notify, broadcast};
use tokio::time::Instant;

use super::program::{Ending, ExecOutcome, Program, StartFailure};
use super::state::{Moment, State, write_log};
use crate::{
    Attachment, Changed, ContainerId, ContainerSpec, ContainerState, ExecResult, ExecSpec, Measure, Resize, Resources,
    Runtime, RuntimeError, SandboxId, SandboxSpec, SandboxStatus, Session, SessionSpec, Stop, Typing, Usage,
    VolumeSource, Wanted,
};

/// Bytes of a stream that wait to be read.
const SESSION_BUFFER: usize = 4096;

/// An operation that was asked for, for tests that assert on effects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    CreateSandbox(SandboxId),
    /// Name and attempt of the container.
    StartContainer(SandboxId, String, u32),
    StopContainer(SandboxId, ContainerId, Stop),
    ResizeContainer(SandboxId, ContainerId, Resize),
    RemoveContainer(SandboxId, ContainerId),
    RemoveSandbox(SandboxId),
    MountVolume(PathBuf, VolumeSource),
    UnmountVolume(PathBuf),
    /// The command.
    Exec(SandboxId, ContainerId, Vec<String>),
}

/// A runtime whose containers are [`Program`]s.
#[derive(Clone)]
pub struct SimulatedRuntime(Arc<Inner>);

struct Inner {
    clock: SharedClock,
    locked: Mutex<Locked>,
    wake: Arc<Notify>,
    changes: broadcast::Sender<Changed>,
}

#[derive(Default)]
struct Locked {
    state: State,
    programs: BTreeMap<String, Vec<Program>>,
    calls: Vec<Call>,
    /// Limits of groups above those of sandboxes.
    groups: BTreeMap<PathBuf, Resources>,
    /// What is said to have been used.
    usage: Usage,
    /// Other runtimes that are configured.
    handlers: BTreeSet<String>,
    /// Containers whose input somebody has asked for.
    talked_to: BTreeSet<ContainerId>,
}

impl SimulatedRuntime {
    /// An empty node. Its one task ends with `tasks`.
    pub fn new(clock: SharedClock, tasks: &Tasks) -> Self {
        let (changes, _) = broadcast::channel(1024);
        let wake = Arc::new(Notify::new());
        let runtime = Self(Arc::new(Inner { clock, locked: Mutex::default(), wake, changes }));
        tasks.spawn("simulated-runtime", runtime.clone().drive());
        runtime
    }

    /// Says what containers named `container` do: one program per attempt, the last one for all later attempts too.
    /// Without a word, they serve until they are stopped.
    pub fn program(&self, container: &str, attempts: Vec<Program>) {
        self.lock().programs.insert(container.to_owned(), attempts);
    }

    /// Configures another runtime.
    pub fn add_handler(&self, handler: &str) {
        self.lock().handlers.insert(handler.to_owned());
    }

    /// Limits of the groups above those of sandboxes.
    pub fn groups(&self) -> BTreeMap<PathBuf, Resources> {
        self.lock().groups.clone()
    }

    /// Ends a running container now.
    pub fn end_container(&self, sandbox: &SandboxId, container: &ContainerId, ending: Ending) {
        self.lock().state.end_now(sandbox, container, ending, Instant::now());
        self.0.wake.notify_one();
    }

    /// Kills the shim of a sandbox, and with it all that runs there.
    pub fn kill_shim(&self, sandbox: &SandboxId) {
        let now = self.now();
        self.lock().state.kill_shim(sandbox, now);
        self.changed(sandbox);
    }

    /// Says what has been used until now.
    pub fn use_up(&self, usage: Usage) {
        self.lock().usage = usage;
    }

    /// What was asked so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    async fn drive(self) {
        loop {
            let next = self.lock().state.next();
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = self.0.wake.notified() => {}
            }
            let now = self.now();
            let changed = self.lock().state.advance(now);
            for change in changed {
                // Without a receiver nobody wants to know.
                let _ = self.0.changes.send(change);
            }
        }
    }

    fn now(&self) -> Moment {
        Moment { instant: Instant::now(), wall: self.0.clock.now() }
    }

    fn changed(&self, sandbox: &SandboxId) {
        // Without a receiver nobody wants to know.
        let _ = self.0.changes.send(Changed(sandbox.clone()));
        self.0.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Locked> {
        self.0.locked.lock().expect("no code panics while it holds the state")
    }

    /// What the next start of a container does; none when it was started before.
    fn begin(&self, sandbox: &SandboxId, spec: &ContainerSpec) -> Result<Option<Program>, RuntimeError> {
        let mut locked = self.lock();
        locked.calls.push(Call::StartContainer(sandbox.clone(), spec.name.clone(), spec.attempt));
        let existing =
            locked.state.ready(sandbox).ok_or_else(|| RuntimeError::NoSandbox { sandbox: sandbox.clone() })?;
        if existing.status.containers.iter().any(|container| container.id == spec.id) {
            return Ok(None);
        }
        let attempt = usize::try_from(spec.attempt).unwrap_or(usize::MAX);
        let programs = locked.programs.get(&spec.name);
        Ok(Some(programs.and_then(|all| all.get(attempt).or(all.last())).cloned().unwrap_or_default()))
    }
}

fn start_error(failure: StartFailure, spec: &ContainerSpec) -> RuntimeError {
    match failure {
        StartFailure::NotFound => RuntimeError::Execute {
            command: spec.args.first().cloned().unwrap_or_default(),
            source: io::ErrorKind::NotFound.into(),
        },
        StartFailure::NoImage => RuntimeError::NoImage { image: spec.image.clone() },
        StartFailure::UnknownUser => RuntimeError::UnknownUser { user: spec.user.user.clone() },
        StartFailure::Step => {
            RuntimeError::Step { step: "simulated step".to_owned(), source: io::ErrorKind::Other.into() }
        }
    }
}

#[async_trait]
impl Runtime for SimulatedRuntime {
    async fn create_sandbox(&self, spec: SandboxSpec) -> Result<(), RuntimeError> {
        let now = self.now();
        let id = spec.id.clone();
        {
            let mut locked = self.lock();
            locked.calls.push(Call::CreateSandbox(id.clone()));
            if let Some(handler) = spec.handler.as_ref().filter(|handler| !locked.handlers.contains(*handler)) {
                return Err(RuntimeError::NoHandler { handler: handler.clone() });
            }
            locked.state.create(spec, now);
        }
        self.changed(&id);
        Ok(())
    }

    async fn network_namespace(&self, sandbox: &SandboxId) -> Result<NetNs, RuntimeError> {
        if self.lock().state.ready(sandbox).is_none() {
            return Err(RuntimeError::NoSandbox { sandbox: sandbox.clone() });
        }
        NetNs::current().map_err(|source| RuntimeError::Step { step: "open network namespace".to_owned(), source })
    }

    async fn start_container(&self, sandbox: &SandboxId, spec: ContainerSpec) -> Result<(), RuntimeError> {
        if spec.args.is_empty() {
            return Err(RuntimeError::Invalid { message: "no command".to_owned() });
        }
        if let Some(other) = &spec.processes_of
            && self.lock().state.running(sandbox, other).is_none()
        {
            return Err(RuntimeError::NoContainer { container: other.clone() });
        }
        let Some(program) = self.begin(sandbox, &spec)? else { return Ok(()) };
        tokio::time::sleep(program.start_latency).await;
        if let Some(failure) = program.start_failure {
            return Err(start_error(failure, &spec));
        }
        let now = self.now();
        let id = spec.id.clone();
        let output = program.output.clone();
        let log = {
            let mut locked = self.lock();
            locked.state.start(sandbox, spec, program, now);
            let started =
                locked.state.ready(sandbox).ok_or_else(|| RuntimeError::NoSandbox { sandbox: sandbox.clone() })?;
            started.status.containers.iter().find(|container| container.id == id).map(|found| found.log_path.clone())
        };
        if let Some(path) = log.filter(|_| !output.is_empty()) {
            write_log(&path, &output, now.wall)
                .map_err(|source| RuntimeError::Step { step: "write log".to_owned(), source })?;
        }
        self.changed(sandbox);
        Ok(())
    }

    async fn stop_container(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
        stop: Stop,
    ) -> Result<(), RuntimeError> {
        let found = {
            let mut locked = self.lock();
            locked.calls.push(Call::StopContainer(sandbox.clone(), container.clone(), stop));
            if !locked.state.sandboxes.contains_key(sandbox) {
                return Err(RuntimeError::NoSandbox { sandbox: sandbox.clone() });
            }
            locked.state.stop(sandbox, container, stop, Instant::now())
        };
        self.0.wake.notify_one();
        found.then_some(()).ok_or_else(|| RuntimeError::NoContainer { container: container.clone() })
    }

    async fn resize_container(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
        resize: Resize,
    ) -> Result<(), RuntimeError> {
        let mut locked = self.lock();
        locked.calls.push(Call::ResizeContainer(sandbox.clone(), container.clone(), resize));
        let found = locked.state.running(sandbox, container);
        found.map(|_| ()).ok_or_else(|| RuntimeError::NoContainer { container: container.clone() })
    }

    async fn limit_groups(&self, groups: BTreeMap<PathBuf, Resources>) -> Result<(), RuntimeError> {
        self.lock().groups = groups;
        Ok(())
    }

    async fn remove_container(&self, sandbox: &SandboxId, container: &ContainerId) -> Result<(), RuntimeError> {
        {
            let mut locked = self.lock();
            locked.calls.push(Call::RemoveContainer(sandbox.clone(), container.clone()));
            if locked.state.running(sandbox, container).is_some() {
                return Err(RuntimeError::Invalid { message: format!("container {container} runs") });
            }
            locked.state.remove_container(sandbox, container);
        }
        self.changed(sandbox);
        Ok(())
    }

    async fn remove_sandbox(&self, sandbox: &SandboxId) -> Result<(), RuntimeError> {
        {
            let mut locked = self.lock();
            locked.calls.push(Call::RemoveSandbox(sandbox.clone()));
            locked.state.sandboxes.remove(sandbox);
        }
        self.changed(sandbox);
        Ok(())
    }

    async fn exec(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
        exec: ExecSpec,
    ) -> Result<ExecResult, RuntimeError> {
        let outcome: ExecOutcome = {
            let mut locked = self.lock();
            let program = locked.state.running(sandbox, container);
            let program = program.ok_or_else(|| RuntimeError::NoContainer { container: container.clone() })?;
            let own = exec.args.first().and_then(|command| program.commands.get(command));
            let outcome = own.unwrap_or(&program.exec).clone();
            locked.calls.push(Call::Exec(sandbox.clone(), container.clone(), exec.args));
            outcome
        };
        let limited = |mut bytes: Vec<u8>| {
            bytes.truncate(exec.output_limit);
            bytes
        };
        if let Some(timeout) = exec.timeout.filter(|timeout| *timeout < outcome.latency) {
            tokio::time::sleep(timeout).await;
            return Ok(ExecResult { code: None, stdout: limited(outcome.stdout), stderr: limited(outcome.stderr) });
        }
        tokio::time::sleep(outcome.latency).await;
        Ok(ExecResult { code: Some(outcome.code), stdout: limited(outcome.stdout), stderr: limited(outcome.stderr) })
    }

    /// Says what the program says, echoes its input before that, and ends.
    async fn open_session(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
        spec: SessionSpec,
    ) -> Result<Session, RuntimeError> {
        let SessionSpec { args, streams } = spec;
        let run = self
            .exec(sandbox, container, ExecSpec { args, timeout: None, output_limit: usize::MAX, again: false })
            .await?;
        let (has_input, has_error) = match streams {
            Wanted::Terminal { stdin } => (stdin, false),
            Wanted::Pipes { stdin, stderr, .. } => (stdin, stderr),
        };
        let (input, theirs) = tokio::io::duplex(SESSION_BUFFER);
        let (mut output, stdout) = tokio::io::duplex(SESSION_BUFFER);
        let (mut errors, stderr) = tokio::io::duplex(SESSION_BUFFER);
        let end = Box::pin(async move {
            let failed = |source| RuntimeError::Step { step: "talk with command".to_owned(), source };
            if has_input {
                let mut theirs = theirs;
                tokio::io::copy(&mut theirs, &mut output).await.map_err(failed)?;
            }
            output.write_all(&run.stdout).await.map_err(failed)?;
            errors.write_all(&run.stderr).await.map_err(failed)?;
            Ok(run.code.unwrap_or(137))
        });
        let stdin = has_input.then(|| Box::new(input) as crate::Input);
        let stderr = has_error.then(|| Box::new(stderr) as crate::Output);
        Ok(Session { stdin, stdout: Some(Box::new(stdout)), stderr, window: None, end })
    }

    /// Input goes nowhere, and what the program says is in its log from the beginning.
    async fn attach(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
        typing: Typing,
    ) -> Result<Attachment, RuntimeError> {
        let no_container = || RuntimeError::NoContainer { container: container.clone() };
        let is_first = {
            let mut locked = self.lock();
            locked.state.running(sandbox, container).ok_or_else(no_container)?;
            typing != Typing::Not && locked.talked_to.insert(container.clone())
        };
        let stdin = (typing != Typing::Not).then(|| Box::new(tokio::io::sink()) as crate::Input);
        let (runtime, sandbox, container) = (self.clone(), sandbox.clone(), container.clone());
        let mut changes = self.changes();
        let end = Box::pin(async move {
            while runtime.lock().state.running(&sandbox, &container).is_some() {
                // A receiver that lags behind looks again.
                let _ = changes.recv().await;
            }
        });
        Ok(Attachment { stdin, window: None, is_first, end })
    }

    async fn mount_volume(&self, at: &Path, source: VolumeSource) -> Result<(), RuntimeError> {
        let failed = |source| RuntimeError::Step { step: "mount volume".to_owned(), source };
        if let VolumeSource::Nfs { .. } = source {
            return Err(failed(std::io::Error::from(std::io::ErrorKind::HostUnreachable)));
        }
        std::fs::create_dir_all(at).map_err(failed)?;
        self.lock().calls.push(Call::MountVolume(at.to_owned(), source));
        Ok(())
    }

    async fn unmount_volume(&self, at: &Path) -> Result<(), RuntimeError> {
        self.lock().calls.push(Call::UnmountVolume(at.to_owned()));
        Ok(())
    }

    async fn list(&self) -> Result<Vec<SandboxStatus>, RuntimeError> {
        Ok(self.lock().state.sandboxes.values().map(|sandbox| sandbox.status.clone()).collect())
    }

    async fn status(&self, sandbox: &SandboxId) -> Result<Option<SandboxStatus>, RuntimeError> {
        Ok(self.lock().state.sandboxes.get(sandbox).map(|sandbox| sandbox.status.clone()))
    }

    async fn usage(&self, _: Measure) -> Result<Usage, RuntimeError> {
        Ok(self.lock().usage.clone())
    }

    async fn layers(&self, _: &SandboxId) -> Result<BTreeMap<ContainerId, PathBuf>, RuntimeError> {
        Ok(BTreeMap::new())
    }

    fn changes(&self) -> broadcast::Receiver<Changed> {
        self.0.changes.subscribe()
    }
}

impl SimulatedRuntime {
    /// How many containers run on the node.
    pub fn running(&self) -> usize {
        let locked = self.lock();
        let containers = locked.state.sandboxes.values().flat_map(|sandbox| &sandbox.status.containers);
        containers.filter(|container| matches!(container.state, ContainerState::Running { .. })).count()
    }
}
