//! Whether this node takes a pod that is bound to it, and why not: pure.
//!
//! After `pkg/kubelet/lifecycle/predicate.go` upstream, words included. Asked once, when a pod is new to this agent; one
//! that has run here before stays. The scheduler has asked the same, but whoever writes `spec.nodeName` has not. For pods
//! that the node cannot do without room is made by ending others: [`preemption`] says which.

pub(crate) mod isolation;
mod ports;
pub(crate) mod preemption;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::placement;
use api::quantity::Quantity;
use api::resources::pod::requests::pod_requests;
use k8s_openapi::api::core::v1::{Node, Pod};
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
    pub(crate) fn new(reason: &str, message: &str) -> Self {
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

/// What a pod finds where it comes to.
pub(crate) struct Place<'a> {
    pub(crate) node: &'a Node,
    /// The pods that are there.
    pub(crate) others: &'a [Arc<Pod>],
    /// What they hold.
    pub(crate) used: &'a Amounts,
    pub(crate) allocatable: &'a Amounts,
}

/// Of what there is too little.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shortage {
    pub(crate) resource: String,
    requested: i64,
    used: i64,
    capacity: i64,
}

impl Shortage {
    /// How much has to be given back.
    pub(crate) fn missing(&self) -> i64 {
        self.requested.saturating_sub(self.capacity.saturating_sub(self.used))
    }

    fn rejection(&self) -> Rejection {
        let Self { resource, requested, used, capacity } = self;
        let message = format!(
            "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
        );
        Rejection { reason: format!("OutOf{resource}"), message }
    }
}

/// Why a pod is not taken as things are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// For good.
    Rejected(Rejection),
    /// Unless room is made for it, which the node cannot do without.
    Short(Vec<Shortage>),
}

/// Whether the pod is taken where it comes to.
pub(crate) fn admit(pod: &Pod, wants: &Amounts, place: &Place<'_>) -> Result<(), Refusal> {
    of_system(pod).map_err(Refusal::Rejected)?;
    let short = shortages(wants, place);
    if let Some(first) = short.first().filter(|_| !is_critical(pod)) {
        return Err(Refusal::Rejected(first.rejection()));
    }
    misplaced(pod, place).map_err(Refusal::Rejected)?;
    if short.is_empty() { Ok(()) } else { Err(Refusal::Short(short)) }
}

/// Whether the pod is for a node with such a system.
fn of_system(pod: &Pod) -> Result<(), Rejection> {
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
    Ok(())
}

fn shortages(wants: &Amounts, place: &Place<'_>) -> Vec<Shortage> {
    let first = ["pods", "cpu", "memory", "ephemeral-storage"];
    let others = wants.keys().map(String::as_str).filter(|name| !first.contains(name));
    let short = first.into_iter().chain(others).filter_map(|name| {
        let of = |amounts: &Amounts| amounts.get(name).copied().unwrap_or(0);
        let (requested, used, capacity) = (of(wants), of(place.used), of(place.allocatable));
        let is_short = requested > 0 && requested > capacity.saturating_sub(used);
        is_short.then(|| Shortage { resource: name.to_owned(), requested, used, capacity })
    });
    short.collect()
}

/// Whether the pod may be on this node, among these pods. Static pods bear with every taint.
fn misplaced(pod: &Pod, place: &Place<'_>) -> Result<(), Rejection> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    let failed =
        |predicate: &str, why: &str| Err(Rejection::new(predicate, &format!("Predicate {predicate} failed: {why}")));
    if !placement::admits(spec, place.node) {
        return failed("NodeAffinity", "node(s) didn't match Pod's node affinity/selector");
    }
    ports::admit(pod, place.others.iter().map(Arc::as_ref))?;
    let taints = place.node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    if !is_static(pod) && placement::untolerated(taints, tolerations, |effect| effect == "NoExecute").is_some() {
        return failed("TaintToleration", "node(s) had taints that the pod didn't tolerate");
    }
    Ok(())
}

fn is_static(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|own| own.contains_key(SOURCE))
}

/// Whether the node cannot do without the pod (`types.IsCriticalPod`).
pub(crate) fn is_critical(pod: &Pod) -> bool {
    is_static(pod) || pod.spec.as_ref().and_then(|spec| spec.priority).is_some_and(|priority| priority >= CRITICAL)
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
        let node = json!({ "metadata": { "name": "edge", "labels": { "disk": "ssd", OS_LABEL: "linux" } } });
        match check_on(node, spec, used) {
            Err(Refusal::Rejected(rejection)) => Err(rejection),
            Err(other) => panic!("{other:?}"),
            Ok(()) => Ok(()),
        }
    }

    fn check_on(node: Value, spec: Value, used: &[(&str, i64)]) -> Result<(), Refusal> {
        let amounts = |list: &[(&str, i64)]| list.iter().map(|(name, amount)| ((*name).to_owned(), *amount)).collect();
        let allocatable = amounts(&[("cpu", 2000), ("memory", 1 << 30), ("pods", 2)]);
        let pod = pod(spec);
        let node: Node = serde_json::from_value(node).expect("a node");
        admit(&pod, &wants(&pod), &Place { node: &node, others: &[], used: &amounts(used), allocatable: &allocatable })
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
    fn a_full_node_takes_what_asks_for_nothing_and_makes_room_for_what_it_cannot_do_without() {
        assert_eq!(check(asking(json!({})), &[("cpu", 9000)]), Ok(()));
        let mut vital = asking(json!({ "cpu": "4" }));
        vital["priority"] = json!(CRITICAL);
        let Err(Refusal::Short(short)) = check_on(json!({}), vital.clone(), &[("cpu", 500)]) else { panic!("no room") };
        assert_eq!(short.iter().map(|one| (one.resource.as_str(), one.missing())).collect::<Vec<_>>(), [("cpu", 2500)]);
        vital["nodeSelector"] = json!({ "disk": "none" });
        let refused = check(vital, &[]).expect_err("it is for another node");
        assert_eq!(refused.reason, "NodeAffinity", "no room is made for what cannot be here");
        assert_eq!(check(asking(json!({ "example.org/gpu": "4" })), &[]), Ok(()));
    }

    #[test]
    fn a_pod_that_is_for_other_nodes_or_does_not_bear_with_this_one_is_not_taken() {
        let mut spec = asking(json!({}));
        spec["nodeSelector"] = json!({ "disk": "ssd" });
        assert_eq!(check(spec.clone(), &[]), Ok(()));
        spec["nodeSelector"] = json!({ "disk": "tape" });
        let message = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        assert_eq!(check(spec, &[]), Err(Rejection::new("NodeAffinity", message)));
        let term = json!({ "matchExpressions": [{ "key": "disk", "operator": "DoesNotExist" }] });
        let required = json!({ "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [term] } });
        let mut spec = asking(json!({}));
        spec["affinity"] = json!({ "nodeAffinity": required });
        assert_eq!(check(spec, &[]).expect_err("it is for others").reason, "NodeAffinity");
        let tainted = |effect: &str| json!({ "spec": { "taints": [{ "key": "k", "value": "v", "effect": effect }] } });
        let message = "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate";
        let refused = check_on(tainted("NoExecute"), asking(json!({})), &[]);
        assert_eq!(refused, Err(Refusal::Rejected(Rejection::new("TaintToleration", message))));
        assert_eq!(check_on(tainted("NoSchedule"), asking(json!({})), &[]), Ok(()), "that is the scheduler's matter");
        let mut spec = asking(json!({}));
        spec["tolerations"] = json!([{ "key": "k", "operator": "Exists" }]);
        assert_eq!(check_on(tainted("NoExecute"), spec, &[]), Ok(()));
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
