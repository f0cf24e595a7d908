//! Which addresses a Service has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::endpoints::SERVICE;

/// Nodes with this label are left out (KEP-1143).
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Everything that matters.
pub(super) struct View<'v> {
    pub(super) services: &'v [Arc<Service>],
    pub(super) slices: &'v [Arc<EndpointSlice>],
    pub(super) nodes: &'v [Arc<Node>],
    pub(super) reserved: &'v BTreeSet<u16>,
}

/// What is to be done for a Service.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Verdict {
    /// The addresses that it should have, if it has others.
    pub(super) ingress: Option<Vec<LoadBalancerIngress>>,
    /// Why it has none.
    pub(super) waits_for: Option<String>,
}

/// Whether a Service is one for this controller.
pub(super) fn is_balanced(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    let is_wanted = |spec: &&k8s_openapi::api::core::v1::ServiceSpec| {
        spec.type_.as_deref() == Some("LoadBalancer") && spec.load_balancer_class.is_none()
    };
    spec.filter(is_wanted).is_some() && service.metadata.deletion_timestamp.is_none()
}

pub(super) fn decide(service: &Service, view: &View<'_>) -> Verdict {
    let spec = service.spec.as_ref();
    let others = spec.is_some_and(|spec| spec.load_balancer_class.is_some());
    if others {
        return Verdict::default();
    }
    let mut verdict = Verdict::default();
    let mut wanted = BTreeSet::new();
    if is_balanced(service) {
        verdict.waits_for = obstacle(service, view);
        if verdict.waits_for.is_none() {
            wanted = addresses(service, view);
        }
    }
    let ingress: Vec<LoadBalancerIngress> = wanted
        .into_iter()
        .map(|address| LoadBalancerIngress {
            ip: Some(address.to_string()),
            ip_mode: Some("VIP".to_owned()),
            ..LoadBalancerIngress::default()
        })
        .collect();
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let present = balancer.and_then(|own| own.ingress.as_deref()).unwrap_or_default();
    verdict.ingress = (present != ingress).then_some(ingress);
    verdict
}

/// Ports of the nodes, and whose they are.
type Taken<'v> = BTreeMap<(&'v str, u16), &'v Service>;

/// A port that is not to be had. Whoever waits himself takes none from those that are younger.
fn obstacle(service: &Service, view: &View<'_>) -> Option<String> {
    let age = |service: &Service| {
        let metadata = &service.metadata;
        (metadata.creation_timestamp.clone().map(|time| time.0), metadata.namespace.clone(), metadata.name.clone())
    };
    let own = age(service);
    let elders = view.services.iter().filter(|other| is_balanced(other)).map(|other| (age(other), &**other));
    let mut elders: Vec<_> = elders.filter(|(age, _)| *age < own).collect();
    elders.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut taken = Taken::new();
    for (_, elder) in elders {
        if refusal(elder, view.reserved, &taken).is_none() {
            taken.extend(ports(elder).into_iter().map(|port| (port, elder)));
        }
    }
    refusal(service, view.reserved, &taken)
}

fn refusal(service: &Service, reserved: &BTreeSet<u16>, taken: &Taken<'_>) -> Option<String> {
    let ports = ports(service);
    if let Some((protocol, port)) = ports.iter().find(|(protocol, port)| *protocol == "TCP" && reserved.contains(port))
    {
        return Some(format!("port {protocol}/{port} of the nodes is the node's own"));
    }
    let (port, elder) = ports.iter().find_map(|port| Some((port, taken.get(port)?)))?;
    let name = |part: &Option<String>| part.clone().unwrap_or_default();
    let (namespace, name) = (name(&elder.metadata.namespace), name(&elder.metadata.name));
    Some(format!("port {}/{} of the nodes is that of Service {namespace}/{name}", port.0, port.1))
}

fn ports(service: &Service) -> BTreeSet<(&str, u16)> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports.filter_map(|port| Some((port.protocol.as_deref().unwrap_or("TCP"), u16::try_from(port.port).ok()?))).collect()
}

fn addresses(service: &Service, view: &View<'_>) -> BTreeSet<IpAddr> {
    let is_local = service.spec.as_ref().and_then(|spec| spec.external_traffic_policy.as_deref()) == Some("Local");
    let answering = is_local.then(|| answering_nodes(service, view.slices));
    let nodes = view.nodes.iter().filter(|node| {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        is_usable(node) && answering.as_ref().is_none_or(|names| names.contains(name))
    });
    nodes.flat_map(|node| own_addresses(node)).filter(|address| has_family(service, *address)).collect()
}

/// Whether a Service has addresses of the kind of this one.
fn has_family(service: &Service, address: IpAddr) -> bool {
    let families = service.spec.iter().flat_map(|spec| spec.ip_families.iter().flatten());
    let mut families = families.map(String::as_str).peekable();
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    if families.peek().is_none() { family == "IPv4" } else { families.any(|own| own == family) }
}

fn is_usable(node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let is_ready = conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True");
    is_ready && node.metadata.deletion_timestamp.is_none() && labels.is_none_or(|labels| !labels.contains_key(EXCLUDED))
}

/// Nodes with an endpoint that is ready.
fn answering_nodes(service: &Service, slices: &[Arc<EndpointSlice>]) -> BTreeSet<String> {
    let is_own = |slice: &&Arc<EndpointSlice>| {
        let name = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE));
        name == service.metadata.name.as_ref() && slice.metadata.namespace == service.metadata.namespace
    };
    let endpoints = slices.iter().filter(is_own).flat_map(|slice| slice.endpoints.iter().flatten());
    let is_ready = |endpoint: &&k8s_openapi::api::discovery::v1::Endpoint| {
        endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
    };
    endpoints.filter(is_ready).filter_map(|endpoint| endpoint.node_name.clone()).collect()
}

fn own_addresses(node: &Node) -> BTreeSet<IpAddr> {
    let all = || node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let of = |kind: &str| -> BTreeSet<IpAddr> {
        all().filter(|own| own.type_ == kind).filter_map(|own| own.address.parse().ok()).collect()
    };
    let external = of("ExternalIP");
    if external.is_empty() { of("InternalIP") } else { external }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(name: &str, created: &str, spec: Value) -> Arc<Service> {
        let mut whole = json!({ "type": "LoadBalancer", "ports": [{ "port": 80, "protocol": "TCP" }] });
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let metadata = json!({ "namespace": "a", "name": name, "creationTimestamp": created });
        Arc::new(serde_json::from_value(json!({ "metadata": metadata, "spec": whole })).unwrap())
    }

    fn node(name: &str, addresses: Value, ready: &str, labels: Value) -> Arc<Node> {
        let status = json!({ "addresses": addresses, "conditions": [{ "type": "Ready", "status": ready }] });
        Arc::new(
            serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels }, "status": status }))
                .unwrap(),
        )
    }

    fn nodes() -> Vec<Arc<Node>> {
        let internal = |address: &str| json!([{ "type": "InternalIP", "address": address }, { "type": "Hostname", "address": "x" }]);
        let outside =
            json!([{ "type": "InternalIP", "address": "10.0.0.9" }, { "type": "ExternalIP", "address": "192.0.2.9" }]);
        vec![
            node("n1", internal("10.0.0.1"), "True", json!({})),
            node("n2", internal("10.0.0.2"), "False", json!({})),
            node("n3", internal("10.0.0.3"), "True", json!({ EXCLUDED: "" })),
            node("n4", outside, "True", json!({})),
            node("n5", json!([{ "type": "InternalIP", "address": "2001:db8::5" }]), "True", json!({})),
        ]
    }

    /// The addresses, or what it waits for.
    fn decided(service: &Arc<Service>, others: &[Arc<Service>]) -> String {
        let slice = json!({
            "metadata": { "namespace": "a", "name": "s", "labels": { (SERVICE): "web" } }, "addressType": "IPv4",
            "endpoints": [
                { "addresses": ["10.42.0.2"], "nodeName": "n4", "conditions": { "ready": true } },
                { "addresses": ["10.42.0.3"], "nodeName": "n1", "conditions": { "ready": false } },
            ],
        });
        let slices = [Arc::new(serde_json::from_value(slice).unwrap())];
        let reserved = [6443].into();
        let view = View { services: others, slices: &slices, nodes: &nodes(), reserved: &reserved };
        let verdict = decide(service, &view);
        match (verdict.ingress, verdict.waits_for) {
            (Some(ingress), None) => ingress.into_iter().filter_map(|one| one.ip).collect::<Vec<_>>().join(" "),
            (None, Some(reason)) => reason,
            (None, None) => "as it is".to_owned(),
            (Some(_), Some(reason)) => format!("{reason}, and no address"),
        }
    }

    #[test]
    fn ready_nodes_lend_their_addresses_and_with_a_local_policy_those_that_answer() {
        let web = service("web", "2026-11-20T15:00:00Z", json!({}));
        assert_eq!(decided(&web, &[]), "10.0.0.1 192.0.2.9");
        assert_eq!(
            decided(&service("web", "2026-11-20T15:00:00Z", json!({ "externalTrafficPolicy": "Local" })), &[]),
            "192.0.2.9"
        );
        assert_eq!(
            decided(&service("web", "2026-11-20T15:00:00Z", json!({ "loadBalancerClass": "x/y" })), &[]),
            "as it is"
        );
        assert_eq!(decided(&service("web", "2026-11-20T15:00:00Z", json!({ "type": "ClusterIP" })), &[]), "as it is");
        let families = |families: Value| service("web", "2026-11-20T15:00:00Z", json!({ "ipFamilies": families }));
        assert_eq!(decided(&families(json!(["IPv6"])), &[]), "2001:db8::5");
        assert_eq!(decided(&families(json!(["IPv6", "IPv4"])), &[]), "10.0.0.1 192.0.2.9 2001:db8::5");
    }

    #[test]
    fn a_port_is_the_eldests_and_never_the_nodes_own() {
        let (old, young) =
            (service("web", "2026-11-20T15:00:00Z", json!({})), service("new", "2026-11-20T16:00:00Z", json!({})));
        let all = [Arc::clone(&old), Arc::clone(&young)];
        assert_eq!(decided(&old, &all), "10.0.0.1 192.0.2.9");
        assert_eq!(decided(&young, &all), "port TCP/80 of the nodes is that of Service a/web");
        let both = json!({ "ports": [{ "port": 80 }, { "port": 81 }] });
        let (waits, other) = (
            service("both", "2026-11-20T16:00:00Z", both),
            service("last", "2026-11-20T17:00:00Z", json!({ "ports": [{ "port": 81 }] })),
        );
        let all = [Arc::clone(&other), Arc::clone(&waits), Arc::clone(&old)];
        assert_eq!(decided(&waits, &all), "port TCP/80 of the nodes is that of Service a/web");
        assert_eq!(decided(&other, &all), "10.0.0.1 192.0.2.9", "who waits takes nothing");
        let api = service("api", "2026-11-20T15:00:00Z", json!({ "ports": [{ "port": 6443 }] }));
        assert_eq!(decided(&api, &[]), "port TCP/6443 of the nodes is the node's own");
    }

    #[test]
    fn a_service_that_is_no_balancer_any_more_loses_its_addresses() {
        let mut former = (*service("web", "2026-11-20T15:00:00Z", json!({ "type": "NodePort" }))).clone();
        former.status =
            serde_json::from_value(json!({ "loadBalancer": { "ingress": [{ "ip": "10.0.0.1" }] } })).unwrap();
        assert_eq!(decided(&Arc::new(former), &[]), "");
    }
}
