//! What names are answered from: the Services and endpoints of a cluster, changed one object at a time.
//!
//! [`crate::follow`] feeds it; [`crate::answer`] reads it. It has no clock and does no input or output. Deliberately not
//! here: pods, whose names say their addresses themselves. Invariant: what it holds depends on the objects alone, not on
//! the order in which they came.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use hickory_proto::rr::Name;

use crate::objects::{Endpoint, EndpointSlice, Namespace, Port, Service, Way};

/// The names of a cluster.
#[derive(Debug)]
pub struct Zone {
    domain: Name,
    /// Addresses of the name server itself, `ns.dns.<domain>`.
    servers: Vec<IpAddr>,
    serial: u32,
    /// By namespace and name.
    services: HashMap<String, HashMap<String, Entry>>,
    /// None while they are not known.
    namespaces: Option<HashSet<String>>,
    /// Namespace and name of the Services with an address of their own.
    by_address: HashMap<IpAddr, BTreeSet<Place>>,
    /// The same of those that an address is an endpoint of, and how many times.
    by_endpoint: HashMap<IpAddr, BTreeMap<Place, usize>>,
    /// Of which Service a slice is, by its namespace and name.
    owners: HashMap<Place, String>,
    has_services: bool,
    has_slices: bool,
}

/// Namespace and name.
type Place = (String, String);

/// All that one name of a Service stands for: the Service, and slices that may come before it or stay after it.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    pub(crate) service: Option<Known>,
    pub(crate) slices: BTreeMap<String, Slice>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) way: Way,
    pub(crate) ports: Vec<Port>,
    pub(crate) tolerates_unready: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) ports: Vec<Port>,
    pub(crate) endpoints: Vec<Endpoint>,
}

impl Entry {
    /// The endpoints that may be found, with the ports of their slices.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = (&Endpoint, &[Port])> {
        let all = self.service.as_ref().is_some_and(|service| service.tolerates_unready);
        let slices = self.slices.values();
        let endpoints =
            slices.flat_map(|slice| slice.endpoints.iter().map(|endpoint| (endpoint, slice.ports.as_slice())));
        endpoints.filter(move |(endpoint, _)| all || endpoint.is_ready)
    }

    fn is_empty(&self) -> bool {
        self.service.is_none() && self.slices.is_empty()
    }
}

impl Zone {
    /// One that knows nothing yet of the cluster with this domain, whose name servers have these addresses.
    pub fn new(domain: Name, servers: Vec<IpAddr>) -> Self {
        let mut domain = domain.to_lowercase();
        domain.set_fqdn(true);
        Self {
            domain,
            servers,
            serial: 1,
            services: HashMap::new(),
            namespaces: None,
            by_address: HashMap::new(),
            by_endpoint: HashMap::new(),
            owners: HashMap::new(),
            has_services: false,
            has_slices: false,
        }
    }

    /// Whether it has been told of all objects, so that absence means something.
    pub fn is_complete(&self) -> bool {
        self.has_services && self.has_slices
    }

    /// The cluster's domain, in lower case.
    pub fn domain(&self) -> &Name {
        &self.domain
    }

    /// Whether nothing is kept of any Service or slice.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.services.is_empty() && self.by_address.is_empty() && self.by_endpoint.is_empty() && self.owners.is_empty()
    }

    pub(crate) fn servers(&self) -> &[IpAddr] {
        &self.servers
    }

    /// Grows with every change.
    pub(crate) fn serial(&self) -> u32 {
        self.serial
    }

    pub(crate) fn entry(&self, namespace: &str, name: &str) -> Option<&Entry> {
        self.services.get(namespace)?.get(name)
    }

    /// Whether a namespace exists. One with a Service does, before it has been heard of; and while namespaces are not
    /// known, `otherwise` decides.
    pub(crate) fn has_namespace(&self, name: &str, otherwise: bool) -> bool {
        let is_named = self.namespaces.as_ref().map_or(otherwise, |all| all.contains(name));
        is_named || self.services.get(name).is_some_and(|all| all.values().any(|entry| entry.service.is_some()))
    }

    /// The Services that have this address.
    pub(crate) fn owners(&self, address: IpAddr) -> impl Iterator<Item = (&str, &str)> {
        self.by_address.get(&address).into_iter().flatten().map(|(namespace, name)| (namespace.as_str(), name.as_str()))
    }

    /// The Services that this address is an endpoint of.
    pub(crate) fn answered_by(&self, address: IpAddr) -> impl Iterator<Item = (&str, &str)> {
        let places = self.by_endpoint.get(&address).into_iter().flatten();
        places.map(|((namespace, name), _)| (namespace.as_str(), name.as_str()))
    }
}

/// Changes.
impl Zone {
    /// These are all Services.
    pub fn replace_services(&mut self, services: Vec<Service>) {
        self.by_address.clear();
        for all in self.services.values_mut() {
            all.values_mut().for_each(|entry| entry.service = None);
        }
        services.into_iter().for_each(|service| self.put_service(&service));
        self.services.retain(|_, all| {
            all.retain(|_, entry| !entry.is_empty());
            !all.is_empty()
        });
        self.has_services = true;
        self.touch();
    }

    /// A Service is there in this state.
    pub fn put_service(&mut self, service: &Service) {
        let place = (service.namespace().to_owned(), service.name().to_owned());
        self.forget_service(&place);
        if let Some(way) = service.way() {
            if let Way::Addresses(addresses) = &way {
                for address in addresses {
                    self.by_address.entry(*address).or_default().insert(place.clone());
                }
            }
            let known = Known { way, ports: service.ports(), tolerates_unready: service.tolerates_unready() };
            self.entry_mut(place).service = Some(known);
        } else {
            self.tidy(&place);
        }
        self.touch();
    }

    /// A Service is gone.
    pub fn remove_service(&mut self, service: &Service) {
        let place = (service.namespace().to_owned(), service.name().to_owned());
        self.forget_service(&place);
        self.tidy(&place);
        self.touch();
    }

    /// These are all EndpointSlices.
    pub fn replace_slices(&mut self, slices: Vec<EndpointSlice>) {
        self.by_endpoint.clear();
        self.owners.clear();
        for all in self.services.values_mut() {
            all.values_mut().for_each(|entry| entry.slices.clear());
        }
        slices.into_iter().for_each(|slice| self.put_slice(&slice));
        self.services.retain(|_, all| {
            all.retain(|_, entry| !entry.is_empty());
            !all.is_empty()
        });
        self.has_slices = true;
        self.touch();
    }

    /// An EndpointSlice is there in this state.
    pub fn put_slice(&mut self, slice: &EndpointSlice) {
        self.forget_slice(slice);
        if !slice.service().is_empty() {
            let place = (slice.namespace().to_owned(), slice.service().to_owned());
            let endpoints = slice.endpoints();
            for address in endpoints.iter().flat_map(|endpoint| &endpoint.addresses) {
                *self.by_endpoint.entry(*address).or_default().entry(place.clone()).or_default() += 1;
            }
            self.owners.insert((place.0.clone(), slice.name().to_owned()), place.1.clone());
            let known = Slice { ports: slice.ports(), endpoints };
            self.entry_mut(place).slices.insert(slice.name().to_owned(), known);
        }
        self.touch();
    }

    /// An EndpointSlice is gone.
    pub fn remove_slice(&mut self, slice: &EndpointSlice) {
        self.forget_slice(slice);
        self.touch();
    }

    /// These are all Namespaces.
    pub fn replace_namespaces(&mut self, namespaces: Vec<Namespace>) {
        self.namespaces = Some(namespaces.iter().map(|namespace| namespace.name().to_owned()).collect());
        self.touch();
    }

    /// A Namespace is there.
    pub fn put_namespace(&mut self, namespace: &Namespace) {
        self.namespaces.get_or_insert_default().insert(namespace.name().to_owned());
        self.touch();
    }

    /// A Namespace is gone.
    pub fn remove_namespace(&mut self, namespace: &Namespace) {
        self.namespaces.get_or_insert_default().remove(namespace.name());
        self.touch();
    }

    /// Comparison of serial numbers is circular (RFC 1982), and 0 is best avoided.
    fn touch(&mut self) {
        self.serial = self.serial.wrapping_add(1).max(1);
    }

    fn entry_mut(&mut self, (namespace, name): Place) -> &mut Entry {
        self.services.entry(namespace).or_default().entry(name).or_default()
    }

    fn forget_service(&mut self, place: &Place) {
        let Some(entry) = self.services.get_mut(&place.0).and_then(|all| all.get_mut(&place.1)) else { return };
        let Some(Known { way: Way::Addresses(addresses), .. }) = entry.service.take() else { return };
        for address in addresses {
            if let Some(places) = self.by_address.get_mut(&address) {
                places.remove(place);
                if places.is_empty() {
                    self.by_address.remove(&address);
                }
            }
        }
    }

    fn forget_slice(&mut self, slice: &EndpointSlice) {
        let Some(owner) = self.owners.remove(&(slice.namespace().to_owned(), slice.name().to_owned())) else { return };
        let place = (slice.namespace().to_owned(), owner);
        let entry = self.services.get_mut(&place.0).and_then(|all| all.get_mut(&place.1));
        let former = entry.and_then(|entry| entry.slices.remove(slice.name()));
        for address in former.iter().flat_map(|slice| &slice.endpoints).flat_map(|endpoint| &endpoint.addresses) {
            let Some(places) = self.by_endpoint.get_mut(address) else { continue };
            if let Some(count) = places.get_mut(&place) {
                *count -= 1;
                if *count == 0 {
                    places.remove(&place);
                }
            }
            if places.is_empty() {
                self.by_endpoint.remove(address);
            }
        }
        self.tidy(&place);
    }

    /// Keeps nothing of names that stand for nothing.
    fn tidy(&mut self, (namespace, name): &Place) {
        let Some(all) = self.services.get_mut(namespace) else { return };
        if all.get(name).is_some_and(Entry::is_empty) {
            all.remove(name);
        }
        if all.is_empty() {
            self.services.remove(namespace);
        }
    }
}
