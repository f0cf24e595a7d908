//! Who answers where, from all Services and EndpointSlices.
//!
//! After `pkg/proxy/topology.go` and `pkg/proxy/serviceport.go`: endpoints that are ready answer; if there is none, those
//! that still serve while they end. By a policy `Local`, only those of this node answer, and if others would, silence; but
//! pods of this node and the host go by `Cluster` where others go by `externalTrafficPolicy` (`pkg/proxy/nftables/proxier.go`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::api::networking::v1::ServiceCIDR;
use net::services::{Frontend, Pool, Senders, Services};
use net::{Family, Protocol, Range};

/// Names the Service of a slice.
pub(crate) const SERVICE: &str = "kubernetes.io/service-name";
/// Names another proxy, to which a Service is left (KEP-2447).
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";
/// Three hours, `DefaultClientIPServiceAffinitySeconds`.
const STICKY: i32 = 10_800;

type SlicesOf<'s> = HashMap<(&'s str, &'s str), Vec<&'s EndpointSlice>>;

/// The node whose network it is.
#[derive(Debug, Clone)]
pub struct Here {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Where it is, once its object says so.
    pub zone: Option<String>,
}

/// What the network of a node is to do with addresses of a family.
pub fn render(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>], here: &Here, family: Family) -> Services {
    let mut slices_of = SlicesOf::new();
    for slice in slices.iter().filter(|slice| slice.address_type == family.to_string()) {
        let name = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE));
        if let (Some(namespace), Some(name)) = (&slice.metadata.namespace, name) {
            slices_of.entry((namespace, name)).or_default().push(slice);
        }
    }
    // In the order of their names: where two claim the same address and port, the first has it.
    let mut all = Services::default();
    let by_name: BTreeMap<(&str, &str), &Service> = services
        .iter()
        .filter_map(|service| {
            let (namespace, name) = (service.metadata.namespace.as_deref()?, service.metadata.name.as_deref()?);
            Some(((namespace, name), &**service))
        })
        .collect();
    for ((namespace, name), service) in by_name {
        let slices = slices_of.get(&(namespace, name)).map_or(&[][..], Vec::as_slice);
        let Some(spec) = own(service) else { continue };
        if spec.type_.as_deref() == Some("ExternalName") {
            continue;
        }
        for port in spec.ports.iter().flatten() {
            Subject { namespace, name, service, spec, slices, family }.render(port, here, &mut all);
        }
    }
    all
}

/// The ranges of Services beside that of the settings (KEP-1880). One that has an address of this node would cut it off from
/// its own network, and is none.
pub(crate) fn further(ranges: &[Arc<ServiceCIDR>], here: &Here, family: Family) -> BTreeSet<Range> {
    let texts = ranges.iter().flat_map(|range| range.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten()));
    let all = texts.filter_map(|text| Range::block(text).ok()).filter(|range| range.family() == family);
    all.filter(|range| !here.addresses.iter().any(|own| range.contains(*own))).collect()
}

/// What a Service says, unless it is left to another proxy.
pub(crate) fn own(service: &Service) -> Option<&ServiceSpec> {
    let labels = service.metadata.labels.as_ref();
    service.spec.as_ref().filter(|_| labels.is_none_or(|labels| !labels.contains_key(OTHER_PROXY)))
}

/// A Service with what belongs to it.
struct Subject<'s> {
    namespace: &'s str,
    name: &'s str,
    service: &'s Service,
    spec: &'s ServiceSpec,
    slices: &'s [&'s EndpointSlice],
    family: Family,
}

impl Subject<'_> {
    fn render(&self, port: &ServicePort, here: &Here, all: &mut Services) {
        let Self { namespace, name, service, spec, slices, family } = self;
        let name = format!("{namespace}/{name}:{}/{}", port.name.as_deref().unwrap_or_default(), protocol_name(port));
        let Some(protocol) = protocol(port) else { return };
        let candidates = candidates(port, slices, *family);
        let everywhere = chosen(nearest(&candidates, here).iter().copied());
        let is_here = |one: &Candidate<'_>| one.endpoint.node_name.as_ref() == Some(&here.name);
        let own = chosen(candidates.iter().copied().filter(is_here));
        let sticky = sticky(spec);
        // Whoever was led to one of them stays, also one who is led by the other pool from now on.
        let serving: BTreeSet<_> = candidates.iter().filter(|one| one.state().1).map(|one| one.at).collect();
        let is_silent = own.is_empty() && !everywhere.is_empty();
        let local = Pool { endpoints: own, serving: serving.clone(), sticky, is_silent };
        let pools = [
            (name.clone(), Pool { endpoints: everywhere, serving, sticky, is_silent: false }),
            (format!("{name}@{}", here.name), local),
        ];
        let policy = |policy: &Option<String>| usize::from(policy.as_deref() == Some("Local"));
        let (inside, outside) = (policy(&spec.internal_traffic_policy), policy(&spec.external_traffic_policy));
        // Whoever is near is led as if by a load balancer elsewhere, to all endpoints.
        let near = (pools[outside].1 != pools[0].1).then_some(0);
        let mut add = |address: Option<IpAddr>, port: i32, pool: usize, near: Option<usize>| {
            let Some(port) = u16::try_from(port).ok().filter(|port| *port != 0) else { return };
            let frontend = Frontend { address, protocol, port, senders: Senders::All };
            if all.frontends.contains_key(&frontend) {
                return;
            }
            let near = near.map(|pool| (Frontend { senders: Senders::Near, ..frontend }, pool));
            for (frontend, pool) in [Some((frontend, pool)), near].into_iter().flatten() {
                let (name, pool) = &pools[pool];
                all.frontends.insert(frontend, name.clone());
                all.pools.insert(name.clone(), pool.clone());
            }
        };
        for address in own_addresses(spec).into_iter().filter(|address| Family::of(*address) == *family) {
            add(Some(address), port.port, inside, None);
        }
        let (mut external, mut balancers) = (external_addresses(spec), balancer_addresses(service, spec));
        for addresses in [&mut external, &mut balancers] {
            addresses.retain(|address| Family::of(*address) == *family);
        }
        for address in external.union(&balancers) {
            add(Some(*address), port.port, outside, near);
        }
        if has_family(spec, *family) && matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer")) {
            add(None, port.node_port.unwrap_or(0), outside, near);
        }
        let Some(admitted) = admitted(spec, &balancers, here) else { return };
        let port = u16::try_from(port.port).unwrap_or_default();
        let guarded = balancers.iter().map(|address| {
            let frontend = Frontend { address: Some(*address), protocol, port, senders: Senders::All };
            (frontend, admitted.clone())
        });
        let is_own = |frontend: &Frontend| all.frontends.get(frontend) == Some(&pools[outside].0);
        all.admitted.extend(guarded.filter(|(frontend, _)| is_own(frontend)));
    }
}

/// An endpoint with its port.
#[derive(Clone, Copy)]
struct Candidate<'s> {
    endpoint: &'s Endpoint,
    at: SocketAddr,
}

impl Candidate<'_> {
    /// Whether it is ready, whether it serves, and whether it ends.
    fn state(&self) -> (bool, bool, bool) {
        let conditions = self.endpoint.conditions.clone().unwrap_or_default();
        let ready = conditions.ready.unwrap_or(true);
        (ready, conditions.serving.unwrap_or(ready), conditions.terminating.unwrap_or(false))
    }
}

fn candidates<'s>(port: &ServicePort, slices: &[&'s EndpointSlice], family: Family) -> Vec<Candidate<'s>> {
    let mut candidates = Vec::new();
    for slice in slices {
        let is_it = |own: &&k8s_openapi::api::discovery::v1::EndpointPort| {
            own.name.as_deref().unwrap_or_default() == port.name.as_deref().unwrap_or_default()
                && own.protocol.as_deref().unwrap_or("TCP") == protocol_name(port)
        };
        let number = slice.ports.iter().flatten().find(is_it).and_then(|own| own.port);
        let Some(number) = number.and_then(|number| u16::try_from(number).ok()) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            // All addresses of an endpoint are the same to it; the first is used, as upstream does.
            let address = endpoint.addresses.first().and_then(|text| text.parse::<IpAddr>().ok());
            let is_usable = |address: &IpAddr| {
                Family::of(*address) == family && !address.is_loopback() && !address.is_unspecified()
            };
            if let Some(address) = address.filter(is_usable) {
                candidates.push(Candidate { endpoint, at: SocketAddr::new(address, number) });
            }
        }
    }
    candidates
}

/// Those that are for this node, else those that are for its zone, else all: `topologyModeFromHints`. Hints count only if
/// every endpoint that is ready has some; then some that are ready are among what is returned.
fn nearest<'s>(candidates: &[Candidate<'s>], here: &Here) -> Vec<Candidate<'s>> {
    let for_nodes = |one: &Candidate<'s>| {
        let nodes = one.endpoint.hints.as_ref().and_then(|hints| hints.for_nodes.as_deref()).unwrap_or_default();
        nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>()
    };
    let for_zones = |one: &Candidate<'s>| {
        let zones = one.endpoint.hints.as_ref().and_then(|hints| hints.for_zones.as_deref()).unwrap_or_default();
        zones.iter().map(|zone| zone.name.as_str()).collect::<Vec<_>>()
    };
    let own = |hints: &dyn Fn(&Candidate<'s>) -> Vec<&'s str>, place: Option<&str>| {
        let ready = || candidates.iter().filter(|one| one.state().0);
        let place = place.filter(|_| ready().all(|one| !hints(one).is_empty()))?;
        let is_near = |one: &&Candidate<'s>| hints(one).contains(&place);
        ready().any(|one| is_near(&one)).then(|| candidates.iter().filter(is_near).copied().collect())
    };
    own(&for_nodes, Some(&here.name))
        .or_else(|| own(&for_zones, here.zone.as_deref()))
        .unwrap_or_else(|| candidates.to_vec())
}

/// Those that answer.
fn chosen<'s>(candidates: impl Iterator<Item = Candidate<'s>> + Clone) -> BTreeSet<SocketAddr> {
    let ready: BTreeSet<_> = candidates.clone().filter(|one| one.state().0).map(|one| one.at).collect();
    if !ready.is_empty() {
        return ready;
    }
    let ends = |one: &Candidate<'s>| matches!(one.state(), (_, true, true));
    candidates.filter(ends).map(|one| one.at).collect()
}

/// Whether its ports of nodes are those of addresses of a family.
fn has_family(spec: &ServiceSpec, family: Family) -> bool {
    let families = spec.ip_families.as_deref().unwrap_or_default();
    if families.is_empty() { family == Family::V4 } else { families.iter().any(|own| *own == family.to_string()) }
}

fn own_addresses(spec: &ServiceSpec) -> BTreeSet<IpAddr> {
    let all = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    all.filter_map(|address| address.parse().ok()).collect()
}

/// Services without an address of their own have none for others.
fn external_addresses(spec: &ServiceSpec) -> BTreeSet<IpAddr> {
    let is_headless = own_addresses(spec).is_empty();
    spec.external_ips.iter().flatten().filter(|_| !is_headless).filter_map(|address| address.parse().ok()).collect()
}

/// As [`external_addresses`], those of a load balancer.
fn balancer_addresses(service: &Service, spec: &ServiceSpec) -> BTreeSet<IpAddr> {
    let is_balanced = spec.type_.as_deref() == Some("LoadBalancer") && !own_addresses(spec).is_empty();
    let status = service.status.iter().filter(|_| is_balanced);
    let ingress = status.flat_map(|status| status.load_balancer.iter().flat_map(|own| own.ingress.iter().flatten()));
    let addresses = ingress.filter(|one| one.ip_mode.as_deref() != Some("Proxy")).filter_map(|one| one.ip.as_deref());
    addresses.filter_map(|address| address.parse().ok()).collect()
}

/// Who alone may come by the addresses of a load balancer; none if all may. An address that is bound to this node is also
/// the one by which the node itself comes there, so both are admitted together, as by `pkg/proxy/nftables/proxier.go`.
fn admitted(spec: &ServiceSpec, balancers: &BTreeSet<IpAddr>, here: &Here) -> Option<BTreeSet<Range>> {
    let texts = spec.load_balancer_source_ranges.as_ref().filter(|texts| !texts.is_empty())?;
    let mut ranges: BTreeSet<Range> = texts.iter().filter_map(|text| Range::block(text.trim()).ok()).collect();
    let family = balancers.first().map(|address| Family::of(*address))?;
    // Who names ranges of the other family alone admits nobody in this one.
    ranges.retain(|range| range.family() == family);
    if here.addresses.iter().any(|own| ranges.iter().any(|range| range.contains(*own))) {
        ranges.extend(balancers.iter().map(|address| Range::single(*address)));
    }
    Some(ranges)
}

fn sticky(spec: &ServiceSpec) -> Option<u32> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let client = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = client.and_then(|client| client.timeout_seconds).unwrap_or(STICKY);
    u32::try_from(seconds).ok().filter(|seconds| *seconds > 0)
}

fn protocol_name(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

fn protocol(port: &ServicePort) -> Option<Protocol> {
    protocol_of(protocol_name(port))
}

/// A protocol by its name in the API.
pub(crate) fn protocol_of(name: &str) -> Option<Protocol> {
    match name {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
