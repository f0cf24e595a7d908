//! Signals. Nothing here allocates or locks.

use std::mem::MaybeUninit;
use std::ptr;

/// Has the kernel reap all children, see SIGCHLD in wait(2).
pub fn ignore_children() {
    // SAFETY: SIG_IGN is a valid action for this signal, and no handler of it is relied upon in a freshly cloned child.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
    }
}

/// Waits until a signal ends the process.
pub fn wait_for_end() -> ! {
    loop {
        // SAFETY: pause(2) touches no memory.
        unsafe {
            libc::pause();
        }
    }
}

/// Gives every signal its default action and unblocks all of them, as a new program expects: execve(2) keeps both what
/// is ignored and what is blocked, and std ignores SIGPIPE.
pub fn reset_all() {
    // SAFETY: a zeroed sigaction is SIG_DFL with an empty mask and no flags; the pointers are valid or null.
    unsafe {
        let default: libc::sigaction = MaybeUninit::zeroed().assume_init();
        for signal in 1..=64 {
            // Fails for SIGKILL, SIGSTOP and the two that libc keeps for itself, which is as it should be.
            libc::sigaction(signal, &raw const default, ptr::null_mut());
        }
    }
    // SAFETY: the set is initialized by sigemptyset before it is read.
    unsafe {
        let mut none = MaybeUninit::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
    }
}
