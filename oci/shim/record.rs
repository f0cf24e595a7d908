//! What is known of a container, on disk: read by the agent when the shim is dead.

use std::io;

use oci::protocol::ContainerRecord;
use rustix::fs::{Mode, OFlags};

/// The file in the container's directory.
const NAME: &str = "record";

/// Replaces the record of a container. A reader sees the old or the new one, never a part. It is not forced to the
/// disk: what a power cut ends needs no record, since nothing runs afterwards.
pub(crate) fn store(record: &ContainerRecord) -> io::Result<()> {
    let bytes = postcard_bytes(record)?;
    let path = format!("containers/{}/{NAME}", record.container);
    let new = format!("{path}.new");
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(&new, flags, Mode::from_raw_mode(0o600))?;
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let count = rustix::io::retry_on_intr(|| rustix::io::write(&file, rest))?;
        rest = &rest[count..];
    }
    rustix::fs::rename(&new, &path)?;
    Ok(())
}

fn postcard_bytes(record: &ContainerRecord) -> io::Result<Vec<u8>> {
    postcard::to_extend(record, Vec::new()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
