//! What users are told beside the status: events, worded as upstream's kubelet words them.

use client::events::{EventType, reference, reference_part};
use k8s_openapi::api::core::v1::{ContainerStatus, ObjectReference, Pod, PodStatus};

use super::parts;
use super::plan::{Cut, WaitingReason};
use super::resize::{self, Pending};
use crate::shared::{Shared, in_full};

/// Reports an event about a pod.
pub(crate) fn of_pod(shared: &Shared, pod: &Pod, kind: EventType, reason: &str, message: &str) {
    shared.event(&reference(pod), kind, reason, message);
}

/// Reports an event about a container.
pub(crate) fn of_container(shared: &Shared, pod: &Pod, container: &str, kind: EventType, reason: &str, message: &str) {
    shared.event(&container_reference(pod, container), kind, reason, message);
}

fn container_reference(pod: &Pod, container: &str) -> ObjectReference {
    let mut init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let list = match () {
        () if init.any(|init| init.name == container) => "initContainers",
        () if parts::ephemeral(pod, container).is_some() => "ephemeralContainers",
        () => "containers",
    };
    reference_part(pod, &format!("spec.{list}{{{container}}}"))
}

/// Names fields that have no effect.
pub(super) fn unsupported(shared: &Shared, pod: &Pod, fields: &[String]) {
    let message = format!("Fields without effect on this node: {}", fields.join(", "));
    of_pod(shared, pod, EventType::Warning, "UnsupportedField", &message);
}

/// Reports that a pod is to fail as a whole.
pub(super) fn cut_short(shared: &Shared, pod: &Pod, Cut { reason, message }: &Cut) {
    let kind = if *reason == "DeadlineExceeded" { EventType::Normal } else { EventType::Warning };
    of_pod(shared, pod, kind, reason, message);
}

/// Reports what follows from a change of status: containers that begin to wait for a reason worth knowing.
pub(super) fn transitions(shared: &Shared, pod: &Pod, old: &PodStatus, new: &PodStatus) {
    let before = statuses(old);
    for status in statuses(new) {
        let was = before.iter().find(|was| was.name == status.name).and_then(|was| waiting_reason(was));
        let Some(reason) = waiting_reason(status).filter(|reason| Some(*reason) != was) else { continue };
        let message = status.state.as_ref().and_then(|state| state.waiting.as_ref()?.message.clone());
        for (kind, reason, message) in worth_telling(pod, status, reason, &message.unwrap_or_default()) {
            of_container(shared, pod, &status.name, kind, reason, &message);
        }
    }
}

/// Reports how a resize goes on: for want of room not begun, begun, or done (`pkg/kubelet/allocation` upstream).
pub(super) fn resizes(shared: &Shared, pod: &Pod, pending: Option<&Pending>, [old, new]: [&PodStatus; 2]) {
    let of = |status: &PodStatus, name: &str| {
        let mut all = status.conditions.iter().flatten();
        let found = all.find(|condition| condition.type_ == name);
        found.map(|own| (own.observed_generation, own.reason.clone(), own.message.clone()))
    };
    let [waited, waits] = [old, new].map(|status| of(status, "PodResizePending"));
    if let Some(Pending { reason, asked, .. }) = pending.filter(|_| waits != waited) {
        let message = format!("Pod resize {reason}: {asked}");
        of_pod(shared, pod, EventType::Warning, &format!("Resize{reason}"), &message);
    }
    let [was, is] = [old, new].map(|status| of(status, "PodResizeInProgress").map(|(generation, ..)| generation));
    let told = match is {
        Some(_) if is != was => Some(("ResizeStarted", "started")),
        None if was.is_some() && new.phase.as_deref() == Some("Running") => Some(("ResizeCompleted", "completed")),
        _ => None,
    };
    if let Some((reason, word)) = told {
        let message = format!("Pod resize {word}: {}", resize::summary(pod, None));
        of_pod(shared, pod, EventType::Normal, reason, &message);
    }
}

fn worth_telling(
    pod: &Pod,
    status: &ContainerStatus,
    reason: &str,
    message: &str,
) -> Vec<(EventType, &'static str, String)> {
    let is = |known: WaitingReason| reason == known.as_str();
    if is(WaitingReason::CrashLoopBackOff) {
        let message = format!("Back-off restarting failed container {} in pod {}", status.name, in_full(&pod.metadata));
        vec![(EventType::Warning, "BackOff", message)]
    } else if is(WaitingReason::ImagePullBackOff) {
        vec![
            (EventType::Normal, "BackOff", format!("Back-off pulling image {:?}", status.image)),
            (EventType::Warning, "Failed", "Error: ImagePullBackOff".to_owned()),
        ]
    } else if is(WaitingReason::ErrImageNeverPull) {
        vec![
            (EventType::Warning, "ErrImageNeverPull", message.to_owned()),
            (EventType::Warning, "Failed", "Error: ErrImageNeverPull".to_owned()),
        ]
    } else {
        Vec::new()
    }
}

fn statuses(status: &PodStatus) -> Vec<&ContainerStatus> {
    let lists = [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flatten().flatten().collect()
}

fn waiting_reason(status: &ContainerStatus) -> Option<&str> {
    status.state.as_ref()?.waiting.as_ref()?.reason.as_deref()
}
