//! execve(2) with vectors that were prepared before the process was cloned.

use std::ffi::{CStr, CString, c_char};
use std::marker::PhantomData;
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

/// Becomes another program; returns only when that fails. Neither allocates nor locks.
pub fn execve(path: &CStr, args: &Argv<'_>, env: &Argv<'_>) -> Errno {
    // SAFETY: `path` is a string, and both vectors are null-terminated and point to strings that live as long as they
    // do, which their constructor has seen to.
    unsafe { libc::execve(path.as_ptr(), args.pointers.as_ptr(), env.pointers.as_ptr()) };
    last_errno()
}
