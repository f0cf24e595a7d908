//! Terminals. Nothing here allocates or locks.

use std::ffi::c_ulong;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use rustix::io::Errno;

use super::clone::last_errno;

/// Permits that the other end of a new terminal is opened.
///
/// # Errors
/// Those of TIOCSPTLCK.
pub fn unlock(master: BorrowedFd<'_>) -> Result<(), Errno> {
    let locked: libc::c_int = 0;
    // SAFETY: the request reads one int.
    let result = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const locked) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Opens the other end of a terminal through its master, so that no path can be in the way.
///
/// # Errors
/// Those of TIOCGPTPEER.
pub fn open_peer(master: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the request takes open flags by value.
    let result = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER as c_ulong, flags) };
    if result < 0 {
        return Err(last_errno());
    }
    // SAFETY: the kernel has just opened this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

/// Makes a terminal the controlling one of the calling session leader.
///
/// # Errors
/// Those of TIOCSCTTY.
pub fn make_controlling(terminal: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: the request takes a number by value; 0 does not steal the terminal of another session.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Sets the size of a terminal, in characters.
///
/// # Errors
/// Those of TIOCSWINSZ.
pub fn set_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> Result<(), Errno> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request reads one winsize.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}
