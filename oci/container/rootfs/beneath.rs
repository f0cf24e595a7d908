//! A part of a volume, reached without leaving it.
//!
//! Whoever writes to a volume can put a symbolic link into it at any moment, also between a check and the use of what was
//! checked (CVE-2017-1002101, CVE-2021-25741). So the kernel itself resolves the path (openat2(2), `RESOLVE_BENEATH`: links
//! are followed as long as they stay below), and what is mounted is the descriptor that came of it, not a name.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::sched::CloneFlags;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fchmod, fstat, mkdirat, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount_change, move_mount, open_tree};

use super::Recursive;

/// How often a walk is tried again that a rename outside has disturbed (`EAGAIN` of openat2(2)).
const TRIES: usize = 64;

/// Why there is no such part.
#[derive(Debug, thiserror::Error)]
pub enum BeneathError {
    /// A directory was missing and could not be made.
    #[error("cannot create {}", path.display())]
    Create {
        /// What was asked for.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It cannot be reached, or leads out.
    #[error("cannot open {}", path.display())]
    Open {
        /// What was asked for.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Clones the mount at `path` below the directory `root` of the host. Directories that are missing are made, with the mode
/// of the root. Links to the root itself are followed.
///
/// # Errors
/// When the path leads out of the root, or something on the way is no directory.
pub fn clone_beneath(root: &Path, path: &Path, recursive: Recursive) -> Result<OwnedFd, BeneathError> {
    let failed = |errno: Errno| BeneathError::Open { path: path.to_owned(), source: errno.into() };
    let root = rustix::fs::open(root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    let found = open_or_make(root.as_fd(), path, Missing::Make)?;
    clone(found.as_fd(), recursive).map_err(failed)
}

/// What becomes of a part that is not there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Make,
    Refuse,
}

/// As [`clone_beneath`], for a mount that is attached nowhere; what is not there is not made. Before Linux 6.15 only what is attached can be cloned: it
/// is, for this moment, in a mount namespace of a thread of its own.
///
/// # Errors
/// As [`clone_beneath`].
pub fn clone_beneath_detached(mount: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, BeneathError> {
    let failed = |errno: Errno| BeneathError::Open { path: path.to_owned(), source: errno.into() };
    let work = || {
        attach_alone(mount).map_err(failed)?;
        let found = open_or_make(mount, path, Missing::Refuse)?;
        clone(found.as_fd(), Recursive::Yes).map_err(failed)
    };
    std::thread::scope(|scope| scope.spawn(work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

/// Attaches a mount over the root of a new mount namespace, which ends with the thread.
fn attach_alone(mount: BorrowedFd<'_>) -> Result<(), Errno> {
    #[expect(clippy::as_conversions, reason = "the enumeration's values are the kernel's numbers")]
    nix::sched::unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS)
        .map_err(|errno| Errno::from_raw_os_error(errno as i32))?;
    // Unmounts of the host still arrive, mounts of ours do not leave.
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    move_mount(mount, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

fn clone(found: BorrowedFd<'_>, recursive: Recursive) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive == Recursive::Yes {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(found, "", flags)
}

/// Opens a path below the root.
fn open_or_make(root: BorrowedFd<'_>, path: &Path, missing: Missing) -> Result<OwnedFd, BeneathError> {
    let open = |errno: Errno| BeneathError::Open { path: path.to_owned(), source: errno.into() };
    let create = |errno: Errno| BeneathError::Create { path: path.to_owned(), source: errno.into() };
    if path.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(open(Errno::XDEV));
    }
    match open_beneath(root, path, OFlags::PATH) {
        Err(Errno::NOENT) if missing == Missing::Make => make(root, path).map_err(create)?,
        result => return result.map_err(open),
    }
    open_beneath(root, path, OFlags::PATH).map_err(open)
}

fn make(root: BorrowedFd<'_>, path: &Path) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(fstat(root)?.st_mode & 0o7777);
    let mut walked = PathBuf::new();
    for part in path.components() {
        let parent = if walked.as_os_str().is_empty() { PathBuf::from(".") } else { walked.clone() };
        walked.push(part);
        if !matches!(open_beneath(root, &walked, OFlags::PATH), Err(Errno::NOENT)) {
            continue;
        }
        let parent = open_beneath(root, &parent, OFlags::PATH | OFlags::DIRECTORY)?;
        match mkdirat(&parent, part.as_os_str(), mode) {
            // Another container has made it meanwhile, or it is a link to nowhere, which the last look refuses.
            Err(Errno::EXIST) => continue,
            result => result?,
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(&parent, part.as_os_str(), flags, Mode::empty())?;
        // The mask for new files of this process does not count.
        fchmod(&made, mode)?;
    }
    Ok(())
}

fn open_beneath(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        match openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN) if tries < TRIES => tries += 1,
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::fs::{RenameFlags, renameat_with};
    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

    use super::*;

    fn is_root(test: &str) -> bool {
        let is_root = rustix::process::geteuid().is_root();
        if !is_root {
            eprintln!("SKIP {test}: not root");
        }
        is_root
    }

    fn inode(file: &OwnedFd) -> u64 {
        fstat(file).unwrap().st_ino
    }

    #[test]
    fn a_part_is_reached_through_links_that_stay_inside_and_through_no_others() {
        if !is_root("a_part_is_reached_through_links_that_stay_inside_and_through_no_others") {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("volume");
        fs::create_dir_all(root.join("deep/er")).unwrap();
        symlink("deep", root.join("inside")).unwrap();
        symlink("..", root.join("up")).unwrap();
        symlink("/etc", root.join("absolute")).unwrap();
        symlink("nowhere", root.join("dangling")).unwrap();
        symlink("/proc/self/root", root.join("magic")).unwrap();
        let found = clone_beneath(&root, Path::new("inside/er"), Recursive::Yes).unwrap();
        assert_eq!(inode(&found), fs::metadata(root.join("deep/er")).unwrap().ino());
        for path in ["up", "up/x", "../x", "/etc", "absolute", "magic", "deep/../..", "dangling"] {
            assert!(clone_beneath(&root, Path::new(path), Recursive::Yes).is_err(), "{path} was taken");
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "something was made outside");
    }

    #[test]
    fn missing_directories_are_made_with_the_mode_of_the_root() {
        if !is_root("missing_directories_are_made_with_the_mode_of_the_root") {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o2777)).unwrap();
        clone_beneath(directory.path(), Path::new("a/b"), Recursive::Yes).unwrap();
        for made in ["a", "a/b"] {
            assert_eq!(fs::metadata(directory.path().join(made)).unwrap().mode() & 0o7777, 0o2777, "{made}");
        }
        fs::write(directory.path().join("file"), "").unwrap();
        let error = clone_beneath(directory.path(), Path::new("file/x"), Recursive::Yes).unwrap_err();
        assert!(matches!(error, BeneathError::Open { .. }), "{error}");
    }

    /// CVE-2021-25741: a directory and a link to what is outside change places all the time.
    #[test]
    fn a_link_that_is_swapped_in_never_leads_outside() {
        if !is_root("a_link_that_is_swapped_in_never_leads_outside") {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let (root, outside) = (directory.path().join("volume"), directory.path().join("outside"));
        for path in [root.join("part/data"), outside.join("data")] {
            fs::create_dir_all(path).unwrap();
        }
        symlink("../outside", root.join("other")).unwrap();
        let own = fs::metadata(root.join("part/data")).unwrap().ino();
        let (going, mut reached) = (AtomicBool::new(true), 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while going.load(Ordering::Relaxed) {
                    let (one, other) = (root.join("part"), root.join("other"));
                    renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).unwrap();
                }
            });
            for _ in 0..5000 {
                if let Ok(found) = clone_beneath(&root, Path::new("part/data"), Recursive::Yes) {
                    reached += 1;
                    assert_eq!(inode(&found), own);
                }
            }
            going.store(false, Ordering::Relaxed);
        });
        assert!(reached > 0, "the part was never there");
        assert_eq!(fs::read_dir(outside.join("data")).unwrap().count(), 0);
    }

    #[test]
    fn a_part_of_a_mount_that_is_attached_nowhere_is_found() {
        if !is_root("a_part_of_a_mount_that_is_attached_nowhere_is_found") {
            return;
        }
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        fsconfig_create(&context).unwrap();
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
        mkdirat(&mount, "part", Mode::RWXU).unwrap();
        let own = fstat(openat(&mount, "part", OFlags::PATH, Mode::empty()).unwrap()).unwrap().st_ino;
        let found = clone_beneath_detached(mount.as_fd(), Path::new("part")).unwrap();
        assert_eq!(inode(&found), own);
        assert!(clone_beneath_detached(mount.as_fd(), Path::new("absent")).is_err());
        assert!(openat(&mount, "absent", OFlags::PATH, Mode::empty()).is_err(), "it was made");
    }
}
