//! A tar reader for untrusted layers: ustar, PAX and GNU long names, with limits on everything that is kept in memory.
//!
//! The `tar` crate reads extension headers of any length into memory and splits PAX values at line feeds, which
//! binary attributes contain; its reader serves as the oracle of the tests. Formats: POSIX.1-2017 `pax`, and the
//! "Basic Tar Format" chapter of the GNU tar manual.

use std::io::{self, BufRead, Read, Seek, SeekFrom};

const BLOCK: usize = 512;
/// As in Go's `archive/tar` (`maxSpecialFileSize`), which other tools of the field use.
const EXTENSION_LIMIT: u64 = 1 << 20;

/// Reads one archive from front to back.
#[derive(Debug)]
pub(crate) struct TarReader<R> {
    source: R,
    /// Bytes of the present entry's content that have not been read.
    content: u64,
    /// Bytes between the end of that content and the next header.
    padding: u64,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    Fifo,
    Character,
    Block,
}

/// One entry, extensions applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds.
    pub(crate) mtime: (i64, u32),
    pub(crate) size: u64,
    /// Major and minor number.
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream below failed.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// The stream ends within an entry.
    #[error("the archive ends in the middle of an entry")]
    Truncated,
    /// A header's sum is wrong: this is not a tar archive, or a damaged one.
    #[error("the archive has a header with a wrong checksum")]
    Checksum,
    /// A field of a header cannot be understood.
    #[error("the archive has an invalid {field} in a header")]
    Field {
        /// Which one.
        field: &'static str,
    },
    /// Long names and extended attributes of one entry exceed what is reasonable.
    #[error("the archive has an extension header of {size} bytes; at most {EXTENSION_LIMIT} are read for one entry")]
    ExtensionTooLong {
        /// What the header that is too much claims.
        size: u64,
    },
    /// The image specification advises against sparse files, and their length costs their author nothing.
    #[error("the archive has a sparse file; layers must not (image-spec layer.md)")]
    Sparse,
    /// A type of entry that layers do not have.
    #[error("the archive has an entry of unknown type {kind:?}")]
    UnknownType {
        /// The type flag.
        kind: char,
    },
}

/// What extension headers say about the next entry.
#[derive(Debug, Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<R: BufRead> TarReader<R> {
    pub(crate) fn new(source: R) -> Self {
        Self { source, content: 0, padding: 0 }
    }

    /// The stream behind the archive, wherever it stands.
    pub(crate) fn into_inner(self) -> R {
        self.source
    }

    /// The next entry; what is left of the present one is skipped.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extensions = Extensions::default();
        // All extensions of one entry share the limit: any number of headers may come before it.
        let mut room = EXTENSION_LIMIT;
        loop {
            self.read_content(|_| Ok(()))?;
            self.skip(self.padding)?;
            self.padding = 0;
            let Some(header) = self.read_header()? else { return Ok(None) };
            self.open_content(header.size()?);
            match header.0[156] {
                b'x' => extensions.read_pax(&self.read_extension(&mut room)?)?,
                // Global headers describe the archive (git writes the commit there), not its files.
                b'g' => {}
                b'L' => extensions.path = Some(until_nul(&self.read_extension(&mut room)?).to_vec()),
                b'K' => extensions.link = Some(until_nul(&self.read_extension(&mut room)?).to_vec()),
                b'S' => return Err(TarError::Sparse),
                _ => {
                    let entry = header.entry(extensions)?;
                    self.open_content(entry.size);
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// Hands the present entry's content to `sink`, piece by piece.
    pub(crate) fn read_content(&mut self, mut sink: impl FnMut(&[u8]) -> io::Result<()>) -> Result<(), ContentError> {
        while self.content > 0 {
            let available = self.source.fill_buf().map_err(ContentError::Source)?;
            if available.is_empty() {
                return Err(ContentError::Truncated);
            }
            let most = usize::try_from(self.content).unwrap_or(usize::MAX);
            let piece = &available[..available.len().min(most)];
            sink(piece).map_err(ContentError::Sink)?;
            let taken = piece.len();
            self.source.consume(taken);
            self.content -= taken as u64;
        }
        Ok(())
    }

    /// Leaves the present entry's content out without reading it.
    pub(crate) fn seek_past_content(&mut self) -> Result<(), TarError>
    where
        R: Seek,
    {
        let distance = self.content.checked_add(self.padding).and_then(|distance| i64::try_from(distance).ok());
        let distance = distance.ok_or(TarError::Truncated)?;
        self.source.seek(SeekFrom::Current(distance)).map_err(TarError::Read)?;
        (self.content, self.padding) = (0, 0);
        Ok(())
    }

    /// Begins at the front of the source.
    pub(crate) fn rewind(&mut self) -> Result<(), TarError>
    where
        R: Seek,
    {
        self.source.rewind().map_err(TarError::Read)
    }

    /// Where the source stands: at the present entry's content, if none of it has been read.
    pub(crate) fn position(&mut self) -> Result<u64, TarError>
    where
        R: Seek,
    {
        self.source.stream_position().map_err(TarError::Read)
    }

    fn open_content(&mut self, size: u64) {
        self.content = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    fn read_extension(&mut self, room: &mut u64) -> Result<Vec<u8>, TarError> {
        let size = self.content;
        *room = room.checked_sub(size).ok_or(TarError::ExtensionTooLong { size })?;
        let mut value = Vec::new();
        self.read_content(|piece| {
            value.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(value)
    }

    fn skip(&mut self, count: u64) -> Result<(), TarError> {
        let skipped = io::copy(&mut (&mut self.source).take(count), &mut io::sink()).map_err(TarError::Read)?;
        if skipped == count { Ok(()) } else { Err(TarError::Truncated) }
    }

    /// The next header, or none at the end: two blocks of zeros, or nothing at all.
    fn read_header(&mut self) -> Result<Option<Header>, TarError> {
        let Some(header) = self.read_block()? else { return Ok(None) };
        if header.0.iter().any(|&byte| byte != 0) {
            header.verify()?;
            return Ok(Some(header));
        }
        match self.read_block()? {
            Some(second) if second.0.iter().any(|&byte| byte != 0) => Err(TarError::Checksum),
            _ => Ok(None),
        }
    }

    fn read_block(&mut self) -> Result<Option<Header>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.source.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(TarError::Truncated),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TarError::Read(error)),
            }
        }
        Ok(Some(Header(block)))
    }
}

/// Which side of a copy failed.
#[derive(Debug)]
pub(crate) enum ContentError {
    Truncated,
    Source(io::Error),
    Sink(io::Error),
}

impl From<ContentError> for TarError {
    fn from(error: ContentError) -> Self {
        match error {
            ContentError::Truncated => Self::Truncated,
            ContentError::Source(error) | ContentError::Sink(error) => Self::Read(error),
        }
    }
}

struct Header([u8; BLOCK]);

impl Header {
    fn verify(&self) -> Result<(), TarError> {
        let sum = |from: &[u8]| from.iter().map(|&byte| u64::from(byte)).sum::<u64>();
        let expected = sum(&self.0[..148]) + 8 * u64::from(b' ') + sum(&self.0[156..]);
        match self.number(148..156, "checksum") {
            Ok(sum) if sum == expected => Ok(()),
            _ => Err(TarError::Checksum),
        }
    }

    fn size(&self) -> Result<u64, TarError> {
        // A negative number, which base 256 can write, would be taken for a huge one.
        let size = self.number(124..136, "size")?;
        if i64::try_from(size).is_ok() { Ok(size) } else { Err(TarError::Field { field: "size" }) }
    }

    /// A number in octal, or in base 256 if the first bit is set; an empty field is 0.
    fn number(&self, range: std::ops::Range<usize>, field: &'static str) -> Result<u64, TarError> {
        let bytes = &self.0[range];
        if bytes[0] & 0x80 != 0 {
            let negative = bytes[0] & 0x40 != 0;
            let first = if negative { bytes[0] } else { bytes[0] & 0x7f };
            let start = if negative { -1 } else { 0 };
            let value =
                bytes[1..].iter().fold(start << 8 | i128::from(first), |value, &byte| value << 8 | i128::from(byte));
            return i64::try_from(value).map(i64::cast_unsigned).map_err(|_| TarError::Field { field });
        }
        let text = until_nul(bytes).trim_ascii();
        text.iter()
            .try_fold(0_u64, |value, &digit| match digit {
                b'0'..=b'7' => value.checked_mul(8).map(|value| value + u64::from(digit - b'0')),
                _ => None,
            })
            .ok_or(TarError::Field { field })
    }

    fn small(&self, range: std::ops::Range<usize>, field: &'static str) -> Result<u32, TarError> {
        u32::try_from(self.number(range, field)?).map_err(|_| TarError::Field { field })
    }

    fn path(&self) -> Vec<u8> {
        let name = until_nul(&self.0[..100]);
        let prefix = until_nul(&self.0[345..500]);
        // GNU archives have other fields where POSIX has the prefix.
        if &self.0[257..263] != b"ustar\0" || prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, name].join(&b'/')
    }

    fn kind(&self, path: &[u8]) -> Result<Kind, TarError> {
        match self.0[156] {
            // Archives older than POSIX mark directories by a trailing slash only.
            b'0' | 0 if path.ends_with(b"/") => Ok(Kind::Directory),
            b'0' | 0 | b'7' => Ok(Kind::File),
            b'1' => Ok(Kind::HardLink),
            b'2' => Ok(Kind::Symlink),
            b'3' => Ok(Kind::Character),
            b'4' => Ok(Kind::Block),
            b'5' => Ok(Kind::Directory),
            b'6' => Ok(Kind::Fifo),
            other => Err(TarError::UnknownType { kind: char::from(other) }),
        }
    }

    fn entry(&self, extensions: Extensions) -> Result<Entry, TarError> {
        let id = |extended: Option<u64>, range, field| match extended {
            Some(id) => u32::try_from(id).map_err(|_| TarError::Field { field }),
            None => self.small(range, field),
        };
        let path = extensions.path.unwrap_or_else(|| self.path());
        let kind = self.kind(&path)?;
        let has_content = kind == Kind::File;
        let is_device = matches!(kind, Kind::Character | Kind::Block);
        Ok(Entry {
            link: extensions.link.unwrap_or_else(|| until_nul(&self.0[157..257]).to_vec()),
            mode: self.small(100..108, "mode")? & 0o7777,
            uid: id(extensions.uid, 108..116, "owner")?,
            gid: id(extensions.gid, 116..124, "group")?,
            mtime: match extensions.mtime {
                Some(time) => time,
                None => (self.number(136..148, "time")?.cast_signed(), 0),
            },
            size: if has_content { extensions.size.map_or_else(|| self.size(), Ok)? } else { 0 },
            device: match is_device {
                true => (self.small(329..337, "device number")?, self.small(337..345, "device number")?),
                false => (0, 0),
            },
            xattrs: extensions.xattrs,
            path,
            kind,
        })
    }
}

impl Extensions {
    /// Records of `length key=value\n`; the length counts the whole record.
    fn read_pax(&mut self, mut rest: &[u8]) -> Result<(), TarError> {
        const INVALID: TarError = TarError::Field { field: "extended record" };
        while !rest.is_empty() {
            let space = rest.iter().position(|&byte| byte == b' ').ok_or(INVALID)?;
            let length: usize = decimal(&rest[..space]).ok_or(INVALID)?;
            if length <= space + 1 || length > rest.len() || rest[length - 1] != b'\n' {
                return Err(INVALID);
            }
            let record = &rest[space + 1..length - 1];
            let equals = record.iter().position(|&byte| byte == b'=').ok_or(INVALID)?;
            self.set(&record[..equals], &record[equals + 1..])?;
            rest = &rest[length..];
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        let number = |field| match value {
            b"" => Ok(None),
            _ => decimal(value).map(Some).ok_or(TarError::Field { field }),
        };
        // An empty value takes an earlier one back.
        let text = || (!value.is_empty()).then(|| value.to_vec());
        match key {
            b"path" => self.path = text(),
            b"linkpath" => self.link = text(),
            b"size" => {
                let size: Option<u64> = number("size")?;
                // As in headers: no file is larger than its offsets can say.
                if size.is_some_and(|size| i64::try_from(size).is_err()) {
                    return Err(TarError::Field { field: "size" });
                }
                self.size = size;
            }
            b"uid" => self.uid = number("owner")?,
            b"gid" => self.gid = number("group")?,
            b"mtime" => self.mtime = Some(time(value).ok_or(TarError::Field { field: "time" })?),
            _ if key.starts_with(b"GNU.sparse.") => return Err(TarError::Sparse),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

fn decimal<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    str::from_utf8(digits).ok()?.parse().ok()
}

/// Seconds since the epoch with any number of decimals.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let text = str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    if whole.starts_with('-') && nanoseconds > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds));
    }
    Some((seconds, nanoseconds))
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or(bytes)
}

#[cfg(test)]
mod tests;
