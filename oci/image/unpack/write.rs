//! Writes the entries of one layer.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::UnpackError;
use super::root::{self, EntryPath, Root};
use super::tar::{ContentError, Entry, Kind, TarError, TarReader};

const WHITEOUT: &[u8] = b".wh.";
/// Names of AUFS' own bookkeeping, of which only the next one means anything to others.
const WHITEOUT_META: &[u8] = b".wh..wh.";
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";

/// A layer's directory that is being filled.
#[derive(Debug)]
pub(super) struct Layer {
    root: Root,
    /// Modes and times of directories, by path, to be set at the end.
    directories: BTreeMap<Vec<u8>, (Mode, Timestamps)>,
    written: u64,
}

/// Where an entry goes.
struct Place<'a> {
    parent: &'a EntryPath,
    name: &'a OsStr,
}

impl Layer {
    pub(super) fn open(directory: &Path) -> Result<Self, UnpackError> {
        let root = Root::open(directory).map_err(|source| failed("open", &directory.to_string_lossy(), source))?;
        let mode = (Mode::from_raw_mode(0o755), timestamps((0, 0)));
        Ok(Self { root, directories: BTreeMap::from([(Vec::new(), mode)]), written: 0 })
    }

    /// Adds the entry that `reader` stands at.
    pub(super) fn add<R: BufRead>(&mut self, entry: &Entry, reader: &mut TarReader<R>) -> Result<(), UnpackError> {
        let name = String::from_utf8_lossy(&entry.path).into_owned();
        let path = EntryPath::new(&entry.path).ok_or_else(|| UnpackError::Leaves { name: name.clone() })?;
        if path.is_root() {
            return match entry.kind {
                Kind::Directory => self.describe_root(entry).map_err(|source| failed("set up", &name, source)),
                _ => Err(UnpackError::Leaves { name }),
            };
        }
        let (parent, file_name) = path.split();
        if file_name.as_bytes().starts_with(WHITEOUT) {
            return self.hide(&parent, file_name).map_err(|source| failed("whiteout", &name, source));
        }
        let place = Place { parent: &parent, name: file_name };
        match entry.kind {
            Kind::File => self.file(entry, &place, reader, &name)?,
            Kind::Directory => self.make_directory(entry, &path).map_err(|source| failed("make", &name, source))?,
            Kind::HardLink => self.hard_link(entry, &place, &name)?,
            Kind::Symlink | Kind::Fifo | Kind::Character | Kind::Block => {
                self.special(entry, &place).map_err(|source| failed("make", &name, source))?;
            }
        }
        Ok(())
    }

    /// Sets what has to wait; returns the bytes of all files.
    pub(super) fn finish(mut self) -> Result<u64, UnpackError> {
        while let Some((path, (mode, times))) = self.directories.pop_last() {
            self.settle(&path, mode, &times)
                .map_err(|source| failed("set mode of", &String::from_utf8_lossy(&path), source))?;
        }
        Ok(self.written)
    }

    fn settle(&self, path: &[u8], mode: Mode, times: &Timestamps) -> io::Result<()> {
        let Some(path) = EntryPath::new(path) else { return Ok(()) };
        // A later entry may have replaced the directory.
        let Some(directory) = self.root.existing_directory(&path)? else { return Ok(()) };
        rustix::fs::fchmod(&directory, mode)?;
        Ok(rustix::fs::futimens(&directory, times)?)
    }

    fn describe_root(&mut self, entry: &Entry) -> io::Result<()> {
        let path = EntryPath::new(b"").ok_or(io::ErrorKind::InvalidInput)?;
        self.describe_directory(entry, &path)
    }

    fn make_directory(&mut self, entry: &Entry, path: &EntryPath) -> io::Result<()> {
        let (parent, name) = path.split();
        let directory = self.root.directory(&parent)?;
        if let Err(errno) = rustix::fs::mkdirat(directory, name, Mode::RWXU) {
            if errno != Errno::EXIST {
                return Err(errno.into());
            }
            let there = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(there.st_mode) != FileType::Directory {
                let hidden = root::is_whiteout(directory, name)?;
                self.root.remove(&parent, name)?;
                rustix::fs::mkdirat(self.root.directory(&parent)?, name, Mode::RWXU)?;
                if hidden && let Some(made) = self.root.existing_directory(path)? {
                    root::make_opaque(made.as_fd())?;
                }
            }
        }
        self.describe_directory(entry, path)
    }

    fn describe_directory(&mut self, entry: &Entry, path: &EntryPath) -> io::Result<()> {
        let opened = self.root.existing_directory(path)?;
        let directory = opened.ok_or(io::ErrorKind::NotADirectory)?;
        if rustix::fs::fstat(&directory).is_ok_and(|now| (now.st_uid, now.st_gid) != (entry.uid, entry.gid)) {
            rustix::fs::fchown(&directory, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))?;
        }
        set_xattrs(entry, |name, value| rustix::fs::fsetxattr(&directory, name, value, XattrFlags::empty()))?;
        let settled = (Mode::from_raw_mode(entry.mode), timestamps(entry.mtime));
        self.directories.insert(path.as_bytes().to_vec(), settled);
        Ok(())
    }

    fn file<R: BufRead>(
        &mut self,
        entry: &Entry,
        place: &Place<'_>,
        reader: &mut TarReader<R>,
        name: &str,
    ) -> Result<(), UnpackError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made =
            self.make(place, |directory, name| rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR));
        let file = made.map_err(|source| failed("create", name, source))?;
        let copied = reader.read_content(|piece| write_all(file.as_fd(), piece));
        copied.map_err(|error| match error {
            ContentError::Sink(source) => failed("write", name, source),
            other => UnpackError::Archive(TarError::from(other)),
        })?;
        self.written += entry.size;
        describe_file(entry, file.as_fd()).map_err(|source| failed("set attributes of", name, source))
    }

    fn special(&mut self, entry: &Entry, place: &Place<'_>) -> io::Result<()> {
        let kind = match entry.kind {
            Kind::Symlink => {
                let target = OsStr::from_bytes(&entry.link);
                self.make(place, |directory, name| rustix::fs::symlinkat(target, directory, name))?;
                return self.describe_special(entry, place);
            }
            Kind::Fifo => FileType::Fifo,
            Kind::Block => FileType::BlockDevice,
            _ => FileType::CharacterDevice,
        };
        let device = rustix::fs::makedev(entry.device.0, entry.device.1);
        if kind == FileType::CharacterDevice && device == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "overlayfs takes this device for a whiteout"));
        }
        self.make(place, |directory, name| rustix::fs::mknodat(directory, name, kind, Mode::RUSR, device))?;
        self.describe_special(entry, place)
    }

    fn describe_special(&mut self, entry: &Entry, place: &Place<'_>) -> io::Result<()> {
        let directory = self.root.directory(place.parent)?;
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        rustix::fs::chownat(directory, place.name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        if entry.kind != Kind::Symlink {
            rustix::fs::chmodat(directory, place.name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
        }
        let path = root::proc_path(directory, place.name);
        set_xattrs(entry, |name, value| rustix::fs::lsetxattr(&path, name, value, XattrFlags::empty()))?;
        let times = timestamps(entry.mtime);
        Ok(rustix::fs::utimensat(directory, place.name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn hard_link(&mut self, entry: &Entry, place: &Place<'_>, name: &str) -> Result<(), UnpackError> {
        let target_name = || String::from_utf8_lossy(&entry.link).into_owned();
        let leaves = || UnpackError::LinkLeaves { name: name.to_owned(), target: target_name() };
        let target = EntryPath::new(&entry.link).filter(|target| !target.is_root()).ok_or_else(leaves)?;
        let (target_parent, target_file) = target.split();
        let link = || {
            let directory = self.root.directory(&target_parent)?.try_clone_to_owned()?;
            self.make(place, |parent, name| rustix::fs::linkat(&directory, target_file, parent, name, AtFlags::empty()))
        };
        let linked = { link }();
        linked.map_err(|source| failed("make hard link", &format!("{name} to {}", target_name()), source))
    }

    /// A whiteout hides a name of lower layers only: what this layer has under that name stays, and hides it anyway.
    fn hide(&mut self, parent: &EntryPath, marker: &OsStr) -> io::Result<()> {
        let marker = marker.as_bytes();
        if marker == WHITEOUT_OPAQUE {
            let _ = self.root.directory(parent)?;
            let opened = self.root.existing_directory(parent)?;
            return root::make_opaque(opened.ok_or(io::ErrorKind::NotADirectory)?.as_fd());
        }
        if marker.starts_with(WHITEOUT_META) {
            return Ok(());
        }
        let name = OsString::from(OsStr::from_bytes(&marker[WHITEOUT.len()..]));
        if matches!(name.as_bytes(), b"" | b"." | b"..") {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a whiteout needs a name"));
        }
        let directory = self.root.directory(parent)?;
        match rustix::fs::mknodat(directory, &name, FileType::CharacterDevice, Mode::empty(), 0) {
            Err(Errno::EXIST) => {}
            other => return Ok(other?),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(directory, &name, flags, Mode::empty()) {
            Ok(own) => root::make_opaque(own.as_fd()),
            Err(_) => Ok(()),
        }
    }

    /// Makes something at a place; what an earlier entry made there gives way.
    fn make<T>(
        &mut self,
        place: &Place<'_>,
        mut make: impl FnMut(BorrowedFd<'_>, &OsStr) -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        match make(self.root.directory(place.parent)?, place.name) {
            Err(Errno::EXIST) => {}
            other => return Ok(other?),
        }
        self.root.remove(place.parent, place.name)?;
        Ok(make(self.root.directory(place.parent)?, place.name)?)
    }
}

fn describe_file(entry: &Entry, file: BorrowedFd<'_>) -> io::Result<()> {
    if (entry.uid, entry.gid) != (0, 0) {
        rustix::fs::fchown(file, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))?;
    }
    // After the owner: changing that takes setuid and capabilities away.
    rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode))?;
    set_xattrs(entry, |name, value| rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()))?;
    Ok(rustix::fs::futimens(file, &timestamps(entry.mtime))?)
}

/// Sets the entry's extended attributes. Those of overlayfs are the unpacker's own to set: from an image they could
/// redirect a directory to another, or make a file's content another's.
fn set_xattrs(entry: &Entry, mut set: impl FnMut(&OsStr, &[u8]) -> rustix::io::Result<()>) -> io::Result<()> {
    for (name, value) in &entry.xattrs {
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        match set(OsStr::from_bytes(name), value) {
            Ok(()) => {}
            // As containerd does (archive/tar.go): file systems differ in what they can hold.
            Err(Errno::NOTSUP) => {
                tracing::warn!(attribute = %String::from_utf8_lossy(name), "the file system has no such attributes");
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn timestamps((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let modified = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: modified, last_modification: modified }
}

fn write_all(file: BorrowedFd<'_>, mut piece: &[u8]) -> io::Result<()> {
    while !piece.is_empty() {
        match rustix::io::write(file, piece) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => piece = &piece[count..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn failed(operation: &'static str, name: &str, source: io::Error) -> UnpackError {
    let name = name.to_owned();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => UnpackError::Full { name, source },
        _ => UnpackError::Entry { operation, name, source },
    }
}
