//! Where pods come from beside the API server: manifest files, and what was left on disk by an earlier run.
//!
//! Read by the pods' table. Nothing here starts or stops anything.

mod alone;
mod checkpoint;
mod manifests;
pub(crate) mod mirror;

pub(crate) use checkpoint::{Found, find};
pub(crate) use manifests::{Manifests, StaticPod};

/// Marks the API object that stands for a static pod; the value is the static pod's UID.
pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";
/// The UID of a static pod, from which it can be told whether it changed.
pub(crate) const HASH: &str = "kubernetes.io/config.hash";
/// Where a pod comes from.
pub(crate) const SOURCE: &str = "kubernetes.io/config.source";
