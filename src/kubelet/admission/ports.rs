//! Whether the ports of the host that a pod asks for are free: pure.
//!
//! After `NodePorts` of the scheduler, which upstream's kubelet asks as well (`pkg/kubelet/lifecycle/predicate.go`), words
//! included: two pods would otherwise take the port from each other. Init containers count only if they keep running.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ContainerPort, Pod};

use super::Rejection;
use crate::container::{host_ip, published};

/// Whether a pod is taken beside others.
pub(crate) fn admit<'a>(pod: &Pod, mut others: impl Iterator<Item = &'a Pod>) -> Result<(), Rejection> {
    let wanted: Vec<Port<'_>> = ports(pod).collect();
    let taken = |other: &Pod| ports(other).any(|port| wanted.iter().any(|wanted| wanted.meets(&port)));
    if wanted.is_empty() || !others.any(taken) {
        return Ok(());
    }
    let message = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
    Err(Rejection::new("NodePorts", message))
}

/// A port of the host.
struct Port<'a> {
    /// None for all addresses of the host.
    address: Option<IpAddr>,
    protocol: &'a str,
    number: i32,
}

impl<'a> Port<'a> {
    fn of(port: &'a ContainerPort) -> Option<Self> {
        let number = port.host_port.filter(|number| *number > 0)?;
        Some(Self { address: host_ip(port), protocol: port.protocol.as_deref().unwrap_or("TCP"), number })
    }

    fn meets(&self, other: &Port<'_>) -> bool {
        let shared = self.address == other.address || self.address.is_none() || other.address.is_none();
        shared && self.protocol == other.protocol && self.number == other.number
    }
}

/// Also of a pod with the host's network, whose containers listen on them themselves.
fn ports(pod: &Pod) -> impl Iterator<Item = Port<'_>> {
    pod.spec.iter().flat_map(published).filter_map(Port::of)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(containers: &str, port: Value) -> Pod {
        let own = json!({"name": "c", "restartPolicy": "Always", "ports": [port]});
        let mut spec = json!({"containers": [{"name": "other"}]});
        spec[containers] = json!([own]);
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).expect("a pod")
    }

    #[test]
    fn a_port_of_the_host_belongs_to_one_pod() {
        let web = |address: &str, protocol: &str| json!({"containerPort": 80, "hostPort": 8080, "hostIP": address, "protocol": protocol});
        let admit =
            |one: Value, other: Value| admit(&pod("containers", one), std::iter::once(&pod("containers", other)));
        let rejected = admit(web("", "TCP"), web("192.0.2.1", "TCP")).expect_err("taken");
        let message = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        assert_eq!((rejected.reason.as_str(), rejected.message.as_str()), ("NodePorts", message));
        assert!(admit(web("192.0.2.1", "TCP"), web("192.0.2.1", "TCP")).is_err());
        assert!(admit(web("::", "TCP"), web("192.0.2.1", "TCP")).is_err());
        assert_eq!(admit(web("192.0.2.2", "TCP"), web("192.0.2.1", "TCP")), Ok(()));
        assert_eq!(admit(web("", "UDP"), web("", "TCP")), Ok(()));
        let inner = json!({"containerPort": 80});
        assert_eq!(admit(inner.clone(), inner), Ok(()));
    }

    #[test]
    fn an_init_container_that_keeps_running_keeps_its_ports() {
        let port = json!({"containerPort": 80, "hostPort": 8080});
        let (app, sidecar) = (pod("containers", port.clone()), pod("initContainers", port));
        assert!(admit(&app, std::iter::once(&sidecar)).is_err());
        let mut once = sidecar;
        for init in once.spec.iter_mut().flat_map(|spec| spec.init_containers.iter_mut().flatten()) {
            init.restart_policy = None;
        }
        assert_eq!(admit(&app, std::iter::once(&once)), Ok(()));
    }
}
