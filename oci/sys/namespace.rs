//! What a namespace belongs to. Nothing here allocates or locks.

use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use rustix::io::Errno;

use super::clone::last_errno;

/// `NS_GET_USERNS` of linux/nsfs.h.
const GET_USER_NAMESPACE: libc::Ioctl = 0xb701;

/// The user namespace that owns a namespace.
///
/// # Errors
/// Those of ioctl_ns(2); EPERM if the owner is not the caller's own user namespace or one below it.
pub fn owner(namespace: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    // SAFETY: the request takes no argument and touches no memory of this process.
    let result = unsafe { libc::ioctl(namespace.as_raw_fd(), GET_USER_NAMESPACE) };
    if result < 0 {
        return Err(last_errno());
    }
    // SAFETY: the kernel has just opened this descriptor (close-on-exec) for us, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}
