//! Removal of directory trees that containers have written.
//!
//! Invariants: nothing outside of the tree's own mount is ever touched, whatever is mounted or linked inside, also if it is
//! a part of the same file system; what cannot be removed does not keep the rest; the number of open descriptors is bounded,
//! however deep the tree is.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Directories deeper than this are moved to the top of the tree before they are emptied.
const DEPTH: usize = 32;

/// Removes a directory with all that it contains; one that does not exist is fine.
///
/// # Errors
/// When something could not be removed, because something is mounted there or otherwise. The rest is.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let name = CString::new(name.as_encoded_bytes())?;
    let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
    let parent = match rustix::fs::open(parent, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        result => result?,
    };
    let top = match enter(parent.as_fd(), &name) {
        Err(Errno::NOENT) => return Ok(()),
        result => result?,
    };
    let mut removal = Removal { top: top.as_fd(), moved: 0, failed: None };
    loop {
        let moved = removal.moved;
        removal.empty(top.as_fd(), 0)?;
        if removal.moved == moved {
            break;
        }
    }
    if let Some(errno) = removal.failed {
        return Err(errno.into());
    }
    gone(rustix::fs::unlinkat(&parent, &name, AtFlags::REMOVEDIR)).map_err(Into::into)
}

struct Removal<'a> {
    top: BorrowedFd<'a>,
    moved: u64,
    /// Why the first of what is left could not be removed.
    failed: Option<Errno>,
}

impl Removal<'_> {
    /// Removes what is in a directory, as far as that can be done; errors are those of reading it.
    fn empty(&mut self, directory: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
        for (name, is_directory) in entries(directory)? {
            let removed = if !is_directory {
                gone(rustix::fs::unlinkat(directory, &name, AtFlags::empty()))
            } else if depth < DEPTH {
                self.remove_directory(directory, &name, depth)?
            } else {
                let unique = format!(".coracle-removal-{}", self.moved);
                let moved = rustix::fs::renameat(directory, &name, self.top, unique);
                self.moved += u64::from(moved.is_ok());
                moved
            };
            if let Err(errno) = removed {
                self.failed.get_or_insert(errno);
            }
        }
        Ok(())
    }

    fn remove_directory(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &CString,
        depth: usize,
    ) -> io::Result<Result<(), Errno>> {
        let inner = match enter(directory, name) {
            Ok(inner) => inner,
            Err(errno) => return Ok(gone(Err(errno))),
        };
        let before = self.failed;
        self.empty(inner.as_fd(), depth + 1)?;
        drop(inner);
        // Something inside is left, which is what there is to tell.
        let kept = self.failed != before;
        let removed = gone(rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR));
        Ok(if kept { Ok(()) } else { removed })
    }
}

/// Opens a directory, unless it is on another mount.
fn enter(directory: BorrowedFd<'_>, name: &CString) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(directory, name, flags, Mode::empty(), resolve)
}

fn entries(directory: BorrowedFd<'_>) -> io::Result<Vec<(CString, bool)>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let is_directory = match entry.file_type() {
            FileType::Directory => true,
            FileType::Unknown => {
                let about = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(about.st_mode) == FileType::Directory
            }
            _ => false,
        };
        found.push((name.to_owned(), is_directory));
    }
    Ok(found)
}

fn gone(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_tree_is_removed_and_what_its_links_point_to_stays() {
        let directory = tempfile::tempdir().unwrap();
        let (tree, outside) = (directory.path().join("tree"), directory.path().join("outside"));
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), b"").unwrap();
        fs::write(tree.join("a/file"), b"").unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("a/b/link")).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        assert!(outside.join("kept").exists());
        remove_tree(&tree).unwrap();
    }

    #[test]
    fn what_is_mounted_inside_is_left_alone_and_the_rest_goes() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIP what_is_mounted_inside_is_left_alone_and_the_rest_goes: not root");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let work = || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            let flags = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
            rustix::mount::mount_change("/", flags).unwrap();
            let (tree, data) = (directory.path().join("tree"), directory.path().join("data"));
            for path in [tree.join("a/at"), tree.join("b"), data.clone()] {
                fs::create_dir_all(path).unwrap();
            }
            for path in [tree.join("a/file"), tree.join("b/file"), tree.join("one"), data.join("kept")] {
                fs::write(path, b"").unwrap();
            }
            // The same file system, so that its number says nothing.
            rustix::mount::mount_bind(&data, tree.join("a/at")).unwrap();
            rustix::mount::mount_bind(data.join("kept"), tree.join("one")).unwrap();
            assert!(remove_tree(&tree).is_err());
            assert!(data.join("kept").exists());
            assert!(!tree.join("b").exists() && !tree.join("a/file").exists());
            assert!(remove_tree(&tree.join("a/at")).is_err(), "a mount point itself");
            assert!(data.join("kept").exists());
        };
        std::thread::scope(|scope| scope.spawn(work).join().unwrap());
        fs::create_dir_all(directory.path().join("tree")).unwrap();
        remove_tree(&directory.path().join("tree")).unwrap();
        assert!(directory.path().join("data/kept").exists());
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut inner: OwnedFd = fs::File::open(&tree).unwrap().into();
        for _ in 0..2000 {
            rustix::fs::mkdirat(&inner, "directory", Mode::RWXU).unwrap();
            inner = rustix::fs::openat(&inner, "directory", OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        drop(inner);
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }
}
