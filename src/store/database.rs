//! The file: one SQLite table ordered by revision, write-ahead log, full synchronization, a checksum with each row.
//!
//! A write adds its row at the end and takes the row of the revision before it away. Nobody looks for a key in the file, so
//! there is no index of keys, and a group of new objects fills a few neighbouring pages instead of one or two pages each.
//! SQLite checks neither the pages of a database nor what is in them against changes by disk or hand, so each row carries
//! the beginning of a SHA-256 over its key, revision and value. What to do about damage is [`crate::salvage`]'s.
//! Invariant: revisions up to `reserved` count as issued. It is kept a second time in a file of its own beside the
//! database, since a log that was cut short would take it back.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OpenFlags, params};
use sha2::{Digest as _, Sha256};

use crate::core::Stored;
use crate::seal::Seal;
use crate::{Key, Revision, StoreError};

/// Version of the table layout, kept in the database's `user_version`. 2 has checksums; 3 is ordered by revision, those
/// before by key.
const LAYOUT: i64 = 3;

/// What a database holds.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) objects: BTreeMap<Key, Stored>,
    /// Revisions up to this one count as issued.
    pub(crate) reserved: u64,
}

/// What a transaction does with one key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) key: &'a Key,
    /// The revision of the row that the file has of it.
    pub(crate) on_disk: Option<Revision>,
    /// What it becomes; none if it goes.
    pub(crate) after: Option<(Revision, &'a Bytes)>,
}

/// Why a database could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    File(#[from] io::Error),
    #[error("the checksum of {key:?} is wrong")]
    Row { key: String },
    #[error("the reserved revision is wrong")]
    Reserved,
    #[error("{found}")]
    Structure { found: String },
    #[error("its layout {found} is newer than the newest one that this version knows, {LAYOUT}")]
    NewerLayout { found: i64 },
}

impl ReadError {
    /// Whether the file is not as it was written.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Row { .. } | Self::Reserved | Self::Structure { .. } => true,
            Self::File(_) | Self::NewerLayout { .. } => false,
            Self::Sqlite(rusqlite::Error::SqliteFailure(error, _)) => {
                // Revisions are unique: a file of an earlier layout that has one twice cannot be brought to this one.
                matches!(
                    error.code,
                    ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::ConstraintViolation
                )
            }
            // What was written has these types, columns and rows.
            Self::Sqlite(
                rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::QueryReturnedNoRows
                | rusqlite::Error::Utf8Error(..),
            ) => true,
            Self::Sqlite(_) => false,
        }
    }
}

/// From which end rows are read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Order {
    Ascending,
    Descending,
}

/// The file, open.
#[derive(Debug)]
pub(crate) struct Database {
    connection: Connection,
    path: PathBuf,
    /// Seals what is written; what is read stays sealed here.
    seal: Option<Arc<Seal>>,
}

#[derive(Debug, thiserror::Error)]
#[error("{path}")]
pub(crate) struct InFile<E: std::error::Error + 'static> {
    path: PathBuf,
    #[source]
    source: E,
}

/// An error about a file.
pub(crate) fn in_file(
    operation: &'static str,
    path: &Path,
    source: impl std::error::Error + Send + Sync + 'static,
) -> StoreError {
    failed(operation, InFile { path: path.to_owned(), source })
}

pub(crate) fn failed(operation: &'static str, source: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Database { operation, source: Box::new(source) }
}

impl Database {
    /// Opens or creates a file.
    pub(crate) fn open(path: &Path) -> Result<Self, ReadError> {
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let connection = Connection::open(path)?;
        connection.busy_timeout(Duration::ZERO)?;
        let database = Self { connection, path: path.to_owned(), seal: None };
        database.prepare()?;
        Ok(database)
    }

    /// Opens a file of which as much as possible is to be read, even if it is shorter than its header says.
    pub(crate) fn open_damaged(path: &Path) -> Result<Self, ReadError> {
        let connection = Connection::open(path)?;
        connection.execute_batch("PRAGMA writable_schema = ON;")?;
        Ok(Self { connection, path: path.to_owned(), seal: None })
    }

    /// The objects of a file that nobody has open, which stays as it is.
    pub(crate) fn read_file(path: &Path) -> Result<Contents, StoreError> {
        let wrong = |source: ReadError| in_file("read", path, source);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(|source| wrong(source.into()))?;
        Self { connection, path: path.to_owned(), seal: None }.load().map_err(wrong)
    }

    /// Exclusive locking keeps a second server out and makes the shared-memory file unnecessary.
    fn prepare(&self) -> Result<(), ReadError> {
        self.connection.execute_batch(
            "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             PRAGMA cache_size = -2048; PRAGMA wal_autocheckpoint = 2000; PRAGMA temp_store = MEMORY; PRAGMA journal_size_limit = 8388608;",
        )?;
        let layout = self.layout()?;
        if layout > LAYOUT {
            return Err(ReadError::NewerLayout { found: layout });
        }
        let table = "CREATE TABLE IF NOT EXISTS objects
             (revision INTEGER PRIMARY KEY, key TEXT NOT NULL, value BLOB NOT NULL, checksum INTEGER);";
        // Rows of layout 1 have no checksum and get one with their next write.
        let checksum = if layout == 1 { "NULL" } else { "checksum" };
        let is_old = matches!(layout, 1 | 2);
        let move_rows = if is_old {
            format!(
                "ALTER TABLE objects RENAME TO by_key; {table}
                 INSERT INTO objects SELECT revision, key, value, {checksum} FROM by_key ORDER BY revision;
                 DROP TABLE by_key;"
            )
        } else {
            table.to_owned()
        };
        // What the old rows held does not stay in free pages: it may be what is to be sealed.
        let [before, after] = match is_old {
            true => ["PRAGMA secure_delete = ON;", "PRAGMA wal_checkpoint(TRUNCATE); PRAGMA secure_delete = OFF;"],
            false => ["", ""],
        };
        self.connection.execute_batch(&format!(
            "{before} BEGIN IMMEDIATE; {move_rows}
             CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
             INSERT OR IGNORE INTO meta VALUES ('reserved', 1);
             PRAGMA user_version = {LAYOUT};
             COMMIT; {after}"
        ))?;
        Ok(())
    }

    fn layout(&self) -> Result<i64, ReadError> {
        Ok(self.connection.query_row("PRAGMA user_version", [], |row| row.get(0))?)
    }

    /// All of it, if all of it is whole.
    pub(crate) fn load(&self) -> Result<Contents, ReadError> {
        let structure: String = self.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if structure != "ok" {
            return Err(ReadError::Structure { found: structure });
        }
        let mut contents = Contents { reserved: self.reserved()?, objects: BTreeMap::new() };
        let mut newest = 0;
        self.rows(Order::Ascending, |row| {
            let (key, stored) = row?;
            newest = newest.max(stored.revision.0);
            match contents.objects.entry(key) {
                Entry::Vacant(place) => drop(place.insert(stored)),
                Entry::Occupied(other) => {
                    return Err(ReadError::Structure { found: format!("two rows of {}", other.key().0) });
                }
            }
            Ok(())
        })?;
        if newest > contents.reserved {
            return Err(ReadError::Reserved);
        }
        contents.reserved = contents.reserved.max(read_reserved(&self.path));
        Ok(contents)
    }

    pub(crate) fn reserved(&self) -> Result<u64, ReadError> {
        let number = |name: &str| -> Result<Option<u64>, ReadError> {
            let mut statement = self.connection.prepare("SELECT value FROM meta WHERE name = ?1")?;
            let mut rows = statement.query([name])?;
            Ok(rows.next()?.map(|row| row.get(0)).transpose()?)
        };
        let reserved = number("reserved")?.ok_or(ReadError::Reserved)?;
        // Layout 1 had no second one.
        let again = number("reserved again")?.unwrap_or(reserved);
        if again == reserved { Ok(reserved) } else { Err(ReadError::Reserved) }
    }

    /// Hands each row to `each`, in the order of the file or from its end, until it or the reading fails.
    pub(crate) fn rows(
        &self,
        order: Order,
        mut each: impl FnMut(Result<(Key, Stored), ReadError>) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let layout = self.layout()?;
        let with_checksum = if layout >= 2 { "checksum" } else { "NULL" };
        let by = if layout >= 3 { "revision" } else { "key" };
        let order = match order {
            Order::Ascending => "ASC",
            Order::Descending => "DESC",
        };
        let query = format!("SELECT key, revision, value, {with_checksum} FROM objects ORDER BY {by} {order}");
        let mut statement = self.connection.prepare(&query)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            each(read_row(row))?;
        }
        Ok(())
    }

    /// From now on values are sealed as they are written.
    pub(crate) fn seal_with(&mut self, seal: &Arc<Seal>) {
        self.seal = Some(Arc::clone(seal));
    }

    /// Writes rows that are plain on the disk, or sealed with an older key, anew, and leaves nothing of them in free space.
    pub(crate) fn seal_anew<'a>(&mut self, rows: impl IntoIterator<Item = Row<'a>>) -> Result<(), StoreError> {
        let pragma = |connection: &Connection, path: &Path, text: &str| {
            connection.execute_batch(text).map_err(|source| in_file("sealing", path, source))
        };
        pragma(&self.connection, &self.path, "PRAGMA secure_delete = ON")?;
        self.commit(rows, None)?;
        pragma(&self.connection, &self.path, "PRAGMA wal_checkpoint(TRUNCATE); PRAGMA secure_delete = OFF")
    }

    /// A value as it is written.
    fn as_written<'a>(&self, key: &Key, revision: Revision, value: &'a Bytes) -> Result<Cow<'a, [u8]>, StoreError> {
        let sealed = self.seal.as_ref().map(|seal| seal.seal(key, revision, value)).transpose();
        let sealed = sealed.map_err(|source| in_file("sealing", &self.path, source))?.flatten();
        Ok(sealed.map_or(Cow::Borrowed(value.as_ref()), Cow::Owned))
    }

    /// One transaction: these keys become what is given, and revisions up to `reserved` count as issued.
    pub(crate) fn commit<'a>(
        &mut self,
        rows: impl IntoIterator<Item = Row<'a>>,
        reserved: Option<u64>,
    ) -> Result<(), StoreError> {
        if let Some(reserved) = reserved {
            write_reserved(&self.path, reserved)?;
        }
        let path = &self.path;
        let mut new = Vec::new();
        let mut old = Vec::new();
        for Row { key, on_disk, after } in rows {
            old.extend(on_disk.filter(|on_disk| after.is_none_or(|(revision, _)| revision != *on_disk)));
            if let Some((revision, value)) = after {
                new.push((key, revision, self.as_written(key, revision, value)?));
            }
        }
        // In the order of the file, so that what is new goes to its end.
        new.sort_unstable_by_key(|(_, revision, _)| *revision);
        let work = || -> rusqlite::Result<()> {
            let transaction = self.connection.unchecked_transaction()?;
            for revision in &old {
                let gone =
                    transaction.prepare_cached("DELETE FROM objects WHERE revision = ?1")?.execute([revision.0])?;
                // Else a key would have two rows.
                if gone != 1 {
                    return Err(rusqlite::Error::StatementChangedRows(gone));
                }
            }
            for (key, revision, value) in &new {
                transaction
                    .prepare_cached("INSERT OR REPLACE INTO objects VALUES (?1, ?2, ?3, ?4)")?
                    .execute(params![revision.0, key.0, value.as_ref(), checksum(&key.0, *revision, value)])?;
            }
            if let Some(reserved) = reserved {
                for name in ["reserved", "reserved again"] {
                    transaction
                        .prepare_cached("INSERT OR REPLACE INTO meta VALUES (?1, ?2)")?
                        .execute(params![name, reserved])?;
                }
            }
            transaction.commit()
        };
        work().map_err(|source| in_file("commit", path, source))
    }

    /// Writes all that is committed to a new file.
    pub(crate) fn save(&self, to: &Path) -> Result<(), StoreError> {
        let create = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
        create.map_err(|source| in_file("save", to, source))?;
        let saved = self
            .connection
            .execute("VACUUM INTO ?1", [to.to_string_lossy()])
            .map_err(|source| in_file("save", to, source))
            .and_then(|_| sync(to));
        // A half file is of no use to anybody.
        saved.inspect_err(|_| drop(fs::remove_file(to)))
    }
}

/// The file and its name are on disk.
pub(crate) fn sync(path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for path in [path, folder] {
        File::open(path).and_then(|file| file.sync_all()).map_err(|source| in_file("synchronization", path, source))?;
    }
    Ok(())
}

fn read_row(row: &rusqlite::Row<'_>) -> Result<(Key, Stored), ReadError> {
    // The parts are borrowed: a row is copied once.
    let (key, value) = (row.get_ref(0)?.as_bytes(), row.get_ref(2)?.as_blob());
    let key = String::from_utf8_lossy(key.unwrap_or_default()).into_owned();
    let wrong = || ReadError::Row { key: key.clone() };
    let (Ok(revision), Ok(value), Ok(found)) = (row.get(1), value, row.get::<_, Option<i64>>(3)) else {
        return Err(wrong());
    };
    let revision = Revision(revision);
    if found.is_some_and(|found| found != checksum(&key, revision, value)) {
        return Err(wrong());
    }
    Ok((Key(key), Stored { revision, value: Bytes::copy_from_slice(value) }))
}

fn checksum(key: &str, revision: Revision, value: &[u8]) -> i64 {
    let length = (key.len() as u64).to_le_bytes();
    let digest = Sha256::new()
        .chain_update(length)
        .chain_update(key)
        .chain_update(revision.0.to_le_bytes())
        .chain_update(value)
        .finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    i64::from_le_bytes(first)
}

/// The file beside the database with the reserved revision.
fn reserved_path(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push("-reserved");
    PathBuf::from(path)
}

/// What the file says; 0 if it says nothing.
pub(crate) fn read_reserved(database: &Path) -> u64 {
    let text = fs::read_to_string(reserved_path(database)).unwrap_or_default();
    text.trim().parse().unwrap_or_default()
}

fn write_reserved(database: &Path, reserved: u64) -> Result<(), StoreError> {
    let path = reserved_path(database);
    let draft = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(format!("{reserved}\n").as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, &path)
    };
    write().map_err(|source| in_file("reservation of revisions", &path, source))
}
