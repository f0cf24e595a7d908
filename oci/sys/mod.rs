//! System calls: every `unsafe` block of the workspace, each one operation behind a safe signature.
//!
//! What rustix and nix offer safely is not repeated here. Functions that run between clone and execve neither allocate
//! nor lock, and say so.

#![allow(unsafe_code, reason = "this module exists to hold it")]

pub mod bpf;
pub mod clone;
pub mod credentials;
pub mod early;
pub mod exec;
pub mod fd;
pub mod heap;
pub mod limit;
pub mod mount;
pub mod namespace;
mod netns;
pub mod seccomp;
pub mod signal;
pub mod tty;

pub use netns::NetNs;
