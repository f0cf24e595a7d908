//! The log file and its rotation.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use oci::protocol::LogOptions;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, RenameFlags};

use crate::time::{rotation_stamp, wall_nanos};

/// A log file in a directory that stays open, because its path means nothing after the pivot.
#[derive(Debug)]
pub(crate) struct LogFile {
    directory: OwnedFd,
    options: LogOptions,
    file: OwnedFd,
    size: u64,
}

impl LogFile {
    /// Opens or creates the file.
    pub(crate) fn open(directory: OwnedFd, options: LogOptions) -> io::Result<Self> {
        let (file, size) = open(&directory, &options)?;
        Ok(Self { directory, options, file, size })
    }

    /// Appends as much as possible; returns how many bytes that was.
    pub(super) fn append(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if self.size > 0
            && self.size.saturating_add(length) > self.options.limits.max_size
            && let Err(error) = self.rotate()
        {
            return (0, Err(error));
        }
        let mut written = 0;
        while written < bytes.len() {
            match rustix::io::retry_on_intr(|| rustix::io::write(&self.file, &bytes[written..])) {
                Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    written += count;
                    self.size += u64::try_from(count).unwrap_or(0);
                }
                Err(errno) => return (written, Err(errno.into())),
            }
        }
        (written, Ok(()))
    }

    /// Renames the file to `<name>.<time>` as the kubelet does (pkg/kubelet/logs/container_log_manager.go), opens a new
    /// one and removes the oldest. Within the second of the last rotation the file grows on.
    fn rotate(&mut self) -> io::Result<()> {
        let name = self.options.name.as_str();
        let rotated = format!("{name}.{}", rotation_stamp(wall_nanos()));
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&self.directory, name, &self.directory, &rotated, flags) {
            // Somebody has removed the file: a new one is due.
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(rustix::io::Errno::EXIST) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
        (self.file, self.size) = open(&self.directory, &self.options)?;
        self.remove_oldest()
    }

    fn remove_oldest(&self) -> io::Result<()> {
        let prefix = [self.options.name.as_bytes(), b"."].concat();
        let mut rotated = Vec::new();
        for entry in Dir::read_from(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name.starts_with(&prefix) {
                rotated.push(OsStr::from_bytes(name).to_owned());
            }
        }
        rotated.sort();
        let kept = usize::try_from(self.options.limits.max_files.saturating_sub(1)).unwrap_or(usize::MAX);
        let excess = rotated.len().saturating_sub(kept);
        for name in &rotated[..excess] {
            rustix::fs::unlinkat(&self.directory, name, AtFlags::empty())?;
        }
        Ok(())
    }
}

fn open(directory: &OwnedFd, options: &LogOptions) -> io::Result<(OwnedFd, u64)> {
    let flags = OFlags::CREATE | OFlags::APPEND | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(directory, options.name.as_str(), flags, Mode::from_raw_mode(0o640))?;
    let size = u64::try_from(rustix::fs::fstat(&file)?.st_size).unwrap_or(0);
    Ok((file, size))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use oci::protocol::Limits;

    use super::*;

    fn open_in(path: &Path, max_size: u64, max_files: u32) -> LogFile {
        let directory = std::fs::File::open(path).unwrap().into();
        LogFile::open(directory, LogOptions { name: "0.log".to_owned(), limits: Limits { max_size, max_files } })
            .unwrap()
    }

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_full_file_is_renamed_and_a_new_one_begun() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = open_in(directory.path(), 10, 5);
        log.append(b"12345678\n").1.unwrap();
        log.append(b"abc\n").1.unwrap();
        let names = names(directory.path());
        assert_eq!(names.len(), 2);
        assert_eq!(names[0], "0.log");
        assert_eq!(names[1].len(), "0.log.19700101-000000".len());
        assert_eq!(std::fs::read(directory.path().join("0.log")).unwrap(), b"abc\n");
        assert_eq!(std::fs::read(directory.path().join(&names[1])).unwrap(), b"12345678\n");
    }

    #[test]
    fn only_so_many_files_stay_and_the_oldest_go() {
        let directory = tempfile::tempdir().unwrap();
        for day in 1..=6 {
            std::fs::write(directory.path().join(format!("0.log.2001010{day}-000000")), b"").unwrap();
        }
        std::fs::write(directory.path().join("1.log.20010101-000000"), b"").unwrap();
        let mut log = open_in(directory.path(), 3, 3);
        log.append(b"full").1.unwrap();
        log.append(b"next").1.unwrap();
        let names = names(directory.path());
        assert_eq!(names.len(), 4, "{names:?}");
        assert_eq!(names[1], "0.log.20010106-000000");
        assert_eq!(names[3], "1.log.20010101-000000");
    }

    #[test]
    fn an_existing_file_is_continued() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("0.log"), b"before\n").unwrap();
        open_in(directory.path(), 100, 5).append(b"after\n").1.unwrap();
        assert_eq!(std::fs::read(directory.path().join("0.log")).unwrap(), b"before\nafter\n");
    }
}
