//! EndpointSlices that say what an Endpoints object says that somebody wrote by hand.
//!
//! After `pkg/controller/endpointslicemirroring`: for Services without a selector only; one slice a subset and family.

use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::members::{self, Labels};
use super::slices::{Frame, Group, MANAGED_BY, SERVICE};

/// The keeper of these slices.
pub(super) const KEEPER: &str = "endpointslicemirroring-controller.k8s.io";
/// The most addresses of a subset, upstream's `--mirroring-max-endpoints-per-subset`, and of a slice.
const PER_SUBSET: usize = 1000;
/// Keeps an object from being mirrored.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Old programs elect their leader by this annotation of an Endpoints object, which changes every few seconds.
pub(super) const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that say something of the object alone.
const OWN: [&str; 2] =
    ["kubectl.kubernetes.io/last-applied-configuration", "endpoints.kubernetes.io/last-change-trigger-time"];

/// Whether there are to be slices for an object.
pub(super) fn is_mirrored(service: Option<&Service>, endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    let annotations = endpoints.metadata.annotations.as_ref();
    let has_no_selector =
        |service: &Service| service.spec.as_ref().and_then(|spec| spec.selector.as_ref()).is_none_or(Labels::is_empty);
    service.is_some_and(has_no_selector)
        && labels.and_then(|labels| labels.get(SKIP)).is_none_or(|skip| skip != "true")
        && annotations.is_none_or(|annotations| !annotations.contains_key(LEADER))
}

/// The frame of an object's slices.
pub(super) fn frame(endpoints: &Endpoints, owner: OwnerReference) -> Frame {
    let name = endpoints.metadata.name.clone().unwrap_or_default();
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE.to_owned(), name.clone());
    labels.insert(MANAGED_BY.to_owned(), KEEPER.to_owned());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|name, _| !OWN.contains(&name.as_str()));
    let namespace = endpoints.metadata.namespace.clone().unwrap_or_default();
    Frame { namespace, name, labels, annotations, owner, limit: PER_SUBSET, placeholder: None }
}

/// What the object says.
pub(super) fn groups(endpoints: &Endpoints) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Vec<EndpointPort> = subset.ports.iter().flatten().map(port).collect();
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let other = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        for (address, is_ready) in ready.chain(other).take(PER_SUBSET) {
            let Some(family) = ["IPv4", "IPv6"].into_iter().find(|family| members::is_of(&address.ip, family)) else {
                continue;
            };
            let endpoint = endpoint(address, is_ready);
            match groups.iter_mut().find(|group| group.family == family && group.ports == ports) {
                Some(group) => group.endpoints.push(endpoint),
                None => {
                    groups.push(Group { family: family.to_owned(), ports: ports.clone(), endpoints: vec![endpoint] });
                }
            }
        }
    }
    groups
}

fn port(port: &k8s_openapi::api::core::v1::EndpointPort) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        protocol: Some(members::protocol(port.protocol.as_deref()).to_owned()),
        port: Some(port.port),
        app_protocol: port.app_protocol.clone(),
    }
}

fn endpoint(address: &EndpointAddress, is_ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(is_ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}
