//! What a pod asks for in all, and its quality-of-service class: shared by API server, scheduler and kubelet.
//!
//! Follows `k8s.io/component-helpers/resource/helpers.go` and `pkg/apis/core/v1/helper/qos`. Takes objects as they were
//! defaulted; quantities that do not parse count as nothing, validation refuses them before.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::is_restartable;
use crate::quantity::Quantity;
use crate::resources::path::{default_to, ensure_object, entries, items};

/// Amounts by resource name, such as `cpu` or `memory`.
pub type Amounts = BTreeMap<String, Quantity>;

/// Quality of service: who is throttled and evicted first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QosClass {
    /// All containers have limits for cpu and memory, equal to their requests.
    Guaranteed,
    /// Some container has a request or limit for cpu or memory.
    Burstable,
    /// None has.
    BestEffort,
}

impl QosClass {
    /// The word in `status.qosClass`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// Resources that decide about the class, and that a pod may ask for as a whole.
const COMPUTE: [&str; 2] = ["cpu", "memory"];

/// What the pod needs at most at any moment: its containers and sidecars together, or an init container with the
/// sidecars started before it, whichever is more; its own figures instead where it has some; and the overhead.
pub fn pod_requests(pod: &Value) -> Amounts {
    total(&pod["spec"], "requests")
}

/// As [`pod_requests`], of the limits. A container without a limit counts as nothing.
pub fn pod_limits(pod: &Value) -> Amounts {
    total(&pod["spec"], "limits")
}

fn total(spec: &Value, field: &str) -> Amounts {
    let mut sum = containers_total(spec, field);
    for (name, own) in amounts(&spec["resources"], field) {
        if is_pod_level(&name) {
            sum.insert(name, own);
        }
    }
    for (name, overhead) in amounts(spec, "overhead") {
        // Overhead is no limit of its own: it raises a limit that is there.
        let is_counted = field == "requests" || sum.get(&name).is_some_and(|sum| !sum.is_zero());
        if is_counted {
            add(&mut sum, &name, overhead);
        }
    }
    sum
}

/// What the containers of a pod ask for together of the resources that a pod may ask for as a whole.
pub(super) fn containers_requests(spec: &Value) -> Amounts {
    let mut sum = containers_total(spec, "requests");
    sum.retain(|name, _| is_pod_level(name));
    sum
}

fn containers_total(spec: &Value, field: &str) -> Amounts {
    let mut sum = Amounts::new();
    for container in items(spec, "containers") {
        add_all(&mut sum, amounts(&container["resources"], field));
    }
    let mut sidecars = Amounts::new();
    let mut peak = Amounts::new();
    for container in items(spec, "initContainers") {
        let mut own = amounts(&container["resources"], field);
        if is_restartable(container) {
            add_all(&mut sum, own.clone());
            add_all(&mut sidecars, own);
            own = sidecars.clone();
        } else {
            add_all(&mut own, sidecars.clone());
        }
        raise(&mut peak, own);
    }
    raise(&mut sum, peak);
    sum
}

fn is_pod_level(name: &str) -> bool {
    COMPUTE.contains(&name) || name.starts_with("hugepages-")
}

/// The amounts in a map field.
pub(in crate::resources) fn amounts(parent: &Value, field: &str) -> Amounts {
    entries(parent, field)
        .filter_map(|(name, value)| Quantity::from_value(value).ok().map(|amount| (name.clone(), amount)))
        .collect()
}

fn add(sum: &mut Amounts, name: &str, amount: Quantity) {
    let own = sum.entry(name.to_owned()).or_insert(Quantity::ZERO);
    *own = own.plus(amount);
}

fn add_all(sum: &mut Amounts, amounts: Amounts) {
    for (name, amount) in amounts {
        add(sum, &name, amount);
    }
}

fn raise(peak: &mut Amounts, amounts: Amounts) {
    for (name, amount) in amounts {
        let own = peak.entry(name).or_insert(amount);
        *own = (*own).max(amount);
    }
}

/// The class of a pod.
pub fn qos_class(pod: &Value) -> QosClass {
    let spec = &pod["spec"];
    let own = &spec["resources"];
    let parts: Vec<&Value> = if has_any(own) {
        vec![own]
    } else {
        let lists = [items(spec, "containers"), items(spec, "initContainers")];
        lists.into_iter().flatten().map(|container| &container["resources"]).collect()
    };
    if parts.iter().all(|part| is_guaranteed(part)) && !parts.is_empty() {
        QosClass::Guaranteed
    } else if parts.iter().any(|part| has_any(part)) {
        QosClass::Burstable
    } else {
        QosClass::BestEffort
    }
}

fn positive(resources: &Value, field: &str) -> Amounts {
    let mut amounts = amounts(resources, field);
    amounts.retain(|name, amount| COMPUTE.contains(&name.as_str()) && *amount > Quantity::ZERO);
    amounts
}

fn has_any(resources: &Value) -> bool {
    !positive(resources, "requests").is_empty() || !positive(resources, "limits").is_empty()
}

fn is_guaranteed(resources: &Value) -> bool {
    let limits = positive(resources, "limits");
    limits.len() == COMPUTE.len() && positive(resources, "requests") == limits
}

/// A pod with figures of its own asks, unless it says otherwise, for what its containers ask for, or else for its limit
/// (`setDefaultPodRequests`).
pub(super) fn default_pod_level(spec: &mut Value) {
    let Some(limits) = spec["resources"]["limits"].as_object().filter(|limits| !limits.is_empty()).cloned() else {
        return;
    };
    let containers: Map<String, Value> =
        containers_requests(spec).into_iter().map(|(name, amount)| (name, amount.to_string().into())).collect();
    let requests = ensure_object(ensure_object(spec, "resources"), "requests");
    for (name, amount) in containers.into_iter().chain(limits) {
        default_to(requests, &name, amount);
    }
}
