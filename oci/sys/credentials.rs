//! Capabilities one at a time. Nothing here allocates or locks, and unlike libc's own wrappers nothing talks to other
//! threads, which do not exist in a freshly cloned child.

use rustix::io::Errno;

use super::clone::last_errno;

fn prctl(option: i32, second: u64, third: u64) -> Result<i32, Errno> {
    // SAFETY: the options used in this file take numbers only.
    let result = unsafe { libc::prctl(option, second, third, 0_u64, 0_u64) };
    if result >= 0 { Ok(result) } else { Err(last_errno()) }
}

/// Whether a capability is in the bounding set; an error for numbers that the kernel does not know.
///
/// # Errors
/// Those of PR_CAPBSET_READ.
pub fn bounding_has(capability: u32) -> Result<bool, Errno> {
    prctl(libc::PR_CAPBSET_READ, u64::from(capability), 0).map(|result| result == 1)
}

/// Removes a capability from the bounding set.
///
/// # Errors
/// Those of PR_CAPBSET_DROP.
pub fn bounding_drop(capability: u32) -> Result<(), Errno> {
    prctl(libc::PR_CAPBSET_DROP, u64::from(capability), 0).map(drop)
}

/// Empties the ambient set.
///
/// # Errors
/// Those of PR_CAP_AMBIENT.
pub fn ambient_clear() -> Result<(), Errno> {
    prctl(libc::PR_CAP_AMBIENT, u64::from(libc::PR_CAP_AMBIENT_CLEAR_ALL.unsigned_abs()), 0).map(drop)
}

/// Adds a capability to the ambient set.
///
/// # Errors
/// Those of PR_CAP_AMBIENT.
pub fn ambient_raise(capability: u32) -> Result<(), Errno> {
    let raise = u64::from(libc::PR_CAP_AMBIENT_RAISE.unsigned_abs());
    prctl(libc::PR_CAP_AMBIENT, raise, u64::from(capability)).map(drop)
}

/// Asks for a signal when the parent dies.
///
/// # Errors
/// Those of PR_SET_PDEATHSIG.
pub fn die_with_parent(signal: i32) -> Result<(), Errno> {
    prctl(libc::PR_SET_PDEATHSIG, u64::from(signal.unsigned_abs()), 0).map(drop)
}
