//! What the name in a path of `proxy` means, and which addresses may be reached: pure.

use std::net::IpAddr;

use api::status::ApiError;
use serde_json::Value;

/// Where a kubelet listens if its node does not say.
pub(super) const KUBELET_PORT: u16 = 10250;

/// `name`, `name:port` or `scheme:name:port`, as in the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Named<'a> {
    /// Whether TLS is spoken there.
    pub(super) tls: bool,
    pub(super) name: &'a str,
    /// Number or name; empty if not said.
    pub(super) port: &'a str,
}

impl<'a> Named<'a> {
    /// Reads what stands in a path; `what` is the kind, for people (`SplitSchemeNamePort` upstream).
    pub(super) fn parse(what: &str, id: &'a str) -> Result<Self, ApiError> {
        let parts: Vec<&str> = id.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => ("", "", ""),
        };
        if name.is_empty() || !["", "http", "https"].contains(&scheme) {
            return Err(ApiError::bad_request(format!("invalid {what} request {id:?}")));
        }
        Ok(Self { tls: scheme == "https", name, port })
    }
}

/// The name of an object in a path of `proxy`, for those who look for it; none if the path is no good.
pub(super) fn port_number(port: &str) -> Result<u16, ApiError> {
    // Go would look the name up among the services of the host.
    port.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
        ApiError::unavailable(format!("error trying to reach service: dial tcp: lookup tcp/{port}: unknown port"))
    })
}

/// An address that a status may lead to: what means the host itself or its link could be written there by anybody who may
/// write the status, to reach what listens for the host only (CVE-2020-8562; `IsGlobalUnicast` of Go).
pub(super) fn allowed(address: IpAddr) -> Result<IpAddr, ApiError> {
    let address = address.to_canonical();
    let is_of_link = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    if is_of_link || address.is_loopback() || address.is_multicast() || address.is_unspecified() {
        return Err(ApiError::bad_request("address not allowed"));
    }
    Ok(address)
}

/// Address and port of a pod; the port is the first that a container names unless the client says which.
pub(super) fn of_pod(pod: &Value, port: &str) -> Result<(IpAddr, Option<u16>), ApiError> {
    let first = pod["status"]["podIPs"][0]["ip"].as_str().unwrap_or_default();
    let address = first.parse().map_err(|_| ApiError::bad_request("address not allowed")).and_then(allowed)?;
    if !port.is_empty() {
        return Ok((address, Some(port_number(port)?)));
    }
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let ports = containers.filter_map(|container| container["ports"][0]["containerPort"].as_u64());
    Ok((address, ports.filter_map(|port| u16::try_from(port).ok()).next()))
}

/// Where to find a node, most dependable kind of address first: the order that kubeadm gives its API servers.
const KINDS: [&str; 5] = ["InternalIP", "ExternalIP", "Hostname", "InternalDNS", "ExternalDNS"];

/// The port of a node's kubelet.
pub(crate) fn kubelet_port(node: &Value) -> u16 {
    let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
    port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0).unwrap_or(KUBELET_PORT)
}

/// The address or name under which a node is reached.
pub(crate) fn of_node(node: &Value) -> Result<&str, ApiError> {
    let addresses = || node["status"]["addresses"].as_array().into_iter().flatten();
    let of_kind = |kind: &&str| addresses().find(|address| address["type"] == **kind);
    let found = KINDS.iter().find_map(of_kind).and_then(|address| address["address"].as_str());
    found.filter(|address| !address.is_empty()).ok_or_else(|| {
        let known: Vec<String> = addresses().map(Value::to_string).collect();
        ApiError::internal(format!("no preferred addresses found; known addresses: [{}]", known.join(" ")))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_may_have_a_port_and_a_scheme() {
        let parse = |id| Named::parse("pod", id).map(|named| (named.tls, named.name, named.port)).ok();
        assert_eq!(parse("web"), Some((false, "web", "")));
        assert_eq!(parse("web:80"), Some((false, "web", "80")));
        assert_eq!(parse("http:web:80"), Some((false, "web", "80")));
        assert_eq!(parse("https:web:tls"), Some((true, "web", "tls")));
        assert_eq!(parse("https:web:"), Some((true, "web", "")));
        assert_eq!(parse(":web:80"), Some((false, "web", "80")));
        for wrong in ["", ":80", "ftp:web:80", "a:b:c:d", "https::80"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        let error = Named::parse("service", "ftp:web:80").unwrap_err();
        assert_eq!(error.message, "invalid service request \"ftp:web:80\"");
    }

    #[test]
    fn what_means_the_host_or_its_link_is_not_reached() {
        for good in ["10.42.0.5", "192.168.1.1", "1.1.1.1", "fd00::1", "2001:db8::1"] {
            assert!(allowed(good.parse().unwrap()).is_ok(), "{good}");
        }
        let wrong = ["127.0.0.1", "127.9.9.9", "::1", "169.254.169.254", "fe80::1", "0.0.0.0", "::", "224.0.0.1"];
        for wrong in wrong.into_iter().chain(["ff02::1", "255.255.255.255", "::ffff:127.0.0.1", "::ffff:169.254.1.1"]) {
            let error = allowed(wrong.parse().unwrap()).unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (400, "address not allowed"), "{wrong}");
        }
    }

    #[test]
    fn the_port_of_a_pod_is_the_one_asked_for_or_the_first_that_is_named() {
        let pod = json!({
            "spec": { "containers": [{ "name": "a" }, { "name": "b", "ports": [{ "containerPort": 8080 }] }] },
            "status": { "podIPs": [{ "ip": "10.0.0.9" }] },
        });
        let ip: IpAddr = "10.0.0.9".parse().unwrap();
        assert_eq!(of_pod(&pod, "").unwrap(), (ip, Some(8080)));
        assert_eq!(of_pod(&pod, "81").unwrap(), (ip, Some(81)));
        assert_eq!(of_pod(&pod, "web").unwrap_err().code, 503);
        assert_eq!(of_pod(&pod, "0").unwrap_err().code, 503);
        let bare = json!({ "status": { "podIPs": [{ "ip": "10.0.0.9" }] } });
        assert_eq!(of_pod(&bare, "").unwrap(), (ip, None));
        assert_eq!(of_pod(&json!({}), "80").unwrap_err().message, "address not allowed");
    }

    #[test]
    fn a_node_is_reached_by_its_internal_address_first() {
        let node = json!({ "status": {
            "addresses": [{ "type": "Hostname", "address": "n1" }, { "type": "InternalIP", "address": "10.1.1.1" }],
            "daemonEndpoints": { "kubeletEndpoint": { "Port": 10999 } },
        } });
        assert_eq!((of_node(&node).unwrap(), kubelet_port(&node)), ("10.1.1.1", 10999));
        let error = of_node(&json!({})).unwrap_err();
        assert!(error.message.ends_with("no preferred addresses found; known addresses: []"), "{}", error.message);
        assert_eq!(kubelet_port(&json!({})), 10250);
    }
}
