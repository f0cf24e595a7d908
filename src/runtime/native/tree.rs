//! Removal of directory trees that a container has written.
//!
//! Invariants: nothing outside of the tree's own mount is ever touched, whatever is mounted or linked inside; the number
//! of open descriptors is bounded, however deep the tree is.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Directories deeper than this are moved to the top of the tree before they are emptied.
const DEPTH: usize = 32;

/// Removes a directory with all that it contains; one that does not exist is fine.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let top = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    let mut removal = Removal { top: top.as_fd(), moved: 0 };
    loop {
        let moved = removal.moved;
        removal.empty(top.as_fd(), 0)?;
        if removal.moved == moved {
            break;
        }
    }
    match rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

struct Removal<'a> {
    top: BorrowedFd<'a>,
    moved: u64,
}

impl Removal<'_> {
    fn empty(&mut self, directory: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
        for (name, is_directory) in entries(directory)? {
            if !is_directory {
                gone(rustix::fs::unlinkat(directory, &name, AtFlags::empty()))?;
            } else if depth < DEPTH {
                let inner = enter(directory, &name)?;
                self.empty(inner.as_fd(), depth + 1)?;
                drop(inner);
                gone(rustix::fs::unlinkat(directory, &name, AtFlags::REMOVEDIR))?;
            } else {
                self.moved += 1;
                let unique = format!(".coracle-removal-{}", self.moved);
                rustix::fs::renameat(directory, &name, self.top, unique)?;
            }
        }
        Ok(())
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

fn gone(result: Result<(), Errno>) -> io::Result<()> {
    match result {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
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
        remove(&tree).unwrap();
        assert!(!tree.exists());
        assert!(outside.join("kept").exists());
        remove(&tree).unwrap();
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
        remove(&tree).unwrap();
        assert!(!tree.exists());
    }
}
