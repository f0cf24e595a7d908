//! Why a node ends a pod that nobody has asked to end.

/// The least grace that a pod has that must go at once: upstream's `immediateEvictionGracePeriodSeconds`.
const IMMEDIATE: i64 = 1;

/// What a pod is told that must go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eviction {
    /// The reason in its status, and of the event.
    pub reason: &'static str,
    /// The message in its status, and of the event.
    pub message: String,
    /// What its condition `DisruptionTarget` says (KEP-3329).
    pub disruption: String,
    /// How many seconds it has to end, if that is less than it asks for.
    pub grace: Option<i64>,
}

impl Eviction {
    /// It has used more than it may, or than there is.
    pub fn now(message: String) -> Self {
        Self { reason: "Evicted", disruption: message.clone(), message, grace: Some(IMMEDIATE) }
    }

    /// Its place is needed by a pod that the node cannot do without (`pkg/kubelet/preemption` upstream).
    pub fn preempted() -> Self {
        Self {
            reason: "Preempting",
            message: "Preempted in order to admit critical pod".to_owned(),
            disruption: "Pod was preempted by Kubelet to accommodate a critical pod.".to_owned(),
            grace: None,
        }
    }
}
