//! A log as whoever is attached to a container sees it: what it wrote, byte by byte, each stream for itself.
//!
//! Nothing is left out and nothing added, but for a newline after a last line that had none. Reads when asked, so that a
//! slow reader stops nobody.

use std::io;
use std::path::{Path, PathBuf};

use super::files::Files;
use super::record::{Record, first_line};
use crate::directory::{Directories, DirectoryWatch};

/// How much is read at once.
const CHUNK: usize = 64 * 1024;

/// From where on a log is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    Beginning,
    Now,
}

/// What a container has written.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

/// A log that is followed.
pub(crate) struct Follower {
    watch: DirectoryWatch,
    reader: Reader,
}

impl Follower {
    /// Begins to follow.
    pub(crate) async fn new(directories: &Directories, log: &Path, from: From) -> io::Result<Self> {
        // Watched before the first read, so that nothing written in between is missed.
        let watch = directories.watch(log.parent().unwrap_or(Path::new("/")))?;
        let log: PathBuf = log.to_owned();
        let open = move || match from {
            From::Beginning => Files::open(log),
            From::Now => Files::at_end(log),
        };
        let files = task::blocking(open).await?;
        Ok(Self { watch, reader: Reader { files, rest: Vec::new() } })
    }

    /// The next that is there; none at the end of it.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Written>> {
        let mut reader = std::mem::take(&mut self.reader);
        let (read, reader) = task::blocking(move || (reader.next(), reader)).await;
        self.reader = reader;
        read
    }

    /// Waits until there may be more.
    pub(crate) async fn changed(&mut self) {
        self.watch.changed().await;
    }
}

/// Reads records.
#[derive(Debug, Default)]
struct Reader {
    files: Files,
    /// A record whose end has not been read.
    rest: Vec<u8>,
}

impl Reader {
    fn next(&mut self) -> io::Result<Option<Written>> {
        let mut buffer = vec![0; CHUNK];
        let length = self.files.read(&mut buffer)?;
        if length == 0 {
            return Ok(None);
        }
        self.rest.extend_from_slice(&buffer[..length]);
        let end = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |place| place + 1);
        let later = self.rest.split_off(end);
        let whole = std::mem::replace(&mut self.rest, later);
        let mut written = Written::default();
        let mut rest = whole.as_slice();
        while let Some(line) = first_line(rest) {
            rest = rest.get(line.len() + 1..).unwrap_or_default();
            let Some(record) = Record::parse(line) else { continue };
            let stream = if record.stream == "stderr" { &mut written.stderr } else { &mut written.stdout };
            record.render(false, stream);
        }
        Ok(Some(written))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn streams_are_what_was_written_however_records_are_cut() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("0.log");
        std::fs::write(&log, "t stdout F old\n").expect("written");
        let directories = Directories::new(&task::Tasks::new());
        let mut follower = Follower::new(&directories, &log, From::Now).await.expect("followed");
        assert_eq!(follower.next().await.expect("read"), None);
        let mut file = std::fs::OpenOptions::new().append(true).open(&log).expect("the log");
        file.write_all(b"t stdout P $ \nt stderr F err\nt std").expect("written");
        follower.changed().await;
        let written = Written { stdout: b"$ ".to_vec(), stderr: b"err\n".to_vec() };
        assert_eq!(follower.next().await.expect("read"), Some(written));
        file.write_all(b"out F ls\n").expect("written");
        let written = Written { stdout: b"ls\n".to_vec(), stderr: Vec::new() };
        assert_eq!(follower.next().await.expect("read"), Some(written));
        let mut whole = Follower::new(&directories, &log, From::Beginning).await.expect("followed");
        let written = Written { stdout: b"old\n$ ls\n".to_vec(), stderr: b"err\n".to_vec() };
        assert_eq!(whole.next().await.expect("read"), Some(written));
    }
}
