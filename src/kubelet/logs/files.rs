//! The files of one attempt's log: `<attempt>.log.<time>` for what was rotated away, `<attempt>.log` for the present.
//!
//! A reader has all files open that come after the one that it reads, so that a rotation which removes the oldest takes
//! nothing away from who is a little behind. Invariant: files are read in the order in which they were written, each once
//! and to its end, however often the log is rotated meanwhile; only who is more than [`HELD`] files behind misses any.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// How many files of a log may be kept open: what a reader that is slow, or whose client is, may keep on the disk.
const HELD: usize = 16;

/// How often a listing is repeated that a rotation has made worthless.
const ATTEMPTS: usize = 16;

/// All files of a log, the oldest first; the present one is last, also when it does not exist.
fn names(log: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(directory), Some(name)) = (log.parent(), log.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let prefix = format!("{}.", name.to_string_lossy());
    let mut rotated = Vec::new();
    match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        entries => {
            for entry in entries? {
                let entry = entry?;
                if entry.file_name().to_string_lossy().starts_with(&prefix) {
                    rotated.push(entry.path());
                }
            }
        }
    }
    rotated.sort();
    rotated.push(log.to_owned());
    Ok(rotated)
}

/// Whether there is no file of a log, the present one or another.
pub(crate) fn is_missing(log: &Path) -> io::Result<bool> {
    let names = names(log)?;
    Ok(names.len() == 1 && !log.try_exists()?)
}

/// Removes a log with all that was rotated away.
pub(crate) fn remove(log: &Path) -> io::Result<()> {
    for name in names(log)? {
        match fs::remove_file(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// What a file is, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity(u64, u64);

impl Identity {
    fn of(file: &File) -> io::Result<Self> {
        file.metadata().map(|metadata| Self(metadata.dev(), metadata.ino()))
    }
}

/// The files of a log, being read.
#[derive(Debug, Default)]
pub(super) struct Files {
    log: PathBuf,
    /// The one that is read first.
    open: VecDeque<(Identity, File)>,
}

impl Files {
    /// All there is of a log.
    pub(super) fn open(log: PathBuf) -> io::Result<Self> {
        let mut files = Self { log, open: VecDeque::new() };
        files.look()?;
        Ok(files)
    }

    /// What is written to a log from now on.
    pub(super) fn at_end(log: PathBuf) -> io::Result<Self> {
        let mut files = Self::open(log)?;
        let last = files.open.pop_back();
        files.open.clear();
        if let Some((identity, mut file)) = last {
            file.seek(SeekFrom::End(0))?;
            files.open.push_back((identity, file));
        }
        Ok(files)
    }

    /// How many lines there are.
    pub(super) fn count_lines(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut count = 0;
        for (_, file) in &self.open {
            let mut at = 0;
            loop {
                let length = std::os::unix::fs::FileExt::read_at(file, buffer, at)?;
                if length == 0 {
                    break;
                }
                at += u64::try_from(length).unwrap_or(0);
                count += buffer.iter().take(length).filter(|byte| **byte == b'\n').count();
            }
        }
        Ok(count)
    }

    /// Reads on; 0 at the end of what is there.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Before each read: what is rotated away while a file is read must be seen before it is removed.
        self.look()?;
        loop {
            let Some((_, file)) = self.open.front_mut() else { return Ok(0) };
            let length = file.read(buffer)?;
            // A file that has a successor is not written to any more, and was not when it has just been read.
            if length > 0 || self.open.len() == 1 {
                return Ok(length);
            }
            self.open.pop_front();
        }
    }

    /// Opens the files that have come after the newest that is known.
    fn look(&mut self) -> io::Result<()> {
        let newest = self.open.back().map(|(identity, _)| *identity);
        let present = match fs::metadata(&self.log) {
            Ok(metadata) => Some(Identity(metadata.dev(), metadata.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if present == newest && newest.is_some() {
            return Ok(());
        }
        for _ in 0..ATTEMPTS {
            let before = names(&self.log)?;
            let mut found = Vec::new();
            for name in &before {
                match File::open(name) {
                    Ok(file) => found.push((Identity::of(&file)?, file)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            // What was opened is what was listed only if nothing was renamed in between.
            if names(&self.log)? == before && distinct(&found) {
                let known = newest.and_then(|newest| found.iter().position(|(identity, _)| *identity == newest));
                self.open.extend(found.into_iter().skip(known.map_or(0, |place| place + 1)));
                let excess = self.open.len().saturating_sub(HELD);
                if excess > 0 {
                    // Those in the middle: the one that is read is in the middle of a line.
                    self.open.drain(1..=excess).for_each(drop);
                }
                return Ok(());
            }
        }
        // It is rotated all the time; whoever reads looks again.
        Ok(())
    }
}

fn distinct(found: &[(Identity, File)]) -> bool {
    found.iter().enumerate().all(|(place, (identity, _))| found[..place].iter().all(|(other, _)| other != identity))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(files: &mut Files) -> String {
        let (mut text, mut buffer) = (Vec::new(), [0; 7]);
        loop {
            match files.read(&mut buffer).expect("readable") {
                0 => return String::from_utf8(text).expect("text"),
                length => text.extend_from_slice(&buffer[..length]),
            }
        }
    }

    #[test]
    fn each_file_is_read_once_though_many_rotations_happen_between_two_looks() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("0.log");
        let rotated = |number: usize| folder.path().join(format!("0.log.{number:03}"));
        let mut files = Files::open(log.clone()).expect("nothing");
        assert!(is_missing(&log).expect("readable"));
        fs::write(&log, "0\n").expect("written");
        assert!(!is_missing(&log).expect("readable"));
        assert_eq!(rest(&mut files), "0\n");
        let mut expected = String::new();
        for number in 1..=9 {
            fs::rename(&log, rotated(number)).expect("renamed");
            fs::write(&log, format!("{number}\n")).expect("written");
            expected.push_str(&format!("{number}\n"));
            if number == 4 {
                files.look().expect("looked");
            }
            if number == 6 {
                // The oldest are removed, one of which has been seen and not read.
                (1..=3).for_each(|gone| fs::remove_file(rotated(gone)).expect("removed"));
            }
        }
        assert_eq!(rest(&mut files), expected);
        assert_eq!(rest(&mut files), "");
    }

    #[test]
    fn from_now_on_means_from_the_end_of_the_newest_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("0.log");
        fs::write(folder.path().join("0.log.1"), "old\n").expect("written");
        fs::write(&log, "present\n").expect("written");
        let mut files = Files::at_end(log.clone()).expect("there");
        assert_eq!(rest(&mut files), "");
        fs::write(&log, "present\nnew\n").expect("written");
        assert_eq!(rest(&mut files), "new\n");
        fs::write(folder.path().join("10.log"), "another\n").expect("written");
        remove(&log).expect("removed");
        remove(&log).expect("removed again");
        let left: Vec<_> =
            fs::read_dir(folder.path()).expect("listed").map(|one| one.expect("one").file_name()).collect();
        assert_eq!(left, ["10.log"]);
    }

    #[test]
    fn who_is_far_behind_does_not_keep_everything_on_the_disk() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("0.log");
        fs::write(&log, "0\n").expect("written");
        let mut files = Files::open(log.clone()).expect("there");
        for number in 1..=3 * HELD {
            fs::rename(&log, folder.path().join(format!("0.log.{number:03}"))).expect("renamed");
            fs::write(&log, format!("{number}\n")).expect("written");
            files.look().expect("looked");
        }
        assert_eq!(files.open.len(), HELD);
        let read = rest(&mut files);
        assert!(read.starts_with("0\n") && read.ends_with(&format!("{}\n", 3 * HELD)), "{read}");
    }
}
