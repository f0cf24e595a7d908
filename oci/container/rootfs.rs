//! Mounts for containers, made in the caller's mount namespace and attached nowhere.
//!
//! The agent makes them in the host's namespace and hands them over as descriptors; a mount that is attached nowhere is
//! seen by nobody and vanishes with its last descriptor. Nothing here changes what the host has mounted.

mod beneath;
mod mapped;
mod overlay;

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{OpenTreeFlags, open_tree};

pub use beneath::{BeneathError, clone_beneath, clone_beneath_detached};
pub use mapped::{clone_mapped, layers_mapped, map_mount, overlay_mapped};
pub use overlay::{Overlay, layers, overlay};

/// Why a mount could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// A directory or file could not be used.
    #[error("cannot {operation} {}", path.display())]
    Path {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel refused the overlay.
    #[error("cannot mount an overlay of {layers} layers: {step}")]
    Overlay {
        /// How many lower directories there are.
        layers: usize,
        /// Which part was refused.
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Kernels before 6.7 take all lower directories in one string of 255 bytes.
    #[error("this kernel cannot mount an overlay of {layers} layers; Linux 6.7 can")]
    TooManyLayers {
        /// How many lower directories there are.
        layers: usize,
    },
    /// The files of a mount cannot appear with other ids.
    #[error(
        "failed to set MOUNT_ATTR_IDMAP on {}{}",
        path.display(),
        if source.raw_os_error() == Some(libc::EINVAL) {
            " (maybe the filesystem used doesn't support idmap mounts on this kernel?)"
        } else {
            ""
        }
    )]
    Map {
        /// What was to be mounted; the words are those that runc gives users of Kubernetes.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Mounts cannot pass both ways through a mount that is not shared.
    #[error("path {} is mounted on {} but it is not a shared mount", path.display(), mount.display())]
    NotShared {
        /// What was asked for.
        path: PathBuf,
        /// Where the mount that it is on is attached.
        mount: PathBuf,
    },
}

impl RootfsError {
    fn path(operation: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Path { operation, path: path.to_owned(), source: source.into() }
    }
}

/// Clones the mount at a path, following symbolic links; with all mounts below it if `recursive`.
///
/// The clone passes mounts on as its source does. It must be made in the namespace whose mounts shall be seen.
///
/// # Errors
/// When the path does not exist.
pub fn clone_host_path(path: &Path, recursive: Recursive) -> Result<OwnedFd, RootfsError> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive == Recursive::Yes {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(CWD, path, flags).map_err(|errno| RootfsError::path("clone the mount at", path, errno))
}

/// Whether mounts below are meant as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recursive {
    /// The one mount only.
    No,
    /// Everything below it.
    Yes,
}

/// Refuses a path whose mount, in the calling thread's namespace, would not pass mounts back to the host.
///
/// # Errors
/// [`RootfsError::NotShared`], in the words that the kubelet uses.
pub fn require_shared(path: &Path) -> Result<(), RootfsError> {
    let failed = |source| RootfsError::path("examine the mount of", path, source);
    let opened = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let opened = opened.map_err(|errno| RootfsError::path("open", path, errno))?;
    let about =
        fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", opened.as_fd().as_raw_fd())).map_err(failed)?;
    let id = about.lines().find_map(|line| line.strip_prefix("mnt_id:")).unwrap_or_default().trim();
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").map_err(failed)?;
    match mounts.lines().map(Mounted::parse).find(|mounted| mounted.id == id) {
        Some(mounted) if !mounted.shared => {
            Err(RootfsError::NotShared { path: path.to_owned(), mount: PathBuf::from(mounted.at) })
        }
        _ => Ok(()),
    }
}

/// What matters of a line of proc_pid_mountinfo(5).
#[derive(Debug, PartialEq, Eq)]
struct Mounted<'a> {
    id: &'a str,
    at: &'a str,
    shared: bool,
}

impl<'a> Mounted<'a> {
    fn parse(line: &'a str) -> Self {
        let mut fields = line.split(' ');
        let id = fields.next().unwrap_or_default();
        let at = fields.nth(3).unwrap_or_default();
        let shared = fields.skip(1).take_while(|field| *field != "-").any(|field| field.starts_with("shared:"));
        Self { id, at, shared }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_mount_is_told_from_others() {
        let shared = Mounted::parse("29 1 8:1 / /data rw,relatime shared:1 master:2 - ext4 /dev/sda1 rw");
        assert_eq!(shared, Mounted { id: "29", at: "/data", shared: true });
        let slave = Mounted::parse("30 29 8:1 / /d rw master:1 - ext4 shared:9 rw");
        assert_eq!(slave, Mounted { id: "30", at: "/d", shared: false });
    }
}
