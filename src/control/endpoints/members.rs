//! What a pod offers to a Service: addresses, ports, whether it is ready.
//!
//! After `staging/src/k8s.io/endpointslice/util` and `utils.go` beside it, and `FindPort` of `pkg/api/v1/pod`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::workload::{has_ended, is_deleting, ready_since};

/// Labels, as pods and Services have them.
pub(super) type Labels = BTreeMap<String, String>;

/// What a Service selects by, if the controller is to find its endpoints.
pub(super) fn selector(service: &Service) -> Option<&Labels> {
    let spec = service.spec.as_ref()?;
    let selector = spec.selector.as_ref().filter(|selector| !selector.is_empty());
    selector.filter(|_| spec.type_.as_deref() != Some("ExternalName"))
}

/// Whether labels are what a Service selects by.
pub(super) fn is_selected(selector: &Labels, labels: Option<&Labels>) -> bool {
    selector.iter().all(|(name, value)| labels.and_then(|labels| labels.get(name)) == Some(value))
}

/// Whether a Service has no address of its own.
pub(super) fn is_headless(service: &Service) -> bool {
    let address = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref());
    matches!(address, None | Some("" | "None"))
}

pub(super) fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true)
}

/// The kinds of addresses of a Service, its own first.
pub(super) fn families(service: &Service) -> Vec<String> {
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.clone());
    families.filter(|families| !families.is_empty()).unwrap_or_else(|| vec!["IPv4".to_owned()])
}

/// Whether a pod is among the endpoints: it has an address and has not ended.
pub(super) fn takes_part(pod: &Pod) -> bool {
    !has_ended(pod) && addresses(pod).next().is_some()
}

pub(super) fn is_terminating(pod: &Pod) -> bool {
    is_deleting(&pod.metadata)
}

pub(super) fn is_ready(pod: &Pod) -> bool {
    ready_since(pod).is_some()
}

/// The pod's address of a family.
pub(super) fn address(pod: &Pod, family: &str) -> Option<String> {
    addresses(pod).find(|address| is_of(address, family)).map(str::to_owned)
}

/// Whether an address is of a family; what is no address is of none.
pub(super) fn is_of(address: &str, family: &str) -> bool {
    match address.parse() {
        Ok(IpAddr::V4(_)) => family == "IPv4",
        Ok(IpAddr::V6(_)) => family == "IPv6",
        Err(_) => false,
    }
}

fn addresses(pod: &Pod) -> impl Iterator<Item = &str> {
    let status = pod.status.iter();
    let all = status.clone().flat_map(|status| status.pod_ips.iter().flatten()).map(|own| own.ip.as_str());
    all.chain(status.filter_map(|status| status.pod_ip.as_deref())).filter(|address| !address.is_empty())
}

/// The name by which DNS knows a pod of this Service.
pub(super) fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let is_member = spec.subdomain.is_some() && spec.subdomain == service.metadata.name;
    spec.hostname.clone().filter(|name| is_member && !name.is_empty())
}

pub(super) fn node_name(pod: &Pod) -> Option<String> {
    pod.spec.as_ref()?.node_name.clone().filter(|name| !name.is_empty())
}

pub(super) fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The ports of a Service with their numbers in a pod; what the pod does not have is left out.
pub(super) fn ports<'s>(service: &'s Service, pod: &Pod) -> Vec<(&'s ServicePort, i32)> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports.filter_map(|port| number(port, pod).map(|number| (port, number))).collect()
}

fn number(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let lasting = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
            let helpers = spec.init_containers.iter().flatten().filter(lasting);
            let all = spec.containers.iter().chain(helpers).flat_map(|container| container.ports.iter().flatten());
            let protocol = protocol(port.protocol.as_deref());
            let is_it = |own: &&k8s_openapi::api::core::v1::ContainerPort| {
                own.name.as_ref() == Some(name) && self::protocol(own.protocol.as_deref()) == protocol
            };
            all.into_iter().find(is_it).map(|own| own.container_port)
        }
    }
}

/// A protocol, or what stands for none.
pub(super) fn protocol(named: Option<&str>) -> &str {
    named.unwrap_or("TCP")
}
