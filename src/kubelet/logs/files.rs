//! The files of one attempt's log: `<attempt>.log.<time>` for what was rotated away, `<attempt>.log` for the present.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// All files of a log, the oldest first; the present one is last, also when it does not exist.
pub(super) fn of(log: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(directory), Some(name)) = (log.parent(), log.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let prefix = format!("{}.", name.to_string_lossy());
    let mut rotated = Vec::new();
    match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        entries => {
            for entry in entries? {
                let entry = entry?;
                if entry.file_name().to_string_lossy().starts_with(&prefix) {
                    rotated.push(entry.path());
                }
            }
        }
    }
    rotated.sort();
    rotated.push(log.to_owned());
    Ok(rotated)
}
