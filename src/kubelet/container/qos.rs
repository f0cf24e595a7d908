//! The quality-of-service class of a pod, after `pkg/apis/core/v1/helper/qos.ComputePodQOS` upstream.

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};

use super::resources::amount;

/// How sure a pod can be of its resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qos {
    /// Every container has equal requests and limits for CPU and memory.
    Guaranteed,
    /// Some requests or limits.
    Burstable,
    /// None.
    BestEffort,
}

/// Computes the class.
pub fn qos(pod: &Pod) -> Qos {
    if let Some(whole) = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref()).filter(|own| is_set(own)) {
        return class(&[amounts(Some(whole))]);
    }
    let containers: Vec<&Container> =
        pod.spec.iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten())).collect();
    class(&containers.iter().map(|container| amounts(container.resources.as_ref())).collect::<Vec<_>>())
}

/// Whether a pod asks for something as a whole: then nothing else counts (KEP-2837).
fn is_set(own: &ResourceRequirements) -> bool {
    own.requests.iter().chain(&own.limits).any(|list| !list.is_empty())
}

fn class(values: &[[Option<Quantity>; 4]]) -> Qos {
    if values.iter().flatten().all(Option::is_none) {
        return Qos::BestEffort;
    }
    let equal = |request: Option<Quantity>, limit: Option<Quantity>| {
        limit.is_some() && request.is_none_or(|own| Some(own) == limit)
    };
    let guaranteed = values
        .iter()
        .all(|[cpu, cpu_limit, memory, memory_limit]| equal(*cpu, *cpu_limit) && equal(*memory, *memory_limit));
    if guaranteed { Qos::Guaranteed } else { Qos::Burstable }
}

/// Requests and limits for CPU and memory; zero counts as none.
fn amounts(resources: Option<&ResourceRequirements>) -> [Option<Quantity>; 4] {
    let requests = resources.and_then(|own| own.requests.as_ref());
    let limits = resources.and_then(|own| own.limits.as_ref());
    [amount(requests, "cpu"), amount(limits, "cpu"), amount(requests, "memory"), amount(limits, "memory")]
        .map(|amount| amount.filter(|amount| !amount.is_zero()))
}
