//! Mounts whose files appear with the ids of a user namespace, attached nowhere.
//!
//! An overlay cannot be mapped as a whole (Linux 6.18 has no `FS_ALLOW_IDMAP` for it), its layers can (since 5.19): the
//! lower ones are, and on disk they keep the image's ids, so that all pods share them. The upper one is not: what a
//! container writes belongs on disk to the ids of its pod, so that a file that is left or reached outside is nobody's.
//!
//! Before Linux 6.15 a layer must be attached in the mount namespace of whoever mounts the overlay. That is one of a thread
//! of its own, which ends with the thread: the overlay keeps private copies.

use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use rustix::fs::{CWD, Mode, mkdirat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, fsconfig_create, fsmount, fsopen,
    mount_change, move_mount,
};

use super::overlay::{Overlay, add_names, add_one_by_one, mount, mount_layers, takes_single_layers};
use super::{Recursive, RootfsError, clone_host_path};
use crate::sys::mount::map_ids;

/// As [`clone_host_path`], and the files of the mount appear with the ids that `user_namespace` maps theirs to; those of
/// the mounts below as well if `all`.
///
/// # Errors
/// When the path does not exist, or its file system cannot do that.
pub fn clone_mapped(
    path: &Path,
    recursive: Recursive,
    user_namespace: BorrowedFd<'_>,
    all: bool,
) -> Result<OwnedFd, RootfsError> {
    let mount = clone_host_path(path, recursive)?;
    map_mount(mount.as_fd(), path, user_namespace, all)?;
    Ok(mount)
}

/// Lets the files of a mount that is attached nowhere appear with the ids that `user_namespace` maps theirs to; `path` is
/// what it is called in an error.
///
/// # Errors
/// When its file system cannot do that.
pub fn map_mount(
    mount: BorrowedFd<'_>,
    path: &Path,
    user_namespace: BorrowedFd<'_>,
    all: bool,
) -> Result<(), RootfsError> {
    let mapped = map_ids(mount, user_namespace, all);
    mapped.map_err(|errno| RootfsError::Map { path: path.to_owned(), source: errno.into() })
}

/// As [`super::layers`], with files that appear with the ids that `user_namespace` maps theirs to.
///
/// # Errors
/// When a layer is missing or the kernel refuses.
pub fn layers_mapped(lower: &[PathBuf], user_namespace: BorrowedFd<'_>) -> Result<OwnedFd, RootfsError> {
    if let [layer] = lower {
        return clone_mapped(layer, Recursive::No, user_namespace, false);
    }
    let work = || {
        let mapped = attach_layers(lower, user_namespace)?;
        mount_layers(&mapped, if takes_single_layers() { add_one_by_one } else { add_all })
    };
    std::thread::scope(|scope| scope.spawn(work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

/// Mounts an overlay whose layers appear with the ids that `user_namespace` maps theirs to. `root` is what its root is
/// outside: user and group.
///
/// # Errors
/// When a directory is missing or the kernel refuses.
pub fn overlay_mapped(
    overlay: &Overlay<'_>,
    user_namespace: BorrowedFd<'_>,
    root: (u32, u32),
) -> Result<OwnedFd, RootfsError> {
    fs::create_dir_all(overlay.upper).map_err(|source| RootfsError::path("create", overlay.upper, source))?;
    chown(overlay.upper, Some(root.0), Some(root.1))
        .map_err(|source| RootfsError::path("change the owner of", overlay.upper, source))?;
    let work = || {
        let mapped = attach_layers(overlay.lower, user_namespace)?;
        let overlay = Overlay { lower: &mapped, ..*overlay };
        mount(&overlay, if takes_single_layers() { add_one_by_one } else { add_all })
    };
    std::thread::scope(|scope| scope.spawn(work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

/// Leaves the thread in a mount namespace of its own and in a directory with the layers, whose names it returns.
fn attach_layers(layers: &[PathBuf], user_namespace: BorrowedFd<'_>) -> Result<Vec<PathBuf>, RootfsError> {
    let root = Path::new("/");
    let failed = |operation| move |errno: Errno| RootfsError::path(operation, root, errno);
    nix::sched::unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS)
        .map_err(|errno| RootfsError::path("make a mount namespace of", root, errno))?;
    // Unmounts of the host still arrive, mounts of ours do not leave.
    mount_change(root, MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .map_err(failed("isolate mounts of"))?;
    let place = empty().map_err(failed("mount an empty file system over"))?;
    let mut names = Vec::with_capacity(layers.len());
    for (index, layer) in layers.iter().enumerate() {
        let mount = clone_mapped(layer, Recursive::No, user_namespace, false)?;
        let name = index.to_string();
        let attached = mkdirat(&place, &name, Mode::from_raw_mode(0o700))
            .and_then(|()| move_mount(&mount, "", &place, &name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH));
        attached.map_err(|errno| RootfsError::path("attach", layer, errno))?;
        names.push(PathBuf::from(name));
    }
    rustix::process::fchdir(&place).map_err(failed("enter the layers of"))?;
    Ok(names)
}

/// An empty file system above the root: absolute paths still begin below it.
fn empty() -> Result<OwnedFd, Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    move_mount(&mount, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(mount)
}

fn add_all(context: &OwnedFd, lower: &[PathBuf], _: &mut Vec<OwnedFd>) -> Result<(), RootfsError> {
    let names: Vec<String> = lower.iter().rev().map(|path| path.display().to_string()).collect();
    add_names(context, &names)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use rustix::fs::{AtFlags, OFlags, openat, statat};

    use super::*;
    use crate::container::users::{IdMaps, make};

    fn check(test: &str, one_by_one: bool) {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIP {test}: not root");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let lower = [path("low"), path("high")];
        for (number, layer) in lower.iter().enumerate() {
            fs::create_dir(layer).unwrap();
            fs::write(layer.join(number.to_string()), "").unwrap();
            fs::write(layer.join("top"), number.to_string()).unwrap();
        }
        chown(lower[1].join("1"), Some(33), Some(34)).unwrap();
        let (upper, work) = (path("upper"), path("work"));
        let namespace = make(&IdMaps::contiguous(0x1_0000, 0x1_0000)).unwrap();
        let wanted = Overlay { lower: &lower, upper: &upper, work: &work, volatile: true };
        fs::create_dir(&upper).unwrap();
        chown(&upper, Some(0x1_0000), Some(0x1_0000)).unwrap();
        let work = || {
            let mapped = attach_layers(&lower, namespace.as_fd()).unwrap();
            mount(&Overlay { lower: &mapped, ..wanted }, if one_by_one { add_one_by_one } else { add_all }).unwrap()
        };
        let mounted = std::thread::scope(|scope| scope.spawn(work).join().unwrap());
        let owner = |name: &str| {
            let found = statat(&mounted, name, AtFlags::empty()).unwrap();
            (found.st_uid, found.st_gid)
        };
        assert_eq!(owner("."), (0x1_0000, 0x1_0000));
        assert_eq!(owner("0"), (0x1_0000, 0x1_0000));
        assert_eq!(owner("1"), (0x1_0000 + 33, 0x1_0000 + 34));
        let file = openat(&mounted, "top", OFlags::RDONLY, Mode::empty()).unwrap();
        assert_eq!(std::io::read_to_string(fs::File::from(file)).unwrap(), "1");
        // Copied up, it belongs on disk to the ids of the pod.
        drop(openat(&mounted, "1", OFlags::WRONLY, Mode::empty()).unwrap());
        assert_eq!(fs::metadata(upper.join("1")).unwrap().uid(), 0x1_0000 + 33);
        assert_eq!(fs::metadata(lower[1].join("1")).unwrap().uid(), 33);
    }

    #[test]
    fn layers_of_a_mapped_overlay_appear_with_the_ids_of_the_namespace() {
        check("layers_of_a_mapped_overlay_appear_with_the_ids_of_the_namespace", takes_single_layers());
    }

    #[test]
    fn layers_of_a_mapped_overlay_can_be_named_all_at_once() {
        check("layers_of_a_mapped_overlay_can_be_named_all_at_once", false);
    }

    #[test]
    fn a_file_system_that_cannot_be_mapped_is_named_as_upstream_does() {
        let test = "a_file_system_that_cannot_be_mapped_is_named_as_upstream_does";
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIP {test}: not root");
            return;
        }
        let namespace = make(&IdMaps::contiguous(0x1_0000, 0x1_0000)).unwrap();
        let error = clone_mapped(Path::new("/proc"), Recursive::No, namespace.as_fd(), false).unwrap_err();
        let words = "failed to set MOUNT_ATTR_IDMAP on /proc (maybe the filesystem used doesn't support idmap mounts on this \
                     kernel?)";
        assert_eq!(error.to_string(), words);
    }
}
