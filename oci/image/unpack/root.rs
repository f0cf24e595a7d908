//! The directory of a layer: nothing that is done through it reaches beyond.
//!
//! Every parent is resolved by the kernel beneath the directory (openat2(2), `RESOLVE_IN_ROOT` and
//! `RESOLVE_NO_MAGICLINKS`), so that a link in the layer cannot lead out of it; the last component of a name is never
//! followed.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, XattrFlags};
use rustix::io::Errno;

/// The directory of a layer that is being unpacked.
#[derive(Debug)]
pub(super) struct Root {
    directory: OwnedFd,
    /// The parent that was asked for last: entries come directory by directory.
    last: Option<(Vec<u8>, OwnedFd)>,
}

/// The path of an entry: components beneath the layer's directory, none of them `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EntryPath(Vec<u8>);

impl EntryPath {
    /// None if the path has a component that leads upwards, or a NUL.
    pub(super) fn new(path: &[u8]) -> Option<Self> {
        let parts: Vec<&[u8]> = path.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
        let sound = !path.contains(&0) && !parts.contains(&&b".."[..]);
        sound.then(|| Self(parts.join(&b'/')))
    }

    /// Whether it is the layer's directory itself.
    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Everything but the last component, and that.
    pub(super) fn split(&self) -> (EntryPath, &OsStr) {
        match self.0.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (Self(self.0[..slash].to_vec()), OsStr::from_bytes(&self.0[slash + 1..])),
            None => (Self(Vec::new()), OsStr::from_bytes(&self.0)),
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn as_path(&self) -> &OsStr {
        OsStr::from_bytes(if self.0.is_empty() { b"." } else { &self.0 })
    }
}

impl Root {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { directory: rustix::fs::open(path, flags, Mode::empty())?, last: None })
    }

    /// The directory at `path`, following links within the layer; what is missing is made, as `tar` does.
    pub(super) fn directory(&mut self, path: &EntryPath) -> io::Result<BorrowedFd<'_>> {
        let known = self.last.as_ref().is_some_and(|(last, _)| last == path.as_bytes());
        if !known {
            let opened = self.open_or_make(path)?;
            self.last = Some((path.as_bytes().to_vec(), opened));
        }
        let last = self.last.as_ref().map(|(_, directory)| directory.as_fd());
        last.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn open_or_make(&self, path: &EntryPath) -> io::Result<OwnedFd> {
        match self.resolve(path, OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR) if !path.is_root() => {}
            other => return Ok(other?),
        }
        let (parent, name) = path.split();
        let parent = self.open_or_make(&parent)?;
        let hidden = is_whiteout(parent.as_fd(), name)?;
        if hidden {
            rustix::fs::unlinkat(&parent, name, AtFlags::empty())?;
        }
        rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
        rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
        if hidden {
            make_opaque(made.as_fd())?;
        }
        Ok(made)
    }

    /// Opens the directory at `path` for changes of its own attributes, if it is one and no link leads to it.
    pub(super) fn existing_directory(&self, path: &EntryPath) -> io::Result<Option<OwnedFd>> {
        match self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY, ResolveFlags::NO_SYMLINKS) {
            Ok(directory) => Ok(Some(directory)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    fn resolve(&self, path: &EntryPath, flags: OFlags, more: ResolveFlags) -> Result<OwnedFd, Errno> {
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV | more;
        loop {
            match rustix::fs::openat2(&self.directory, path.as_path(), flags | OFlags::CLOEXEC, Mode::empty(), how) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
    }

    /// Removes whatever is at the name, with all below it.
    pub(super) fn remove(&mut self, parent: &EntryPath, name: &OsStr) -> io::Result<()> {
        let directory = self.directory(parent)?;
        let removed = match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => fs::remove_dir_all(proc_path(directory, name)),
            Err(errno) => Err(errno.into()),
        };
        // The parent that was asked for last may have been what is gone now, or have been reached through it.
        self.last = None;
        removed
    }
}

/// Whether there is a whiteout, as overlayfs marks them, at the name.
pub(super) fn is_whiteout(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<bool> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice && found.st_rdev == 0),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Marks a directory so that overlayfs hides what lower layers have in it.
pub(super) fn make_opaque(directory: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(directory, "trusted.overlay.opaque", b"y", XattrFlags::empty())?)
}

/// A path to something in an open directory, for calls that know no descriptors.
pub(super) fn proc_path(directory: BorrowedFd<'_>, name: &OsStr) -> std::path::PathBuf {
    Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name)
}
