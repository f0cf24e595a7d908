//! Archives of images: what `docker save` writes, OCI archives, and OCI layout directories.
//!
//! For the command line and for nodes without a registry. Everything is verified as in a pull. Imported images are
//! pinned: there may be no place to fetch them from again. It does not keep the archive.

mod contents;
mod docker;
mod export;
mod import;
mod layout;

use std::io;
use std::path::PathBuf;

use super::document::DocumentError;
use super::layer::LayerError;
use super::{Digest, Reference, ReferenceError, StoreError, TarError};

pub use export::{ExportError, export};
pub use import::import;

/// Why an archive has not been imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// What was read.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is no tar archive.
    #[error("{} is not an archive of images", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: TarError,
    },
    /// It has neither an `index.json` nor a `manifest.json`.
    #[error("{} is neither an OCI layout nor a docker-archive: it has no index.json and no manifest.json", path.display())]
    Unknown {
        /// The file or directory.
        path: PathBuf,
    },
    /// Something that is referred to is not in it.
    #[error("{name} is missing from the archive")]
    Missing {
        /// What.
        name: String,
    },
    /// A name in it leads elsewhere.
    #[error("{name:?} is no name of a file in the archive")]
    Name {
        /// The name.
        name: String,
    },
    /// A document of unreasonable length.
    #[error("{name} is too long: {size} bytes")]
    TooLong {
        /// Which one.
        name: String,
        /// Its length.
        size: u64,
    },
    /// The list of images cannot be understood.
    #[error("invalid {name}")]
    List {
        /// `manifest.json` or `index.json`.
        name: &'static str,
        /// Where it goes wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The archive holds several images and one name was given for them.
    #[error("the archive has {count} images; they cannot all be called {name}")]
    Several {
        /// How many.
        count: usize,
        /// The name.
        name: Reference,
    },
    /// It names an image in a way that cannot be.
    #[error("invalid image name {name:?} in the archive")]
    Reference {
        /// The name.
        name: String,
        /// What is wrong.
        #[source]
        source: ReferenceError,
    },
    /// What it holds makes no image.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A blob is not what it is called.
    #[error("{name} has digest {actual}")]
    Digest {
        /// What it is called.
        name: String,
        /// What it is.
        actual: Digest,
    },
    /// A layer cannot be unpacked.
    #[error("layer {name}")]
    Layer {
        /// Its name in the archive.
        name: String,
        /// Why not.
        #[source]
        source: LayerError,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[cfg(test)]
mod tests;
