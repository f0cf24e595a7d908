//! Which pods of a set go first when there are too many (`ActivePodsWithRanks` upstream).

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::workload::ready_since;

/// What it costs to remove a pod, as its owner sees it (KEP-2255).
const COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The pods with those first that can be spared most: not bound, not running, not ready; of low cost; many of a node;
/// ready for a short time, by orders of magnitude; often restarted; young.
pub(super) fn worst_first<'p>(pods: &[&'p Arc<Pod>], now: Timestamp) -> Vec<&'p Arc<Pod>> {
    let mut of_node: HashMap<&str, usize> = HashMap::new();
    for pod in pods {
        *of_node.entry(node(pod)).or_default() += 1;
    }
    let mut ranked: Vec<&'p Arc<Pod>> = pods.to_vec();
    ranked.sort_by_cached_key(|pod| {
        let ready = ready_since(pod);
        let crowd = of_node.get(node(pod)).copied().unwrap_or_default();
        let created = pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::MAX, |time| time.0);
        (
            !node(pod).is_empty(),
            phase(pod),
            ready.is_some(),
            cost(pod),
            Reverse(crowd),
            ready.map(|since| magnitude(since, now)),
            Reverse(restarts(pod)),
            magnitude(created, now),
            pod.metadata.name.clone(),
        )
    });
    ranked
}

fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

fn phase(pod: &Pod) -> u8 {
    match pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
        Some("Running") => 2,
        Some("Unknown") => 1,
        _ => 0,
    }
}

fn cost(pod: &Pod) -> i32 {
    let cost = pod.metadata.annotations.as_ref().and_then(|all| all.get(COST));
    cost.and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|status| status.restart_count).max().unwrap_or(0)
}

/// Ages are compared by powers of two, so that which pod goes is somewhat random among those of about one age (KEP-2185).
fn magnitude(since: Timestamp, now: Timestamp) -> u32 {
    let seconds = now.duration_since(since).as_secs();
    u64::try_from(seconds).ok().and_then(u64::checked_ilog2).map_or(0, |power| power + 1)
}
