//! Resolving `subPath` without leaving the volume.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat2};

use crate::container::ConfigError;

/// The place of `sub_path` below the volume at `root`. A missing directory is made, as upstream does. Links are
/// followed as long as they stay below the volume (openat2(2), `RESOLVE_BENEATH`).
pub(super) fn resolve(root: &Path, sub_path: &str, volume: &str) -> Result<PathBuf, ConfigError> {
    let refuse =
        |message: String| ConfigError::SubPath { path: sub_path.to_owned(), volume: volume.to_owned(), message };
    let path = Path::new(sub_path);
    if path.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(refuse("it must be relative and without ..".to_owned()));
    }
    open_or_make(root, path).and_then(|place| place_of(&place)).map_err(|error| refuse(error.to_string()))
}

fn open_or_make(root: &Path, path: &Path) -> io::Result<OwnedFd> {
    let root = File::open(root)?;
    let mut walked = PathBuf::new();
    for part in path.components() {
        walked.push(part);
        let parent = walked.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match open_beneath(&root, &walked) {
            Err(rustix::io::Errno::NOENT) => {
                let parent = open_beneath(&root, parent)?;
                mkdirat(parent, part.as_os_str(), Mode::from_raw_mode(0o750))?;
            }
            result => drop(result?),
        }
    }
    Ok(open_beneath(&root, path)?)
}

fn open_beneath(root: &File, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    openat2(root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS)
}

/// The path of an open file, free of links.
fn place_of(file: &OwnedFd) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
