//! What a pod needs of its node.

use std::collections::BTreeMap;

use client::Key;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::amounts::Amounts;
use super::terms::{Company, Labels};

/// What a container without a CPU request counts as when nodes are compared, in thousandths; upstream's
/// `DefaultMilliCPURequest`.
const USUAL_CPU: i64 = 100;
/// The same for memory, in bytes; upstream's `DefaultMemoryRequest`.
const USUAL_MEMORY: i64 = 200 * 1024 * 1024;

/// A port of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// `TCP`, `UDP` or `SCTP`.
    protocol: String,
    /// Address; empty for all.
    address: String,
    port: i32,
}

impl HostPort {
    /// Whether two pods cannot have these ports on the same node.
    pub fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address.is_empty() || other.address.is_empty() || self.address == other.address)
    }
}

/// What a pod needs of its node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Needs {
    /// Requested resources.
    pub requests: Amounts,
    /// Requests with usual amounts for containers that name none, for comparing nodes only.
    pub usual: Amounts,
    /// Ports of the node.
    pub ports: Vec<HostPort>,
    /// Claims that it uses.
    pub claims: Vec<Key>,
    /// Which pods it may displace.
    pub priority: i32,
    /// Its namespace.
    pub namespace: String,
    /// Its labels, which selectors of others look at.
    pub labels: Labels,
    /// Whether it is on its way out.
    pub is_ending: bool,
    /// What it says about other pods.
    pub company: Company,
}

impl Needs {
    /// The needs of a pod.
    pub fn of(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Self::default() };
        Self {
            requests: requests(spec, |container| held(pod, container, container_requests(container))),
            usual: requests(spec, |container| held(pod, container, usual_requests(container))),
            ports: spec.containers.iter().chain(sidecars(spec)).flat_map(ports).collect(),
            claims: claims(pod),
            priority: spec.priority.unwrap_or(0),
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            is_ending: pod.metadata.deletion_timestamp.is_some(),
            company: Company::of(pod),
        }
    }

    /// Whether it uses one of the claims.
    pub(super) fn uses_any(&self, claims: &[Key]) -> bool {
        self.claims.iter().any(|claim| claims.contains(claim))
    }

    /// Whether a pod that has a node needs the same in both of its states.
    pub(super) fn are_same_on_node(before: &Pod, after: &Pod) -> bool {
        is_same_spec(before.spec.as_ref(), after.spec.as_ref())
            && resized(before).eq(resized(after))
            && before.metadata.labels == after.metadata.labels
            && before.metadata.deletion_timestamp.is_some() == after.metadata.deletion_timestamp.is_some()
    }
}

/// What containers have by now, which differs from the spec while a pod is resized.
fn resized(pod: &Pod) -> impl Iterator<Item = (&String, Amounts)> {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses.map(|status| {
        let actual = status.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let mut amounts = Amounts::read(actual);
        amounts.raise_to(&Amounts::read(status.allocated_resources.as_ref()));
        (&status.name, amounts)
    })
}

/// What a container takes: what it asks for, or what it has still, if that is more (KEP-1287).
fn held(pod: &Pod, container: &Container, mut asked: Amounts) -> Amounts {
    if let Some((_, actual)) = resized(pod).find(|(name, _)| **name == container.name) {
        asked.raise_to(&actual);
    }
    asked
}

/// A pod that was only just given its node may not name it yet.
fn is_same_spec(before: Option<&PodSpec>, after: Option<&PodSpec>) -> bool {
    match (before, after) {
        (Some(before), Some(after)) if before.node_name != after.node_name => {
            PodSpec { node_name: after.node_name.clone(), ..before.clone() } == *after
        }
        (before, after) => before == after,
    }
}

fn claims(pod: &Pod) -> Vec<Key> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    crate::volumes::claims_of(pod).iter().map(|(name, _)| Key::namespaced(namespace, name)).collect()
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn sidecars(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().filter(|container| is_sidecar(container))
}

/// The most that the pod uses at any time: init containers run one after the other beside the sidecars that started
/// before them (`k8s.io/component-helpers/resource`, `PodRequests`).
fn requests(spec: &PodSpec, of: impl Fn(&Container) -> Amounts) -> Amounts {
    let mut total = Amounts::default();
    spec.containers.iter().for_each(|container| total.add(&of(container)));
    let mut running = Amounts::default();
    let mut starting = Amounts::default();
    for container in spec.init_containers.iter().flatten() {
        let mut peak = running.clone();
        peak.add(&of(container));
        if is_sidecar(container) {
            total.add(&of(container));
            running.clone_from(&peak);
        }
        starting.raise_to(&peak);
    }
    total.raise_to(&starting);
    let whole = Amounts::read(spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()));
    for (resource, amount) in whole.iter() {
        total.set(resource, amount);
    }
    total.add(&Amounts::read(spec.overhead.as_ref()));
    total
}

/// A container's requests; limits stand in for requests that are absent, which the API server has usually done.
fn container_requests(container: &Container) -> Amounts {
    let Some(resources) = &container.resources else { return Amounts::default() };
    let mut merged: BTreeMap<String, Quantity> = resources.limits.clone().unwrap_or_default();
    merged.extend(resources.requests.clone().unwrap_or_default());
    Amounts::read(Some(&merged))
}

fn usual_requests(container: &Container) -> Amounts {
    let mut amounts = container_requests(container);
    let named = |resource: &str| {
        let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        requests.is_some_and(|requests| requests.contains_key(resource))
    };
    if amounts.get("cpu") == 0 && !named("cpu") {
        amounts.set("cpu", USUAL_CPU);
    }
    if amounts.get("memory") == 0 && !named("memory") {
        amounts.set("memory", USUAL_MEMORY);
    }
    amounts
}

fn ports(container: &Container) -> impl Iterator<Item = HostPort> {
    container.ports.iter().flatten().filter_map(|port| {
        let host_port = port.host_port.filter(|port| *port > 0)?;
        let address = port.host_ip.clone().unwrap_or_default();
        Some(HostPort {
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            address: if address == "0.0.0.0" || address == "::" { String::new() } else { address },
            port: host_port,
        })
    })
}
