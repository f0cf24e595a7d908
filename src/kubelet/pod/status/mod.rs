//! The status of a pod: what `kubectl` shows and controllers act on.
//!
//! Called by [`super::plan::plan`] with the facts and the decisions. Pure. Invariants: the phase ratchets one way and a
//! terminal one stays; a condition's transition time changes only with its status; conditions of others are kept.

mod conditions;
mod containers;
mod phase;

use k8s_openapi::api::core::v1::{ContainerStatus, HostIP, Pod, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::plan::{Draft, Wish};
use super::resize;
use super::view::View;

/// How long the last words of all containers of a pod may be together, as upstream's
/// `MaxPodTerminationMessageLogLength`.
const MESSAGES_LIMIT: usize = 12 * 1024;

/// Gives each container the same share of what a pod's last words may take (`status_manager.normalizeStatus` upstream).
fn shorten_messages(lists: [&mut Vec<ContainerStatus>; 3]) {
    let share = MESSAGES_LIMIT / lists.iter().map(|list| list.len()).sum::<usize>().max(1);
    for status in lists.into_iter().flatten() {
        let ended = [&mut status.state, &mut status.last_state].into_iter().flatten();
        for message in ended.filter_map(|state| state.terminated.as_mut()?.message.as_mut()) {
            let end = (0..=share.min(message.len())).rev().find(|end| message.is_char_boundary(*end));
            message.truncate(end.unwrap_or(0));
        }
    }
}

/// Whether others have said that a pod is not ready which is, as the controller does whose node was out of reach
/// (`MarkPodsNotReady` upstream). A kubelet always gives a reason.
pub(super) fn is_marked_unready(pod: &Pod, own: &PodStatus) -> bool {
    let ready = |status: &PodStatus| {
        let found = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
        found.map(|condition| (condition.status.clone(), condition.reason.clone()))
    };
    let shown = pod.status.as_ref().and_then(ready);
    let has_reason = shown.as_ref().is_some_and(|(_, reason)| reason.as_deref().is_some_and(|text| !text.is_empty()));
    let is_false = shown.is_some_and(|(status, _)| status == "False");
    is_false && !has_reason && ready(own).is_some_and(|(status, _)| status == "True")
}

/// Whether the pod has failed before anything was done for it.
fn was_rejected(view: &View<'_>) -> bool {
    let old = &view.memory.status;
    old.phase.as_deref() == Some("Failed") && old.container_statuses.is_none() && view.observed.sandboxes.is_empty()
}

/// The strategic merge patch that gives an object this status. Conditions of others are not in it: they may have changed
/// since they were seen.
pub(super) fn patch(status: &PodStatus) -> Value {
    let mut patch = json!(status);
    let own = status.conditions.iter().flatten().filter(|condition| conditions::is_own(condition));
    // What it does not say any more must go: a patch of conditions leaves alone what it does not name.
    let whole = |condition| {
        let mut whole = json!({ "reason": null, "message": null, "lastProbeTime": null });
        if let (Value::Object(whole), Value::Object(says)) = (&mut whole, json!(condition)) {
            whole.extend(says);
        }
        whole
    };
    let own: Vec<Value> = own.map(whole).collect();
    let gone = conditions::PASSING.iter().filter(|name| !own.iter().any(|condition| condition["type"] == **name));
    let gone = gone.map(|name| json!({ "type": name, "$patch": "delete" }));
    patch["conditions"] = own.iter().cloned().chain(gone).collect();
    for list in ["podIPs", "hostIPs"] {
        if let Some(list) = patch[list].as_array_mut() {
            list.insert(0, json!({ "$patch": "replace" }));
        }
    }
    patch
}

/// Renders the status that follows from facts and decisions.
pub(super) fn render(view: &View<'_>, draft: &Draft) -> PodStatus {
    let old = &view.memory.status;
    if was_rejected(view) {
        // Of what was never tried there is nothing to say but that.
        let observed_generation = view.pod.metadata.generation;
        return PodStatus { start_time: Some(Time(view.start_time())), observed_generation, ..old.clone() };
    }
    let [mut init, mut apps, mut ephemeral] =
        [&view.init, &view.apps, &view.ephemeral].map(|list| containers::render(view, draft, list));
    let verdict = phase::judge(view, draft, &init, &apps);
    let conditions = conditions::render(view, &verdict, &init, &apps);
    let hosts = &view.observed.host_addresses;
    let pods = if view.host_network() { hosts } else { &view.observed.addresses };
    shorten_messages([&mut init, &mut apps, &mut ephemeral]);
    let mut status = PodStatus {
        phase: Some(verdict.phase.as_str().to_owned()),
        reason: verdict.reason.or_else(|| old.reason.clone()),
        message: verdict.message.or_else(|| old.message.clone()),
        conditions: Some(conditions),
        init_container_statuses: Some(init).filter(|list| !list.is_empty()),
        container_statuses: Some(apps).filter(|list| !list.is_empty()),
        ephemeral_container_statuses: Some(ephemeral).filter(|list| !list.is_empty()),
        start_time: Some(Time(view.start_time())),
        observed_generation: view.pod.metadata.generation,
        qos_class: old.qos_class.clone().or_else(|| view.pod.status.as_ref().and_then(|now| now.qos_class.clone())),
        host_ip: hosts.first().map(ToString::to_string),
        host_ips: Some(hosts.iter().map(|ip| HostIP { ip: ip.to_string() }).collect())
            .filter(|ips: &Vec<_>| !ips.is_empty()),
        resources: resize::actual_pod(view),
        allocated_resources: view.pod.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.clone()),
        ..old.clone()
    };
    // The addresses of a sandbox that is being replaced or removed stay visible until there are others.
    if !pods.is_empty() && view.wish == Wish::Keep {
        status.pod_ip = pods.first().map(ToString::to_string);
        status.pod_ips = Some(pods.iter().map(|ip| PodIP { ip: ip.to_string() }).collect());
    }
    status
}
