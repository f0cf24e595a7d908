//! The beginning and the end of small files: for last words.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::record::Record;

/// The first bytes of a file as text; nothing if it cannot be read.
pub(crate) fn read_head(path: &Path, limit: usize) -> String {
    let mut bytes = Vec::new();
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    let read = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    if read.is_err() {
        return String::new();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The last lines of a log as text, within both limits; nothing if it cannot be read.
pub(crate) fn last_lines(log: &Path, lines: usize, limit: usize) -> String {
    let Ok(bytes) = end_of(log, u64::try_from(limit.saturating_mul(4)).unwrap_or(u64::MAX)) else {
        return String::new();
    };
    let records: Vec<Record<'_>> = bytes.split(|byte| *byte == b'\n').filter_map(Record::parse).collect();
    let mut text = Vec::new();
    for record in records.iter().skip(records.len().saturating_sub(lines)) {
        record.render(false, &mut text);
    }
    let excess = text.len().saturating_sub(limit);
    String::from_utf8_lossy(text.get(excess..).unwrap_or_default()).into_owned()
}

fn end_of(path: &Path, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}
