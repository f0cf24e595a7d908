//! Rendering the Node object and its lease: pure.
//!
//! After `pkg/kubelet/nodestatus/setters.go` upstream, words included.

use std::collections::BTreeMap;

use api::resources::pod::is_extended;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1 as k8s;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time};
use runtime::Image;

use super::facts::{Capacity, Facts, architecture};
use crate::config::KubeletConfig;
use crate::container::huge_pages::resource_of;
use crate::eviction::Pressure;

/// How long the lease holds, as upstream's `nodeLeaseDurationSeconds`.
const LEASE_SECONDS: i32 = 40;
/// The largest images are listed, as upstream's `nodeStatusMaxImages`.
const MAX_IMAGES: usize = 50;

/// The conditions that are ours.
const OWN: [&str; 4] = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"];

/// What the status is made of.
pub(super) struct Sources<'a> {
    pub(super) config: &'a KubeletConfig,
    pub(super) capacity: &'a Capacity,
    pub(super) facts: &'a Facts,
    pub(super) images: &'a [Image],
    pub(super) pressure: Pressure,
    pub(super) now: Timestamp,
}

/// The node as it is registered.
pub(super) fn node(sources: &Sources<'_>) -> k8s::Node {
    let config = sources.config;
    let spec = k8s::NodeSpec {
        pod_cidr: config.pod_cidrs.first().cloned(),
        pod_cidrs: Some(config.pod_cidrs.clone()).filter(|ranges| !ranges.is_empty()),
        taints: Some(config.taints.clone()).filter(|taints| !taints.is_empty()),
        ..k8s::NodeSpec::default()
    };
    k8s::Node {
        metadata: ObjectMeta {
            name: Some(config.node_name.clone()),
            labels: Some(labels(config, sources.facts)),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: Some(status(sources, None)),
    }
}

/// What is known of the node before it is registered: name, labels and taints.
pub(crate) fn unregistered(config: &KubeletConfig) -> k8s::Node {
    let facts = Facts { architecture: architecture(), ..Facts::default() };
    k8s::Node {
        metadata: ObjectMeta {
            name: Some(config.node_name.clone()),
            labels: Some(labels(config, &facts)),
            ..ObjectMeta::default()
        },
        spec: Some(k8s::NodeSpec { taints: Some(config.taints.clone()), ..k8s::NodeSpec::default() }),
        status: None,
    }
}

/// The labels that the node must have.
pub(super) fn labels(config: &KubeletConfig, facts: &Facts) -> BTreeMap<String, String> {
    let well_known = [
        ("kubernetes.io/hostname", config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", facts.architecture),
        // Older manifests select nodes by what these were called before; kubelets set them still.
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", facts.architecture),
    ];
    let well_known = well_known.map(|(name, value)| (name.to_owned(), value.to_owned()));
    config.labels.clone().into_iter().chain(well_known).collect()
}

/// The status, with the transition times of `old`.
pub(super) fn status(sources: &Sources<'_>, old: Option<&k8s::NodeStatus>) -> k8s::NodeStatus {
    let Sources { config, facts, .. } = sources;
    let internal = config.node_ips.iter().map(|ip| ("InternalIP", ip.to_string()));
    let addresses = internal.chain([("Hostname", config.node_name.clone())]);
    let addresses = addresses.map(|(type_, address)| k8s::NodeAddress { type_: type_.to_owned(), address });
    k8s::NodeStatus {
        addresses: Some(addresses.collect()),
        capacity: Some(amounts(sources.capacity)),
        allocatable: Some(amounts(&sources.capacity.allocatable(config))),
        conditions: Some(conditions(sources, old)),
        daemon_endpoints: Some(k8s::NodeDaemonEndpoints {
            kubelet_endpoint: Some(k8s::DaemonEndpoint { port: i32::from(config.kubelet_port) }),
        }),
        images: Some(images(sources.images)),
        node_info: Some(k8s::NodeSystemInfo {
            architecture: facts.architecture.to_owned(),
            boot_id: facts.boot_id.clone(),
            container_runtime_version: format!("coracle://{}", config.coracle_version),
            kernel_version: facts.kernel.clone(),
            kube_proxy_version: String::new(),
            kubelet_version: config.kubelet_version.clone(),
            machine_id: facts.machine_id.clone(),
            operating_system: "linux".to_owned(),
            os_image: facts.os_image.clone(),
            swap: None,
            system_uuid: facts.system_uuid.clone(),
        }),
        features: Some(k8s::NodeFeatures { supplemental_groups_policy: Some(true) }),
        ..k8s::NodeStatus::default()
    }
}

fn amounts(capacity: &Capacity) -> BTreeMap<String, Quantity> {
    let amounts = [
        ("cpu", api::quantity::Quantity::from_milli(capacity.milli_cpu).to_string()),
        ("memory", format!("{}Ki", capacity.memory_bytes / 1024)),
        ("ephemeral-storage", format!("{}Ki", capacity.storage_bytes / 1024)),
        ("pods", capacity.pods.to_string()),
    ];
    let amounts = amounts.into_iter().map(|(name, amount)| (name.to_owned(), Quantity(amount)));
    let text = |bytes: i64| api::quantity::Quantity::from_bytes(bytes).to_string();
    amounts
        .chain(capacity.huge_pages.iter().map(|(size, bytes)| (resource_of(*size), Quantity(text(*bytes)))))
        .collect()
}

fn images(images: &[Image]) -> Vec<k8s::ContainerImage> {
    let mut sorted: Vec<&Image> = images.iter().collect();
    sorted.sort_by_key(|image| std::cmp::Reverse(image.size));
    let listed = sorted.into_iter().take(MAX_IMAGES).map(|image| k8s::ContainerImage {
        names: Some(image.digests.iter().chain(&image.tags).cloned().collect()),
        size_bytes: i64::try_from(image.size).ok(),
    });
    listed.collect()
}

fn conditions(sources: &Sources<'_>, old: Option<&k8s::NodeStatus>) -> Vec<k8s::NodeCondition> {
    let Pressure { memory, disk, pids } = sources.pressure;
    let rows = [
        ("MemoryPressure", memory, memory_words(memory)),
        ("DiskPressure", disk, disk_words(disk)),
        ("PIDPressure", pids, pid_words(pids)),
        ("Ready", true, ("KubeletReady", "kubelet is posting ready status")),
    ];
    let rows = rows.into_iter().map(|(type_, holds, (reason, message))| {
        let status = if holds { "True" } else { "False" };
        let known = old.iter().flat_map(|old| old.conditions.iter().flatten());
        let known = known.into_iter().find(|known| known.type_ == type_ && known.status == status);
        let now = Time(crate::pod::whole_seconds(sources.now));
        k8s::NodeCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_heartbeat_time: Some(now.clone()),
            last_transition_time: known.and_then(|known| known.last_transition_time.clone()).or(Some(now)),
        }
    });
    let foreign = old.iter().flat_map(|old| old.conditions.iter().flatten());
    let foreign = foreign.filter(|condition| !OWN.contains(&condition.type_.as_str())).cloned();
    foreign.chain(rows).collect()
}

/// Reason and message of `MemoryPressure`; the reason is also that of the event when it changes.
pub(super) fn memory_words(pressure: bool) -> (&'static str, &'static str) {
    if pressure {
        ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available")
    } else {
        ("KubeletHasSufficientMemory", "kubelet has sufficient memory available")
    }
}

/// Reason and message of `DiskPressure`.
pub(super) fn disk_words(pressure: bool) -> (&'static str, &'static str) {
    if pressure {
        ("KubeletHasDiskPressure", "kubelet has disk pressure")
    } else {
        ("KubeletHasNoDiskPressure", "kubelet has no disk pressure")
    }
}

/// Reason and message of `PIDPressure`.
pub(super) fn pid_words(pressure: bool) -> (&'static str, &'static str) {
    if pressure {
        ("KubeletHasInsufficientPID", "kubelet has insufficient PID available")
    } else {
        ("KubeletHasSufficientPID", "kubelet has sufficient PID available")
    }
}

/// The lease that says that the node is alive.
pub(super) fn lease(node: &k8s::Node, now: Timestamp) -> Lease {
    let name = node.metadata.name.clone().unwrap_or_default();
    let owner = node.metadata.uid.clone().map(|uid| OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: name.clone(),
        uid,
        ..OwnerReference::default()
    });
    Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some("kube-node-lease".to_owned()),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(micro(now)),
            ..LeaseSpec::default()
        }),
    }
}

/// Lease times have microseconds.
pub(super) fn micro(time: Timestamp) -> MicroTime {
    let rounded =
        time.round(jiff::TimestampRound::new().smallest(jiff::Unit::Microsecond).mode(jiff::RoundMode::Trunc));
    MicroTime(rounded.unwrap_or(time))
}

/// Whether a condition is for the kubelet to say.
pub(super) fn is_own(condition: &str) -> bool {
    OWN.contains(&condition)
}

/// Whether a status shows one of our conditions in another way than we did.
pub(super) fn contradicts(said: &k8s::NodeStatus, shown: &k8s::NodeStatus) -> bool {
    let find = |status: &k8s::NodeStatus, name: &str| {
        let found = status.conditions.iter().flatten().find(|condition| condition.type_ == name);
        found.map(|condition| condition.status.clone())
    };
    OWN.iter().any(|name| find(said, name) != find(shown, name))
}

/// What others have given a node beyond what its kubelet finds.
pub(super) fn given(amounts: Option<&BTreeMap<String, Quantity>>) -> BTreeMap<String, Quantity> {
    amounts
        .into_iter()
        .flatten()
        .filter(|(name, _)| is_extended(name))
        .map(|(name, one)| (name.clone(), one.clone()))
        .collect()
}

/// Whether two statuses differ in more than the heartbeat.
pub(super) fn differs(old: &k8s::NodeStatus, new: &k8s::NodeStatus) -> bool {
    let still = |status: &k8s::NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        status
    };
    still(old) != still(new)
}

/// How often an unchanged status is written, as upstream's `nodeStatusReportFrequency`.
pub(super) const REPORT_PERIOD: SignedDuration = SignedDuration::from_secs(300);
