//! From a specification to a sandbox that can run containers.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use oci::cgroup::Joins;
use oci::container::users::IdMaps;
use oci::protocol::{Failure, Frames, FromShim, Namespaces, SetUp, ToShim};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use tokio::io::unix::AsyncFd;

use super::layout::{SANDBOX, SandboxRecord, make_private, write_json};
use super::link::{Link, Socket};
use super::program::Spawned;
use super::sandbox::{Life, Live, Sandbox};
use super::{Node, failed, foreign, groups, program, remove, watch};
use crate::{PidSharing, RuntimeError, SandboxId, SandboxSpec, Sharing};

/// Bytes of the `/dev/shm` that the containers of a sandbox share, as upstream.
const SHM_SIZE: u64 = 64 << 20;

/// How long a shim may take to set itself up.
const SET_UP: Duration = Duration::from_secs(30);

/// Creates a sandbox, or finds it existing.
pub(super) async fn create(node: Arc<Node>, spec: SandboxSpec) -> Result<(), RuntimeError> {
    validate(&spec)?;
    if node.other_runtime(&spec)?.is_some() {
        foreign::check(&spec)?;
    }
    let record = SandboxRecord { created_at: node.clock.now(), spec };
    let new = Arc::new(Sandbox::new(record));
    let sandbox = Arc::clone(node.sandboxes().entry(new.id().clone()).or_insert_with(|| Arc::clone(&new)));
    let _turn = sandbox.turn().await;
    if !matches!(sandbox.life(), Life::Creating) {
        return Ok(());
    }
    match set_up(&node, &sandbox).await {
        Ok(live) => {
            sandbox.set_life(Life::Ready(live.clone()));
            // Another attempt may have failed and taken it away while this one waited for its turn.
            node.sandboxes().insert(sandbox.id().clone(), Arc::clone(&sandbox));
            watch::watch(&node, &sandbox, live);
            node.changed(sandbox.id());
            Ok(())
        }
        Err(error) => {
            // The directory is still there if this fails too: the next agent finds it and removes it.
            if let Err(leftover) = remove::undo(&node, &sandbox).await {
                tracing::warn!(sandbox = %sandbox.id(), error = %leftover, "cannot undo the creation of a sandbox");
            }
            node.sandboxes().remove(sandbox.id());
            Err(error)
        }
    }
}

fn validate(spec: &SandboxSpec) -> Result<(), RuntimeError> {
    let invalid = |message: &str| Err(RuntimeError::Invalid { message: message.to_owned() });
    if !is_plain_name(&spec.id.0) {
        return invalid("the sandbox's identity is no file name");
    }
    if spec.user_namespace.is_some() {
        if spec.network == Sharing::Host || spec.ipc == Sharing::Host || spec.pid == PidSharing::Host {
            return invalid("a user namespace cannot be combined with the host's network, IPC or processes");
        }
        if spec.user_namespace.is_some_and(|range| range.first == 0 || range.first.checked_add(range.count).is_none()) {
            return invalid("the ids of the user namespace are no ids, or the host's root is among them");
        }
    }
    if spec.network == Sharing::Host && spec.sysctls.keys().any(|name| name.starts_with("net.")) {
        return invalid("parameters of the network cannot be set with the host's network");
    }
    Ok(())
}

/// Whether a string names an entry of a directory.
pub(super) fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0'])
}

/// A shim on its way.
struct Beginning {
    pid: u32,
    pidfd: AsyncFd<OwnedFd>,
    socket: Socket,
}

async fn set_up(node: &Arc<Node>, sandbox: &Arc<Sandbox>) -> Result<Live, RuntimeError> {
    let directory = node.layout.sandbox(sandbox.id());
    let (spawned, joins) = {
        let (node, sandbox, directory) = (Arc::clone(node), Arc::clone(sandbox), directory.clone());
        task::blocking(move || prepare(&node, &sandbox, &directory)).await?
    };
    let Spawned { pid, pidfd, socket } = spawned;
    let pidfd = watch::register(pidfd).map_err(|source| failed("watch shim", source))?;
    let socket = Socket::new(socket).map_err(|source| failed("watch shim's socket", source))?;
    let mut shim = Beginning { pid, pidfd, socket };
    let greeted = tokio::time::timeout(SET_UP, introduce(node, sandbox, &mut shim, joins)).await;
    match greeted {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(dispose(&shim.pidfd, error).await),
        Err(_) => {
            let late = failed("set up shim", std::io::Error::from(std::io::ErrorKind::TimedOut));
            return Err(dispose(&shim.pidfd, late).await);
        }
    }
    let Beginning { pid, pidfd, socket } = shim;
    // It is a shim of this release.
    Ok(Live { pid, pidfd: Arc::new(pidfd), link: Link::new(socket, &node.tasks), keeps: true, attaches: true })
}

/// Everything on disk and in the kernel that comes before the shim, the way into its group, and the shim's process.
fn prepare(node: &Node, sandbox: &Sandbox, directory: &Path) -> Result<(Spawned, Joins), RuntimeError> {
    let spec = &sandbox.record.spec;
    make_private(&directory.join("containers")).map_err(|source| failed("create sandbox directory", source))?;
    let record = directory.join(SANDBOX);
    write_json(&record, &sandbox.record).map_err(|source| failed("record sandbox", source))?;
    groups::create_pod(node, spec)?;
    let group = groups::create_shim(node, spec)?;
    let joins = group.open_joins().map_err(groups::cgroup_failed)?;
    let spawned = program::spawn(&node.program, directory).map_err(|source| failed("start shim", source))?;
    Ok((spawned, joins))
}

/// Tells a new shim what it shall be and waits until it is.
async fn introduce(
    node: &Arc<Node>,
    sandbox: &Sandbox,
    shim: &mut Beginning,
    joins: Joins,
) -> Result<(), RuntimeError> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let root = rustix::fs::open(node.layout.sandbox(sandbox.id()), flags, Mode::empty());
    let root = root.map_err(|errno| failed("open sandbox directory", errno))?;
    let wanted = ToShim::SetUp(wanted(&sandbox.record.spec, &joins));
    let descriptors: Vec<_> =
        [root.as_fd()].into_iter().chain(joins.v1()).chain(joins.v2.as_ref().map(AsFd::as_fd)).collect();
    shim.socket.say(&wanted, &descriptors).await.map_err(|source| failed("speak to shim", source))?;
    let mut frames = Frames::new();
    match hear(&shim.socket, &mut frames).await? {
        FromShim::Hello { pid, .. } => follow(node, shim, pid)?,
        other => return Err(refused(sandbox, other)),
    }
    match hear(&shim.socket, &mut frames).await? {
        FromShim::IsSetUp { warnings, .. } => {
            for warning in warnings {
                let error = std::io::Error::from_raw_os_error(warning.errno);
                tracing::warn!(sandbox = %sandbox.id(), step = warning.step, error = %error, "shim goes without");
            }
            Ok(())
        }
        other => Err(refused(sandbox, other)),
    }
}

async fn hear(socket: &Socket, frames: &mut Frames) -> Result<FromShim, RuntimeError> {
    socket.read(frames).await.map_err(|source| failed("hear from shim", source))
}

/// The shim is the process with this id now. It is our child and not reaped, so the id is nobody else's.
fn follow(node: &Arc<Node>, shim: &mut Beginning, pid: u32) -> Result<(), RuntimeError> {
    if pid == shim.pid {
        return Ok(());
    }
    let id = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let id = id.ok_or_else(|| failed("find shim", std::io::Error::from(std::io::ErrorKind::InvalidData)))?;
    let pidfd = pidfd_open(id, PidfdFlags::NONBLOCK).map_err(|errno| failed("find shim", errno))?;
    let pidfd = watch::register(pidfd).map_err(|source| failed("watch shim", source))?;
    let former = std::mem::replace(&mut shim.pidfd, pidfd);
    shim.pid = pid;
    node.tasks.spawn("reap-former-shim", async move { watch::ended(&former).await });
    Ok(())
}

fn refused(sandbox: &Sandbox, answer: FromShim) -> RuntimeError {
    match answer {
        FromShim::SetUpFailed(Failure::Step { step, errno }) => failed(step, std::io::Error::from_raw_os_error(errno)),
        other => protocol(sandbox.id(), &other),
    }
}

pub(super) fn protocol(sandbox: &SandboxId, message: &FromShim) -> RuntimeError {
    RuntimeError::Protocol { sandbox: sandbox.clone(), message: format!("unexpected {message:?}") }
}

fn wanted(spec: &SandboxSpec, joins: &Joins) -> SetUp {
    let own_network = spec.network == Sharing::Sandbox;
    let own_ipc = spec.ipc == Sharing::Sandbox;
    SetUp {
        namespaces: Namespaces { network: own_network, ipc: own_ipc, uts: own_network },
        hostname: spec.hostname.clone(),
        sysctls: spec.sysctls.iter().map(|(name, value)| (sysctl_path(name), value.clone())).collect(),
        shm_size: if own_ipc { SHM_SIZE } else { 0 },
        user_namespace: spec.user_namespace.map(|range| IdMaps::contiguous(range.first, range.count)),
        joins: u16::try_from(joins.v1.len()).expect("there are fewer controllers"),
        born_in: joins.v2.is_some(),
        processes: spec.pid == PidSharing::Sandbox,
    }
}

/// A dotted name as a path; where a slash comes first, it separates and dots belong to names (sysctl.d(5)).
fn sysctl_path(name: &str) -> String {
    let first = name.find(['.', '/']).map(|place| &name[place..=place]);
    match first {
        Some("/") => name.to_owned(),
        _ => name
            .chars()
            .map(|character| match character {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
    }
}

/// Kills a shim that could not be set up, and reaps it.
async fn dispose(pidfd: &AsyncFd<OwnedFd>, error: RuntimeError) -> RuntimeError {
    // It may have ended by itself.
    let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
    watch::ended(pidfd).await;
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_kernel_parameters_become_paths() {
        assert_eq!(sysctl_path("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(sysctl_path("net.ipv4.conf.eth0/1.forwarding"), "net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(sysctl_path("kernel/shm_rmid_forced"), "kernel/shm_rmid_forced");
    }
}
