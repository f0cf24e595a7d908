//! clone3(2).

use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use rustix::io::Errno;

/// `CLONE_CLEAR_SIGHAND` and `CLONE_INTO_CGROUP`, which libc has in a type that is too narrow.
const CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// How a child is born.
#[derive(Debug, Clone, Copy, Default)]
pub struct Birth<'a> {
    /// `CLONE_NEW*` bits.
    pub namespaces: u32,
    /// Directory of the v2 group that it is born in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Whether the caller's parent becomes the child's parent.
    pub sibling: bool,
}

/// Ends the process when it is dropped, so that a panic of the child never runs the parent's code a second time.
struct EndOnDrop;

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        end(70);
    }
}

/// Ends the process at once, without running anything that was registered for its end.
pub fn end(status: i32) -> ! {
    // SAFETY: _exit takes any status, touches no memory and does not return.
    unsafe { libc::_exit(status) }
}

/// Clones the process and runs `child` in the copy, which ends when it returns; returns the id of the copy and a handle on it.
///
/// The copy has one thread only while others of this process may have held locks at the moment of the call. `child`
/// therefore must not allocate, lock or panic; it may make system calls. Handlers of signals are reset in it.
///
/// # Errors
/// Those of clone3(2).
pub fn clone3(birth: Birth<'_>, child: impl FnOnce()) -> Result<(i32, OwnedFd), Errno> {
    let mut pidfd: RawFd = -1;
    let mut flags = u64::from(birth.namespaces) | u64::from(libc::CLONE_PIDFD.unsigned_abs()) | CLEAR_SIGHAND;
    let mut cgroup = 0;
    if let Some(directory) = birth.cgroup {
        flags |= INTO_CGROUP;
        cgroup = u64::from(directory.as_raw_fd().unsigned_abs());
    }
    // With CLONE_PARENT the child has its parent's exit signal and none may be given.
    let exit_signal = if birth.sibling { 0 } else { u64::from(libc::SIGCHLD.unsigned_abs()) };
    if birth.sibling {
        flags |= u64::from(libc::CLONE_PARENT.unsigned_abs());
    }
    let arguments = libc::clone_args {
        flags,
        pidfd: (&raw mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup,
    };
    // SAFETY: `arguments` is a complete clone_args of the size given, `pidfd` outlives the call. Without CLONE_VM the
    // child runs on copies of all memory, its stack included, so it cannot disturb this process.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) };
    match result {
        0 => {
            let _guard = EndOnDrop;
            child();
            end(70)
        }
        -1 => Err(last_errno()),
        pid => {
            // SAFETY: the kernel has just opened this descriptor for us, and nobody else knows of it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok((i32::try_from(pid).expect("the kernel's process ids fit"), pidfd))
        }
    }
}

/// The most descriptors that [`fork_with_only`] leaves open.
const KEPT: usize = 8;

/// Forks a process that has, beside its standard streams, the given descriptors only, and runs `child` in it; returns a
/// handle on it. For programs of one thread: `child` may do whatever they may. What it captures of other descriptors
/// means nothing in it, and is never closed a second time because it does not return.
///
/// # Errors
/// Those of clone3(2); EINVAL when there are too many descriptors.
pub fn fork_with_only(kept: &[BorrowedFd<'_>], child: impl FnOnce()) -> Result<OwnedFd, Errno> {
    let mut numbers = [u32::MAX; KEPT];
    for (number, fd) in numbers.get_mut(..kept.len()).ok_or(Errno::INVAL)?.iter_mut().zip(kept) {
        *number = fd.as_raw_fd().unsigned_abs();
    }
    numbers.sort_unstable();
    let (_, pidfd) = clone3(Birth::default(), || {
        let mut first = 3;
        for number in numbers.into_iter().filter(|number| *number >= 3) {
            if number > first {
                close_range(first, number - 1);
            }
            first = number.saturating_add(1);
        }
        child();
    })?;
    Ok(pidfd)
}

/// Closes what is open from `first` to `last`. Without close_range(2), of Linux 5.9, they stay open.
fn close_range(first: u32, last: u32) {
    // SAFETY: called in a fresh process that never returns to the code that owns the descriptors.
    unsafe {
        libc::syscall(libc::SYS_close_range, first, last, 0);
    }
}

/// The error of the last call into libc.
pub(super) fn last_errno() -> Errno {
    // SAFETY: the location is this thread's own and always valid.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}
