//! What of Services, EndpointSlices and Namespaces names are made of; the rest of the objects is not even read.

use std::net::IpAddr;

use client::Tracked;
use serde::Deserialize;

/// A Service.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    metadata: Metadata,
    spec: ServiceSpec,
}

/// A part of the endpoints of a Service.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    metadata: Metadata,
    endpoints: Option<Vec<SaidEndpoint>>,
    ports: Option<Vec<SaidPort>>,
}

/// A Namespace, or any other object of which the name is enough.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Namespace {
    metadata: Metadata,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    namespace: String,
    name: String,
    resource_version: String,
    labels: Option<Labels>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Labels {
    #[serde(rename = "kubernetes.io/service-name")]
    service: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServiceSpec {
    r#type: Option<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    external_name: Option<String>,
    publish_not_ready_addresses: Option<bool>,
    ports: Option<Vec<SaidPort>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SaidPort {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<u16>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SaidEndpoint {
    addresses: Option<Vec<String>>,
    hostname: Option<String>,
    conditions: Option<Conditions>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
}

impl Tracked for Service {
    fn revision(&self) -> &str {
        &self.metadata.resource_version
    }
}

impl Tracked for EndpointSlice {
    fn revision(&self) -> &str {
        &self.metadata.resource_version
    }
}

impl Tracked for Namespace {
    fn revision(&self) -> &str {
        &self.metadata.resource_version
    }
}

/// By what a Service is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// Addresses of its own.
    Addresses(Vec<IpAddr>),
    /// Those of its endpoints.
    Endpoints,
    /// Another name.
    Alias(String),
}

/// A port with a name, or one without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: String,
    /// `tcp`, `udp` or `sctp`.
    pub(crate) protocol: &'static str,
    pub(crate) number: u16,
}

/// One who answers for a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) hostname: Option<String>,
    pub(crate) is_ready: bool,
}

impl Service {
    pub(crate) fn namespace(&self) -> &str {
        &self.metadata.namespace
    }

    pub(crate) fn name(&self) -> &str {
        &self.metadata.name
    }

    /// None while it has no address yet.
    pub(crate) fn way(&self) -> Option<Way> {
        let spec = &self.spec;
        if spec.r#type.as_deref() == Some("ExternalName") {
            return spec.external_name.clone().filter(|name| !name.is_empty()).map(Way::Alias);
        }
        if spec.cluster_ip.as_deref() == Some("None") {
            return Some(Way::Endpoints);
        }
        let all = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in all.filter_map(|text| text.parse().ok()) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        (!addresses.is_empty()).then_some(Way::Addresses(addresses))
    }

    pub(crate) fn ports(&self) -> Vec<Port> {
        ports(self.spec.ports.as_deref())
    }

    /// Whether endpoints are found that are not ready.
    pub(crate) fn tolerates_unready(&self) -> bool {
        self.spec.publish_not_ready_addresses == Some(true)
    }
}

impl EndpointSlice {
    pub(crate) fn namespace(&self) -> &str {
        &self.metadata.namespace
    }

    pub(crate) fn name(&self) -> &str {
        &self.metadata.name
    }

    /// Name of the Service that it is part of; empty if of none.
    pub(crate) fn service(&self) -> &str {
        self.metadata.labels.as_ref().map_or("", |labels| &labels.service)
    }

    pub(crate) fn ports(&self) -> Vec<Port> {
        ports(self.ports.as_deref())
    }

    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        let said = self.endpoints.iter().flatten().map(|said| Endpoint {
            // What is no address is the name of a host, in slices of type FQDN, which nothing reads any more.
            addresses: said.addresses.iter().flatten().filter_map(|text| text.parse().ok()).collect(),
            hostname: said.hostname.as_ref().filter(|name| !name.is_empty()).map(|name| name.to_ascii_lowercase()),
            // "A nil value should be interpreted as 'true'", says the API.
            is_ready: said.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false),
        });
        said.filter(|endpoint| !endpoint.addresses.is_empty()).collect()
    }
}

impl Namespace {
    pub(crate) fn name(&self) -> &str {
        &self.metadata.name
    }
}

fn ports(said: Option<&[SaidPort]>) -> Vec<Port> {
    let port = |said: &SaidPort| {
        let protocol = match said.protocol.as_deref() {
            None | Some("" | "TCP") => "tcp",
            Some("UDP") => "udp",
            Some("SCTP") => "sctp",
            Some(_) => return None,
        };
        Some(Port { name: said.name.clone().unwrap_or_default().to_ascii_lowercase(), protocol, number: said.port? })
    };
    said.unwrap_or_default().iter().filter_map(port).collect()
}
