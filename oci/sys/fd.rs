//! Descriptors in bulk, and the working directory. Nothing here allocates or locks.

use std::ffi::CStr;

use rustix::io::Errno;

use super::clone::last_errno;

/// Marks all descriptors from `first` up close-on-exec.
///
/// # Errors
/// Those of close_range(2).
pub fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    // SAFETY: the call takes numbers only; marking a descriptor does not close it, so no owner is betrayed.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Closes all descriptors, for a process that uses none any more.
///
/// # Errors
/// Those of close_range(2).
pub fn close_all() -> Result<(), Errno> {
    // SAFETY: called in a freshly cloned child that never returns to the code that owns the descriptors.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// The working directory as the kernel sees it. Unlike getcwd(3) this does not hide that it is outside the root: such a
/// path does not begin with a slash.
///
/// # Errors
/// Those of getcwd(2).
pub fn kernel_getcwd(buffer: &mut [u8]) -> Result<&CStr, Errno> {
    // SAFETY: the kernel writes at most the given length into the buffer.
    let length = unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) };
    let length = usize::try_from(length).map_err(|_| last_errno())?;
    let written = buffer.get(..length).ok_or(Errno::RANGE)?;
    CStr::from_bytes_with_nul(written).map_err(|_| Errno::ILSEQ)
}
