//! The log file and its rotation.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use oci::protocol::LogOptions;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::time::{rotation_stamp, wall_nanos};

/// A log file in a directory that stays open, because its path means nothing after the pivot.
#[derive(Debug)]
pub(super) struct LogFile<'a> {
    directory: BorrowedFd<'a>,
    options: &'a LogOptions,
    file: Option<Opened>,
}

#[derive(Debug)]
struct Opened {
    file: OwnedFd,
    size: u64,
}

impl<'a> LogFile<'a> {
    /// The file of that name, which is opened or created when there is something to write.
    pub(super) fn new(directory: BorrowedFd<'a>, options: &'a LogOptions) -> Self {
        Self { directory, options, file: None }
    }

    /// Appends as much as possible; returns how many bytes that was.
    pub(super) fn append(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        let opened = match self.fitting(bytes.len()) {
            Ok(opened) => opened,
            Err(error) => return (0, Err(error)),
        };
        let mut written = 0;
        while written < bytes.len() {
            match rustix::io::retry_on_intr(|| rustix::io::write(&opened.file, &bytes[written..])) {
                Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    written += count;
                    opened.size += u64::try_from(count).unwrap_or(0);
                }
                Err(errno) => return (written, Err(errno.into())),
            }
        }
        (written, Ok(()))
    }

    /// The current file, a new one if so many bytes would be too much for it.
    fn fitting(&mut self, length: usize) -> io::Result<&mut Opened> {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        let opened = match self.file.take() {
            Some(opened) => opened,
            None => open(self.directory, self.options)?,
        };
        let is_full = opened.size > 0 && opened.size.saturating_add(length) > self.options.limits.max_size;
        let opened = if is_full { self.rotate()? } else { opened };
        Ok(self.file.insert(opened))
    }

    /// Renames the file to `<name>.<time>` as the kubelet does (pkg/kubelet/logs/container_log_manager.go), removes the
    /// oldest and opens a new one. Upstream looks at sizes every ten seconds and lets a file grow in between; here a
    /// container that floods its log gets several files a second, with a number after the time, and so never more than
    /// the size that was asked for times the number of files.
    fn rotate(&self) -> io::Result<Opened> {
        let name = self.options.name.as_str();
        let mut rotated = self.rotated()?;
        let newest = rotated.last().and_then(|newest| newest.to_str());
        let next = successor(name, newest, &rotation_stamp(wall_nanos()));
        match rustix::fs::renameat_with(self.directory, name, self.directory, &next, RenameFlags::NOREPLACE) {
            Ok(()) => rotated.push(next.into()),
            // Somebody has removed the file: a new one is due.
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let kept = usize::try_from(self.options.limits.max_files.saturating_sub(1)).unwrap_or(usize::MAX);
        let excess = rotated.len().saturating_sub(kept);
        for oldest in &rotated[..excess] {
            rustix::fs::unlinkat(self.directory, oldest, AtFlags::empty())?;
        }
        open(self.directory, self.options)
    }

    /// Names of the files that were rotated, the oldest first.
    fn rotated(&self) -> io::Result<Vec<OsString>> {
        let prefix = [self.options.name.as_bytes(), b"."].concat();
        let mut rotated = Vec::new();
        for entry in Dir::read_from(self.directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name.starts_with(&prefix) {
                rotated.push(OsStr::from_bytes(name).to_owned());
            }
        }
        rotated.sort();
        Ok(rotated)
    }
}

/// A name for a file that is rotated at `stamp`, which sorts after `newest` even if the clock has been put back.
fn successor(name: &str, newest: Option<&str>, stamp: &str) -> String {
    let suffix = newest.and_then(|newest| newest.strip_prefix(name)?.strip_prefix('.'));
    let (time, number) = match suffix {
        Some(suffix) => suffix.split_once('.').unwrap_or((suffix, "0")),
        None => ("", "0"),
    };
    match number.parse::<u32>() {
        Ok(number) if time >= stamp => format!("{name}.{time}.{:06}", number.saturating_add(1)),
        _ => format!("{name}.{stamp}"),
    }
}

fn open(directory: BorrowedFd<'_>, options: &LogOptions) -> io::Result<Opened> {
    let flags = OFlags::CREATE | OFlags::APPEND | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(directory, options.name.as_str(), flags, Mode::from_raw_mode(0o640))?;
    let size = u64::try_from(rustix::fs::fstat(&file)?.st_size).unwrap_or(0);
    Ok(Opened { file, size })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::path::Path;

    use oci::protocol::Limits;

    use super::*;

    /// Writes texts to a log with these limits, each at once.
    fn write(path: &Path, max_size: u64, max_files: u32, texts: &[&str]) {
        let directory = std::fs::File::open(path).unwrap();
        let options = LogOptions { name: "0.log".to_owned(), limits: Limits { max_size, max_files } };
        let mut log = LogFile::new(directory.as_fd(), &options);
        for text in texts {
            log.append(text.as_bytes()).1.unwrap();
        }
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
        write(directory.path(), 10, 5, &["12345678\n", "abc\n"]);
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
        write(directory.path(), 3, 3, &["full", "next"]);
        let names = names(directory.path());
        assert_eq!(names.len(), 4, "{names:?}");
        assert_eq!(names[1], "0.log.20010106-000000");
        assert_eq!(names[3], "1.log.20010101-000000");
    }

    #[test]
    fn a_flood_within_a_second_leaves_no_more_than_the_limits_allow() {
        let directory = tempfile::tempdir().unwrap();
        let texts: Vec<String> = (0..50).map(|number| format!("line {number:03}\n")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        write(directory.path(), 9, 3, &texts);
        let names = names(directory.path());
        assert_eq!(names.len(), 3, "{names:?}");
        let kept: Vec<_> =
            names.iter().map(|name| std::fs::read_to_string(directory.path().join(name)).unwrap()).collect();
        assert_eq!(kept, ["line 049\n", "line 047\n", "line 048\n"], "the newest, and then in order of age");
    }

    #[test]
    fn names_grow_though_the_clock_is_put_back() {
        let next = |newest| successor("0.log", newest, "20240101-000000");
        assert_eq!(next(None), "0.log.20240101-000000");
        assert_eq!(next(Some("0.log.20231231-235959")), "0.log.20240101-000000");
        assert_eq!(next(Some("0.log.20240101-000000")), "0.log.20240101-000000.000001");
        assert_eq!(next(Some("0.log.20250101-000000.000009")), "0.log.20250101-000000.000010");
        assert_eq!(next(Some("0.log.20250101-000000.gz")), "0.log.20240101-000000");
    }

    #[test]
    fn an_existing_file_is_continued() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("0.log"), b"before\n").unwrap();
        write(directory.path(), 100, 5, &["after\n"]);
        assert_eq!(std::fs::read(directory.path().join("0.log")).unwrap(), b"before\nafter\n");
    }
}
