//! The overlay of an image's layers, attached nowhere.
//!
//! Linux 6.7 takes lower directories one by one. Before, all of them have to fit into one string of 255 bytes, so they
//! are named there by the numbers of descriptors, relative to the directory of descriptors, by a thread that has a
//! working directory of its own. That is enough for about seventy layers.

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::sched::CloneFlags;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};

use super::{Recursive, RootfsError, clone_host_path};

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
    if takes_single_layers() { mount(overlay, add_one_by_one) } else { mount_all_at_once(overlay) }
}

/// Mounts layers, the lowest first, one above the other, without anything that could be written to. A single layer is
/// itself what is mounted, and can be written to unless the mount is made read-only.
///
/// # Errors
/// When a layer is missing or the kernel refuses.
pub fn layers(lower: &[PathBuf]) -> Result<OwnedFd, RootfsError> {
    match lower {
        [layer] => clone_host_path(layer, Recursive::No),
        lower if takes_single_layers() => mount_layers(lower, add_one_by_one),
        lower => among_descriptors(|| mount_layers(lower, add_all)),
    }
}

/// Whether the kernel takes lower directories one by one. Before Linux 6.5 it takes any option at all and refuses those
/// that it does not know when the mount is created.
pub(super) fn takes_single_layers() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let Ok(context) = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) else { return true };
        let refuses_unknown = fsconfig_set_flag(&context, "no-such-option").is_err();
        refuses_unknown && fsconfig_set_string(&context, "lowerdir+", "/").is_ok()
    })
}

/// On a thread of its own, since a working directory belongs to all threads that share it.
fn mount_all_at_once(overlay: &Overlay<'_>) -> Result<OwnedFd, RootfsError> {
    among_descriptors(|| mount(overlay, add_all))
}

fn among_descriptors(then: impl FnOnce() -> Result<OwnedFd, RootfsError> + Send) -> Result<OwnedFd, RootfsError> {
    let work = || {
        let descriptors = Path::new("/proc/self/fd");
        let failed = |errno: Errno| RootfsError::path("enter", descriptors, errno);
        nix::sched::unshare(CloneFlags::CLONE_FS).map_err(|errno| RootfsError::path("enter", descriptors, errno))?;
        rustix::process::chdir(descriptors).map_err(failed)?;
        then()
    };
    std::thread::scope(|scope| scope.spawn(work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

/// Adds the lower directories to a context, the topmost first as the kernel wants them; what has to stay open until the
/// mount is made is kept.
pub(super) type AddLower = fn(&OwnedFd, &[PathBuf], &mut Vec<OwnedFd>) -> Result<(), RootfsError>;

pub(super) fn mount(overlay: &Overlay<'_>, add_lower: AddLower) -> Result<OwnedFd, RootfsError> {
    let layers = overlay.lower.len();
    let refused = |step| move |errno: Errno| RootfsError::Overlay { layers, step, source: errno.into() };
    for path in [overlay.upper, overlay.work] {
        fs::create_dir_all(path).map_err(|source| RootfsError::path("create", path, source))?;
    }
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(refused("open file system"))?;
    // Keeps the descriptors that stand for paths until the mount is made.
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

pub(super) fn mount_layers(lower: &[PathBuf], add_lower: AddLower) -> Result<OwnedFd, RootfsError> {
    let layers = lower.len();
    let refused = |step| move |errno: Errno| RootfsError::Overlay { layers, step, source: errno.into() };
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(refused("open file system"))?;
    let mut kept = Vec::new();
    add_lower(&context, lower, &mut kept)?;
    fsconfig_create(&context).map_err(refused("create"))?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY).map_err(refused("mount"))
}

pub(super) fn add_one_by_one(context: &OwnedFd, lower: &[PathBuf], kept: &mut Vec<OwnedFd>) -> Result<(), RootfsError> {
    let layers = lower.len();
    for path in lower.iter().rev() {
        let value = short(path, kept)?;
        fsconfig_set_string(context, "lowerdir+", value.as_path()).map_err(|errno| RootfsError::Overlay {
            layers,
            step: "lower directory",
            source: errno.into(),
        })?;
    }
    Ok(())
}

fn add_all(context: &OwnedFd, lower: &[PathBuf], kept: &mut Vec<OwnedFd>) -> Result<(), RootfsError> {
    let numbers = lower.iter().rev().map(|path| Ok(keep(path, kept)?.to_string()));
    add_names(context, &numbers.collect::<Result<Vec<_>, RootfsError>>()?)
}

/// Adds lower directories by names relative to the working directory, the topmost first.
pub(super) fn add_names(context: &OwnedFd, names: &[String]) -> Result<(), RootfsError> {
    let (layers, value) = (names.len(), names.join(":"));
    if value.len() > VALUE_MAX {
        return Err(RootfsError::TooManyLayers { layers });
    }
    fsconfig_set_string(context, "lowerdir", value.as_str()).map_err(|errno| RootfsError::Overlay {
        layers,
        step: "lower directories",
        source: errno.into(),
    })
}

/// The path itself, or one through a descriptor where it is too long for fsconfig(2).
fn short(path: &Path, kept: &mut Vec<OwnedFd>) -> Result<PathBuf, RootfsError> {
    if path.as_os_str().len() <= VALUE_MAX {
        return Ok(path.to_owned());
    }
    Ok(PathBuf::from(format!("/proc/self/fd/{}", keep(path, kept)?)))
}

/// Opens a directory and keeps it open; its number.
fn keep(path: &Path, kept: &mut Vec<OwnedFd>) -> Result<i32, RootfsError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    let opened = opened.map_err(|errno| RootfsError::path("open", path, errno))?;
    let number = opened.as_raw_fd();
    kept.push(opened);
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Twenty layers with a file each, which would not fit into one string by their paths.
    fn check(test: &str, how: fn(&Overlay<'_>) -> Result<OwnedFd, RootfsError>) {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIP {test}: not root");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let lower: Vec<PathBuf> = (0..20).map(|number| path(&format!("layer-{number}"))).collect();
        for (number, layer) in lower.iter().enumerate() {
            fs::create_dir(layer).unwrap();
            fs::write(layer.join(number.to_string()), "").unwrap();
            fs::write(layer.join("top"), number.to_string()).unwrap();
        }
        let (upper, work) = (path("upper"), path("work"));
        let mounted = how(&Overlay { lower: &lower, upper: &upper, work: &work, volatile: true }).unwrap();
        let look = |name: &str| {
            let file = rustix::fs::openat(&mounted, name, OFlags::RDONLY, Mode::empty()).unwrap();
            std::io::read_to_string(fs::File::from(file)).unwrap()
        };
        (0..20).for_each(|number| assert_eq!(look(&number.to_string()), ""));
        assert_eq!(look("top"), "19");
    }

    #[test]
    fn many_layers_are_mounted_one_above_the_other() {
        check("many_layers_are_mounted_one_above_the_other", overlay);
    }

    #[test]
    fn layers_alone_are_mounted_one_above_the_other_and_read_only() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIP layers_alone_are_mounted_one_above_the_other_and_read_only: not root");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let lower = ["low", "high"].map(|name| directory.path().join(name));
        for layer in &lower {
            fs::create_dir(layer).unwrap();
            fs::write(layer.join("top"), layer.file_name().unwrap().as_encoded_bytes()).unwrap();
        }
        let look = |mount: &OwnedFd| {
            let file = rustix::fs::openat(mount, "top", OFlags::RDONLY, Mode::empty()).unwrap();
            std::io::read_to_string(fs::File::from(file)).unwrap()
        };
        let both = layers(&lower).unwrap();
        assert_eq!(look(&both), "high");
        let refused = rustix::fs::openat(&both, "new", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR);
        assert_eq!(refused.unwrap_err(), Errno::ROFS);
        assert_eq!(look(&layers(&lower[..1]).unwrap()), "low");
    }

    #[test]
    fn many_layers_are_mounted_in_the_way_of_older_kernels() {
        check("many_layers_are_mounted_in_the_way_of_older_kernels", mount_all_at_once);
    }
}
