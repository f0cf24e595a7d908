//! Giving volumes to the group of their pod, `fsGroup`.
//!
//! After `pkg/volume/volume_linux.go`. Files become the group's and as accessible to it as a volume is to the pod;
//! directories pass the group on. Links are changed, never followed, and what is mounted inside is left alone.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, chmodat, chownat, fchmod, fchown, fstat,
    openat2, statat,
};
use rustix::io::Errno;

/// What a pod asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) id: u32,
    /// Whether a root that is right already says that all of it is.
    pub(super) on_root_mismatch: bool,
}

/// What the group may do with files and directories.
const READ_WRITE: u32 = 0o660;
const READ: u32 = 0o440;
const SEARCH: u32 = 0o110;
const PASS_ON: u32 = 0o2000;

/// Bits of a file of a volume that is only read.
pub(super) fn read_mode(mode: u32) -> u32 {
    mode | READ
}

/// Bits of a directory.
pub(super) fn directory_mode(mode: u32, read_only: bool) -> u32 {
    mode | if read_only { READ } else { READ_WRITE } | SEARCH | PASS_ON
}

/// Gives a volume with all that is in it to a group.
pub(super) fn give(volume: &Path, group: Group, read_only: bool) -> io::Result<()> {
    let top = open(CWD, volume.as_os_str().as_encoded_bytes(), ResolveFlags::empty())?;
    if group.on_root_mismatch && is_right(&fstat(&top)?, group.id, read_only) {
        return Ok(());
    }
    walk(top.as_fd(), group.id, read_only)
}

fn is_right(found: &Stat, group: u32, read_only: bool) -> bool {
    let wanted = directory_mode(0, read_only);
    found.st_gid == group && found.st_mode & wanted == wanted
}

fn open(parent: BorrowedFd<'_>, name: &[u8], resolve: ResolveFlags) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let name = CString::new(name)?;
    Ok(openat2(parent, &name, flags, Mode::empty(), resolve)?)
}

/// The root is changed last: one whose walk was interrupted does not look right.
fn walk(directory: BorrowedFd<'_>, group: u32, read_only: bool) -> io::Result<()> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let found = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            result => result?,
        };
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => match open(directory, name.to_bytes(), resolve) {
                Ok(inner) => walk(inner.as_fd(), group, read_only)?,
                // Something is mounted there, or it has changed meanwhile.
                Err(error)
                    if matches!(Errno::from_io_error(&error), Some(Errno::XDEV | Errno::NOENT | Errno::LOOP)) => {}
                Err(error) => return Err(error),
            },
            kind => {
                change(chownat(directory, name, None, Some(Gid::from_raw(group)), AtFlags::SYMLINK_NOFOLLOW))?;
                if kind != FileType::Symlink {
                    let mode = found.st_mode & 0o7777 | if read_only { READ } else { READ_WRITE };
                    // Not through a link that has taken the file's place.
                    change(chmod_no_follow(directory, name, mode))?;
                }
            }
        }
    }
    let mode = fstat(directory)?.st_mode & 0o7777;
    fchown(directory, None, Some(Gid::from_raw(group)))?;
    fchmod(directory, Mode::from_raw_mode(directory_mode(mode, read_only)))?;
    Ok(())
}

fn chmod_no_follow(directory: BorrowedFd<'_>, name: &std::ffi::CStr, mode: u32) -> Result<(), Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let file = openat2(directory, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    // A descriptor of this kind cannot be given to fchmod(2); its name below /proc stands for the very file.
    use std::os::fd::AsRawFd as _;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    chmodat(CWD, path, Mode::from_raw_mode(mode), AtFlags::empty())
}

/// A file that has gone meanwhile is fine.
fn change(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::NOENT | Errno::LOOP) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;

    fn tree() -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        let volume = directory.path().join("volume");
        fs::create_dir_all(volume.join("deep")).expect("a directory");
        for (path, mode) in [("deep/file", 0o600), ("run", 0o755)] {
            fs::write(volume.join(path), "").expect("a file");
            fs::set_permissions(volume.join(path), fs::Permissions::from_mode(mode)).expect("a mode");
        }
        fs::write(directory.path().join("outside"), "").expect("a file");
        symlink("../outside", volume.join("link")).expect("a link");
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o755)).expect("a mode");
        directory
    }

    fn of(path: &Path) -> (u32, u32) {
        let about = fs::symlink_metadata(path).expect("a file");
        (about.gid(), about.mode() & 0o7777)
    }

    #[test]
    fn everything_in_a_volume_becomes_the_group_s_and_nothing_that_links_lead_to() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIP everything_in_a_volume_becomes_the_group_s_and_nothing_that_links_lead_to: not root");
            return;
        }
        let directory = tree();
        let volume = directory.path().join("volume");
        give(&volume, Group { id: 2000, on_root_mismatch: false }, false).expect("given");
        assert_eq!(of(&volume), (2000, 0o2775));
        assert_eq!(of(&volume.join("deep")), (2000, 0o2775));
        assert_eq!(of(&volume.join("deep/file")), (2000, 0o660));
        assert_eq!(of(&volume.join("run")), (2000, 0o775));
        assert_eq!(of(&volume.join("link")).0, 2000);
        assert_eq!(of(&directory.path().join("outside")).0, rustix::process::getegid().as_raw());
    }

    #[test]
    fn a_root_that_is_right_spares_the_rest_if_asked_to() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIP a_root_that_is_right_spares_the_rest_if_asked_to: not root");
            return;
        }
        let directory = tree();
        let volume = directory.path().join("volume");
        let group = |on_root_mismatch| Group { id: 2000, on_root_mismatch };
        give(&volume, group(true), false).expect("given");
        assert_eq!(of(&volume.join("run")), (2000, 0o775));
        fs::set_permissions(volume.join("run"), fs::Permissions::from_mode(0o700)).expect("a mode");
        give(&volume, group(true), false).expect("given");
        assert_eq!(of(&volume.join("run")), (2000, 0o700), "all of it was changed");
        give(&volume, group(false), false).expect("given");
        assert_eq!(of(&volume.join("run")), (2000, 0o760));
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o755)).expect("a mode");
        give(&volume, group(true), true).expect("given");
        assert_eq!(of(&volume), (2000, 0o2755), "a volume that is only read");
    }
}
