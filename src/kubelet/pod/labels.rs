//! Labels of containers in the runtime: what a later agent must know about a container and cannot see.

/// Seconds to wait after this container's end before the next start.
pub(super) const BACKOFF: &str = "coracle.io/restart-backoff-seconds";
/// `imageID` as statuses show it.
pub(super) const IMAGE_ID: &str = "coracle.io/image-id";
