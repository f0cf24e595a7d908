//! Who may talk with the pods of this node, from all NetworkPolicies, pods and namespaces.
//!
//! After the description of `networking.k8s.io/v1` NetworkPolicy: a pod that a policy selects takes only what some policy lets
//! in, each policy adds, and the order is nothing. Pods in the network of their host are no pods here, neither as selected ones
//! nor as peers. A port by name is the port that the called pod has by that name. A pod is fenced once its address is in the API:
//! its first container may run for some milliseconds before that.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use api::selector::LabelSelector;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use net::policies::{Fence, Opening, Peers, Policies, Ports};
use net::{Family, Protocol, Range};

use super::facts::{NamespaceFacts, PodFacts};

/// What the network of a node is to let through between addresses of a family.
pub fn render(
    policies: &[Arc<NetworkPolicy>],
    pods: &[Arc<PodFacts>],
    namespaces: &[Arc<NamespaceFacts>],
    node: &str,
    family: Family,
) -> Policies {
    let mut pods: Vec<Member<'_>> = pods.iter().filter_map(|pod| Member::of(pod, family)).collect();
    pods.sort_by_key(|pod| pod.address);
    let namespaces = namespaces.iter().map(|namespace| (namespace.name(), &**namespace)).collect();
    let mut work = Work { pods, namespaces, node, family, all: Policies::default() };
    for policy in policies {
        work.add(policy);
    }
    work.all
}

/// A pod that has an address of its own.
#[derive(Clone, Copy)]
struct Member<'p> {
    facts: &'p PodFacts,
    address: IpAddr,
}

impl<'p> Member<'p> {
    fn of(facts: &'p PodFacts, family: Family) -> Option<Self> {
        let address = facts.address(family).filter(|_| !facts.spec.host_network && !facts.has_ended())?;
        Some(Self { facts, address })
    }
}

struct Work<'p> {
    pods: Vec<Member<'p>>,
    namespaces: BTreeMap<&'p str, &'p NamespaceFacts>,
    node: &'p str,
    family: Family,
    all: Policies,
}

impl Work<'_> {
    fn add(&mut self, policy: &NetworkPolicy) {
        let (Some(namespace), Some(spec)) = (policy.metadata.namespace.as_deref(), policy.spec.as_ref()) else {
            return;
        };
        let selector = selector(spec.pod_selector.as_ref());
        let is_selected = |pod: &Member<'_>| {
            pod.facts.spec.node_name == self.node
                && pod.facts.metadata.namespace == namespace
                && selector.matches(Some(&pod.facts.metadata.labels))
        };
        let selected: Vec<(IpAddr, &PodFacts)> =
            self.pods.iter().filter(|pod| is_selected(pod)).map(|pod| (pod.address, pod.facts)).collect();
        if selected.is_empty() {
            return;
        }
        let (ingress, egress) = directions(spec);
        if ingress {
            let rules = spec.ingress.iter().flatten();
            let rules: Vec<_> =
                rules.map(|rule| (self.peers(namespace, rule.from.as_deref()), rule.ports.as_deref())).collect();
            for (address, facts) in &selected {
                let openings = rules.iter().flat_map(|(peers, ports)| incoming(peers, *ports, facts));
                self.all.ingress.entry(*address).or_default().extend(openings);
            }
        }
        if egress {
            let rules = spec.egress.iter().flatten();
            let openings: Fence =
                rules.flat_map(|rule| self.outgoing(namespace, rule.to.as_deref(), rule.ports.as_deref())).collect();
            for (address, _) in selected {
                self.all.egress.entry(address).or_default().extend(openings.iter().cloned());
            }
        }
    }

    /// The other ends of a rule; all if it names none.
    fn peers(&mut self, namespace: &str, peers: Option<&[NetworkPolicyPeer]>) -> Vec<Peers> {
        match peers.filter(|peers| !peers.is_empty()) {
            None => vec![Peers::All],
            Some(peers) => peers.iter().filter_map(|peer| self.peer(namespace, peer)).collect(),
        }
    }

    fn peer(&mut self, namespace: &str, peer: &NetworkPolicyPeer) -> Option<Peers> {
        if let Some(block) = &peer.ip_block {
            // A block of the other family is nobody here.
            let range = Range::block(&block.cidr).ok().filter(|range| range.family() == self.family)?;
            let except = block.except.iter().flatten().filter_map(|text| Range::block(text).ok()).collect();
            return Some(Peers::Block { range, except });
        }
        let (name, members) = self.members(namespace, peer);
        let members = members.iter().map(|member| member.address).collect();
        self.all.groups.insert(name.clone(), members);
        Some(Peers::Group(name))
    }

    /// The pods that a peer selects, and a name for the selection.
    fn members(&self, namespace: &str, peer: &NetworkPolicyPeer) -> (String, Vec<Member<'_>>) {
        let of_namespaces = peer.namespace_selector.as_ref().map(|own| selector(Some(own)));
        let of_pods = peer.pod_selector.as_ref().map(|own| selector(Some(own)));
        let is_chosen = |pod: &&Member<'_>| {
            let home = pod.facts.metadata.namespace.as_str();
            let is_there = match &of_namespaces {
                None => home == namespace,
                Some(own) => self.namespaces.get(home).is_some_and(|facts| own.matches(Some(&facts.metadata.labels))),
            };
            is_there && of_pods.as_ref().is_none_or(|own| own.matches(Some(&pod.facts.metadata.labels)))
        };
        let text = |own: Option<&v1::LabelSelector>| serde_json::to_string(&own).unwrap_or_default();
        let place = match &peer.namespace_selector {
            None => namespace.to_owned(),
            own => text(own.as_ref()),
        };
        let name = format!("{place} {}", text(peer.pod_selector.as_ref()));
        (name, self.pods.iter().filter(is_chosen).copied().collect())
    }

    fn outgoing(
        &mut self,
        namespace: &str,
        peers: Option<&[NetworkPolicyPeer]>,
        ports: Option<&[NetworkPolicyPort]>,
    ) -> Vec<Opening> {
        let Some(ports) = ports.filter(|ports| !ports.is_empty()) else {
            let peers = self.peers(namespace, peers);
            return peers.into_iter().map(|peers| Opening { peers, port: None }).collect();
        };
        let mut openings = Vec::new();
        for port in ports {
            match &port.port {
                Some(IntOrString::String(name)) => openings.extend(self.outgoing_by_name(namespace, peers, name, port)),
                _ => {
                    let Some(port) = numbered(port) else { continue };
                    let peers = self.peers(namespace, peers);
                    openings.extend(peers.into_iter().map(|peers| Opening { peers, port: Some(port) }));
                }
            }
        }
        openings
    }

    /// A port by name is another number for other peers; an address without a pod has no ports by name.
    fn outgoing_by_name(
        &mut self,
        namespace: &str,
        peers: Option<&[NetworkPolicyPeer]>,
        name: &str,
        port: &NetworkPolicyPort,
    ) -> Vec<Opening> {
        let Some(protocol) = protocol(port) else { return Vec::new() };
        let anybody =
            NetworkPolicyPeer { namespace_selector: Some(v1::LabelSelector::default()), ..Default::default() };
        let anybody = [anybody];
        let peers = peers.filter(|peers| !peers.is_empty()).unwrap_or(&anybody);
        let mut groups: BTreeMap<(String, u16), BTreeSet<IpAddr>> = BTreeMap::new();
        for peer in peers.iter().filter(|peer| peer.ip_block.is_none()) {
            let (selection, members) = self.members(namespace, peer);
            for member in members {
                for number in member.facts.ports_named(name, protocol_name(port)) {
                    let group = format!("{selection} {protocol}/{name}={number}");
                    groups.entry((group, number)).or_default().insert(member.address);
                }
            }
        }
        let mut openings = Vec::new();
        for ((group, number), members) in groups {
            self.all.groups.insert(group.clone(), members);
            let port = Some(Ports { protocol, range: Some((number, number)) });
            openings.push(Opening { peers: Peers::Group(group), port });
        }
        openings
    }
}

/// What a rule lets in to a pod.
fn incoming(peers: &[Peers], ports: Option<&[NetworkPolicyPort]>, pod: &PodFacts) -> Vec<Opening> {
    let open = |port: Option<Ports>| peers.iter().map(move |peers| Opening { peers: peers.clone(), port });
    let Some(ports) = ports.filter(|ports| !ports.is_empty()) else { return open(None).collect() };
    let mut openings = Vec::new();
    for port in ports {
        match &port.port {
            Some(IntOrString::String(name)) => {
                let Some(protocol) = protocol(port) else { continue };
                for number in pod.ports_named(name, protocol_name(port)) {
                    openings.extend(open(Some(Ports { protocol, range: Some((number, number)) })));
                }
            }
            _ => openings.extend(numbered(port).into_iter().flat_map(|port| open(Some(port)))),
        }
    }
    openings
}

/// Whether a policy is about what comes, and about what goes.
fn directions(spec: &NetworkPolicySpec) -> (bool, bool) {
    match spec.policy_types.as_deref() {
        None | Some([]) => (true, spec.egress.as_ref().is_some_and(|rules| !rules.is_empty())),
        Some(types) => (types.iter().any(|kind| kind == "Ingress"), types.iter().any(|kind| kind == "Egress")),
    }
}

fn numbered(port: &NetworkPolicyPort) -> Option<Ports> {
    let protocol = protocol(port)?;
    let range = match &port.port {
        None => None,
        Some(IntOrString::Int(first)) => {
            let last = port.end_port.unwrap_or(*first);
            Some((u16::try_from(*first).ok()?, u16::try_from(last).ok()?))
        }
        Some(IntOrString::String(_)) => return None,
    };
    Some(Ports { protocol, range })
}

fn protocol_name(port: &NetworkPolicyPort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

fn protocol(port: &NetworkPolicyPort) -> Option<Protocol> {
    crate::render::protocol_of(protocol_name(port))
}

/// No selector, and an empty one, select everything; the API takes only good ones.
fn selector(selector: Option<&v1::LabelSelector>) -> LabelSelector {
    let value = serde_json::to_value(selector).ok().filter(|value| !value.is_null());
    value.map_or_else(LabelSelector::everything, |value| {
        LabelSelector::from_object(&value).unwrap_or_else(|_| LabelSelector::nothing())
    })
}

#[cfg(test)]
mod tests;
