//! The EndpointSlices of a Service, and how what is there becomes what should be there by few changes.
//!
//! After `staging/src/k8s.io/endpointslice/reconciler.go`: endpoints stay in the slice where they are; new ones go where
//! something changes anyway, then into the fullest slice that has room for them, then into new slices.
//! Invariant: [`fit`] applied to its own result changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::members::{self, Labels};
use super::places::{self, Zones};

/// The most endpoints of a slice that is made here, upstream's `--max-endpoints-per-slice`.
pub(super) const PER_SLICE: usize = 100;

/// The Service that a slice belongs to.
pub(crate) const SERVICE: &str = "kubernetes.io/service-name";
/// Who keeps a slice.
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Marks what belongs to a headless Service.
pub(super) const HEADLESS: &str = "service.kubernetes.io/headless";
/// The keeper of the slices of pods.
pub(super) const KEEPER: &str = "endpointslice-controller.k8s.io";

/// What all slices of a Service have in common.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) namespace: String,
    /// What their names begin with.
    pub(super) name: String,
    pub(super) labels: Labels,
    pub(super) annotations: Labels,
    pub(super) owner: OwnerReference,
    /// The most endpoints of a slice.
    pub(super) limit: usize,
    /// The family of the empty slice that stands there if there is no endpoint; none if there is to be no slice then.
    pub(super) placeholder: Option<String>,
}

/// Endpoints that can be in one slice.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Group {
    pub(super) family: String,
    pub(super) ports: Vec<EndpointPort>,
    pub(super) endpoints: Vec<Endpoint>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Changes {
    pub(super) create: Vec<EndpointSlice>,
    pub(super) update: Vec<EndpointSlice>,
    pub(super) delete: Vec<Arc<EndpointSlice>>,
}

/// The frame of the slices of a Service.
pub(super) fn frame(service: &Service, owner: OwnerReference) -> Frame {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    for reserved in [SERVICE, MANAGED_BY, HEADLESS] {
        labels.remove(reserved);
    }
    let name = service.metadata.name.clone().unwrap_or_default();
    labels.insert(SERVICE.to_owned(), name.clone());
    labels.insert(MANAGED_BY.to_owned(), KEEPER.to_owned());
    if members::is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    Frame {
        namespace: service.metadata.namespace.clone().unwrap_or_default(),
        name,
        labels,
        annotations: Labels::new(),
        owner,
        limit: PER_SLICE,
        placeholder: members::families(service).into_iter().next(),
    }
}

/// The endpoints of a Service, grouped as slices can have them. A pod whose node is gone is none, unless the Service takes
/// pods as they are.
pub(super) fn groups<'p>(service: &Service, pods: impl IntoIterator<Item = &'p Pod>, zones: &Zones) -> Vec<Group> {
    let families = members::families(service);
    let is_somewhere = |pod: &Pod| members::publishes_not_ready(service) || zone_of(pod, zones).is_some();
    let mut groups: Vec<Group> = Vec::new();
    for pod in pods.into_iter().filter(|pod| members::takes_part(pod) && is_somewhere(pod)) {
        let zone = zone_of(pod, zones).flatten();
        let ports: Vec<EndpointPort> = members::ports(service, pod).into_iter().map(port).collect();
        for family in &families {
            let Some(address) = members::address(pod, family) else { continue };
            let endpoint = endpoint(service, pod, address, zone);
            match groups.iter_mut().find(|group| group.family == *family && same_ports(&group.ports, &ports)) {
                Some(group) => group.endpoints.push(endpoint),
                None => groups.push(Group { family: family.clone(), ports: ports.clone(), endpoints: vec![endpoint] }),
            }
        }
    }
    groups
}

fn port((port, number): (&k8s_openapi::api::core::v1::ServicePort, i32)) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        protocol: Some(members::protocol(port.protocol.as_deref()).to_owned()),
        port: Some(number),
        app_protocol: port.app_protocol.clone(),
    }
}

/// The zone of a pod's node, if that is there.
fn zone_of<'z>(pod: &Pod, zones: &'z Zones) -> Option<Option<&'z str>> {
    zones.get(&members::node_name(pod)?).map(Option::as_deref)
}

fn endpoint(service: &Service, pod: &Pod, address: String, zone: Option<&str>) -> Endpoint {
    let (serving, terminating) = (members::is_ready(pod), members::is_terminating(pod));
    let ready = members::publishes_not_ready(service) || (serving && !terminating);
    let conditions = EndpointConditions { ready: Some(ready), serving: Some(serving), terminating: Some(terminating) };
    Endpoint {
        addresses: vec![address],
        conditions: Some(conditions),
        hostname: members::hostname(pod, service),
        hints: if ready { places::hints(service, members::node_name(pod).as_deref(), zone) } else { None },
        node_name: members::node_name(pod),
        target_ref: Some(members::reference(pod)),
        zone: zone.map(str::to_owned),
        ..Endpoint::default()
    }
}

type PortKey = (String, String, Option<i32>, Option<String>);

fn port_keys(ports: &[EndpointPort]) -> Vec<PortKey> {
    let key = |port: &EndpointPort| {
        let protocol = members::protocol(port.protocol.as_deref()).to_owned();
        (port.name.clone().unwrap_or_default(), protocol, port.port, port.app_protocol.clone())
    };
    let mut keys: Vec<PortKey> = ports.iter().map(key).collect();
    keys.sort();
    keys
}

fn same_ports(one: &[EndpointPort], other: &[EndpointPort]) -> bool {
    port_keys(one) == port_keys(other)
}

/// What tells an endpoint from others.
fn identity(endpoint: &Endpoint) -> (String, Option<String>) {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.clone());
    (endpoint.addresses.first().cloned().unwrap_or_default(), uid)
}

/// The changes that lead from the slices that are there to what is wanted.
pub(super) fn fit(frame: &Frame, groups: Vec<Group>, existing: &[Arc<EndpointSlice>]) -> Changes {
    let mut changes = Changes::default();
    let mut rest: Vec<&Arc<EndpointSlice>> = existing.iter().collect();
    rest.sort_by(|one, other| one.metadata.name.cmp(&other.metadata.name));
    let mut kept = 0;
    for group in groups {
        let is_of = |slice: &&Arc<EndpointSlice>| {
            slice.address_type == group.family && same_ports(slice.ports.as_deref().unwrap_or_default(), &group.ports)
        };
        let (of_group, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(is_of);
        rest = others;
        kept += fit_group(frame, group, of_group, &mut changes);
    }
    changes.delete.extend(rest.into_iter().cloned());
    if let Some(family) = frame.placeholder.as_ref().filter(|_| kept == 0 && changes.create.is_empty()) {
        let empty = new_slice(frame, family, Vec::new(), Vec::new());
        match changes.delete.iter().position(|slice| is_like(slice, &empty)) {
            Some(place) => drop(changes.delete.remove(place)),
            None => changes.create.push(empty),
        }
    }
    recycle(&mut changes);
    changes
}

/// One slice in the making.
struct Draft<'e> {
    from: &'e Arc<EndpointSlice>,
    endpoints: Vec<Endpoint>,
    is_changed: bool,
}

/// Fits the endpoints of one group; how many slices that are there stay.
fn fit_group(frame: &Frame, group: Group, existing: Vec<&Arc<EndpointSlice>>, changes: &mut Changes) -> usize {
    let Group { family, ports, endpoints } = group;
    let mut wanted: BTreeMap<_, Endpoint> = endpoints.into_iter().map(|one| (identity(&one), one)).collect();
    let mut drafts = Vec::new();
    for from in existing {
        let before = from.endpoints.as_deref().unwrap_or_default();
        let endpoints: Vec<Endpoint> = before.iter().filter_map(|one| wanted.remove(&identity(one))).collect();
        let is_changed = endpoints != before || !is_framed(frame, from);
        drafts.push(Draft { from, endpoints, is_changed });
    }
    let mut left: Vec<Endpoint> = wanted.into_values().collect();
    for draft in drafts.iter_mut().filter(|draft| draft.is_changed) {
        let room = frame.limit.saturating_sub(draft.endpoints.len()).min(left.len());
        draft.endpoints.extend(left.drain(..room));
    }
    while left.len() >= frame.limit {
        let full = left.drain(..frame.limit).collect();
        changes.create.push(new_slice(frame, &family, ports.clone(), full));
    }
    if !left.is_empty() {
        let fits = |draft: &&mut Draft<'_>| !draft.is_changed && draft.endpoints.len() + left.len() <= frame.limit;
        match drafts.iter_mut().filter(fits).max_by_key(|draft| draft.endpoints.len()) {
            Some(draft) => {
                draft.endpoints.append(&mut left);
                draft.is_changed = true;
            }
            None => changes.create.push(new_slice(frame, &family, ports.clone(), left)),
        }
    }
    let mut kept = 0;
    for Draft { from, endpoints, is_changed } in drafts {
        match (endpoints.is_empty(), is_changed) {
            (true, _) => changes.delete.push(Arc::clone(from)),
            (false, true) => changes.update.push(framed(frame, from, endpoints)),
            (false, false) => {}
        }
        kept += usize::from(!changes.delete.iter().any(|gone| Arc::ptr_eq(gone, from)));
    }
    kept
}

/// A slice that would be removed becomes one that would be made.
fn recycle(changes: &mut Changes) {
    let mut create = Vec::new();
    for new in changes.create.drain(..) {
        match changes.delete.iter().position(|old| old.address_type == new.address_type) {
            Some(place) => {
                let old = changes.delete.remove(place);
                let metadata = ObjectMeta {
                    labels: new.metadata.labels,
                    annotations: new.metadata.annotations,
                    owner_references: new.metadata.owner_references,
                    ..old.metadata.clone()
                };
                changes.update.push(EndpointSlice { metadata, ..new });
            }
            None => create.push(new),
        }
    }
    changes.create = create;
}

fn new_slice(frame: &Frame, family: &str, ports: Vec<EndpointPort>, endpoints: Vec<Endpoint>) -> EndpointSlice {
    let metadata = ObjectMeta {
        generate_name: Some(format!("{}-", frame.name)),
        namespace: Some(frame.namespace.clone()),
        ..frame_of(frame)
    };
    EndpointSlice { address_type: family.to_owned(), metadata, ports: Some(ports), endpoints: Some(endpoints) }
}

fn frame_of(frame: &Frame) -> ObjectMeta {
    ObjectMeta {
        labels: Some(frame.labels.clone()),
        annotations: (!frame.annotations.is_empty()).then(|| frame.annotations.clone()),
        owner_references: Some(vec![frame.owner.clone()]),
        ..ObjectMeta::default()
    }
}

fn framed(frame: &Frame, from: &EndpointSlice, endpoints: Vec<Endpoint>) -> EndpointSlice {
    let ObjectMeta { labels, annotations, owner_references, .. } = frame_of(frame);
    let metadata = ObjectMeta { labels, annotations, owner_references, ..from.metadata.clone() };
    EndpointSlice { metadata, endpoints: Some(endpoints), ..from.clone() }
}

fn is_framed(frame: &Frame, slice: &EndpointSlice) -> bool {
    let metadata = &slice.metadata;
    metadata.labels.as_ref() == Some(&frame.labels)
        && metadata.annotations.clone().unwrap_or_default() == frame.annotations
        && metadata.owner_references.as_deref() == Some(std::slice::from_ref(&frame.owner))
}

fn is_like(slice: &EndpointSlice, empty: &EndpointSlice) -> bool {
    let ports = slice.ports.as_deref().unwrap_or_default();
    let endpoints = slice.endpoints.as_deref().unwrap_or_default();
    ports.is_empty()
        && endpoints.is_empty()
        && slice.address_type == empty.address_type
        && slice.metadata.labels == empty.metadata.labels
        && slice.metadata.owner_references == empty.metadata.owner_references
}
