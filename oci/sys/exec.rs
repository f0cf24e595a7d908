//! execve(2) with vectors that were prepared before the process was cloned.

use std::ffi::{CStr, CString, c_char};
use std::marker::PhantomData;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr;

use rustix::io::Errno;

use super::clone::last_errno;

/// A null-terminated vector of pointers to strings, as execve(2) wants it.
#[derive(Debug)]
pub struct Argv<'a> {
    pointers: Vec<*const c_char>,
    strings: PhantomData<&'a CStr>,
}

impl<'a> Argv<'a> {
    /// A vector that borrows `strings`.
    #[must_use]
    pub fn new(strings: &'a [CString]) -> Self {
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect();
        Self { pointers, strings: PhantomData }
    }
}

/// Becomes the program that a descriptor is of, by execveat(2); returns only when that fails. Neither allocates nor locks.
pub fn execveat(program: BorrowedFd<'_>, args: &Argv<'_>, env: &Argv<'_>) -> Errno {
    // SAFETY: both vectors are null-terminated and point to strings that live as long as they do, which their constructor
    // has seen to.
    unsafe { execute_raw(program, args.pointers.as_ptr(), env.pointers.as_ptr()) }
}

/// As [`execveat`], with vectors as the C library has them.
///
/// # Safety
/// Both vectors point to strings and end with a null.
pub(super) unsafe fn execute_raw(
    program: BorrowedFd<'_>,
    args: *const *const c_char,
    env: *const *const c_char,
) -> Errno {
    let number = program.as_raw_fd();
    // SAFETY: the path is a string; the caller promises the rest.
    unsafe { libc::syscall(libc::SYS_execveat, number, c"".as_ptr(), args, env, libc::AT_EMPTY_PATH) };
    last_errno()
}

/// Becomes another program; returns only when that fails. Neither allocates nor locks.
pub fn execve(path: &CStr, args: &Argv<'_>, env: &Argv<'_>) -> Errno {
    // SAFETY: `path` is a string, and both vectors are null-terminated and point to strings that live as long as they
    // do, which their constructor has seen to.
    unsafe { libc::execve(path.as_ptr(), args.pointers.as_ptr(), env.pointers.as_ptr()) };
    last_errno()
}
