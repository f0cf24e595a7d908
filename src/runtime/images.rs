//! The seam to images.

use std::fmt;
use std::path::PathBuf;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use oci::image::{Fetched, Progress as PullProgress};

/// An image: the digest of its configuration, as `sha256:<hex>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ImageId(pub String);

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether an image can have such a name.
pub fn is_image_name(text: &str) -> bool {
    text.parse::<oci::image::Reference>().is_ok()
}

/// What an image says about the containers made of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageDefaults {
    /// The program, before `cmd`.
    pub entrypoint: Vec<String>,
    /// Default arguments.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// As [`crate::User::user`].
    pub user: String,
    /// Working directory; empty for `/`.
    pub working_dir: String,
    /// Name or number of the signal that stops it; empty for SIGTERM.
    pub stop_signal: String,
}

/// An image that is present on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its identity.
    pub id: ImageId,
    /// `registry/repository:tag` names.
    pub tags: Vec<String>,
    /// `registry/repository@sha256:…` names: the digest of the manifest (or index) that was pulled.
    pub digests: Vec<String>,
    /// Bytes on disk, shared layers included.
    pub size: u64,
    /// What it says about its containers.
    pub defaults: ImageDefaults,
    /// Unpacked layers, the lowest first: the lower directories of an overlay mount.
    pub layers: Vec<PathBuf>,
    /// Whether garbage collection must leave it alone.
    pub pinned: bool,
}

/// What a registry wants to know.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password or token.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Why an image is not there.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The reference cannot be parsed.
    #[error("couldn't parse image name {reference:?}: {message}")]
    InvalidName { reference: String, message: String },
    /// The registry cannot be reached.
    #[error("registry {registry} is unavailable")]
    RegistryUnavailable {
        registry: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Everything else, with the registry's own words in the chain of sources.
    #[error("failed to pull image {reference:?}")]
    Pull {
        reference: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The local store failed.
    #[error("image store failed in {operation}")]
    Store {
        operation: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Images of the node.
#[async_trait]
pub trait Images: Send + Sync + 'static {
    /// Fetches an image; concurrent pulls of the same layers share the work. Returns when it can be run, and
    /// shows how far it is meanwhile.
    async fn pull(
        &self,
        reference: &str,
        credentials: &[Credentials],
        progress: &PullProgress,
    ) -> Result<Image, ImageError>;

    /// The image of a reference (name, name@digest or image id), if it is present.
    async fn find(&self, reference: &str) -> Result<Option<Image>, ImageError>;

    /// All images.
    async fn list(&self) -> Result<Vec<Image>, ImageError>;

    /// Removes an image and the layers that nothing else uses.
    async fn remove(&self, image: &ImageId) -> Result<(), ImageError>;
}
