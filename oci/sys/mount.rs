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
    let attributes = libc::mount_attr {
        attr_set: change.set,
        attr_clr: change.clear,
        propagation: change.propagation,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if change.recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty string, and `attributes` is a complete mount_attr of the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}
