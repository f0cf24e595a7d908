//! How many files the agent may have open: as many as it can, while the programs of pods get what there was before.
//!
//! Each watch, connection and shim is a descriptor, and a service manager starts programs with a soft limit of 1024 for
//! the sake of those that use select(2) (<https://0pointer.net/blog/file-descriptor-limits.html>). Who raises it gives
//! children the former one, as they may be such programs.

use std::io;
use std::sync::OnceLock;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

/// The limit with which this process was started, once it is raised.
static FORMER: OnceLock<(Option<u64>, Option<u64>)> = OnceLock::new();

/// Raises the soft limit to the hard one, and returns that; none is no limit. To be called once, early.
///
/// # Errors
/// Those of setrlimit(2).
pub fn raise_open_files() -> io::Result<Option<u64>> {
    let present = getrlimit(Resource::Nofile);
    let (soft, hard) = *FORMER.get_or_init(|| (present.current, present.maximum));
    if soft != hard {
        setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard })?;
    }
    Ok(hard)
}

/// Gives a child the limit that this process was started with.
pub(super) fn restore(child: Pid) -> io::Result<()> {
    let Some(&(current, maximum)) = FORMER.get() else { return Ok(()) };
    prlimit(Some(child), Resource::Nofile, Rlimit { current, maximum })?;
    Ok(())
}
