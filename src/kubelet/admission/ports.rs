//! Whether the ports of the host that a pod asks for are free: pure.
//!
//! After `NodePorts` of the scheduler, which upstream's kubelet asks as well (`pkg/kubelet/lifecycle/predicate.go`), words
//! included: two pods would otherwise take the port from each other. Init containers count only if they keep running.

use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod};

use super::Rejection;

/// All addresses of the host.
const ANY: &str = "0.0.0.0";

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
    address: &'a str,
    protocol: &'a str,
    number: i32,
}

impl<'a> Port<'a> {
    fn of(port: &'a ContainerPort) -> Option<Self> {
        let address = port.host_ip.as_deref().filter(|address| !address.is_empty()).unwrap_or(ANY);
        let number = port.host_port.filter(|number| *number > 0)?;
        Some(Self { address, protocol: port.protocol.as_deref().unwrap_or("TCP"), number })
    }

    fn meets(&self, other: &Port<'_>) -> bool {
        let shared = self.address == other.address || self.address == ANY || other.address == ANY;
        shared && self.protocol == other.protocol && self.number == other.number
    }
}

fn ports(pod: &Pod) -> impl Iterator<Item = Port<'_>> {
    let keeps_running = |init: &&Container| init.restart_policy.as_deref() == Some("Always");
    let spec = pod.spec.iter();
    let all =
        spec.flat_map(move |spec| spec.init_containers.iter().flatten().filter(keeps_running).chain(&spec.containers));
    all.flat_map(|container| container.ports.iter().flatten()).filter_map(Port::of)
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
