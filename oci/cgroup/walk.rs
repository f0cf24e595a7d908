//! Going through a group and all groups below it, children first.
//!
//! A privileged container, or one that was given its part of the tree, makes groups below its own as deep and as many
//! as it likes; a path to the deepest may be longer than any path that the kernel takes. So directories are entered one
//! by one, by descriptors, of which two are open at a time. Invariant: what vanishes meanwhile is no failure.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::RDONLY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// A directory on the way from the top, with those of its children that are still to be visited.
struct Level {
    name: CString,
    left: Vec<CString>,
}

/// Calls `visit` with every directory below `top` and with `top` itself, each after its children, and then `leave` with
/// the directory above and the name of the one that was visited; not for `top`.
pub(super) fn walk<E: From<Errno>>(
    top: &Path,
    visit: &mut dyn FnMut(BorrowedFd<'_>) -> Result<(), E>,
    leave: &mut dyn FnMut(BorrowedFd<'_>, &CStr) -> Result<(), E>,
) -> Result<(), E> {
    let Some(mut directory) = enter(CWD, top)? else { return Ok(()) };
    let mut levels = vec![Level { name: CString::default(), left: children(&directory)? }];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.left.pop() {
            let Some(child) = enter(directory.as_fd(), name.as_c_str())? else { continue };
            levels.push(Level { name, left: children(&child)? });
            directory = child;
            continue;
        }
        visit(directory.as_fd())?;
        let name = std::mem::take(&mut level.name);
        levels.pop();
        if !levels.is_empty() {
            directory = rustix::fs::openat(&directory, "..", DIRECTORY, Mode::empty())?;
            leave(directory.as_fd(), &name)?;
        }
    }
    Ok(())
}

fn enter(at: BorrowedFd<'_>, path: impl rustix::path::Arg) -> Result<Option<OwnedFd>, Errno> {
    match rustix::fs::openat(at, path, DIRECTORY, Mode::empty()) {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::NOENT | Errno::NODEV) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn children(directory: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut found = Vec::new();
    for entry in Dir::read_from(directory)? {
        match entry {
            Ok(entry) if entry.file_type() == FileType::Directory => {
                let name = entry.file_name();
                if name != c"." && name != c".." {
                    found.push(name.to_owned());
                }
            }
            Ok(_) => {}
            // The directory was removed.
            Err(Errno::NOENT) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(found)
}

/// Removes a directory of [`walk`].
pub(super) fn remove_at(at: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    rustix::fs::unlinkat(at, name, AtFlags::REMOVEDIR)
}
