//! Why the store could not do what was asked.

use std::io;
use std::path::{Path, PathBuf};

/// A failure of the disk, or of what is on it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no room for what was to be written.
    #[error("the disk of {} is full", path.display())]
    Full {
        /// What was written.
        path: PathBuf,
        /// The kernel's word for it.
        #[source]
        source: io::Error,
    },
    /// A system call failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The index is not one; images have to be pulled again after it has been removed.
    #[error("the index of images {} is damaged", path.display())]
    Damaged {
        /// The index.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

impl StoreError {
    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path, source },
            _ => Self::Io { operation, path, source },
        }
    }
}
