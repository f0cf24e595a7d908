//! Keeps the Service `kube-system/kube-dns` and who answers for it: the DNS that every node has (`src/dns`).
//!
//! Each node answers at the first address of its pods' range, so the Service has no selector, its endpoints are made from
//! the nodes, and its traffic stays on the node where it arises. It has addresses of all families that Services have, so that
//! who has IPv6 alone is answered as well. Name and labels are those of kubeadm's, which people and
//! programs look for. [`service`] and [`slice`] are pure. A Service of that name which has a selector is somebody else's,
//! who brings his own DNS, and is left alone; where pods are told of another server, what was made here goes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use client::reconcile::{self, Outcome, Queue};
use client::{Client, ClientError, DeleteOptions, Informer, Key, ListOptions, Object, Scope};
use k8s_openapi::api::core::v1::{Node, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use task::Tasks;

use crate::endpoints::SERVICE;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-dns";
const PORT: i32 = 53;
/// Addresses of both families, if there are any.
const BOTH: &str = "PreferDualStack";
/// Both ports, name and protocol.
const PORTS: [(&str, &str); 2] = [("dns", "UDP"), ("dns-tcp", "TCP")];
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const KEEPER: &str = "dns-controller.coracle";
/// The kinds of addresses, and the slice of each.
const FAMILIES: [(&str, &str); 2] = [("IPv4", NAME), ("IPv6", "kube-dns-ipv6")];

struct Shell {
    client: Client,
    /// Address of the Service; none if it is not to be.
    address: Option<Ipv4Addr>,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    nodes: Informer<Node>,
}

/// What is to be done about an object.
#[derive(Debug, Clone, PartialEq)]
pub enum Step<K> {
    /// Nothing.
    Fine,
    /// It is to be made.
    Create(K),
    /// It is to be like this.
    Replace(K),
    /// It is to go.
    Remove,
}

/// Starts the controller. The Service gets this address, or is not to be.
pub fn spawn(client: &Client, tasks: &Tasks, nodes: &Informer<Node>, address: Option<Ipv4Addr>) {
    let scope = || Scope::namespace(NAMESPACE);
    let shell = Arc::new(Shell {
        client: client.clone(),
        address,
        services: Informer::spawn(client, tasks, scope(), ListOptions::fields(&format!("metadata.name={NAME}"))),
        slices: Informer::spawn(client, tasks, scope(), ListOptions::labels(&format!("{MANAGED_BY}={KEEPER}"))),
        nodes: nodes.clone(),
    });
    let queue = Queue::default();
    queue.add(own_key());
    tasks.spawn("dns-feed", feed(Arc::clone(&shell), queue.clone()));
    tasks.spawn("dns-controller", async move {
        shell.services.synced().await;
        shell.slices.synced().await;
        shell.nodes.synced().await;
        reconcile::run(queue, 1, move |_| sync(Arc::clone(&shell))).await;
    });
}

fn own_key() -> Key {
    Key::namespaced(NAMESPACE, NAME)
}

async fn feed(shell: Arc<Shell>, queue: Queue<Key>) {
    let (mut services, mut slices) = (shell.services.subscribe(), shell.slices.subscribe());
    let mut nodes = shell.nodes.subscribe();
    loop {
        tokio::select! {
            _ = services.next() => {}
            _ = slices.next() => {}
            _ = nodes.batch() => {}
        }
        queue.add(own_key());
    }
}

async fn sync(shell: Arc<Shell>) -> Result<Outcome, ClientError> {
    let found = shell.services.get(&own_key());
    take(&shell.client, &own_key(), service(found.as_deref(), shell.address)).await?;
    // The Service as it was seen: what was done just now will be seen as well.
    let is_own = shell.address.is_some() && found.as_deref().is_none_or(is_own);
    let nodes = is_own.then(|| shell.nodes.snapshot());
    for (family, name) in FAMILIES {
        let key = Key::namespaced(NAMESPACE, name);
        let found = shell.slices.get(&key);
        take(&shell.client, &key, slice(found.as_deref(), nodes.as_deref(), (family, name))).await?;
    }
    Ok(Outcome::Done)
}

async fn take<K: Object>(client: &Client, key: &Key, step: Step<K>) -> Result<(), ClientError> {
    let result = match step {
        Step::Fine => return Ok(()),
        Step::Create(object) => client.create(&object).await.map(drop),
        Step::Replace(object) => client.replace(&object).await.map(drop),
        Step::Remove => client.delete::<K>(key, &DeleteOptions::default()).await,
    };
    match result {
        // The informer will tell of the newer state.
        Err(error) if error.is_overtaken() || error.is_already_exists() => Ok(()),
        result => result,
    }
}

/// Whether a Service of the name is the one that is kept here.
fn is_own(service: &Service) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_none_or(BTreeMap::is_empty)
}

/// What is to be done about the Service, which is to have an address or not to be.
pub fn service(found: Option<&Service>, address: Option<Ipv4Addr>) -> Step<Service> {
    let Some(address) = address.map(|address| address.to_string()) else {
        let made_here = |service: &&Service| is_own(service) && service.metadata.labels.as_ref() == Some(&labels());
        return if found.filter(made_here).is_some() { Step::Remove } else { Step::Fine };
    };
    let Some(found) = found else {
        let metadata = ObjectMeta {
            namespace: Some(NAMESPACE.to_owned()),
            name: Some(NAME.to_owned()),
            labels: Some(labels()),
            ..ObjectMeta::default()
        };
        let spec = ServiceSpec {
            cluster_ip: Some(address),
            ip_family_policy: Some(BOTH.to_owned()),
            internal_traffic_policy: Some("Local".to_owned()),
            ports: Some(ports()),
            ..ServiceSpec::default()
        };
        return Step::Create(Service { metadata, spec: Some(spec), ..Service::default() });
    };
    let spec = found.spec.clone().unwrap_or_default();
    if !is_own(found) {
        return Step::Fine;
    }
    if spec.cluster_ip.as_ref() != Some(&address) {
        // It cannot get another address; once it is gone it is made again.
        return Step::Remove;
    }
    let mut right = found.clone();
    right.metadata.labels.get_or_insert_default().extend(labels());
    // Of a Service that was made one of another type the ports of the nodes stay, which the API server gives it.
    let given = spec.ports.clone().unwrap_or_default();
    let mut ports = ports();
    for port in &mut ports {
        port.node_port = given.iter().find(|one| one.name == port.name).and_then(|one| one.node_port);
    }
    right.spec = Some(ServiceSpec {
        ip_family_policy: Some(BOTH.to_owned()),
        internal_traffic_policy: Some("Local".to_owned()),
        ports: Some(ports),
        ..spec
    });
    if right == *found { Step::Fine } else { Step::Replace(right) }
}

fn labels() -> BTreeMap<String, String> {
    let labels = [("k8s-app", NAME), ("kubernetes.io/cluster-service", "true"), ("kubernetes.io/name", "CoreDNS")];
    labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

fn ports() -> Vec<ServicePort> {
    let port = |(name, protocol): (&str, &str)| ServicePort {
        name: Some(name.to_owned()),
        protocol: Some(protocol.to_owned()),
        port: PORT,
        target_port: Some(IntOrString::Int(PORT)),
        ..ServicePort::default()
    };
    PORTS.into_iter().map(port).collect()
}

/// What is to be done about the slice of those who answer in a family: the nodes. None: it is not to be, nor is that of a
/// second family in which nobody answers.
pub fn slice(
    found: Option<&EndpointSlice>,
    nodes: Option<&[Arc<Node>]>,
    (family, name): (&str, &str),
) -> Step<EndpointSlice> {
    let endpoints = nodes.map(|nodes| nodes.iter().filter_map(|node| endpoint(node, family)).collect());
    let Some(mut endpoints) = endpoints.filter(|all: &Vec<Endpoint>| name == NAME || !all.is_empty()) else {
        return if found.is_some() { Step::Remove } else { Step::Fine };
    };
    endpoints.sort_by(|a, b| a.node_name.cmp(&b.node_name));
    let labels = [(SERVICE, NAME), (MANAGED_BY, KEEPER), ("k8s-app", NAME)];
    let port = |(name, protocol): (&str, &str)| EndpointPort {
        name: Some(name.to_owned()),
        protocol: Some(protocol.to_owned()),
        port: Some(PORT),
        ..EndpointPort::default()
    };
    let mut right = found.cloned().unwrap_or_default();
    right.metadata.namespace = Some(NAMESPACE.to_owned());
    right.metadata.name = Some(name.to_owned());
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    right.metadata.labels.get_or_insert_default().extend(labels);
    right.address_type = family.to_owned();
    right.endpoints = Some(endpoints);
    right.ports = Some(PORTS.into_iter().map(port).collect());
    match found {
        None => Step::Create(right),
        Some(found) if *found == right => Step::Fine,
        // An empty list may come back as none.
        Some(found) if found.endpoints.is_none() && right.endpoints.as_ref().is_some_and(Vec::is_empty) => Step::Fine,
        Some(_) => Step::Replace(right),
    }
}

/// A node that has addresses for pods answers at the first of them. Only its own pods ask it, so whether others find it
/// ready matters to nobody.
fn endpoint(node: &Node, family: &str) -> Option<Endpoint> {
    let spec = node.spec.as_ref()?;
    let ranges = spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr);
    let networks = ranges.filter_map(|range| range.split('/').next()?.parse::<IpAddr>().ok());
    let mut firsts = networks.filter_map(|network| match (network, family) {
        (IpAddr::V4(network), "IPv4") => Some(Ipv4Addr::from(u32::from(network).checked_add(1)?).into()),
        (IpAddr::V6(network), "IPv6") => Some(Ipv6Addr::from(u128::from(network).checked_add(1)?).into()),
        _ => None,
    });
    let first: IpAddr = firsts.next()?;
    Some(Endpoint {
        addresses: vec![first.to_string()],
        conditions: Some(EndpointConditions { ready: Some(true), serving: Some(true), terminating: Some(false) }),
        node_name: node.metadata.name.clone(),
        ..Endpoint::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ADDRESS: Option<Ipv4Addr> = Some(Ipv4Addr::new(10, 43, 0, 10));

    fn node(name: &str, range: Value, ready: &str) -> Arc<Node> {
        let object = json!({
            "metadata": { "name": name }, "spec": { "podCIDR": range, "podCIDRs": range.as_str().map(|range| [range]) },
            "status": { "conditions": [{ "type": "Ready", "status": ready }] },
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn made<K>(step: Step<K>) -> K {
        match step {
            Step::Create(object) | Step::Replace(object) => object,
            Step::Fine | Step::Remove => panic!("nothing is made"),
        }
    }

    #[test]
    fn the_service_is_made_once_and_put_right() {
        let right = made(service(None, ADDRESS));
        assert_eq!(service(Some(&right), ADDRESS), Step::Fine);
        let mut changed = right.clone();
        changed.spec.as_mut().unwrap().ports = Some(Vec::new());
        changed.metadata.labels.as_mut().unwrap().insert("own".to_owned(), "kept".to_owned());
        let mended = made(service(Some(&changed), ADDRESS));
        assert_eq!(mended.spec, right.spec);
        assert_eq!(mended.metadata.labels.unwrap()["own"], "kept");
        // With another range of Services it must be made anew.
        assert_eq!(service(Some(&right), Some(Ipv4Addr::new(10, 96, 0, 10))), Step::Remove);
    }

    #[test]
    fn ports_that_nodes_have_for_it_stay() {
        let mut of_nodes = made(service(None, ADDRESS));
        let spec = of_nodes.spec.as_mut().unwrap();
        spec.type_ = Some("NodePort".to_owned());
        for (port, number) in spec.ports.iter_mut().flatten().zip(30053..) {
            port.node_port = Some(number);
        }
        assert_eq!(service(Some(&of_nodes), ADDRESS), Step::Fine);
        let right = of_nodes.clone();
        of_nodes.spec.as_mut().unwrap().ports.as_mut().unwrap()[1].port = 54;
        assert_eq!(made(service(Some(&of_nodes), ADDRESS)), right);
    }

    #[test]
    fn the_dns_of_others_is_left_alone() {
        let right = made(service(None, ADDRESS));
        let mut other = right.clone();
        other.spec.as_mut().unwrap().selector = Some([("k8s-app".to_owned(), "kube-dns".to_owned())].into());
        for address in [ADDRESS, None] {
            assert_eq!(service(Some(&other), address), Step::Fine);
        }
        assert_eq!(service(Some(&right), None), Step::Remove);
        let mut unlike = right;
        unlike.metadata.labels = None;
        assert_eq!((service(Some(&unlike), None), service(None, None)), (Step::Fine, Step::Fine));
    }

    #[test]
    fn nodes_answer_at_the_first_address_of_their_pods_ready_or_not() {
        let nodes = [
            node("b", json!("10.42.1.0/24"), "True"),
            node("a", json!("10.42.0.0/24"), "True"),
            node("c", json!("10.42.2.0/24"), "Unknown"),
            node("d", Value::Null, "True"),
        ];
        let right = made(slice(None, Some(&nodes), FAMILIES[0]));
        let said: Vec<_> = right
            .endpoints
            .iter()
            .flatten()
            .map(|endpoint| (endpoint.addresses[0].as_str(), endpoint.node_name.as_deref()))
            .collect();
        assert_eq!(said, [("10.42.0.1", Some("a")), ("10.42.1.1", Some("b")), ("10.42.2.1", Some("c"))]);
        assert_eq!(slice(Some(&right), Some(&nodes), FAMILIES[0]), Step::Fine);
        let fewer = made(slice(Some(&right), Some(&nodes[..1]), FAMILIES[0]));
        assert_eq!(fewer.endpoints.unwrap().len(), 1);
        assert_eq!(
            (slice(Some(&right), None, FAMILIES[0]), slice(None, None, FAMILIES[0])),
            (Step::Remove, Step::Fine)
        );
    }

    #[test]
    fn nodes_with_addresses_of_ipv6_answer_there_too() {
        let mut dual = (*node("a", json!("10.42.0.0/24"), "True")).clone();
        dual.spec.as_mut().unwrap().pod_cidrs = Some(vec!["10.42.0.0/24".to_owned(), "fd00:42::/64".to_owned()]);
        let nodes = [Arc::new(dual), node("b", json!("10.42.1.0/24"), "True")];
        let second = made(slice(None, Some(&nodes), FAMILIES[1]));
        assert_eq!((second.address_type.as_str(), second.metadata.name.as_deref()), ("IPv6", Some("kube-dns-ipv6")));
        assert_eq!(second.endpoints.as_ref().unwrap()[0].addresses, ["fd00:42::1"]);
        assert_eq!(second.endpoints.as_ref().unwrap().len(), 1);
        assert_eq!(slice(Some(&second), Some(&nodes), FAMILIES[1]), Step::Fine);
        assert_eq!(slice(Some(&second), Some(&nodes[1..]), FAMILIES[1]), Step::Remove);
        assert_eq!(slice(None, Some(&nodes[1..]), FAMILIES[1]), Step::Fine);
    }
}
