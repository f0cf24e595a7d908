//! OCI images and containers on Linux.
//!
//! A library others could use: it knows nothing of Kubernetes. All `unsafe` of the workspace lives in [`sys`].

pub mod cgroup;
pub mod container;
#[cfg(feature = "image")]
pub mod image;
#[cfg(feature = "compile")]
pub mod lifecycle;
pub mod protocol;
#[cfg(feature = "compile")]
pub mod seccomp;
pub mod sys;
