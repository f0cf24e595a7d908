//! Whether this node takes a pod that is bound to it, and why not: pure.
//!
//! After `pkg/kubelet/lifecycle/predicate.go` upstream, words included. Asked once, when a pod is new to this agent; one
//! that has run here before stays. The scheduler has asked the same, but whoever writes `spec.nodeName` has not. Pods
//! that the node cannot do without are taken whatever room there is, because nothing here makes room for them by ending
//! others. Node affinity is left to the scheduler.

pub(crate) mod isolation;
mod ports;

use std::collections::BTreeMap;

use api::quantity::Quantity;
use api::resources::pod::requests::pod_requests;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::sources::SOURCE;

/// Pods of this priority and above are vital (`scheduling.SystemCriticalPriority`).
const CRITICAL: i32 = 2_000_000_000;
const OS_LABEL: &str = "kubernetes.io/os";

/// Amounts of resources: CPU in thousandths, the others as they are.
pub(crate) type Amounts = BTreeMap<String, i64>;

/// Why a pod is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl Rejection {
    fn new(reason: &str, message: &str) -> Self {
        Self { reason: reason.to_owned(), message: message.to_owned() }
    }
}

/// What a pod asks for of the resources that a node has by itself, and its place among the pods.
pub(crate) fn wants(pod: &Pod) -> Amounts {
    // A spec that cannot be written as JSON was never read from it.
    let spec = pod.spec.as_ref().and_then(|spec| serde_json::to_value(spec).ok()).unwrap_or_default();
    let requests = pod_requests(&json!({ "spec": spec }));
    // Of extended resources nothing is known here; as upstream, what no device plugin offers is not counted.
    let native = requests.into_iter().filter(|(name, _)| !name.contains('/'));
    let mut wants: Amounts = native.map(|(name, amount)| (name.clone(), plain(&name, amount))).collect();
    wants.insert("pods".to_owned(), 1);
    wants
}

fn plain(name: &str, amount: Quantity) -> i64 {
    if name == "cpu" { amount.milli_value() } else { amount.value() }
}

/// Whether the pod is taken beside others that use so much.
pub(crate) fn admit(pod: &Pod, wants: &Amounts, used: &Amounts, allocatable: &Amounts) -> Result<(), Rejection> {
    let spec = pod.spec.as_ref();
    let label = spec.and_then(|spec| spec.node_selector.as_ref()?.get(OS_LABEL));
    if label.is_some_and(|label| label != "linux") {
        let message = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        return Err(Rejection::new("PodOSSelectorNodeLabelDoesNotMatch", message));
    }
    if spec.and_then(|spec| spec.os.as_ref()).is_some_and(|os| os.name != "linux") {
        let message = "Failed to admit pod as the OS field doesn't match node OS";
        return Err(Rejection::new("PodOSNotSupported", message));
    }
    if is_critical(pod) {
        return Ok(());
    }
    let first = ["pods", "cpu", "memory", "ephemeral-storage"];
    let others = wants.keys().map(String::as_str).filter(|name| !first.contains(name));
    for name in first.into_iter().chain(others) {
        let of = |amounts: &Amounts| amounts.get(name).copied().unwrap_or(0);
        let (requested, used, capacity) = (of(wants), of(used), of(allocatable));
        if requested > 0 && requested > capacity.saturating_sub(used) {
            let message = format!(
                "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
            );
            return Err(Rejection { reason: format!("OutOf{name}"), message });
        }
    }
    Ok(())
}

/// Whether the node cannot do without the pod (`types.IsCriticalPod`).
pub(crate) fn is_critical(pod: &Pod) -> bool {
    let is_static = pod.metadata.annotations.as_ref().is_some_and(|own| own.contains_key(SOURCE));
    is_static || pod.spec.as_ref().and_then(|spec| spec.priority).is_some_and(|priority| priority >= CRITICAL)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": "p" }, "spec": spec })).expect("a pod")
    }

    fn asking(requests: Value) -> Value {
        json!({ "containers": [{ "name": "c", "resources": { "requests": requests } }] })
    }

    fn check(spec: Value, used: &[(&str, i64)]) -> Result<(), Rejection> {
        let amounts = |list: &[(&str, i64)]| list.iter().map(|(name, amount)| ((*name).to_owned(), *amount)).collect();
        let allocatable = amounts(&[("cpu", 2000), ("memory", 1 << 30), ("pods", 2)]);
        let pod = pod(spec);
        admit(&pod, &wants(&pod), &amounts(used), &allocatable)
    }

    #[test]
    fn a_pod_that_does_not_fit_is_told_what_is_missing() {
        assert_eq!(check(asking(json!({ "cpu": "2", "memory": "1Gi" })), &[("pods", 1)]), Ok(()));
        let rejected = check(asking(json!({ "cpu": "1500m" })), &[("cpu", 600), ("pods", 1)]).expect_err("too much");
        let message = "Node didn't have enough resource: cpu, requested: 1500, used: 600, capacity: 2000";
        assert_eq!((rejected.reason.as_str(), rejected.message.as_str()), ("OutOfcpu", message));
        let rejected = check(asking(json!({ "memory": "2Gi" })), &[]).expect_err("too much");
        assert_eq!(rejected.reason, "OutOfmemory");
        let rejected = check(asking(json!({})), &[("pods", 2)]).expect_err("one too many");
        let message = "Node didn't have enough resource: pods, requested: 1, used: 2, capacity: 2";
        assert_eq!((rejected.reason.as_str(), rejected.message.as_str()), ("OutOfpods", message));
        assert_eq!(
            check(asking(json!({ "hugepages-2Mi": "2Mi" })), &[]).expect_err("none").reason,
            "OutOfhugepages-2Mi"
        );
    }

    #[test]
    fn a_full_node_takes_what_asks_for_nothing_and_what_it_cannot_do_without() {
        assert_eq!(check(asking(json!({})), &[("cpu", 9000)]), Ok(()));
        let mut vital = asking(json!({ "cpu": "4" }));
        vital["priority"] = json!(CRITICAL);
        assert_eq!(check(vital, &[]), Ok(()));
        assert_eq!(check(asking(json!({ "example.org/gpu": "4" })), &[]), Ok(()));
    }

    #[test]
    fn the_figures_of_the_pod_count_before_those_of_its_containers() {
        let mut whole = asking(json!({ "cpu": "1" }));
        whole["resources"] = json!({ "requests": { "cpu": "3" } });
        assert_eq!(check(whole, &[]).expect_err("too much").reason, "OutOfcpu");
    }

    #[test]
    fn a_pod_for_another_system_is_not_taken() {
        let mut windows = asking(json!({}));
        windows["os"] = json!({ "name": "windows" });
        assert_eq!(check(windows, &[]).expect_err("another system").reason, "PodOSNotSupported");
        let mut windows = asking(json!({}));
        windows["nodeSelector"] = json!({ "kubernetes.io/os": "windows" });
        assert_eq!(check(windows, &[]).expect_err("another system").reason, "PodOSSelectorNodeLabelDoesNotMatch");
    }
}
