//! What is known of a container, on disk: read by the agent when the shim is dead.

use std::io;

use rustix::fs::{Mode, OFlags};

/// The file in the container's directory.
const NAME: &str = "record";

/// Replaces the record of a container by one write, so that a shim that is killed has written all of it or nothing. It
/// is neither renamed into place nor forced to the disk: a rename makes some file systems write at once, and what a power
/// cut ends needs no record, since nothing runs afterwards. What is left of a longer former record is cut off after that,
/// and ignored by readers before.
pub(crate) fn store(container: &str, bytes: &[u8]) -> io::Result<()> {
    let path = format!("containers/{container}/{NAME}");
    let file = rustix::fs::open(&path, OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::from_raw_mode(0o600))?;
    let written = rustix::io::retry_on_intr(|| rustix::io::pwrite(&file, bytes, 0))?;
    if written < bytes.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    rustix::fs::ftruncate(&file, u64::try_from(bytes.len()).unwrap_or(u64::MAX))?;
    Ok(())
}
