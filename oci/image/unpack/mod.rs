//! Unpacks a layer into a directory that overlayfs takes as a lower directory.
//!
//! Called by pulls and imports, in a blocking thread. It trusts nothing in the archive: names are resolved beneath the
//! layer's directory by the kernel ([`root`]), memory and name lengths are bounded ([`tar`]). Whiteouts follow
//! image-spec `layer.md` and become what overlayfs understands. Attributes of directories are set last, since writing
//! into a directory changes its times and may need more than its mode allows. It does not verify digests and does not
//! clean up: the caller owns the directory.

mod root;
mod tar;
mod write;

use std::io::{self, BufRead};
use std::path::Path;

pub use tar::TarError;
pub(crate) use tar::{Kind, TarReader};

/// Why a layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive itself cannot be read.
    #[error("the layer is not a valid tar archive")]
    Archive(#[from] TarError),
    /// A name with `..`, or with a NUL.
    #[error("entry {name:?} would leave the layer")]
    Leaves {
        /// The name.
        name: String,
    },
    /// The target of a hard link would be outside of the layer.
    #[error("hard link {name:?} points out of the layer, to {target:?}")]
    LinkLeaves {
        /// The link.
        name: String,
        /// Where it points.
        target: String,
    },
    /// There is no room for the layer.
    #[error("the disk is full: cannot write {name:?}")]
    Full {
        /// What was being written.
        name: String,
        /// The kernel's word for it.
        #[source]
        source: io::Error,
    },
    /// A system call failed.
    #[error("cannot {operation} {name:?}")]
    Entry {
        /// What was tried.
        operation: &'static str,
        /// The entry.
        name: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Unpacks the archive into an empty directory; returns the bytes of its files. Reads `source` to its end.
pub(crate) fn unpack(source: &mut impl BufRead, directory: &Path) -> Result<u64, UnpackError> {
    let mut reader = TarReader::new(source);
    let mut layer = write::Layer::open(directory)?;
    while let Some(entry) = reader.next_entry()? {
        layer.add(&entry, &mut reader)?;
    }
    let written = layer.finish()?;
    io::copy(reader.into_inner(), &mut io::sink()).map_err(|error| UnpackError::Archive(TarError::Read(error)))?;
    Ok(written)
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(super) use tests::listing;
