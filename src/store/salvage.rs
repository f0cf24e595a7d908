//! What becomes of a damaged database: it is kept under another name, and its whole rows move into a new one.
//!
//! ```text
//! open ─► whole? ─ yes ─► go on
//!           │ no
//!           ▼
//!  copy to <name>.damaged-<time> ─► write <name>.salvaged ─► remove the log ─► rename over <name> ─► go on
//!                                   └── a crash from here on is finished by the next start ──┘
//! ```
//!
//! Rows are read from both ends, so that one bad page costs what is on it; of two rows of one key the newer one counts. A file without a single whole row is not
//! replaced by an empty one: to a node, an empty cluster means to end all pods. A write-ahead log that is damaged before
//! its last transaction ([`crate::wal`]) is damage too: SQLite silently leaves out what follows. Invariant: revisions do
//! not go back; if what was issued cannot be known any more, the next one lies far ahead.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::core::Stored;
use crate::database::{Contents, Database, Order, ReadError, Row, in_file, read_reserved, sync};
use crate::{Key, StoreError, wal};

/// How far the next revision is moved when nobody knows which were issued: more than a store issues between two starts.
const LEAP: u64 = 1 << 32;

/// How many lost keys the log names.
const NAMED: usize = 20;

/// Opens a database and reads all of it.
pub(crate) fn open(path: &Path, now: Timestamp) -> Result<(Database, Contents), StoreError> {
    finish(path)?;
    let log_is_whole = wal::is_whole(&beside(path, "-wal")).map_err(|source| in_file("open", path, source))?;
    if log_is_whole {
        match read(path) {
            Ok(found) => return Ok(found),
            Err(error) if error.is_damage() => {
                tracing::error!(path = %path.display(), %error, "the database is damaged")
            }
            Err(error) => return Err(in_file("open", path, error)),
        }
    } else {
        tracing::error!(path = %path.display(), "the write-ahead log of the database is damaged");
    }
    let damaged = keep(path, now)?;
    let kept = collect(&damaged, read_reserved(path), log_is_whole).map_err(|error| in_file("open", path, error))?;
    tracing::error!(
        kept = kept.contents.objects.len(),
        damaged_rows = ?kept.lost.iter().take(NAMED).collect::<Vec<_>>(),
        unread = kept.unread,
        copy = %damaged.display(),
        "what is whole of the damaged database is kept; compare with a snapshot",
    );
    replace(path, &kept.contents)?;
    read(path).map_err(|error| in_file("open", path, error))
}

fn read(path: &Path) -> Result<(Database, Contents), ReadError> {
    let database = Database::open(path)?;
    let contents = database.load()?;
    Ok((database, contents))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Copies the files to names of their own, which nothing removes.
fn keep(path: &Path, now: Timestamp) -> Result<PathBuf, StoreError> {
    let copy = beside(path, &format!(".damaged-{}", now.as_second()));
    for file in copy_files(path, &copy).map_err(|source| in_file("copy", &copy, source))? {
        sync(&file)?;
    }
    Ok(copy)
}

/// Copies a database and its log, with their modes; the copies.
fn copy_files(from: &Path, to: &Path) -> io::Result<Vec<PathBuf>> {
    let mut copies = Vec::new();
    for suffix in ["", "-wal"] {
        let (from, to) = (beside(from, suffix), beside(to, suffix));
        if from.exists() {
            fs::copy(&from, &to)?;
            copies.push(to);
        }
    }
    Ok(copies)
}

/// What could be read of a damaged file.
struct Kept {
    contents: Contents,
    /// Keys, as they could be read, of rows that are not whole.
    lost: Vec<String>,
    /// Whether there are places that could not be read at all.
    unread: bool,
}

/// Reads a copy of a copy, which that changes. `reserved` is what stands beside the database.
fn collect(damaged: &Path, reserved: u64, log_is_whole: bool) -> Result<Kept, ReadError> {
    let work = beside(damaged, ".work");
    let result = (|| {
        copy_files(damaged, &work)?;
        collect_from(&Database::open_damaged(&work)?, reserved, log_is_whole)
    })();
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let _ = fs::remove_file(beside(&work, suffix));
    }
    result
}

fn collect_from(database: &Database, beside: u64, log_is_whole: bool) -> Result<Kept, ReadError> {
    let mut objects: BTreeMap<Key, Stored> = BTreeMap::new();
    let mut lost = Vec::new();
    let mut failure = None;
    for order in [Order::Ascending, Order::Descending] {
        let ended = database.rows(order, |row| {
            match row {
                Ok((key, stored)) => {
                    let older = objects.get(&key).is_none_or(|other| other.revision < stored.revision);
                    if older {
                        objects.insert(key, stored);
                    }
                }
                Err(ReadError::Row { key }) => lost.push(key),
                Err(error) => return Err(error),
            }
            Ok(())
        });
        match ended {
            Ok(()) => break,
            Err(error) => failure = Some(error),
        }
    }
    if objects.is_empty() {
        return Err(failure.unwrap_or(ReadError::Structure { found: "no row is whole".to_owned() }));
    }
    lost.sort_unstable();
    lost.dedup();
    let newest = objects.values().map(|stored| stored.revision.0).max().unwrap_or_default();
    let known = database.reserved().ok().filter(|reserved| log_is_whole && *reserved >= newest);
    let reserved = match (known, beside) {
        (_, beside) if beside >= newest && beside > 0 => beside.max(known.unwrap_or_default()),
        (Some(known), _) => known,
        (None, _) => newest + LEAP,
    };
    Ok(Kept { contents: Contents { objects, reserved }, lost, unread: failure.is_some() })
}

/// Puts a new database in the place of the damaged one.
fn replace(path: &Path, contents: &Contents) -> Result<(), StoreError> {
    let draft = beside(path, ".salvaging");
    for suffix in ["", "-wal"] {
        let _ = fs::remove_file(beside(&draft, suffix));
    }
    let mut database = Database::open(&draft).map_err(|source| in_file("open", &draft, source))?;
    let rows = contents.objects.iter().map(|(key, stored)| {
        let after = Some((stored.revision, &stored.value));
        Row { key, on_disk: None, after }
    });
    database.commit(rows, Some(contents.reserved))?;
    // In one file, without a log.
    let whole = beside(path, ".salvaging-whole");
    let _ = fs::remove_file(&whole);
    database.save(&whole)?;
    drop(database);
    for suffix in ["", "-wal", "-reserved"] {
        let _ = fs::remove_file(beside(&draft, suffix));
    }
    let salvaged = beside(path, ".salvaged");
    fs::rename(&whole, &salvaged).map_err(|source| in_file("rename", &salvaged, source))?;
    sync(&salvaged)?;
    finish(path)
}

/// Does what is left to do once the new database is whole.
fn finish(path: &Path) -> Result<(), StoreError> {
    let salvaged = beside(path, ".salvaged");
    if !salvaged.exists() {
        return Ok(());
    }
    // It has this name only since it is whole.
    Database::read_file(&salvaged)?;
    let log = beside(path, "-wal");
    match fs::remove_file(&log) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(in_file("removal", &log, error)),
        _ => {}
    }
    fs::rename(&salvaged, path).map_err(|source| in_file("rename", path, source))?;
    sync(path)
}
