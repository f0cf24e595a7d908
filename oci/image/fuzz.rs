//! What the fuzz targets reach of this crate's inside: parsers that outside bytes come to through other parts only.
//!
//! Behind the feature `fuzz`, which nothing but `tests/fuzz` asks for. It deliberately adds nothing to what it opens.

use std::io::BufRead;
use std::path::Path;

use super::document::{self, BlobRef, Config, Manifest, Platform};
use super::media::Document;
use super::{Defaults, Digest, DocumentError, UnpackError, unpack as unpacker};

/// A blob's digest and size.
pub type Blob = (Digest, u64);

/// Unpacks an uncompressed layer into an empty directory; returns the bytes of its files.
///
/// # Errors
/// When the archive or the file system is at fault.
pub fn unpack(source: &mut impl BufRead, directory: &Path) -> Result<u64, UnpackError> {
    unpacker::unpack(source, directory)
}

/// Whether a document is an index, not a manifest.
///
/// # Errors
/// When it is neither.
pub fn is_index(content: &[u8], sent_as: Option<&str>) -> Result<bool, DocumentError> {
    Ok(document::kind(content, sent_as)? == Document::Index)
}

/// The configuration and layers, each with its compression, of a manifest.
///
/// # Errors
/// When it is none, or cannot be run.
pub fn manifest(content: &[u8]) -> Result<(Blob, Vec<(Blob, String)>), DocumentError> {
    let manifest = Manifest::parse(content)?;
    let layers = manifest.layers.into_iter().map(|(layer, compression)| (blob(layer), format!("{compression:?}")));
    Ok((blob(manifest.config), layers.collect()))
}

/// The entry of an index for Linux on an architecture.
///
/// # Errors
/// When it is none, or has no such entry.
pub fn select(index: &[u8], architecture: &'static str) -> Result<Blob, DocumentError> {
    document::select(index, &Platform { os: "linux", architecture }).map(blob)
}

/// Layers and defaults of a configuration for Linux on an architecture.
///
/// # Errors
/// When it is none, or for something else.
pub fn config(
    content: &[u8],
    layers: usize,
    architecture: &'static str,
) -> Result<(Vec<Digest>, Defaults), DocumentError> {
    let config = Config::parse(content, layers, &Platform { os: "linux", architecture })?;
    Ok((config.diff_ids, config.defaults))
}

fn blob(blob: BlobRef) -> Blob {
    (blob.digest, blob.size)
}
