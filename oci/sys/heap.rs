//! The C library's heap: glibc keeps what was freed unless it is told otherwise.

/// Lets all threads share this many arenas, instead of up to eight per processor: mallopt(3), `M_ARENA_MAX`.
pub fn limit_arenas(arenas: i32) {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only changes a parameter of the allocator and may be called at any time.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, arenas);
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = arenas;
}

/// Gives free memory back to the kernel: malloc_trim(3).
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes the allocator's own locks and touches no memory in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
