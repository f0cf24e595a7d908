//! What the store remembers of an image.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Digest;

/// What an image says about the containers made of it: the `config` object of its configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Defaults {
    /// The program, before `cmd`.
    pub entrypoint: Vec<String>,
    /// Default arguments.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// `uid`, `name`, `uid:gid` or `name:group`; empty for root.
    pub user: String,
    /// Working directory; empty for `/`.
    pub working_dir: String,
    /// Name or number of the signal that stops it; empty for SIGTERM.
    pub stop_signal: String,
}

/// One unpacked layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Digest of the uncompressed layer, which names its directory.
    pub diff_id: Digest,
    /// Bytes of its files.
    pub size: u64,
}

/// An image that is complete in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Digest of the configuration: the identity of the image.
    pub id: Digest,
    /// Digest of the manifest it was made from.
    pub manifest: Digest,
    /// `registry/repository:tag` names.
    pub tags: BTreeSet<String>,
    /// `registry/repository@digest` names.
    pub digests: BTreeSet<String>,
    /// Its layers, the lowest first.
    pub layers: Vec<LayerRecord>,
    /// What it says about its containers.
    pub defaults: Defaults,
    /// Whether garbage collection must leave it alone.
    pub pinned: bool,
}

impl Record {
    /// Bytes on disk, shared layers included.
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }
}
