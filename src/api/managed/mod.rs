//! Server-side apply: who manages which field of an object, and what an applied configuration makes of it.
//!
//! `metadata.managedFields` lists managers with the fields that each set: by applying a configuration, or by an update,
//! where the fields are those that changed. A configuration may change fields that nobody else manages; a field that its
//! manager leaves out next time goes, unless somebody else manages it too. The rules are those of `structured-merge-diff`
//! (`merge`, `typed`, `fieldpath`) and of `k8s.io/apimachinery/pkg/util/managedfields`, see KEP-555.
//!
//! ```text
//! update   live, new            ──compare──► changed fields ──► they are the writer's, and nobody else's
//! apply    live, configuration  ──merge────► ──prune what is no longer applied──► compare ──► conflicts, or as above
//! ```
//!
//! Pure. What is merged how comes through [`Layout`] and [`Kind`], so that custom resources can say it of themselves.
//! Invariant: a field set holds no empty nodes, so that equal sets are equal values and nobody manages nothing.

mod applied;
mod check;
mod compare;
mod conflict;
mod element;
mod entries;
mod extract;
mod layout;
mod merge;
mod overlay;
mod remove;
mod scale;
mod set;
mod update;

pub use applied::{ApplyError, apply};
pub use element::Element;
pub use entries::{check_manager, is_printable, without_times};
pub use layout::{BuiltIn, Form, Kind, Layout, RowKind, RowLayout};
pub use overlay::overlay;
pub use scale::{from_scale, to_scale};
pub use set::Set;
pub use update::{Writer, update};

#[cfg(test)]
mod tests;
