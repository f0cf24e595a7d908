//! What the agent knows of a sandbox: a view of the shim's truth, never more.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};

use jiff::Timestamp;
use oci::protocol::{ContainerRecord, Failure, Outcome, Reply, Request, RunState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::unix::AsyncFd;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::failed;
use super::kept::KeptCommands;
use super::layout::{ContainerStarted, SandboxRecord};
use super::link::{Link, LinkError};
use crate::{ContainerId, ContainerState, ContainerStatus, Exit, RuntimeError, SandboxId, SandboxState, SandboxStatus};

const SIGKILL: i32 = 9;

/// A sandbox that has a record on disk.
#[derive(Debug)]
pub(super) struct Sandbox {
    pub(super) record: SandboxRecord,
    /// Structural operations take turns.
    turn: Semaphore,
    view: Mutex<View>,
    pub(super) kept: KeptCommands,
}

#[derive(Debug)]
struct View {
    life: Life,
    containers: BTreeMap<ContainerId, Known>,
}

/// Whether there is a shim.
#[derive(Debug, Clone)]
pub(super) enum Life {
    /// Not yet.
    Creating,
    Ready(Live),
    /// Its removal has begun; only that needs the shim any more.
    Ending(Live),
    /// Not any more.
    Dead,
}

/// A shim that lives.
#[derive(Debug, Clone)]
pub(super) struct Live {
    pub(super) pid: u32,
    pub(super) pidfd: Arc<AsyncFd<OwnedFd>>,
    pub(super) link: Link,
    /// Whether it can keep commands, as shims of version 2 can.
    pub(super) keeps: bool,
    /// Whether it lets somebody be at the streams of its containers.
    pub(super) attaches: bool,
}

impl Live {
    /// Whether the shim has ended.
    pub(super) fn is_over(&self) -> bool {
        let mut descriptors = [PollFd::new(self.pidfd.get_ref(), PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut descriptors, Some(&now)).is_ok_and(|ready| ready > 0)
    }
}

/// A container that was started.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) started: ContainerStarted,
    pub(super) record: ContainerRecord,
}

impl Sandbox {
    pub(super) fn new(record: SandboxRecord) -> Self {
        let view = View { life: Life::Creating, containers: BTreeMap::new() };
        Self { record, turn: Semaphore::new(1), view: Mutex::new(view), kept: KeptCommands::default() }
    }

    pub(super) fn id(&self) -> &SandboxId {
        &self.record.spec.id
    }

    /// Waits for the sandbox's turn.
    pub(super) async fn turn(&self) -> SemaphorePermit<'_> {
        self.turn.acquire().await.expect("the semaphore is never closed")
    }

    /// The shim, if it lives.
    pub(super) fn live(&self) -> Result<Live, RuntimeError> {
        match &self.view().life {
            Life::Ready(live) => Ok(live.clone()),
            Life::Creating | Life::Ending(_) | Life::Dead => {
                Err(RuntimeError::NoSandbox { sandbox: self.id().clone() })
            }
        }
    }

    /// The network namespace of the shim.
    pub(super) fn network_namespace(&self) -> Result<OwnedFd, RuntimeError> {
        let live = self.live()?;
        let opened = std::fs::File::open(format!("/proc/{}/ns/net", live.pid));
        let opened = opened.map_err(|source| failed("open network namespace", source))?;
        // The id could be another process's by now, unless the shim still lives.
        if live.is_over() {
            return Err(RuntimeError::NoSandbox { sandbox: self.id().clone() });
        }
        Ok(opened.into())
    }

    pub(super) fn life(&self) -> Life {
        self.view().life.clone()
    }

    pub(super) fn set_life(&self, life: Life) {
        self.view().life = life;
    }

    /// As [`Sandbox::set_life`], unless its removal has begun; whether it was done.
    pub(super) fn set_life_unless_ending(&self, life: Life) -> bool {
        let mut view = self.view();
        let is_ending = matches!(view.life, Life::Ending(_));
        if !is_ending {
            view.life = life;
        }
        !is_ending
    }

    /// A container that was started.
    pub(super) fn container(&self, id: &ContainerId) -> Option<Known> {
        self.view().containers.get(id).cloned()
    }

    pub(super) fn containers(&self) -> Vec<Known> {
        self.view().containers.values().cloned().collect()
    }

    /// Learns of a container; older news than what is known changes nothing.
    pub(super) fn learn(&self, known: Known) {
        let mut view = self.view();
        let newer =
            view.containers.get(&known.started.id).is_none_or(|before| before.record.sequence <= known.record.sequence);
        if newer {
            view.containers.insert(known.started.id.clone(), known);
        }
    }

    pub(super) fn forget(&self, id: &ContainerId) {
        self.view().containers.remove(id);
        self.kept.forget(id);
    }

    /// What can be seen from outside; nothing before the sandbox has been created.
    pub(super) fn status(&self) -> Option<SandboxStatus> {
        let view = self.view();
        let state = match view.life {
            Life::Creating => return None,
            Life::Ready(_) => SandboxState::Ready,
            Life::Ending(_) | Life::Dead => SandboxState::Dead,
        };
        let mut containers: Vec<&Known> = view.containers.values().collect();
        containers.sort_by_key(|known| (known.started.created_at, known.started.attempt));
        Some(SandboxStatus {
            spec: self.record.spec.clone(),
            state,
            created_at: self.record.created_at,
            containers: containers.into_iter().map(status).collect(),
        })
    }

    /// Asks the shim.
    pub(super) async fn ask(&self, request: Request, descriptors: Vec<OwnedFd>) -> Result<Reply, RuntimeError> {
        let link = self.live()?.link;
        match link.request(request, descriptors).await {
            Ok(reply) => Ok(reply),
            Err(LinkError::Closed) => Err(RuntimeError::NoSandbox { sandbox: self.id().clone() }),
            Err(error @ LinkError::Encode(_)) => {
                Err(RuntimeError::Invalid { message: format!("container is too large: {error}") })
            }
        }
    }

    /// An answer that has no place where it came.
    pub(super) fn protocol_error(&self, reply: &Reply) -> RuntimeError {
        RuntimeError::Protocol { sandbox: self.id().clone(), message: format!("unexpected {reply:?}") }
    }

    /// What a failure in the shim means to the caller.
    pub(super) fn error(&self, failure: Failure, container: &ContainerId, command: &str) -> RuntimeError {
        match failure {
            Failure::NoContainer => RuntimeError::NoContainer { container: container.clone() },
            Failure::Runs => RuntimeError::Invalid { message: format!("container {container} runs") },
            Failure::Exists => RuntimeError::Invalid { message: format!("container {container} was started before") },
            Failure::Step { step, errno } => {
                RuntimeError::Step { step, source: std::io::Error::from_raw_os_error(errno) }
            }
            Failure::Execute { errno } => {
                RuntimeError::Execute { command: command.to_owned(), source: std::io::Error::from_raw_os_error(errno) }
            }
            Failure::Invalid => RuntimeError::Protocol {
                sandbox: self.id().clone(),
                message: "the shim does not understand the request".to_owned(),
            },
        }
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().expect("no code panics while it holds the view")
    }
}

fn status(known: &Known) -> ContainerStatus {
    let Known { started, record } = known;
    let started_at = moment(record.started_at);
    let state = match record.state {
        RunState::Running { pid } => ContainerState::Running { pid, started_at },
        RunState::Exited { outcome, oom_killed, finished_at } => {
            let (code, signal) = match outcome {
                Outcome::Code(code) => (code, None),
                Outcome::Signal(signal) => (128 + signal, Some(signal)),
            };
            // The kernel kills for want of memory with SIGKILL, and the shell of a container reports it as 137.
            let oom_killed = oom_killed && code == 128 + SIGKILL;
            ContainerState::Exited(Exit { code, signal, oom_killed, started_at, finished_at: moment(finished_at) })
        }
    };
    ContainerStatus {
        id: started.id.clone(),
        name: started.name.clone(),
        attempt: started.attempt,
        image: started.image.clone(),
        image_reference: started.image_reference.clone(),
        labels: started.labels.clone(),
        user: started.user.clone(),
        state,
        log_path: started.log_path.clone(),
    }
}

/// Nanoseconds since 1970 as a moment; what is out of range is the nearest that is in.
fn moment(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// What becomes of a container whose shim died: it was killed, and nobody saw when.
pub(super) fn lost(record: &ContainerRecord, now: Timestamp) -> ContainerRecord {
    let finished_at = i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX);
    let state = RunState::Exited { outcome: Outcome::Signal(SIGKILL), oom_killed: false, finished_at };
    ContainerRecord { sequence: record.sequence.saturating_add(1), state, ..record.clone() }
}
