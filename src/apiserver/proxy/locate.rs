//! Which address an object stands for (`ResourceLocation` of pods, services and nodes upstream).

use std::net::{IpAddr, SocketAddr};

use api::resources::{self, Resource};
use api::status::ApiError;
use serde_json::Value;

use super::address::{self, Named};
use super::exchange::Backend;
use crate::object::{self, meta};
use crate::request::ResourceRequest;
use crate::server::ApiServer;
use crate::storage;

/// By what a slice names its Service (KEP-752).
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Where a request goes.
#[derive(Debug)]
pub(super) enum Place {
    /// The kubelet of a node.
    Kubelet { node: String },
    /// Anything else.
    Backend(Backend),
}

/// Finds the place that the path of a request names.
pub(super) async fn locate(server: &ApiServer, row: &Resource, request: &ResourceRequest) -> Result<Place, ApiError> {
    let named = Named::parse(row.singular, &request.name)?;
    match row.plural {
        "pods" => {
            let (pod, _) = server.read(row, &request.namespace, named.name).await?;
            let (address, port) = address::of_pod(&pod, named.port)?;
            let port = port.unwrap_or(if named.tls { 443 } else { 80 });
            Ok(Place::Backend(Backend { tls: named.tls, at: SocketAddr::new(address, port) }))
        }
        "services" => service(server, row, &request.namespace, named, &request.name).await,
        _ => node(server, row, named).await,
    }
}

async fn node(server: &ApiServer, row: &Resource, named: Named<'_>) -> Result<Place, ApiError> {
    let (node, _) = server.read(row, "", named.name).await?;
    let host = address::of_node(&node)?;
    if named.port.is_empty() || named.port == address::kubelet_port(&node).to_string() {
        return Ok(Place::Kubelet { node: named.name.to_owned() });
    }
    let port = address::port_number(named.port)?;
    let found: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, port)],
        Err(_) => {
            let found = tokio::net::lookup_host((host, port)).await;
            found.map_err(|_| ApiError::bad_request(format!("lookup {host}: no such host")))?.collect()
        }
    };
    // All of a name's addresses must be good: which of them is taken is not the client's to choose.
    for found in &found {
        address::allowed(found.ip())?;
    }
    let at = found.first().ok_or_else(|| ApiError::bad_request(format!("no addresses for hostname {host:?}")))?;
    Ok(Place::Backend(Backend { tls: named.tls, at: *at }))
}

/// Where a Service answers at a port, for what this server itself asks: webhooks and servers of API groups. Unlike the
/// subresource `proxy`, which anybody with a right to it leads somewhere, this follows whatever stands behind the Service,
/// as the proxy of a node would (`ResolveCluster` of `k8s.io/apiserver/pkg/util/proxy`): who answers proves itself by TLS.
pub(crate) async fn behind(server: &ApiServer, namespace: &str, name: &str, port: u16) -> Result<SocketAddr, ApiError> {
    let row = resources::find("", "v1", "services").ok_or_else(|| ApiError::internal("no kind services"))?;
    let (service, _) = server.read(row, namespace, name).await.map_err(|mut error| {
        if error.code == 404 {
            // Listers of upstream say the kind in the singular.
            error.message = format!("service {name:?} not found");
        }
        error
    })?;
    if service["spec"]["type"] == "ExternalName" {
        let host = service["spec"]["externalName"].as_str().unwrap_or_default();
        let unknown = || ApiError::unavailable(format!("lookup {host}: no such host"));
        let mut found = tokio::net::lookup_host((host, port)).await.map_err(|_| unknown())?;
        return found.next().ok_or_else(unknown);
    }
    let port = port_name(&service, Named { tls: true, name, port: &port.to_string() })?;
    let endpoints = endpoints(server, namespace, name, &port).await?;
    let good: Vec<&Endpoint> = endpoints.iter().filter(|one| address::allowed(one.at.ip()).is_ok()).collect();
    let found = good.get(any_of(server, good.len())).map(|endpoint| endpoint.at);
    found.ok_or_else(|| ApiError::unavailable(format!("no endpoints available for service {name:?}")))
}

/// One of so many, each as likely as any other.
fn any_of(server: &ApiServer, count: usize) -> usize {
    let mut seed = [0; 8];
    server.config.entropy.fill(&mut seed);
    usize::from_le_bytes(seed) % count.max(1)
}

async fn service(
    server: &ApiServer,
    row: &Resource,
    namespace: &str,
    named: Named<'_>,
    id: &str,
) -> Result<Place, ApiError> {
    let (service, _) = server.read(row, namespace, named.name).await?;
    let port = port_name(&service, named)?;
    let endpoints = endpoints(server, namespace, named.name, &port).await?;
    let none = |of: &str| ApiError::unavailable(format!("no endpoints available for service {of:?}"));
    if endpoints.is_empty() {
        return Err(none(id));
    }
    let (before, after) = endpoints.split_at(any_of(server, endpoints.len()));
    for endpoint in after.iter().chain(before) {
        match is_pod(server, namespace, endpoint).await? {
            true => return Ok(Place::Backend(Backend { tls: named.tls, at: endpoint.at })),
            false => tracing::debug!(service = id, address = %endpoint.at, "an endpoint is no pod's, and is not used"),
        }
    }
    Err(none(id))
}

/// The name of the port of a Service that is asked for by name or number; a Service's only port may have no name.
fn port_name(service: &Value, named: Named<'_>) -> Result<String, ApiError> {
    let Ok(number) = named.port.parse::<u64>() else { return Ok(named.port.to_owned()) };
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let found = ports.into_iter().find(|port| port["port"].as_u64() == Some(number));
    let found = found
        .ok_or_else(|| ApiError::unavailable(format!("no service port {number} found for service {:?}", named.name)))?;
    Ok(found["name"].as_str().unwrap_or_default().to_owned())
}

/// One address behind a Service.
#[derive(Debug, PartialEq, Eq)]
struct Endpoint {
    at: SocketAddr,
    /// Namespace and name of the pod that it says to be.
    pod: Option<(String, String)>,
}

/// How many addresses stand behind a port of a Service; none if nobody has said anything of that.
pub(crate) async fn endpoints_behind(
    server: &ApiServer,
    namespace: &str,
    service: &str,
    port: &str,
) -> Result<Option<usize>, ApiError> {
    Ok(known_endpoints(server, namespace, service, port).await?.map(|found| found.len()))
}

async fn endpoints(server: &ApiServer, namespace: &str, service: &str, port: &str) -> Result<Vec<Endpoint>, ApiError> {
    Ok(known_endpoints(server, namespace, service, port).await?.unwrap_or_default())
}

/// What stands behind a port of a Service: by its slices, or without any by its Endpoints.
async fn known_endpoints(
    server: &ApiServer,
    namespace: &str,
    service: &str,
    port: &str,
) -> Result<Option<Vec<Endpoint>>, ApiError> {
    let slices = list(server, "discovery.k8s.io", "endpointslices", namespace).await?;
    let own: Vec<&Value> = slices.iter().filter(|slice| slice["metadata"]["labels"][SERVICE_NAME] == service).collect();
    if !own.is_empty() {
        return Ok(Some(own.into_iter().flat_map(|slice| of_slice(slice, port)).collect()));
    }
    let row = resources::find("", "v1", "endpoints").ok_or_else(|| ApiError::internal("no kind endpoints"))?;
    match server.read(row, namespace, service).await {
        Ok((endpoints, _)) => Ok(Some(of_endpoints(&endpoints, port))),
        Err(error) if error.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

/// The ready addresses of a slice.
fn of_slice(slice: &Value, port: &str) -> Vec<Endpoint> {
    let Some(number) = number_of(&slice["ports"], port) else { return Vec::new() };
    let ready = |endpoint: &&Value| endpoint["conditions"]["ready"] != false;
    let endpoints = slice["endpoints"].as_array().into_iter().flatten().filter(ready);
    endpoints.flat_map(|endpoint| endpoint_of(&endpoint["addresses"][0], &endpoint["targetRef"], number)).collect()
}

/// The ready addresses of the old form.
fn of_endpoints(endpoints: &Value, port: &str) -> Vec<Endpoint> {
    let subsets = endpoints["subsets"].as_array().into_iter().flatten();
    let of_subset = |subset: &Value| {
        let number = number_of(&subset["ports"], port);
        let addresses = subset["addresses"].as_array().into_iter().flatten();
        let found = addresses.filter_map(|one| endpoint_of(&one["ip"], &one["targetRef"], number?));
        found.collect::<Vec<_>>()
    };
    subsets.flat_map(of_subset).collect()
}

/// The number of a TCP port by its name.
fn number_of(ports: &Value, name: &str) -> Option<u16> {
    let mut ports = ports.as_array()?.iter();
    let is_it = |port: &&Value| {
        port["name"].as_str().unwrap_or_default() == name && matches!(port["protocol"].as_str(), None | Some("TCP"))
    };
    u16::try_from(ports.find(is_it)?["port"].as_u64()?).ok()
}

fn endpoint_of(address: &Value, target: &Value, port: u16) -> Option<Endpoint> {
    let address: IpAddr = address.as_str()?.parse().ok()?;
    let pod = (target["kind"] == "Pod").then(|| {
        let text = |field: &str| target[field].as_str().unwrap_or_default().to_owned();
        (text("namespace"), text("name"))
    });
    Some(Endpoint { at: SocketAddr::new(address, port), pod })
}

/// Whether an address is that of a pod of the namespace: whoever may write slices must not lead the server to anything
/// else. Who made a slice by hand need not name the pod, as upstream asks for: having its address is enough.
async fn is_pod(server: &ApiServer, namespace: &str, endpoint: &Endpoint) -> Result<bool, ApiError> {
    if address::allowed(endpoint.at.ip()).is_err() {
        return Ok(false);
    }
    let row = resources::find("", "v1", "pods").ok_or_else(|| ApiError::internal("no kind pods"))?;
    match &endpoint.pod {
        Some((of, _)) if of != namespace => Ok(false),
        Some((_, name)) => match server.read(row, namespace, name).await {
            Ok((pod, _)) => Ok(has_address(&pod, endpoint.at.ip())),
            Err(error) if error.code == 404 => Ok(false),
            Err(error) => Err(error),
        },
        None => {
            let pods = list(server, "", "pods", namespace).await?;
            Ok(pods.iter().any(|pod| has_address(pod, endpoint.at.ip())))
        }
    }
}

fn has_address(pod: &Value, address: IpAddr) -> bool {
    let addresses = pod["status"]["podIPs"].as_array().into_iter().flatten();
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let is_it = |own: &Value| own["ip"].as_str().and_then(|own| own.parse::<IpAddr>().ok()) == Some(address);
    !ended && addresses.into_iter().any(is_it) && !meta(pod, "name").is_empty()
}

async fn list(server: &ApiServer, group: &str, plural: &str, namespace: &str) -> Result<Vec<Value>, ApiError> {
    let row = resources::find(group, "v1", plural).ok_or_else(|| ApiError::internal(format!("no kind {plural}")))?;
    let range = store::Range { prefix: storage::prefix(row, namespace), after: None, limit: None, at: None };
    let page = server.config.store.list(range).await.map_err(storage::failed)?;
    page.entries.iter().map(object::of_entry).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(endpoints: &[Endpoint]) -> Vec<String> {
        let of = |one: &Endpoint| match &one.pod {
            Some((namespace, name)) => format!("{} {namespace}/{name}", one.at),
            None => one.at.to_string(),
        };
        endpoints.iter().map(of).collect()
    }

    #[test]
    fn only_ready_addresses_of_the_port_count() {
        let slice = json!({
            "ports": [{ "name": "dns", "port": 53, "protocol": "UDP" }, { "name": "web", "port": 8080 }],
            "endpoints": [
                { "addresses": ["10.0.0.1"], "targetRef": { "kind": "Pod", "namespace": "n", "name": "a" } },
                { "addresses": ["10.0.0.2"], "conditions": { "ready": false } },
                { "addresses": ["fd00::3"], "conditions": { "ready": true } },
                { "addresses": ["no.address"] },
            ],
        });
        assert_eq!(shown(&of_slice(&slice, "web")), ["10.0.0.1:8080 n/a", "[fd00::3]:8080"]);
        assert!(of_slice(&slice, "dns").is_empty() && of_slice(&slice, "").is_empty());
        let old = json!({ "subsets": [
            { "ports": [{ "port": 80 }], "addresses": [{ "ip": "10.0.0.1" }], "notReadyAddresses": [{ "ip": "10.0.0.2" }] },
            { "ports": [{ "name": "web", "port": 81 }], "addresses": [{ "ip": "10.0.0.3" }] },
        ] });
        assert_eq!(shown(&of_endpoints(&old, "")), ["10.0.0.1:80"]);
        assert_eq!(shown(&of_endpoints(&old, "web")), ["10.0.0.3:81"]);
    }

    #[test]
    fn a_port_by_number_is_one_of_the_services() {
        let service = json!({ "spec": { "ports": [{ "name": "web", "port": 80 }, { "port": 81 }] } });
        let of = |id| port_name(&service, Named::parse("service", id).unwrap());
        assert_eq!(of("s").unwrap(), "");
        assert_eq!(of("s:80").unwrap(), "web");
        assert_eq!(of("s:81").unwrap(), "");
        assert_eq!(of("s:web").unwrap(), "web");
        assert_eq!(of("s:82").unwrap_err().message, "no service port 82 found for service \"s\"");
    }
}
