//! What the built-in Kubernetes types look like.
//!
//! A compact table, generated from upstream's types (see `scripts/generate_schema.py`), says of every field its JSON
//! name, type, list type, patch strategy and protobuf numbers. Decoding, patching, protobuf and OpenAPI are driven by
//! it. It holds facts only: defaulting and validation belong to the resource table.

mod canonical;
mod decode;
mod describe;
mod table;

pub(crate) use canonical::{micro_time, time};
pub use decode::{FieldProblem, conform, decode};
pub(crate) use describe::{Described, Descriptions};
pub(crate) use table::fingerprint;
pub use table::{Base, Field, ListType, Shape, TypeRef, kinds, lookup};

#[cfg(test)]
mod tests;
