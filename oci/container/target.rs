//! Paths below a container's root. Nothing here allocates or locks; it runs between clone and execve.
//!
//! Whatever links an image holds, a path is resolved by the kernel with the root as its root (openat2(2),
//! `RESOLVE_IN_ROOT`), and never through the magic links of procfs. What is missing is created component by component
//! in the directory that was just opened.

use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, RawMode, ResolveFlags, mkdirat, mknodat, openat2, readlinkat_raw};
use rustix::io::Errno;

/// The kernel's limit, its terminating zero included.
const PATH_MAX: usize = 4096;

/// The kernel's limit of symbolic links in one path.
const LINKS_MAX: u32 = 40;

/// What a missing last component becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Make {
    /// A directory.
    Directory(RawMode),
    /// An empty file.
    File,
}

/// Opens a path below `root`, as a place and not for reading.
pub(crate) fn locate(root: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd, Errno> {
    open(root, path, OFlags::PATH)
}

/// Opens a path below `root`.
pub(crate) fn open(root: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    open_strictly(root, path, flags, ResolveFlags::IN_ROOT)
}

/// Opens a path by rules that keep it below `root`, in one way or another: `RESOLVE_IN_ROOT` or `RESOLVE_BENEATH` must be
/// among them. No magic link is followed in any case.
pub(crate) fn open_strictly(
    root: BorrowedFd<'_>,
    path: &CStr,
    flags: OFlags,
    rules: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let resolve = rules | ResolveFlags::NO_MAGICLINKS;
    // EAGAIN says that something was renamed meanwhile.
    for _ in 0..128 {
        match openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

/// Opens a path below `root`; creates it and the directories above it if they are absent, also where a symbolic link
/// points to something that does not exist yet (as runc does: images have `/etc/resolv.conf` point into `/run`).
pub(crate) fn prepare(root: BorrowedFd<'_>, path: &CStr, make: Make) -> Result<OwnedFd, Errno> {
    match locate(root, path) {
        Err(Errno::NOENT) => {}
        result => return result,
    }
    let mut buffer = PathBuffer::new(path.to_bytes())?;
    for _ in 0..LINKS_MAX {
        match buffer.walk(root, make)? {
            Walk::Arrived(descriptor) => return Ok(descriptor),
            Walk::Link => {}
        }
    }
    Err(Errno::LOOP)
}

/// Opens the directory that a path's last component is in, creating it if it is absent, and returns that component.
pub(crate) fn prepare_parent<'p>(root: BorrowedFd<'_>, path: &'p CStr) -> Result<(OwnedFd, &'p CStr), Errno> {
    let bytes = path.to_bytes();
    let slash = bytes.iter().rposition(|byte| *byte == b'/').ok_or(Errno::INVAL)?;
    let name = &path[slash + 1..];
    if name.is_empty() {
        return Err(Errno::INVAL);
    }
    let mut buffer = PathBuffer::new(&bytes[..slash.max(1)])?;
    let parent = prepare(root, buffer.whole()?, Make::Directory(0o755))?;
    Ok((parent, name))
}

/// How a walk ended.
enum Walk {
    Arrived(OwnedFd),
    /// The path was rewritten by a symbolic link.
    Link,
}

/// A path that can be cut and rewritten without allocating.
struct PathBuffer {
    bytes: [u8; PATH_MAX],
    length: usize,
}

impl PathBuffer {
    fn new(path: &[u8]) -> Result<Self, Errno> {
        let mut buffer = Self { bytes: [0; PATH_MAX], length: 0 };
        buffer.push(path)?;
        Ok(buffer)
    }

    /// Appends, always leaving room for a terminating zero.
    fn push(&mut self, part: &[u8]) -> Result<(), Errno> {
        let end = self.length + part.len();
        if end >= PATH_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        self.bytes[self.length..end].copy_from_slice(part);
        self.bytes[end] = 0;
        self.length = end;
        Ok(())
    }

    fn whole(&mut self) -> Result<&CStr, Errno> {
        CStr::from_bytes_with_nul(&self.bytes[..=self.length]).map_err(|_| Errno::INVAL)
    }

    /// Goes down component by component and creates what is missing.
    fn walk(&mut self, root: BorrowedFd<'_>, make: Make) -> Result<Walk, Errno> {
        let mut directory = locate(root, c"/")?;
        let mut start = 0;
        while let Some((from, to)) = self.component(start) {
            directory = match self.located(root, to) {
                Ok(descriptor) => descriptor,
                Err(Errno::NOENT) => {
                    let make = if self.component(to).is_some() { Make::Directory(0o755) } else { make };
                    match create(directory.as_fd(), self.cut(from, to)?, make) {
                        Ok(()) => {}
                        // Made by somebody else just now, or a link to something that does not exist.
                        Err(Errno::EXIST) => return self.follow(directory.as_fd(), from, to),
                        Err(errno) => return Err(errno),
                    }
                    self.restore(to);
                    self.located(root, to)?
                }
                Err(errno) => return Err(errno),
            };
            start = to;
        }
        Ok(Walk::Arrived(directory))
    }

    /// The next component at or after an index: where it begins and ends.
    fn component(&self, start: usize) -> Option<(usize, usize)> {
        let path = &self.bytes[..self.length];
        let from = start + path[start..].iter().position(|byte| *byte != b'/')?;
        let to = path[from..].iter().position(|byte| *byte == b'/').map_or(self.length, |length| from + length);
        Some((from, to))
    }

    /// The string between two indices. The byte after it is zero until [`Self::restore`].
    fn cut(&mut self, from: usize, to: usize) -> Result<&CStr, Errno> {
        self.bytes[to] = 0;
        CStr::from_bytes_with_nul(&self.bytes[from..=to]).map_err(|_| Errno::INVAL)
    }

    fn restore(&mut self, to: usize) {
        if to < self.length {
            self.bytes[to] = b'/';
        }
    }

    fn located(&mut self, root: BorrowedFd<'_>, to: usize) -> Result<OwnedFd, Errno> {
        let found = self.cut(0, to).and_then(|prefix| locate(root, prefix));
        self.restore(to);
        found
    }

    /// Puts what a symbolic link holds in its place.
    fn follow(&mut self, directory: BorrowedFd<'_>, from: usize, to: usize) -> Result<Walk, Errno> {
        let mut link = [0; PATH_MAX];
        let length = match readlinkat_raw(directory, self.cut(from, to)?, &mut link) {
            Ok(length) => length,
            // Not a link, so it exists by now: walk again.
            Err(Errno::INVAL) => {
                self.restore(to);
                return Ok(Walk::Link);
            }
            Err(errno) => return Err(errno),
        };
        self.restore(to);
        let target = &link[..length];
        let old = self.bytes;
        let rest = &old[to..self.length];
        self.length = if target.first() == Some(&b'/') { 0 } else { from };
        self.push(target)?;
        self.push(rest)?;
        Ok(Walk::Link)
    }
}

fn create(directory: BorrowedFd<'_>, name: &CStr, make: Make) -> Result<(), Errno> {
    match make {
        Make::Directory(mode) => mkdirat(directory, name, Mode::from_raw_mode(mode)),
        Make::File => mknodat(directory, name, FileType::RegularFile, Mode::from_raw_mode(0o644), 0),
    }
}
