//! One layer on its way into the store: digest, inflate, digest, unpack, publish.
//!
//! ```text
//! source ─► sha256 ─► inflate ─► sha256 ─►(bounded channel)─► unpack        two threads; nothing but a window in memory
//! ```
//!
//! For pulls and imports, in a blocking thread. Invariant: a layer is published only if the digest of the blob and that
//! of the archive are those that were promised; otherwise its directory is removed.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use super::digest::Hasher;
use super::media::Compression;
use super::store::Store;
use super::unpack::{self, UnpackError};
use super::{Digest, LayerRecord, StoreError};

/// Inflating is 20 % faster than with 8 KiB.
const PIECE: usize = 128 * 1024;
/// Pieces between inflating and unpacking.
const IN_FLIGHT: usize = 8;

/// What is promised of a layer.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    /// Digest of the blob as it is stored and sent; none where only the archive's is known.
    pub(crate) blob: Option<Digest>,
    /// Digest of the uncompressed archive.
    pub(crate) diff_id: Digest,
    /// None to go by the first bytes.
    pub(crate) compression: Option<Compression>,
}

/// Why a layer is not in the store.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// What arrived is not what the manifest promised.
    #[error("layer has digest {actual}, but the manifest promises {expected}")]
    BlobDigest {
        /// By the manifest.
        expected: Digest,
        /// Of what arrived.
        actual: Digest,
    },
    /// The uncompressed archive is not what the configuration promised.
    #[error("uncompressed layer has digest {actual}, but the image's configuration promises {expected}")]
    DiffId {
        /// By the configuration.
        expected: Digest,
        /// Of what was unpacked.
        actual: Digest,
    },
    /// The compressed stream is damaged or not what its media type says.
    #[error("cannot decompress the layer")]
    Decompress(#[source] io::Error),
    /// The archive within cannot be unpacked.
    #[error("cannot unpack the layer")]
    Unpack(#[source] UnpackError),
    /// The store cannot hold it.
    #[error("cannot store the layer")]
    Store(#[from] StoreError),
}

/// Unpacks and publishes a layer from its (compressed) stream. The caller holds a lease on it.
pub(crate) fn store_layer(
    store: &Store,
    source: impl Read + Send,
    expected: &Expected,
) -> Result<LayerRecord, LayerError> {
    let workspace = store.workspace()?;
    let (full_sender, full) = sync_channel(IN_FLIGHT);
    let (empty, empty_receiver) = channel();
    let (inflated, unpacked) = std::thread::scope(|scope| {
        let inflating = scope.spawn(move || inflate(source, expected, &full_sender, &empty_receiver));
        let mut pieces = Pieces { full, empty, piece: Vec::new(), position: 0 };
        let unpacked = unpack::unpack(&mut pieces, workspace.path());
        if matches!(unpacked, Err(UnpackError::Archive(_))) {
            // A damaged archive usually comes from a damaged blob, whose digest says so better.
            let _ = io::copy(&mut pieces, &mut io::sink());
        }
        drop(pieces);
        (inflating.join(), unpacked)
    });
    let inflated = match inflated {
        Ok(inflated) => inflated,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    let size = match (inflated, unpacked) {
        (Err(error), Ok(_) | Err(UnpackError::Archive(_))) => return Err(error),
        (_, Err(error)) => return Err(LayerError::Unpack(error)),
        (Ok(actual), Ok(_)) if actual != expected.diff_id => {
            return Err(LayerError::DiffId { expected: expected.diff_id.clone(), actual });
        }
        (Ok(_), Ok(size)) => size,
    };
    store.publish(workspace, &expected.diff_id)?;
    Ok(LayerRecord { diff_id: expected.diff_id.clone(), size })
}

/// Inflates `source` piece by piece into `full`; returns the digest of the archive.
fn inflate(
    source: impl Read,
    expected: &Expected,
    full: &SyncSender<Vec<u8>>,
    empty: &Receiver<Vec<u8>>,
) -> Result<Digest, LayerError> {
    let blob = expected.blob.as_ref().map(Digest::hasher);
    let mut source = BufReader::with_capacity(PIECE, Hashing { source, hasher: blob });
    let archive = inflate_pieces(&mut source, expected, full, empty);
    if let Ok(None) = archive {
        return Ok(expected.diff_id.clone());
    }
    let drained = io::copy(&mut source, &mut io::sink());
    if let (Some(promised), Some(hasher)) = (&expected.blob, source.into_inner().hasher)
        && drained.is_ok()
    {
        let actual = hasher.finish();
        if actual != *promised {
            return Err(LayerError::BlobDigest { expected: promised.clone(), actual });
        }
    }
    drained.map_err(LayerError::Decompress)?;
    match archive {
        Ok(Some(actual)) => Ok(actual),
        Ok(None) => Ok(expected.diff_id.clone()),
        Err(error) => Err(LayerError::Decompress(error)),
    }
}

/// None if nobody wants the rest: unpacking has failed, and says why.
fn inflate_pieces(
    source: &mut impl BufRead,
    expected: &Expected,
    full: &SyncSender<Vec<u8>>,
    empty: &Receiver<Vec<u8>>,
) -> io::Result<Option<Digest>> {
    let compression = match expected.compression {
        Some(compression) => compression,
        None => Compression::detect(source.fill_buf()?),
    };
    let mut inflating: Box<dyn Read + '_> = match compression {
        Compression::None => Box::new(source),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(source)?),
    };
    let mut hasher = expected.diff_id.hasher();
    loop {
        let mut piece = empty.try_recv().unwrap_or_default();
        piece.resize(PIECE, 0);
        let filled = fill(&mut inflating, &mut piece)?;
        if filled == 0 {
            return Ok(Some(hasher.finish()));
        }
        piece.truncate(filled);
        hasher.update(&piece);
        if full.send(piece).is_err() {
            return Ok(None);
        }
    }
}

fn fill(source: &mut impl Read, piece: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < piece.len() {
        match source.read(&mut piece[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Digests what is read through it.
struct Hashing<R> {
    source: R,
    hasher: Option<Hasher>,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..count]);
        }
        Ok(count)
    }
}

/// The inflated archive as it comes through the channel; used buffers go back.
struct Pieces {
    full: Receiver<Vec<u8>>,
    empty: Sender<Vec<u8>>,
    piece: Vec<u8>,
    position: usize,
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.piece.len()
            && let Ok(next) = self.full.recv()
        {
            let _ = self.empty.send(std::mem::replace(&mut self.piece, next));
            self.position = 0;
        }
        Ok(&self.piece[self.position..])
    }

    fn consume(&mut self, count: usize) {
        self.position += count;
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
