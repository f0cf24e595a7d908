//! Requests and limits as cgroup settings, after `pkg/kubelet/cm/helpers_linux.go` and `pkg/kubelet/qos` upstream.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{self as k8s, Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use runtime::{Resize, Resources};

use super::{Context, Qos, huge_pages, qos};

pub(crate) const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;
const SHARES_PER_CPU: u64 = 1024;
const PERIOD: u64 = 100_000;
const MIN_QUOTA: i64 = 1_000;
/// Pods of this priority and above are vital to the node (`system-node-critical`).
const NODE_CRITICAL: i32 = 2_000_001_000;
/// `oom_score_adj` of a guaranteed or vital pod.
const GUARANTEED_OOM: i32 = -997;
/// `oom_score_adj` of a best-effort pod.
const BEST_EFFORT_OOM: i32 = 1000;

type Amounts = BTreeMap<String, Text>;

/// A quantity of the API; none when it is malformed, which validation excludes.
pub(super) fn quantity(text: &Text) -> Option<Quantity> {
    Quantity::parse(&text.0).ok()
}

/// One amount of a list of requests or limits.
pub fn amount(list: Option<&Amounts>, name: &str) -> Option<Quantity> {
    list?.get(name).and_then(quantity)
}

fn request(container: &Container, name: &str) -> Option<Quantity> {
    amount(container.resources.as_ref()?.requests.as_ref(), name)
}

fn limit(container: &Container, name: &str) -> Option<Quantity> {
    amount(container.resources.as_ref()?.limits.as_ref(), name)
}

/// Processor time as the weight that the kernel has it in.
pub(crate) fn shares(milli_cpu: i64) -> u64 {
    let milli = u64::try_from(milli_cpu).unwrap_or(0);
    (milli.saturating_mul(SHARES_PER_CPU) / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

fn quota(milli_cpu: i64) -> i64 {
    milli_cpu.saturating_mul(100).max(MIN_QUOTA)
}

/// Settings of a container's own cgroup.
pub(super) fn of_container(pod: &Pod, container: &Container, context: &Context) -> Resources {
    let limits = (limit(container, "cpu"), limit(container, "memory"));
    let cpu = request(container, "cpu").filter(|request| !request.is_zero()).or(limits.0);
    let cpu_limit = limits.0.filter(|limit| !limit.is_zero());
    Resources {
        cpu_shares: Some(shares(cpu.map_or(0, Quantity::milli_value))),
        cpu_quota: cpu_limit.map(|limit| quota(limit.milli_value())),
        cpu_period: cpu_limit.map(|_| PERIOD),
        memory_limit: limits.1.filter(|limit| !limit.is_zero()).map(Quantity::value),
        pids_limit: None,
        huge_pages: huge_pages::of_container(pod, container, &context.huge_page_sizes),
        oom_score_adj: Some(oom_score_adj(pod, container, context)),
    }
}

/// What a container and its pod have from now on.
pub fn resize(pod: &Pod, container: &Container, context: &Context) -> Resize {
    let huge_pages = huge_pages::of_pod(pod, &context.huge_page_sizes);
    Resize { pod: Resources { huge_pages, ..pod_resources(pod) }, container: of_container(pod, container, context) }
}

/// Settings of the pod's cgroup: shares of all requests, and limits if every container has one. What the pod asks for as a
/// whole goes before the sums (KEP-2837); its overhead is added (`ResourceConfigForPod`).
pub fn pod_resources(pod: &Pod) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    let own = |list: fn(&k8s::ResourceRequirements) -> Option<&Amounts>, name: &str| {
        spec.resources.as_ref().and_then(|own| amount(list(own), name)).filter(|amount| !amount.is_zero())
    };
    let overhead = |name: &str| amount(spec.overhead.as_ref(), name).unwrap_or(Quantity::ZERO);
    let requested = sum(spec, &|container| {
        request(container, "cpu").or_else(|| limit(container, "cpu")).map(Quantity::milli_value)
    });
    let cpu =
        sum(spec, &|container| limit(container, "cpu").filter(|limit| !limit.is_zero()).map(Quantity::milli_value));
    let memory =
        sum(spec, &|container| limit(container, "memory").filter(|limit| !limit.is_zero()).map(Quantity::value));
    let requested = own(|own| own.requests.as_ref(), "cpu").map_or(requested.total, Quantity::milli_value);
    let cpu = own(|own| own.limits.as_ref(), "cpu").map(Quantity::milli_value).or(cpu.all.then_some(cpu.total));
    let memory = own(|own| own.limits.as_ref(), "memory").map(Quantity::value).or(memory.all.then_some(memory.total));
    let best_effort = qos(pod) == Qos::BestEffort;
    let cpu = cpu.filter(|_| !best_effort).map(|cpu| cpu.saturating_add(overhead("cpu").milli_value()));
    let memory = memory.filter(|_| !best_effort).map(|memory| memory.saturating_add(overhead("memory").value()));
    Resources {
        cpu_shares: Some(if best_effort {
            MIN_SHARES
        } else {
            shares(requested.saturating_add(overhead("cpu").milli_value()))
        }),
        cpu_quota: cpu.map(quota),
        cpu_period: cpu.map(|_| PERIOD),
        memory_limit: memory,
        pids_limit: None,
        // Which there are is the node's.
        huge_pages: BTreeMap::new(),
        oom_score_adj: None,
    }
}

/// The need of a whole pod.
struct Sum {
    total: i64,
    /// Whether every container has an amount.
    all: bool,
}

/// What the pod needs at most at one time: all that run together, or the neediest init container together with the
/// sidecars before it, if that is more (KEP-753).
fn sum(spec: &PodSpec, amount: &dyn Fn(&Container) -> Option<i64>) -> Sum {
    let mut all = true;
    let mut count = |container: &Container| {
        let value = amount(container);
        all &= value.is_some();
        value.unwrap_or(0)
    };
    let (mut sidecars, mut peak) = (0_i64, 0_i64);
    for init in spec.init_containers.iter().flatten() {
        let value = count(init);
        if init.restart_policy.as_deref() == Some("Always") {
            sidecars = sidecars.saturating_add(value);
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(sidecars.saturating_add(value));
        }
    }
    let together = spec.containers.iter().map(&mut count).fold(sidecars, i64::saturating_add);
    Sum { total: together.max(peak), all }
}

/// Who is killed first when the node runs out of memory, after `qos.GetContainerOOMScoreAdjust`.
fn oom_score_adj(pod: &Pod, container: &Container, context: &Context) -> i32 {
    if pod.spec.as_ref().and_then(|spec| spec.priority).is_some_and(|priority| priority >= NODE_CRITICAL) {
        return GUARANTEED_OOM;
    }
    match qos(pod) {
        Qos::Guaranteed => GUARANTEED_OOM,
        Qos::BestEffort => BEST_EFFORT_OOM,
        Qos::Burstable => {
            let requested = request(container, "memory").or_else(|| limit(container, "memory"));
            let requested = requested.map_or(0, Quantity::value).saturating_add(unspent_memory(pod));
            let score = 1000 - requested.saturating_mul(1000) / context.node_memory.max(1);
            let lowest = 1000 + i64::from(GUARANTEED_OOM);
            i32::try_from(score.clamp(lowest, 999)).unwrap_or(999)
        }
    }
}

/// What a container gets of the memory that its pod asks for as a whole and no container asks for.
fn unspent_memory(pod: &Pod) -> i64 {
    let Some(spec) = &pod.spec else { return 0 };
    let Some(whole) = spec.resources.as_ref().and_then(|own| amount(own.requests.as_ref(), "memory")) else { return 0 };
    let all = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let spent: i64 = all().filter_map(|one| request(one, "memory")).map(Quantity::value).fold(0, i64::saturating_add);
    let count = i64::try_from(all().count()).unwrap_or(i64::MAX).max(1);
    whole.value().saturating_sub(spent).max(0) / count
}
