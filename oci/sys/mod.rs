//! System calls: every `unsafe` block of the workspace, each one operation behind a safe signature.

mod netns;

pub use netns::NetNs;
