//! What the shim makes of itself: session, namespaces, control socket, root.
//!
//! Called once, before the event loop, in two halves: [`set_up`] makes all that a child inherits, [`settle`] what it does
//! not. A process cannot be moved into a v2 group without a wait for a grace period of RCU, during which nobody on the host
//! can make a group (see [`oci::cgroup::join`]), but it can be born there: so the shim goes on as a child of the process
//! that was started, which ends. That comes late, so that a small share of processor time does not slow down the rest.
//!
//! Invariant: afterwards nothing of the host's mounts is left in the shim's mount namespace but the directory that is its
//! root, so that no administrator's umount is undone by a pod, and every later path of the shim is one below it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use nix::sched::CloneFlags;
use oci::container::users::{Born, IdMaps};
use oci::protocol::{Failure, Namespaces, SetUp, Warning};
use oci::{cgroup, container};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// The socket's name in the shim's root.
const SOCKET: &str = "control.sock";

/// The mount point of the shared memory in the shim's root.
const SHARED_MEMORY: &str = "shm";

/// What the event loop needs.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) listener: OwnedFd,
    /// `/dev/null`, which cannot be reached after the pivot.
    pub(crate) null: OwnedFd,
    /// The mount of the sandbox's `/dev/shm`.
    pub(crate) shared_memory: Option<OwnedFd>,
    /// The user namespace, if a process namespace is to be made in it.
    users: Option<OwnedFd>,
    /// Whether containers may share a process namespace.
    shares_processes: bool,
    /// The first process of that namespace, once it has been made.
    pub(crate) processes: Option<OwnedFd>,
}

/// Turns this process into the shim of a sandbox with `root` as its root directory.
pub(crate) fn set_up(wanted: &SetUp, root: &OwnedFd) -> Result<Sandbox, Failure> {
    let null = step("open null device", rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()))?;
    step("enter state directory", rustix::process::fchdir(root))?;
    let users = enter_namespaces(wanted)?;
    step("isolate mounts", isolate_mounts())?;
    if wanted.namespaces.uts {
        step("set host name", rustix::system::sethostname(wanted.hostname.as_bytes()))?;
    }
    for (path, value) in &wanted.sysctls {
        set_kernel_parameter(path, value, root_of(wanted))
            .map_err(|error| failure(&format!("set kernel parameter {path}"), &error))?;
    }
    let listener = step("make control socket", bind())?;
    step("pivot into state directory", pivot())?;
    let shared_memory = if wanted.shm_size > 0 {
        Some(step("mount shared memory", mount_shared_memory(wanted.shm_size, root_of(wanted)))?)
    } else {
        None
    };
    Ok(Sandbox { listener, null, shared_memory, users, shares_processes: wanted.processes, processes: None })
}

/// Root of the sandbox's user namespace, as the host sees it: user and group.
fn root_of(wanted: &SetUp) -> Option<(u32, u32)> {
    wanted.user_namespace.as_ref().and_then(IdMaps::root)
}

/// Namespaces of a sandbox with a user namespace belong to it, and are made in it by a process of its own; this one only
/// joins them. It stays the host's root in the host's user namespace: it writes logs and records, and starts containers
/// in groups that only that root may use.
fn enter_namespaces(wanted: &SetUp) -> Result<Option<OwnedFd>, Failure> {
    let kinds = flags(wanted.namespaces);
    let Some(maps) = &wanted.user_namespace else {
        step("new namespaces", nix::sched::unshare(kinds | CloneFlags::CLONE_NEWNS).map_err(from_nix))?;
        return Ok(None);
    };
    let born = Born::new(maps, container::Namespaces(kinds.bits().cast_unsigned()));
    let born = born.map_err(|error| failure(error.step, &error.source))?;
    step("new namespaces", nix::sched::unshare(CloneFlags::CLONE_NEWNS).map_err(from_nix))?;
    step("join namespaces", nix::sched::setns(born.process(), kinds).map_err(from_nix))?;
    let users = wanted.processes.then(|| rustix::io::fcntl_dupfd_cloexec(born.user_namespace(), 3));
    step("keep user namespace", users.transpose())
}

/// Does what belongs to the process that stays. That it cannot join a group is worth a warning only.
pub(crate) fn settle(sandbox: &mut Sandbox, groups: &[OwnedFd]) -> Result<Vec<Warning>, Failure> {
    step("new session", rustix::process::setsid())?;
    // Whoever connects sees the id of the process that did this.
    step("listen on control socket", rustix::net::listen(&sandbox.listener, 16))?;
    let refused = groups.iter().filter_map(|group| cgroup::join(group.as_fd()).err());
    let warnings = refused.map(|errno| stays("v1", errno)).collect();
    // Its parent has to be the process that stays.
    if sandbox.shares_processes {
        let users = sandbox.users.take();
        let kept = container::keep_processes(sandbox.null.as_fd(), users.as_ref().map(AsFd::as_fd));
        sandbox.processes = Some(kept.map_err(|error| failure("make process namespace", &error.io()))?);
    }
    Ok(warnings)
}

/// What is told of a group that the shim is not in.
pub(crate) fn stays(version: &str, errno: Errno) -> Warning {
    Warning { step: format!("join cgroup {version}"), errno: errno.raw_os_error() }
}

fn flags(namespaces: Namespaces) -> CloneFlags {
    let mut flags = CloneFlags::empty();
    flags.set(CloneFlags::CLONE_NEWNET, namespaces.network);
    flags.set(CloneFlags::CLONE_NEWIPC, namespaces.ipc);
    flags.set(CloneFlags::CLONE_NEWUTS, namespaces.uts);
    flags
}

/// What happens to mounts here must not happen to the host's, and the other way round.
fn isolate_mounts() -> Result<(), Errno> {
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
}

/// Writes a parameter of the namespaces that this process is in; `/proc/sys` shows those of whoever looks. In namespaces
/// of a user namespace, some belong to the host's root (IPC before Linux 6.10) and some to the namespace's `root`.
fn set_kernel_parameter(path: &str, value: &str, root: Option<(u32, u32)>) -> io::Result<()> {
    let path = Path::new(path);
    if !path.components().all(|component| matches!(component, Component::Normal(_))) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let path = Path::new("/proc/sys").join(path);
    match (std::fs::write(&path, value), root) {
        (Err(error), Some((user, _))) if error.kind() == io::ErrorKind::PermissionDenied => {
            let own = |effective| {
                let user = rustix::process::Uid::from_raw(effective);
                rustix::thread::set_thread_res_uid(rustix::process::Uid::ROOT, user, rustix::process::Uid::ROOT)
            };
            own(user)?;
            let written = std::fs::write(&path, value);
            own(0)?;
            written
        }
        (result, _) => result,
    }
}

/// Binds by a relative path, because the whole one may exceed the 108 bytes of an address.
fn bind() -> Result<OwnedFd, Errno> {
    match rustix::fs::unlink(SOCKET) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let former = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = rustix::net::bind(&socket, &SocketAddrUnix::new(SOCKET)?);
    rustix::process::umask(former);
    bound?;
    Ok(socket)
}

/// Makes the working directory the root of the namespace and drops everything else, see pivot_root(2).
fn pivot() -> Result<(), Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let root = rustix::mount::open_tree(CWD, ".", flags)?;
    rustix::mount::move_mount(root.as_fd(), "", CWD, ".", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    rustix::process::fchdir(&root)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")
}

fn mount_shared_memory(size: u64, root: Option<(u32, u32)>) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    if let Some((user, group)) = root {
        rustix::mount::fsconfig_set_string(context.as_fd(), "uid", user.to_string())?;
        rustix::mount::fsconfig_set_string(context.as_fd(), "gid", group.to_string())?;
    }
    rustix::mount::fsconfig_set_string(context.as_fd(), "source", "shm")?;
    rustix::mount::fsconfig_set_string(context.as_fd(), "mode", "1777")?;
    rustix::mount::fsconfig_set_string(context.as_fd(), "size", size.to_string())?;
    rustix::mount::fsconfig_create(context.as_fd())?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    match rustix::fs::mkdir(SHARED_MEMORY, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(mount.as_fd(), "", CWD, SHARED_MEMORY, flags)?;
    Ok(mount)
}

/// A detached copy of a mount of this namespace, for a container.
pub(crate) fn copy_mount(mount: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(mount, "", flags)
}

fn from_nix(errno: nix::errno::Errno) -> Errno {
    #[expect(clippy::as_conversions, reason = "the enumeration's values are the kernel's numbers")]
    Errno::from_raw_os_error(errno as i32)
}

fn step<T>(name: &str, result: Result<T, Errno>) -> Result<T, Failure> {
    result.map_err(|errno| failure(name, &errno.into()))
}

/// What is reported of a failed step.
pub(crate) fn failure(step: &str, error: &io::Error) -> Failure {
    let errno = error.raw_os_error().unwrap_or(Errno::INVAL.raw_os_error());
    Failure::Step { step: step.to_owned(), errno }
}
