//! Images: pulled from registries, imported from archives, kept as unpacked layers.
//!
//! For the runtime and the command line. A pull streams every layer from the registry through the digests and the
//! decompressor straight into a directory that serves as an overlay lower directory; no compressed copy is kept.
//! It deliberately does not mount anything and does not know which containers use an image. Invariant: what the
//! index of the [`Store`] names is complete, verified and on disk; everything else below its root is removed.

#![expect(dead_code, reason = "the pull that uses the rest of the store lands next")]

mod digest;
mod record;
mod reference;
mod store;

pub use digest::{Digest, DigestError};
pub use record::{Defaults, LayerRecord, Record};
pub use reference::{Reference, ReferenceError};
pub use store::{Store, StoreError};
