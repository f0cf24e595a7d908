//! Resource limits by number. Nothing here allocates or locks.

use rustix::io::Errno;

use super::clone::last_errno;

/// A soft and a hard limit; `u64::MAX` is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What is enforced.
    pub soft: u64,
    /// Up to where it may be raised.
    pub hard: u64,
}

/// Sets a limit of the calling process, if one is given, and returns the former one.
///
/// # Errors
/// Those of prlimit(2).
pub fn exchange(resource: u32, new: Option<Limit>) -> Result<Limit, Errno> {
    let new = new.map(|limit| libc::rlimit64 { rlim_cur: limit.soft, rlim_max: limit.hard });
    let new = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let mut old = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both pointers are null or to complete structures that outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, new, &raw mut old) };
    if result == 0 { Ok(Limit { soft: old.rlim_cur, hard: old.rlim_max }) } else { Err(last_errno()) }
}
