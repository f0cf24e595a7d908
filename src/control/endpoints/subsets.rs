//! The Endpoints object of a Service, for readers of before EndpointSlices.
//!
//! After `pkg/controller/endpoint/endpoints_controller.go` and `RepackSubsets` of `pkg/api/v1/endpoints`: ports that the
//! same addresses have, ready and not, share a subset.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::members;
use super::slices::HEADLESS;

/// The most addresses of the object.
const CAPACITY: usize = 1000;
/// Says that there were more.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Says who keeps the object (KEP-4974).
const MANAGED_BY: (&str, &str) = ("endpoints.kubernetes.io/managed-by", "endpoint-controller");

/// Orders addresses and tells them apart: address, then the pod.
type AddressKey = (String, Option<String>);
type Port = Option<(String, String, i32, Option<String>)>;
/// With whether each is ready.
type Addresses = BTreeMap<AddressKey, (bool, EndpointAddress)>;

/// The object as it should be, if it is to be written.
pub(super) fn decide<'p>(
    service: &Service,
    pods: impl IntoIterator<Item = &'p Pod>,
    current: Option<&Endpoints>,
) -> Option<Endpoints> {
    let (subsets, is_cut) = truncate(subsets(service, pods));
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if members::is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
    let before = current.map(|current| current.metadata.clone());
    let new = || ObjectMeta {
        name: service.metadata.name.clone(),
        namespace: service.metadata.namespace.clone(),
        ..ObjectMeta::default()
    };
    let mut metadata = before.unwrap_or_else(new);
    metadata.labels = Some(labels);
    let mut annotations = metadata.annotations.take().unwrap_or_default();
    annotations.remove(OVER_CAPACITY);
    if is_cut {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    }
    metadata.annotations = (!annotations.is_empty()).then_some(annotations);
    let wanted = Endpoints { metadata, subsets: (!subsets.is_empty()).then_some(subsets) };
    let is_same = current.is_some_and(|current| {
        current.metadata.labels == wanted.metadata.labels
            && current.metadata.annotations.clone().unwrap_or_default()
                == wanted.metadata.annotations.clone().unwrap_or_default()
            && sorted(current.subsets.clone().unwrap_or_default()) == sorted(wanted.subsets.clone().unwrap_or_default())
    });
    (!is_same).then_some(wanted)
}

fn subsets<'p>(service: &Service, pods: impl IntoIterator<Item = &'p Pod>) -> Vec<EndpointSubset> {
    let tolerates = members::publishes_not_ready(service);
    let family = members::families(service).swap_remove(0);
    let has_no_ports = service.spec.as_ref().is_none_or(|spec| spec.ports.iter().flatten().next().is_none());
    let mut by_port: BTreeMap<Port, Addresses> = BTreeMap::new();
    for pod in pods.into_iter().filter(|pod| members::takes_part(pod)) {
        // Unlike slices, this object cannot say that an address is going.
        let Some(ip) = members::address(pod, &family).filter(|_| tolerates || !members::is_terminating(pod)) else {
            continue;
        };
        let is_ready = tolerates || members::is_ready(pod);
        let key = (ip.clone(), pod.metadata.uid.clone());
        let address = EndpointAddress {
            ip,
            hostname: members::hostname(pod, service),
            node_name: members::node_name(pod),
            target_ref: Some(members::reference(pod)),
        };
        let mut add = |port: Port| {
            by_port.entry(port).or_default().insert(key.clone(), (is_ready, address.clone()));
        };
        if has_no_ports && members::is_headless(service) {
            add(None);
        }
        for (port, number) in members::ports(service, pod) {
            let protocol = members::protocol(port.protocol.as_deref()).to_owned();
            add(Some((port.name.clone().unwrap_or_default(), protocol, number, port.app_protocol.clone())));
        }
    }
    let mut packed: Vec<(Addresses, Vec<EndpointPort>)> = Vec::new();
    for (port, addresses) in by_port {
        let port = port.map(|(name, protocol, port, app_protocol)| EndpointPort {
            name: (!name.is_empty()).then_some(name),
            protocol: Some(protocol),
            port,
            app_protocol,
        });
        match packed.iter_mut().find(|(same, _)| *same == addresses) {
            Some((_, ports)) => ports.extend(port),
            None => packed.push((addresses, port.into_iter().collect())),
        }
    }
    packed.into_iter().map(subset).collect()
}

fn subset((addresses, ports): (Addresses, Vec<EndpointPort>)) -> EndpointSubset {
    let (ready, other): (Vec<_>, Vec<_>) = addresses.into_values().partition(|(is_ready, _)| *is_ready);
    let plain = |all: Vec<(bool, EndpointAddress)>| {
        let all: Vec<EndpointAddress> = all.into_iter().map(|(_, address)| address).collect();
        (!all.is_empty()).then_some(all)
    };
    EndpointSubset {
        addresses: plain(ready),
        not_ready_addresses: plain(other),
        ports: (!ports.is_empty()).then_some(ports),
    }
}

fn count(addresses: Option<&Vec<EndpointAddress>>) -> usize {
    addresses.map_or(0, Vec::len)
}

/// Cuts subsets to what one object may hold, each by its part, those that are not ready first.
fn truncate(mut subsets: Vec<EndpointSubset>) -> (Vec<EndpointSubset>, bool) {
    let ready: usize = subsets.iter().map(|subset| count(subset.addresses.as_ref())).sum();
    let other: usize = subsets.iter().map(|subset| count(subset.not_ready_addresses.as_ref())).sum();
    if ready + other <= CAPACITY {
        return (subsets, false);
    }
    let cuts_ready = ready > CAPACITY;
    let (room, total) = if cuts_ready { (CAPACITY, ready) } else { (CAPACITY - ready, other) };
    let mut left = room;
    for subset in &mut subsets {
        if cuts_ready {
            subset.not_ready_addresses = None;
        }
        let part = if cuts_ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        if let Some(addresses) = part {
            let share = (addresses.len() * room).div_ceil(total.max(1)).min(left);
            addresses.truncate(share);
            left -= addresses.len();
        }
        if part.as_ref().is_some_and(Vec::is_empty) {
            *part = None;
        }
    }
    subsets.retain(|subset| subset.addresses.is_some() || subset.not_ready_addresses.is_some());
    (subsets, true)
}

/// Subsets in an order that does not depend on who wrote them.
fn sorted(mut subsets: Vec<EndpointSubset>) -> Vec<EndpointSubset> {
    let by_pod = |address: &EndpointAddress| {
        (address.ip.clone(), address.target_ref.as_ref().and_then(|target| target.uid.clone()))
    };
    let by_name =
        |port: &EndpointPort| (port.name.clone(), port.protocol.clone(), port.port, port.app_protocol.clone());
    for subset in &mut subsets {
        for addresses in [&mut subset.addresses, &mut subset.not_ready_addresses].into_iter().flatten() {
            addresses.sort_by_key(by_pod);
        }
        if let Some(ports) = &mut subset.ports {
            ports.sort_by_key(by_name);
        }
    }
    subsets.sort_by_key(|subset| subset.ports.iter().flatten().map(by_name).collect::<Vec<_>>());
    subsets
}
