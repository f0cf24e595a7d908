//! Images: pulled from registries, imported from archives, kept as unpacked layers.
//!
//! For the runtime and the command line. A pull streams every layer from the registry through the digests and the
//! decompressor straight into a directory that serves as an overlay lower directory; no compressed copy is kept.
//! It deliberately does not mount anything and does not know which containers use an image. Invariant: what the
//! index of the [`Store`] names is complete, verified and on disk; everything else below its root is removed.

mod archive;
mod digest;
mod document;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod layer;
mod media;
mod progress;
mod pull;
mod record;
mod reference;
mod registry;
mod store;
mod unpack;
mod usage;

pub use archive::{ExportError, ImportError, export, import};
pub use digest::{Digest, DigestError};
pub use document::DocumentError;
pub use layer::LayerError;
pub use media::MediaTypeError;
pub use progress::{Fetched, Progress};
pub use pull::{PullError, Puller};
pub use record::{Defaults, LayerRecord, Record};
pub use reference::{Reference, ReferenceError};
pub use registry::{Credentials, RegistryError, RegistryOptions, ResolveError};
pub use store::{Store, StoreError};
pub use unpack::{TarError, UnpackError};
pub use usage::Usage;

#[cfg(test)]
mod tests;
