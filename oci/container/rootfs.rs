//! Mounts for containers, made in the caller's mount namespace and attached nowhere.
//!
//! The agent makes them in the host's namespace and hands them over as descriptors; a mount that is attached nowhere is
//! seen by nobody and vanishes with its last descriptor. Nothing here changes what the host has mounted.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen, open_tree,
};

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

/// A root file system made of layers.
#[derive(Debug, Clone, Copy)]
pub struct Overlay<'a> {
    /// Unpacked layers, the lowest first; at least one.
    pub lower: &'a [PathBuf],
    /// What is written goes here; created if absent.
    pub upper: &'a Path,
    /// Empty directory on the same file system, for the kernel's use; created if absent.
    pub work: &'a Path,
    /// Whether to leave out syncs of what is written: after a crash of the host it must not be used again.
    pub volatile: bool,
}

/// Longest string that fsconfig(2) takes.
const VALUE_MAX: usize = 255;

/// Mounts an overlay.
///
/// # Errors
/// When a directory is missing or the kernel refuses.
pub fn overlay(overlay: &Overlay<'_>) -> Result<OwnedFd, RootfsError> {
    let layers = overlay.lower.len();
    let refused = |step| move |errno: Errno| RootfsError::Overlay { layers, step, source: errno.into() };
    for path in [overlay.upper, overlay.work] {
        fs::create_dir_all(path).map_err(|source| RootfsError::path("create", path, source))?;
    }
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(refused("open file system"))?;
    // Keeps the descriptors that stand for long paths until the mount is made.
    let mut kept = Vec::new();
    add_lower(&context, overlay.lower, &mut kept)?;
    for (name, path) in [("upperdir", overlay.upper), ("workdir", overlay.work)] {
        let value = short(path, &mut kept)?;
        fsconfig_set_string(&context, name, value.as_path()).map_err(refused(name))?;
    }
    if overlay.volatile {
        fsconfig_set_flag(&context, "volatile").map_err(refused("volatile"))?;
    }
    fsconfig_create(&context).map_err(refused("create"))?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map_err(refused("mount"))
}

/// Adds the lower directories, the topmost first as the kernel wants them: one by one where it can (Linux 6.7), else as
/// one string.
fn add_lower(context: &OwnedFd, lower: &[PathBuf], kept: &mut Vec<OwnedFd>) -> Result<(), RootfsError> {
    let layers = lower.len();
    let refused = |errno: Errno| RootfsError::Overlay { layers, step: "lower directory", source: errno.into() };
    for (index, path) in lower.iter().rev().enumerate() {
        let value = short(path, kept)?;
        match fsconfig_set_string(context, "lowerdir+", value.as_path()) {
            Ok(()) => {}
            Err(Errno::INVAL) if index == 0 => return add_lower_at_once(context, lower, kept),
            Err(errno) => return Err(refused(errno)),
        }
    }
    Ok(())
}

fn add_lower_at_once(context: &OwnedFd, lower: &[PathBuf], kept: &mut Vec<OwnedFd>) -> Result<(), RootfsError> {
    let layers = lower.len();
    let mut value = Vec::new();
    for path in lower.iter().rev() {
        if !value.is_empty() {
            value.push(b':');
        }
        value.extend_from_slice(through_descriptor(path, kept)?.as_os_str().as_bytes());
    }
    if value.len() > VALUE_MAX {
        return Err(RootfsError::TooManyLayers { layers });
    }
    fsconfig_set_string(context, "lowerdir", value.as_slice()).map_err(|errno| RootfsError::Overlay {
        layers,
        step: "lower directories",
        source: errno.into(),
    })
}

/// The path itself, or one through a descriptor where it is too long for fsconfig(2).
fn short(path: &Path, kept: &mut Vec<OwnedFd>) -> Result<PathBuf, RootfsError> {
    if path.as_os_str().len() <= VALUE_MAX { Ok(path.to_owned()) } else { through_descriptor(path, kept) }
}

fn through_descriptor(path: &Path, kept: &mut Vec<OwnedFd>) -> Result<PathBuf, RootfsError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    let opened = opened.map_err(|errno| RootfsError::path("open", path, errno))?;
    let name = PathBuf::from(format!("/dev/fd/{}", opened.as_raw_fd()));
    kept.push(opened);
    Ok(name)
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
