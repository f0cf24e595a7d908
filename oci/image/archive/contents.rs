//! The files of an archive of images, wherever they are: in a directory, or in a tar file that may be compressed.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::ImportError;
use crate::image::media::Compression;
use crate::image::registry::MANIFEST_LIMIT;
use crate::image::store::{Store, Workspace};
use crate::image::unpack::{Kind, TarReader};

/// Links of links are followed this often; `docker save` makes one step.
const LINKS: usize = 4;
/// A header at a time is read, and contents are left out.
const WINDOW: usize = 4096;

/// Named files, of which each can be read on its own.
#[derive(Debug)]
pub(super) enum Contents {
    Directory(PathBuf),
    Archive(Archive),
}

/// A tar file whose entries have been located.
#[derive(Debug)]
pub(super) struct Archive {
    file: File,
    entries: HashMap<String, Member>,
    /// Holds the inflated copy of a compressed archive.
    _workspace: Option<Workspace>,
}

#[derive(Debug, Clone)]
enum Member {
    File { offset: u64, size: u64 },
    Link(String),
}

/// A file's content and its size.
type Stream<'a> = (Box<dyn Read + Send + 'a>, u64);

impl Contents {
    /// Opens a directory or an archive; a compressed archive is inflated into the store's workspace first.
    pub(super) fn open(store: &Store, source: &Path) -> Result<Self, ImportError> {
        let failed = |error| ImportError::Read { path: source.to_owned(), source: error };
        let metadata = fs::metadata(source).map_err(failed)?;
        if metadata.is_dir() {
            return Ok(Self::Directory(source.to_owned()));
        }
        let mut file = File::open(source).map_err(failed)?;
        let mut start = [0; 4];
        let seekable = metadata.is_file();
        let count = if seekable {
            file.read_at(&mut start, 0).map_err(failed)?
        } else {
            fill(&mut file, &mut start).map_err(failed)?
        };
        let compression = Compression::detect(&start[..count]);
        if seekable && compression == Compression::None {
            return Ok(Self::Archive(Archive::locate(file, None).map_err(|error| archive(source, error))?));
        }
        let head: &[u8] = if seekable { &[] } else { &start[..count] };
        let (copy, workspace) = spool(store, head.chain(file), compression, source)?;
        Ok(Self::Archive(Archive::locate(copy, Some(workspace)).map_err(|error| archive(source, error))?))
    }

    /// A small file, if there is one of that name.
    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, ImportError> {
        let Some((source, size)) = self.stream(name)? else { return Ok(None) };
        if size > MANIFEST_LIMIT {
            return Err(ImportError::TooLong { name: name.to_owned(), size });
        }
        let mut content = Vec::new();
        let read = source.take(MANIFEST_LIMIT).read_to_end(&mut content);
        read.map_err(|source| ImportError::Read { path: name.into(), source })?;
        Ok(Some(content))
    }

    /// A file to be read from front to back, with its size, if there is one of that name.
    pub(super) fn stream(&self, name: &str) -> Result<Option<Stream<'_>>, ImportError> {
        let failed = |source| ImportError::Read { path: name.into(), source };
        match self {
            Self::Directory(directory) => {
                let path = directory.join(safe(name).ok_or_else(|| ImportError::Name { name: name.to_owned() })?);
                let file = match File::open(&path) {
                    Ok(file) => file,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(failed(error)),
                };
                let size = file.metadata().map_err(failed)?.len();
                Ok(Some((Box::new(file), size)))
            }
            Self::Archive(archive) => {
                let Some((offset, size)) = archive.find(name) else { return Ok(None) };
                Ok(Some((Box::new(Window { file: &archive.file, offset, left: size }), size)))
            }
        }
    }
}

/// A relative path that leads nowhere else.
fn safe(name: &str) -> Option<&Path> {
    let path = Path::new(name);
    path.components().all(|part| matches!(part, std::path::Component::Normal(_))).then_some(path)
}

fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

fn archive(source: &Path, error: crate::image::TarError) -> ImportError {
    ImportError::Archive { path: source.to_owned(), source: error }
}

/// Copies a stream, inflated, into a file that can be read at any place.
fn spool(
    store: &Store,
    stream: impl Read,
    compression: Compression,
    source: &Path,
) -> Result<(File, Workspace), ImportError> {
    let workspace = store.workspace()?;
    let path = workspace.path().join("archive");
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::StorageFull => ImportError::Store(crate::image::StoreError::io("write", &path, error)),
        _ => ImportError::Read { path: source.to_owned(), source: error },
    };
    let opened = OpenOptions::new().create_new(true).read(true).write(true).mode(0o600).open(&path);
    let mut copy = opened.map_err(failed)?;
    let stream = BufReader::with_capacity(128 * 1024, stream);
    match compression {
        Compression::None => io::copy(&mut { stream }, &mut copy),
        Compression::Gzip => io::copy(&mut flate2::bufread::MultiGzDecoder::new(stream), &mut copy),
        Compression::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(stream);
            decoder.and_then(|mut decoder| io::copy(&mut decoder, &mut copy))
        }
    }
    .map_err(failed)?;
    Ok((copy, workspace))
}

impl Archive {
    fn locate(file: File, workspace: Option<Workspace>) -> Result<Self, crate::image::TarError> {
        let length = file.metadata().map_err(crate::image::TarError::Read)?.len();
        let reading = file.try_clone().map_err(crate::image::TarError::Read)?;
        let mut reader = TarReader::new(BufReader::with_capacity(WINDOW, reading));
        reader.rewind()?;
        let mut entries = HashMap::new();
        while let Some(entry) = reader.next_entry()? {
            let name = normal(&entry.path);
            match entry.kind {
                Kind::File => {
                    let offset = reader.position()?;
                    if offset.saturating_add(entry.size) > length {
                        return Err(crate::image::TarError::Truncated);
                    }
                    entries.insert(name, Member::File { offset, size: entry.size });
                }
                // Hard links are relative to the archive, symbolic ones to their directory.
                Kind::HardLink => drop(entries.insert(name, Member::Link(normal(&entry.link)))),
                Kind::Symlink => {
                    let target = beside(&name, &String::from_utf8_lossy(&entry.link));
                    entries.insert(name, Member::Link(target));
                }
                Kind::Directory | Kind::Fifo | Kind::Character | Kind::Block => {}
            }
            reader.seek_past_content()?;
        }
        Ok(Self { file, entries, _workspace: workspace })
    }

    fn find(&self, name: &str) -> Option<(u64, u64)> {
        let mut name = normal(name.as_bytes());
        for _ in 0..LINKS {
            match self.entries.get(&name)? {
                Member::File { offset, size } => return Some((*offset, *size)),
                Member::Link(target) => name = target.clone(),
            }
        }
        None
    }
}

fn normal(path: &[u8]) -> String {
    let path = String::from_utf8_lossy(path);
    path.split('/').filter(|part| !matches!(*part, "" | ".")).collect::<Vec<_>>().join("/")
}

/// What a link at `name` to `target` means, as a name within the archive.
fn beside(name: &str, target: &str) -> String {
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// A part of a file, read without moving a position that others share.
#[derive(Debug)]
struct Window<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..most], self.offset)?;
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}
