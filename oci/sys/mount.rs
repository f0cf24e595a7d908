//! Calls on mounts that rustix lacks. Nothing here allocates or locks.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::io::Errno;

use super::clone::last_errno;

/// Clears the bits that say when access times are written, which are one value and not flags.
pub const ATTR_ATIME: u64 = 0x70;

/// Changes to be made to a mount, `MOUNT_ATTR_*` and `MS_*` bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MountChange {
    /// Attributes to set.
    pub set: u64,
    /// Attributes to clear.
    pub clear: u64,
    /// `MS_PRIVATE`, `MS_SLAVE` or `MS_SHARED`; 0 for no change.
    pub propagation: u64,
    /// Whether mounts below are changed as well.
    pub recursive: bool,
}

/// Changes the mount that a descriptor is on the root of.
///
/// # Errors
/// Those of mount_setattr(2).
pub fn mount_setattr(mount: BorrowedFd<'_>, change: MountChange) -> Result<(), Errno> {
    let MountChange { set, clear, propagation, recursive } = change;
    set_attributes(mount, &libc::mount_attr { attr_set: set, attr_clr: clear, propagation, userns_fd: 0 }, recursive)
}

/// Lets the files of a detached mount appear with the ids that a user namespace maps theirs to.
///
/// # Errors
/// Those of mount_setattr(2); EINVAL if the file system cannot do it, EPERM if the mount has been mapped before.
pub fn map_ids(mount: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>, recursive: bool) -> Result<(), Errno> {
    let userns_fd = u64::from(user_namespace.as_raw_fd().unsigned_abs());
    let attributes = libc::mount_attr { attr_set: libc::MOUNT_ATTR_IDMAP, attr_clr: 0, propagation: 0, userns_fd };
    set_attributes(mount, &attributes, recursive)
}

fn set_attributes(mount: BorrowedFd<'_>, attributes: &libc::mount_attr, recursive: bool) -> Result<(), Errno> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty string, and `attributes` is a complete mount_attr of the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}
