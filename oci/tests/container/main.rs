//! Containers on a real kernel, as root.
//!
//! Each test has a root file system, a control group and processes of its own and removes them also when it fails. The
//! process inside is `examples/payload.rs`; the libraries that it needs are bound from wherever this test has them.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod exec;
mod groups;
mod hostile;
mod identity;
mod mounts;
mod stage;
mod start;
mod users;
