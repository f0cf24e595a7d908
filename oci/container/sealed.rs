//! A view of a program's file that nobody can change it through.
//!
//! A child between clone3(2) and execve(2) is a copy of the program that started it, and a container can make it so once
//! more: a script whose interpreter is `/proc/self/exe`, or a mount point or library that leads there. From then on
//! `/proc/<pid>/exe` in the container is the host's file, and CVE-2019-5736 is to open that for writing. So whatever
//! starts containers is itself executed from a clone of the mount that its file is on, which is read-only, attached
//! nowhere, and let go of as soon as the program runs: it has no mount namespace any more, so that nobody's
//! mount_setattr(2), open_tree(2) or remount finds it, with whatever capabilities. Neither content nor mode, owner,
//! times or attributes of the file can be changed through it. That costs no memory, unlike a sealed copy in a memfd (a
//! megabyte that cannot be evicted for the per-pod program, twenty for the whole), and no superblock, unlike an overlay
//! (runc's libcontainer/exeseal has both).
//!
//! It does not hide the file: what a container may read of it is the program that everybody has.

use std::convert::Infallible;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, OFlags, StatVfsMountFlags, StatxAttributes, StatxFlags, fstatvfs, statx};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::sys::exec::{Argv, execveat};
use crate::sys::mount::{MountChange, mount_setattr};

/// `MOUNT_ATTR_RDONLY`, `_NOSUID` and `_NODEV` of mount_setattr(2).
const ATTRIBUTES: u64 = 0x1 | 0x2 | 0x4;

/// `MOUNT_ATTR_NOEXEC`.
const NOEXEC: u64 = 0x8;

/// The program that is running.
const OWN: &str = "/proc/self/exe";

/// A directory of programs as it is sealed. Lives from just before a program is started to just after.
#[derive(Debug)]
pub struct Sealed {
    directory: OwnedFd,
    name: PathBuf,
}

impl Sealed {
    /// Seals the program at `path`.
    ///
    /// # Errors
    /// When there is no such directory, or without the right to mount.
    pub fn new(path: &Path) -> io::Result<Self> {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let directory = CString::new(directory.as_os_str().as_encoded_bytes())?;
        Ok(Self { directory: clone_read_only(&directory)?, name: PathBuf::from(name) })
    }

    /// What to execute while this lives. The kernel names a process by the last part.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        descriptor_path(self.directory.as_fd()).join(&self.name)
    }
}

/// Executes the running program once more, sealed, unless it is already: with the same arguments and environment and
/// under the same id. To be called first thing by a program that is not started sealed and starts containers.
///
/// # Errors
/// When that cannot be done; the program must not start containers then.
pub fn seal_own_program() -> io::Result<()> {
    let own = rustix::fs::open(OWN, OFlags::PATH | OFlags::CLOEXEC, rustix::fs::Mode::empty())?;
    if is_sealed(own.as_fd())? {
        return name_process();
    }
    match execute(Path::new(OWN), std::env::args_os())? {}
}

/// Becomes the program at `path`, sealed, with this environment.
///
/// # Errors
/// When there is no such program, or without the right to mount.
pub fn execute(path: &Path, arguments: impl Iterator<Item = OsString>) -> io::Result<Infallible> {
    let program = clone_program(&CString::new(path.as_os_str().as_encoded_bytes())?)?;
    let strings = |list: &mut dyn Iterator<Item = Vec<u8>>| -> io::Result<Vec<CString>> {
        list.map(|string| CString::new(string).map_err(|_| io::ErrorKind::InvalidInput.into())).collect()
    };
    let args = strings(&mut arguments.map(OsStringExt::into_vec))?;
    let env = strings(&mut std::env::vars_os().map(|(name, value)| [name, value].join(OsStr::new("=")).into_vec()))?;
    Err(execveat(program.as_fd(), &Argv::new(&args), &Argv::new(&env)).into())
}

/// A sealed program, to be executed by its descriptor. Does not allocate.
pub(crate) fn clone_program(path: &CStr) -> Result<OwnedFd, Errno> {
    let clone = clone_read_only(path)?;
    // It would execute itself for ever.
    if is_sealed(clone.as_fd())? { Ok(clone) } else { Err(Errno::NOTSUP) }
}

/// The kernel has named the process by a descriptor, or by the file behind it.
fn name_process() -> io::Result<()> {
    let first = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&first).file_name().unwrap_or_default();
    rustix::thread::set_name(&CString::new(name.as_encoded_bytes())?)?;
    Ok(())
}

/// Whether a file is the root of a read-only mount, as only [`seal_own_program`] or an administrator makes one of a
/// single file; neither is in a namespace in which a container could change that.
fn is_sealed(file: BorrowedFd<'_>) -> Result<bool, Errno> {
    let about = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::empty())?;
    let is_root = about.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    Ok(is_root && fstatvfs(file)?.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// Whether the programs of a mount may be executed is for those who call them by name; it does not bind us.
fn clone_read_only(path: &CStr) -> Result<OwnedFd, Errno> {
    let clone = open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    mount_setattr(clone.as_fd(), MountChange { set: ATTRIBUTES, clear: NOEXEC, ..MountChange::default() })?;
    Ok(clone)
}

fn descriptor_path(descriptor: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
}
