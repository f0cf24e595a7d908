//! Variables by which containers find Services without asking anybody: pure.
//!
//! After `pkg/kubelet/envvars` and `getServiceEnvVarMap` upstream: those of the Service `kubernetes` always, those of the
//! pod's own namespace unless it says `enableServiceLinks: false`. Which there are is settled when a container starts.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, Service};

/// The Service of the API server, in the namespace `default`.
const API: &str = "kubernetes";

/// The variables for the containers of a pod.
pub fn links<'a>(pod: &Pod, services: impl IntoIterator<Item = &'a Service>) -> Vec<(String, String)> {
    let wanted = pod.spec.as_ref().and_then(|spec| spec.enable_service_links).unwrap_or(true);
    let own = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut chosen: BTreeMap<&str, &Service> = BTreeMap::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        if namespace == own && wanted {
            chosen.insert(name, service);
        } else if namespace == "default" && name == API {
            chosen.entry(name).or_insert(service);
        }
    }
    chosen.into_iter().flat_map(|(name, service)| of_service(name, service)).collect()
}

fn of_service(name: &str, service: &Service) -> Vec<(String, String)> {
    let spec = service.spec.as_ref();
    let Some(address) = spec.and_then(|spec| spec.cluster_ip.as_deref()?.parse::<IpAddr>().ok()) else {
        return Vec::new();
    };
    let ports = spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let Some(first) = ports.first() else { return Vec::new() };
    let name = variable(name);
    let mut found = vec![
        (format!("{name}_SERVICE_HOST"), address.to_string()),
        (format!("{name}_SERVICE_PORT"), first.port.to_string()),
    ];
    for port in ports {
        if let Some(label) = port.name.as_deref().filter(|label| !label.is_empty()) {
            found.push((format!("{name}_SERVICE_PORT_{}", variable(label)), port.port.to_string()));
        }
    }
    for (position, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().filter(|protocol| !protocol.is_empty()).unwrap_or("TCP");
        let (lower, number) = (protocol.to_lowercase(), port.port);
        let url = match address {
            IpAddr::V4(four) => format!("{lower}://{four}:{number}"),
            IpAddr::V6(six) => format!("{lower}://[{six}]:{number}"),
        };
        if position == 0 {
            found.push((format!("{name}_PORT"), url.clone()));
        }
        let prefix = format!("{name}_PORT_{number}_{}", protocol.to_uppercase());
        found.push((prefix.clone(), url));
        found.push((format!("{prefix}_PROTO"), lower));
        found.push((format!("{prefix}_PORT"), number.to_string()));
        found.push((format!("{prefix}_ADDR"), address.to_string()));
    }
    found
}

/// A name as part of a variable's.
fn variable(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(namespace: &str, name: &str, address: &str, ports: Value) -> Service {
        let service = json!({
            "metadata": {"namespace": namespace, "name": name}, "spec": {"clusterIP": address, "ports": ports},
        });
        serde_json::from_value(service).expect("a Service")
    }

    fn names(pod: Value, services: &[Service]) -> Vec<String> {
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        links(&pod, services).into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    #[test]
    fn a_service_is_named_in_both_forms() {
        let ports = json!([{"name": "https", "port": 443, "protocol": "TCP"}, {"name": "dns-x", "port": 53, "protocol": "UDP"}]);
        let found = names(json!({"metadata": {"namespace": "x"}}), &[service("x", "my-web", "10.43.0.9", ports)]);
        assert_eq!(
            found,
            [
                "MY_WEB_SERVICE_HOST=10.43.0.9",
                "MY_WEB_SERVICE_PORT=443",
                "MY_WEB_SERVICE_PORT_HTTPS=443",
                "MY_WEB_SERVICE_PORT_DNS_X=53",
                "MY_WEB_PORT=tcp://10.43.0.9:443",
                "MY_WEB_PORT_443_TCP=tcp://10.43.0.9:443",
                "MY_WEB_PORT_443_TCP_PROTO=tcp",
                "MY_WEB_PORT_443_TCP_PORT=443",
                "MY_WEB_PORT_443_TCP_ADDR=10.43.0.9",
                "MY_WEB_PORT_53_UDP=udp://10.43.0.9:53",
                "MY_WEB_PORT_53_UDP_PROTO=udp",
                "MY_WEB_PORT_53_UDP_PORT=53",
                "MY_WEB_PORT_53_UDP_ADDR=10.43.0.9",
            ]
        );
    }

    #[test]
    fn the_api_server_is_named_always_and_others_only_in_their_namespace_and_if_wanted() {
        let port = json!([{"port": 1}]);
        let all = [
            service("default", "kubernetes", "10.43.0.1", port.clone()),
            service("default", "other", "10.43.0.2", port.clone()),
            service("x", "own", "10.43.0.3", port.clone()),
            service("x", "headless", "None", port),
        ];
        let hosts = |pod: Value| -> Vec<String> {
            names(pod, &all).into_iter().filter(|line| line.contains("_SERVICE_HOST")).collect()
        };
        let both = ["KUBERNETES_SERVICE_HOST=10.43.0.1", "OWN_SERVICE_HOST=10.43.0.3"];
        assert_eq!(hosts(json!({"metadata": {"namespace": "x"}})), both);
        let pod = json!({"metadata": {"namespace": "x"}, "spec": {"containers": [], "enableServiceLinks": false}});
        assert_eq!(hosts(pod), both[..1]);
    }
}
