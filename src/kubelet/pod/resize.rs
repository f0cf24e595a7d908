//! Sizes of running containers: what each has, what it shall have, and how it gets there (KEP-1287).
//!
//! Pure; called by the planner and by the status. What a container has is what the last successful resize gave it, or its
//! status says, or else what it was started with. Whether there is room for what it shall have was decided before: the
//! pod that the planner sees has the sizes that were granted.

use std::collections::BTreeMap;

use api::quantity::Quantity as Amount;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use runtime::ContainerId;
use serde_json::{Value, json};

use super::plan::{Action, Draft, StopReason};
use super::view::{Contained, Kind, Life, View};

/// What can be resized.
const SIZES: [&str; 2] = ["cpu", "memory"];

/// Why a resize is not begun, for the condition `PodResizePending`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// `Deferred` or `Infeasible`.
    pub reason: &'static str,
    /// What is missing.
    pub message: String,
    /// What the pod asks for, as events tell of it.
    pub asked: String,
}

/// The sizes of a pod as events tell of them (`makeResourceSummaryFromPod` of `pkg/kubelet/events/resize.go`), with what
/// stands in their way.
pub(crate) fn summary(pod: &Pod, error: Option<&str>) -> String {
    let list = |containers: &[Container]| -> Vec<Value> {
        let sizes = |own: &Container| json!({"name": own.name, "resources": own.resources.clone().unwrap_or_default()});
        containers.iter().map(sizes).collect()
    };
    let spec = pod.spec.as_ref();
    let mut told = json!({"generation": pod.metadata.generation.unwrap_or(0)});
    let parts = [
        ("initContainers", spec.and_then(|spec| spec.init_containers.as_deref()).map(list).map(Value::from)),
        ("containers", spec.map(|spec| list(&spec.containers).into())),
        ("resources", spec.and_then(|spec| spec.resources.as_ref()).map(|own| json!(own))),
        ("error", error.map(Value::from)),
    ];
    for (name, value) in parts.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        told[name] = value;
    }
    told.to_string()
}

/// What a running container has.
pub(super) fn actual(view: &View<'_>, container: &Contained<'_>, id: &ContainerId) -> ResourceRequirements {
    if let Some(sizes) = view.memory.sizes.get(id) {
        return sizes.clone();
    }
    let status = &view.memory.status;
    let mut known = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let full = format!("coracle://{id}");
    let said = known.find(|one| one.container_id.as_ref() == Some(&full)).and_then(|one| one.resources.clone());
    said.unwrap_or_else(|| wanted(&container.spec))
}

/// What a container shall have.
pub(super) fn wanted(container: &Container) -> ResourceRequirements {
    let own = container.resources.clone().unwrap_or_default();
    ResourceRequirements { claims: None, ..own }
}

/// What the pod has as a whole, if that was said (KEP-2837).
pub(super) fn actual_pod(view: &View<'_>) -> Option<ResourceRequirements> {
    let wanted = view.pod.spec.as_ref().and_then(|spec| spec.resources.clone())?;
    let known = view.memory.pod_sizes.clone().or_else(|| view.memory.status.resources.clone());
    Some(known.unwrap_or(wanted))
}

/// Whether the pod as a whole shall have another size (KEP-5419).
fn pod_differs(view: &View<'_>) -> bool {
    let wanted = view.pod.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    wanted.zip(actual_pod(view)).is_some_and(|(wanted, actual)| !differing(&actual, wanted).is_empty())
}

/// Resources of which a container has another amount than it shall have.
fn differing(actual: &ResourceRequirements, wanted: &ResourceRequirements) -> Vec<&'static str> {
    let amount = |list: Option<&BTreeMap<String, Quantity>>, name: &str| {
        list.and_then(|list| list.get(name)).and_then(|text| Amount::parse(&text.0).ok())
    };
    let differs = |name: &&str| {
        amount(actual.requests.as_ref(), name) != amount(wanted.requests.as_ref(), name)
            || amount(actual.limits.as_ref(), name) != amount(wanted.limits.as_ref(), name)
    };
    SIZES.into_iter().filter(differs).collect()
}

/// Whether a container is on its way to another size.
pub(super) fn is_under_way(view: &View<'_>, container: &Contained<'_>) -> bool {
    let Life::Runs { id, .. } = &container.life else { return false };
    let differs = || !differing(&actual(view, container, id), &wanted(&container.spec)).is_empty();
    has_size(container) && (differs() || (pod_differs(view) && is_first(view, container)))
}

/// Whether it is the container with which the pod as a whole is given another size: the first one that runs.
fn is_first(view: &View<'_>, container: &Contained<'_>) -> bool {
    let mut running = view.containers().filter(|other| has_size(other) && matches!(other.life, Life::Runs { .. }));
    running.next().is_some_and(|first| first.name() == container.name())
}

/// Containers that run once, and those that are looked into with, keep what they have.
fn has_size(container: &Contained<'_>) -> bool {
    matches!(container.kind, Kind::App | Kind::Sidecar)
}

/// Brings a running container to its size; tells why it must be restarted if it must.
pub(super) fn keep(view: &View<'_>, draft: &mut Draft, container: &Contained<'_>) -> Option<StopReason> {
    let Life::Runs { id, .. } = &container.life else { return None };
    if !has_size(container) {
        return None;
    }
    if !is_under_way(view, container) {
        return None;
    }
    let differing = differing(&actual(view, container, id), &wanted(&container.spec));
    let restarts = |name: &&str| {
        let mut policies = container.spec.resize_policy.iter().flatten();
        policies.any(|policy| policy.resource_name == **name && policy.restart_policy == "RestartContainer")
    };
    if differing.iter().any(restarts) {
        return Some(StopReason::Resized);
    }
    if let Some(failure) = view.memory.resizes.get(id) {
        draft.wake(failure.retry_at);
        if failure.retry_at > view.now {
            return None;
        }
    }
    let (sandbox, _) = container.records.first()?;
    let (sandbox, name) = (sandbox.spec.id.clone(), container.name().to_owned());
    draft.act(view, Action::ResizeContainer { sandbox, container: id.clone(), name });
    None
}

/// Why the pod is not yet as it shall be, for the condition `PodResizeInProgress`: the last failure, or nothing if it is
/// merely on its way; none if all is done.
pub(super) fn in_progress(view: &View<'_>) -> Option<Option<String>> {
    let mut under_way = view.containers().filter(|container| is_under_way(view, container)).peekable();
    under_way.peek()?;
    let failure = |container: &Contained<'_>| match &container.life {
        Life::Runs { id, .. } => view.memory.resizes.get(id).map(|failure| failure.message.clone()),
        _ => None,
    };
    Some(under_way.find_map(failure))
}
