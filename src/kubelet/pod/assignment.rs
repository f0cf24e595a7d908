//! What a worker is told by the sources of pods.

use std::sync::Arc;

use client::Key;
use k8s_openapi::api::core::v1::Pod;

use super::plan::Wish;
use super::resize::Pending;

/// A pod that a worker shall take care of.
#[derive(Debug, Clone)]
pub(crate) struct Assignment {
    /// The pod as last seen.
    pub(crate) pod: Arc<Pod>,
    /// Whether it shall exist.
    pub(crate) wish: Wish,
    /// The object whose status is to be written; none while there is none.
    pub(crate) report_to: Option<Target>,
    /// Whether the object is removed once nothing is left of the pod. A mirror pod is its source's business.
    pub(crate) delete_object: bool,
    /// Why the pod as given here has other sizes than its object.
    pub(crate) resize_pending: Option<Pending>,
}

/// An object of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) key: Key,
    pub(crate) uid: String,
}

impl Assignment {
    /// A pod of the API server.
    pub(crate) fn of_api(pod: Arc<Pod>) -> Self {
        let target = Target { key: Key::of(&pod.metadata), uid: pod.metadata.uid.clone().unwrap_or_default() };
        Self { pod, wish: Wish::Keep, report_to: Some(target), delete_object: true, resize_pending: None }
    }

    /// A pod that must go and that nobody asks about.
    pub(crate) fn gone(pod: Arc<Pod>) -> Self {
        Self { pod, wish: Wish::Gone, report_to: None, delete_object: false, resize_pending: None }
    }
}
