//! What steps do to mounts and files below the root. Nothing here allocates or locks.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, openat2};
use rustix::fs::{chownat, fstat, fstatfs, major, makedev, minor, mkdirat, mknodat, statat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, open_tree,
    unmount,
};
use rustix::process::{chdir, fchdir, pivot_root};

use super::child::{READ, joined};
use super::target::{Make, locate, open, open_strictly, prepare, prepare_parent};
use super::{Attributes, FsOption, Namespaces, Passing};
use crate::sys::fd::kernel_getcwd;
use crate::sys::mount::{MountChange, mount_setattr};

/// `PROC_SUPER_MAGIC` and `DEVPTS_SUPER_MAGIC` of linux/magic.h.
const PROC_MAGIC: i64 = 0x9fa0;
const DEVPTS_MAGIC: i64 = 0x1cd1;

/// `MOUNT_ATTR_*` of mount_setattr(2).
const READ_ONLY: u64 = 0x1;
const NO_SUID: u64 = 0x2;
const NO_DEV: u64 = 0x4;
const NO_EXEC: u64 = 0x8;

/// The root of the calling process.
pub(super) fn current_root() -> Result<OwnedFd, Errno> {
    openat2(CWD, c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::empty())
}

/// Nothing that is mounted from here on is seen outside; unmounts of the host still arrive, so that no mount of the
/// host is kept alive by the copy.
pub(super) fn isolate() -> Result<(), Errno> {
    mount_change(c"/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
}

/// Makes a mount namespace that has nothing but complete process and kernel file systems: in a directory each, because
/// one that is covered is not complete. Its root is theirs alone, because what lies over a root cannot be removed from
/// inside a user namespace, which gets it locked.
pub(super) fn make_visible() -> Result<(), Errno> {
    new_namespaces(Namespaces::MOUNT)?;
    isolate()?;
    let place = make(c"tmpfs", c"tmpfs", &[], 0)?;
    move_mount(&place, c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    for file_system in [c"proc", c"sysfs"] {
        mkdirat(&place, file_system, Mode::from_raw_mode(0o755))?;
        let mount = make(file_system, file_system, &[], 0)?;
        move_mount(&mount, c"", &place, file_system, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    }
    pivot(place.as_fd())
}

/// unshare(2).
pub(super) fn new_namespaces(kinds: Namespaces) -> Result<(), Errno> {
    let kinds = nix::sched::CloneFlags::from_bits_retain(kinds.0.cast_signed());
    #[expect(clippy::as_conversions, reason = "the enumeration's values are the kernel's numbers")]
    nix::sched::unshare(kinds).map_err(|errno| Errno::from_raw_os_error(errno as i32))
}

/// Puts a detached mount over the present root, where it needs no directory of its own.
pub(super) fn attach_root(mount: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    move_mount(mount, c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    rustix::io::fcntl_dupfd_cloexec(mount, 3)
}

/// Makes the new root the root: it and the old one are stacked on each other, and the upper one is detached
/// (pivot_root(2), "pivot_root(".", ".")").
pub(super) fn pivot(root: BorrowedFd<'_>) -> Result<(), Errno> {
    fchdir(root)?;
    pivot_root(c".", c".")?;
    unmount(c".", UnmountFlags::DETACH)?;
    chdir(c"/")
}

/// Makes a file system that is not attached yet.
pub(super) fn make(file_system: &CStr, source: &CStr, options: &[FsOption], attributes: u64) -> Result<OwnedFd, Errno> {
    let context = fsopen(file_system, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), c"source", source)?;
    for option in options {
        match &option.value {
            Some(value) => fsconfig_set_string(context.as_fd(), option.name.as_c_str(), value.as_c_str())?,
            None => fsconfig_set_flag(context.as_fd(), option.name.as_c_str())?,
        }
    }
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::from_bits_retain(u32::try_from(attributes).map_err(|_| Errno::INVAL)?);
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Attaches a detached mount to a path below the root. A missing mount point becomes what the mount's root is.
pub(super) fn attach(root: BorrowedFd<'_>, mount: BorrowedFd<'_>, target: &CStr) -> Result<(), Errno> {
    let make = if is_directory(mount)? { Make::Directory(0o755) } else { Make::File };
    let target = prepare(root, target, make)?;
    attach_at(mount, target.as_fd())
}

/// As [`attach`], but no symbolic link may be on the way. An image whose `/proc` is a link into a volume could have
/// the paths that are masked later lead to something else than what was mounted here, with the help of another
/// container that changes the volume meanwhile (CVE-2019-19921, CVE-2023-27561).
pub(super) fn attach_plainly(root: BorrowedFd<'_>, mount: BorrowedFd<'_>, target: &CStr) -> Result<(), Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let plainly = || open_strictly(root, target, OFlags::PATH | OFlags::DIRECTORY, resolve);
    let target = match plainly() {
        Err(Errno::NOENT) => {
            prepare(root, target, Make::Directory(0o755))?;
            plainly()?
        }
        result => result?,
    };
    attach_at(mount, target.as_fd())
}

fn attach_at(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", target, c"", flags)
}

fn is_directory(file: BorrowedFd<'_>) -> Result<bool, Errno> {
    Ok(FileType::from_raw_mode(fstat(file)?.st_mode) == FileType::Directory)
}

/// Changes a detached mount before it is attached.
pub(super) fn change(mount: BorrowedFd<'_>, attributes: Attributes, passing: Passing) -> Result<(), Errno> {
    let propagation = match passing {
        Passing::Private => MountPropagationFlags::PRIVATE,
        Passing::Slave => MountPropagationFlags::DOWNSTREAM,
        Passing::Shared => MountPropagationFlags::SHARED,
    };
    let propagation = u64::from(propagation.bits());
    mount_setattr(mount, MountChange { set: attributes.set_below, clear: 0, propagation, recursive: true })?;
    if attributes.set == 0 && attributes.clear == 0 {
        return Ok(());
    }
    let top = MountChange { set: attributes.set, clear: attributes.clear, propagation: 0, recursive: false };
    mount_setattr(mount, top)
}

/// Creates a directory.
pub(super) fn directory(root: BorrowedFd<'_>, path: &CStr, mode: u32) -> Result<(), Errno> {
    let made = prepare(root, path, Make::Directory(mode))?;
    if is_directory(made.as_fd())? { Ok(()) } else { Err(Errno::NOTDIR) }
}

/// Creates a device node.
pub(super) fn device(
    root: BorrowedFd<'_>,
    path: &CStr,
    mode: u32,
    (major, minor): (u32, u32),
    (uid, gid): (u32, u32),
) -> Result<(), Errno> {
    let (parent, name) = prepare_parent(root, path)?;
    let kind = FileType::from_raw_mode(mode);
    match mknodat(&parent, name, kind, Mode::from_raw_mode(mode), makedev(major, minor)) {
        Err(Errno::EXIST) => {
            // Only the device that was asked for may be there already (config-linux.md, "Devices").
            let present = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let same_number = kind == FileType::Fifo || present.st_rdev == makedev(major, minor);
            let same = FileType::from_raw_mode(present.st_mode) == kind && same_number;
            return if same { Ok(()) } else { Err(Errno::EXIST) };
        }
        result => result?,
    }
    if uid == 0 && gid == 0 {
        return Ok(());
    }
    chownat(&parent, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)
}

/// Creates a symbolic link.
pub(super) fn symlink(root: BorrowedFd<'_>, target: &CStr, path: &CStr) -> Result<(), Errno> {
    let (parent, name) = prepare_parent(root, path)?;
    match symlinkat(target, &parent, name) {
        Err(Errno::EXIST) => Ok(()),
        result => result,
    }
}

/// Opens a path that may be absent.
fn locate_if_present(root: BorrowedFd<'_>, path: &CStr) -> Result<Option<OwnedFd>, Errno> {
    match locate(root, path) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Hides a path.
pub(super) fn mask(root: BorrowedFd<'_>, path: &CStr) -> Result<(), Errno> {
    let Some(target) = locate_if_present(root, path)? else { return Ok(()) };
    if is_directory(target.as_fd())? {
        let empty = make(c"tmpfs", c"tmpfs", &[], READ_ONLY | NO_SUID | NO_DEV | NO_EXEC)?;
        return attach_at(empty.as_fd(), target.as_fd());
    }
    let null = locate(root, c"/dev/null")?;
    // The image or a volume may have something else there (CVE-2025-31133). What was examined is what is mounted.
    if !is_null(null.as_fd())? {
        return Err(Errno::NODEV);
    }
    let clone = clone_mount(null.as_fd(), false)?;
    attach_at(clone.as_fd(), target.as_fd())
}

/// Whether a file is a null device, whosever it is.
pub(super) fn is_null(file: BorrowedFd<'_>) -> Result<bool, Errno> {
    let found = fstat(file)?;
    let is_device = FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice;
    Ok(is_device && (major(found.st_rdev), minor(found.st_rdev)) == (1, 3))
}

/// Opens the container's null device. What is there is looked at first, because opening a device may do something.
pub(super) fn open_null(root: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    const NULL: &CStr = c"/dev/null";
    if !is_null(locate(root, NULL)?.as_fd())? {
        return Err(Errno::NODEV);
    }
    let opened = open(root, NULL, OFlags::RDWR | OFlags::NOCTTY)?;
    // A container that runs may have put something else there meanwhile.
    if is_null(opened.as_fd())? { Ok(opened) } else { Err(Errno::NODEV) }
}

/// Makes a path and what is mounted below it read-only.
pub(super) fn make_read_only(root: BorrowedFd<'_>, path: &CStr) -> Result<(), Errno> {
    let Some(target) = locate_if_present(root, path)? else { return Ok(()) };
    let clone = clone_mount(target.as_fd(), true)?;
    mount_setattr(clone.as_fd(), MountChange { set: READ_ONLY, recursive: true, ..MountChange::default() })?;
    attach_at(clone.as_fd(), target.as_fd())
}

/// Makes a mount read-only, and none below.
pub(super) fn seal(mount: BorrowedFd<'_>) -> Result<(), Errno> {
    mount_setattr(mount, MountChange { set: READ_ONLY, ..MountChange::default() })
}

fn clone_mount(of: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(of, c"", flags)
}

/// Attaches a further view of an open file to a path. The source is the descriptor, not a name below `/dev/pts` that a
/// race could give another meaning (CVE-2025-52565).
pub(super) fn bind_over(root: BorrowedFd<'_>, file: BorrowedFd<'_>, path: &CStr) -> Result<(), Errno> {
    let clone = clone_mount(file, false)?;
    attach(root, clone.as_fd(), path)
}

/// Opens a new terminal in the container's `/dev/pts`. The file system is looked at before anything in it is opened:
/// nobody but the kernel makes files there, while an image could have any device in a directory of that name.
pub(super) fn open_terminal(root: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let directory = open(root, c"/dev/pts", OFlags::PATH | OFlags::DIRECTORY)?;
    is_of(directory.as_fd(), DEVPTS_MAGIC)?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    open_strictly(directory.as_fd(), c"ptmx", OFlags::RDWR | OFlags::NOCTTY, resolve)
}

/// Opens `/proc`, if it is the root of a process file system (inode 1) and nothing else.
pub(super) fn find_proc(root: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let proc = open(root, c"/proc", READ | OFlags::DIRECTORY)?;
    is_of(proc.as_fd(), PROC_MAGIC)?;
    if fstat(&proc)?.st_ino == 1 { Ok(proc) } else { Err(Errno::XDEV) }
}

fn is_of(file: BorrowedFd<'_>, magic: i64) -> Result<(), Errno> {
    if fstatfs(file)?.f_type == magic { Ok(()) } else { Err(Errno::XDEV) }
}

/// Writes a file of a process file system, which nothing may be mounted over and no magic link may lead out of: else
/// what is meant for a label or a score ends up in a file of the attacker's choice (CVE-2025-52881).
pub(super) fn write_below(proc: BorrowedFd<'_>, path: &[&CStr], value: &[u8]) -> Result<(), Errno> {
    let mut buffer = [0; 512];
    let path = joined(&mut buffer, path)?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
    let file = open_strictly(proc, path, OFlags::WRONLY, resolve)?;
    let written = rustix::io::write(&file, value)?;
    if written == value.len() { Ok(()) } else { Err(Errno::IO) }
}

/// Changes the working directory. A directory outside the root would be reached through a descriptor of the host's
/// (CVE-2024-21626); magic links are not followed, and the kernel's own word is asked for besides.
pub(super) fn change_directory(root: BorrowedFd<'_>, path: &CStr) -> Result<(), Errno> {
    let directory = open(root, path, OFlags::PATH | OFlags::DIRECTORY)?;
    fchdir(&directory)?;
    let mut buffer = [0; 4096];
    let real = kernel_getcwd(&mut buffer)?;
    if real.to_bytes().first() == Some(&b'/') { Ok(()) } else { Err(Errno::XDEV) }
}
