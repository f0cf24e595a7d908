//! Files that say what is ours in the kernel.
//!
//! Replaced by renaming, so that the death of this program leaves the old one or the new one. They are not synchronized with
//! the disk, which would cost each start of a pod milliseconds: all that they speak of is in the kernel and goes with the
//! power. What a power cut makes of the files themselves is for [`read`]: it never keeps an agent from starting.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::NetworkError;

/// What is in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<T> {
    /// What was written.
    Whole(T),
    /// There is no such file.
    Nothing,
    /// Something else. It was put aside; the caller finds out by the kernel, and writes.
    Damaged,
}

/// Reads a file.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Found<T>, NetworkError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(failed(path, error)),
    };
    match serde_json::from_slice(&bytes) {
        Ok(whole) => Ok(Found::Whole(whole)),
        Err(error) => {
            let aside = beside(path, "damaged");
            tracing::error!(
                path = %path.display(), aside = %aside.display(), %error,
                "a record of the network is damaged; it is put aside and made anew by what the kernel has"
            );
            // A copy: if this program dies before the new one is written, the damage must still be seen.
            fs::write(&aside, bytes).map_err(|source| failed(&aside, source))?;
            Ok(Found::Damaged)
        }
    }
}

/// Writes a file.
pub(super) fn write<T: Serialize>(path: &Path, content: &T) -> Result<(), NetworkError> {
    let fresh = beside(path, "new");
    let written = serde_json::to_vec(content).map_err(io::Error::from).and_then(|bytes| fs::write(&fresh, bytes));
    written.and_then(|()| fs::rename(&fresh, path)).map_err(|source| failed(path, source))
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

/// An error with a file.
pub(super) fn failed(path: &Path, source: io::Error) -> NetworkError {
    NetworkError::Record { path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_written_whole_is_put_aside_and_told_until_it_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("routes.json");
        assert_eq!(read::<Vec<u8>>(&path).unwrap(), Found::Nothing);
        write(&path, &[1, 2, 3]).unwrap();
        assert_eq!(read(&path).unwrap(), Found::Whole(vec![1, 2, 3]));
        for damaged in ["", "[1,2", "\0\0\0\0", "{}"] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(read::<Vec<u8>>(&path).unwrap(), Found::Damaged);
            assert_eq!(read::<Vec<u8>>(&path).unwrap(), Found::Damaged, "the agent died meanwhile");
            assert_eq!(fs::read_to_string(folder.path().join("routes.json.damaged")).unwrap(), damaged);
        }
        write(&path, &[4]).unwrap();
        assert_eq!(read(&path).unwrap(), Found::Whole(vec![4]));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(read::<Vec<u8>>(&path).is_err(), "what cannot be read at all is no damage that could be mended");
    }
}
