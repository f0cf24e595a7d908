//! seccomp(2). Neither allocates nor locks.

use rustix::io::Errno;

use super::clone::last_errno;
use crate::container::Instruction;

/// Installs a filter for the calling thread.
///
/// # Errors
/// Those of SECCOMP_SET_MODE_FILTER: EINVAL for a program that the kernel finds wrong, EACCES without privilege.
pub fn install_filter(program: &[Instruction], flags: u32) -> Result<(), Errno> {
    let description = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| Errno::INVAL)?,
        filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    // SAFETY: Instruction has the layout of sock_filter, the length is that of the slice, and the kernel only reads.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const description) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

// The cast above rests on this.
const _: () = assert!(size_of::<Instruction>() == size_of::<libc::sock_filter>());
const _: () = assert!(align_of::<Instruction>() >= align_of::<libc::sock_filter>());
