//! Ports of the host that lead to a pod, after `kubecontainer.MakePortMappings` and `generatePodSandboxConfig` upstream.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ContainerPort, Pod, PodSpec};
use net::{PortMapping, Protocol};

/// The ports, in the order of the pod; none with the host's network, where the containers listen themselves.
pub fn host_ports(pod: &Pod) -> Vec<PortMapping> {
    let Some(spec) = pod.spec.as_ref().filter(|spec| spec.host_network != Some(true)) else { return Vec::new() };
    let mut mappings: Vec<PortMapping> = Vec::new();
    for mapping in published(spec).filter_map(mapping) {
        // Upstream, too, lets the first of two win.
        let key = |one: &PortMapping| (one.protocol, one.host_ip, one.host_port);
        if mappings.iter().all(|known| key(known) != key(&mapping)) {
            mappings.push(mapping);
        }
    }
    mappings
}

/// Ports of containers that run together; init containers are there before anybody looks.
pub(crate) fn published(spec: &PodSpec) -> impl Iterator<Item = &ContainerPort> {
    let init = spec.init_containers.iter().flatten();
    let sidecars = init.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    sidecars.chain(&spec.containers).flat_map(|container| container.ports.iter().flatten())
}

fn mapping(port: &ContainerPort) -> Option<PortMapping> {
    let protocol = match port.protocol.as_deref() {
        Some("UDP") => Protocol::Udp,
        Some("SCTP") => Protocol::Sctp,
        _ => Protocol::Tcp,
    };
    let container_port = u16::try_from(port.container_port).ok()?;
    Some(PortMapping { protocol, host_ip: host_ip(port), host_port: host_port(port)?, container_port })
}

fn host_port(port: &ContainerPort) -> Option<u16> {
    port.host_port.and_then(|number| u16::try_from(number).ok()).filter(|number| *number != 0)
}

/// Its address of the host; none if any will do.
pub(crate) fn host_ip(port: &ContainerPort) -> Option<IpAddr> {
    port.host_ip.as_deref()?.parse().ok().filter(|address: &IpAddr| !address.is_unspecified())
}
