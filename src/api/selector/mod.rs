//! Label and field selectors.
//!
//! The strings of `labelSelector=` and `fieldSelector=` and the `LabelSelector` objects of specs. Matching is pure and
//! needs only labels or a function from field path to value; which field paths a kind offers, the resource table says.

mod field;
mod label;
mod lexer;

pub use field::{FieldRequirement, FieldSelector};
pub use label::{LabelSelector, Operator, Requirement};

#[cfg(test)]
mod tests;
