//! What a name of the cluster is answered with.
//!
//! A pure function of the zone and a question, after the specification "Kubernetes DNS-Based Service Discovery" 1.1.0
//! (`docs/specification.md` of kubernetes/dns), and where it leaves something open after CoreDNS with the configuration
//! that kubeadm gives it (`plugin/kubernetes`; `pods insecure`). There are no wildcards. Invariant: a name has either
//! records or names below it, or it does not exist; only what does not exist is answered with NXDOMAIN (RFC 8020).
//!
//! | name below the domain | has |
//! | --- | --- |
//! | the domain itself | SOA, NS |
//! | `ns.dns`, `dns-version` | addresses of the name server; TXT |
//! | `<service>.<namespace>.svc` | its addresses, or those of its endpoints, or a CNAME; SRV of all ports |
//! | `<hostname>.<service>.<namespace>.svc` | addresses of endpoints; one without host name is called by its address |
//! | `_<port>._<protocol>.<service>.<namespace>.svc` | SRV |
//! | `<address with dashes>.<namespace>.pod` | that address, whether a pod has it or not |
//! | `dns`, `svc`, `pod`, namespaces below them, `_<protocol>` | nothing |

use std::collections::HashSet;
use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::objects::{Endpoint, Port, Way};
use crate::zone::{Entry, Known, Zone};

/// How long answers may be kept, in seconds, also those that there is nothing; CoreDNS's default.
pub const TTL: u32 = 5;
/// Version of the specification.
const VERSION: &str = "1.1.0";
/// Names that may lead to each other before it is taken for a circle.
const MAX_ALIASES: usize = 8;

/// What to answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Whether the name exists.
    pub code: ResponseCode,
    /// The answer section.
    pub records: Vec<Record>,
    /// The authority section: who says that there is nothing.
    pub authority: Vec<Record>,
    /// What will be asked for next.
    pub additional: Vec<Record>,
    /// A name of somebody else's where the answer goes on.
    pub beyond: Option<Name>,
}

/// What a name is.
enum Found {
    /// It exists, with these records of the type asked for.
    Records(Vec<RData>),
    /// The same, with records that will be asked for next.
    With(Vec<RData>, Vec<Record>),
    /// Another name stands for it.
    Alias(Name),
    /// It does not exist.
    Nothing,
}

/// What is asked for, beside the name.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// The type.
    pub kind: RecordType,
    /// Which of several endpoints comes first.
    pub turn: usize,
    /// How many records are worth making, as no more fit into a message.
    pub most: usize,
}

/// Answers a question of class IN about a name; none if it is for somebody else.
pub fn answer(zone: &Zone, name: &Name, ask: &Ask) -> Option<Answer> {
    let found = if zone.domain().zone_of(name) {
        look_up(zone, &name.to_lowercase(), ask)
    } else if matches!(ask.kind, RecordType::PTR | RecordType::ANY) {
        let names = reverse(zone, address_of(name)?);
        if names.is_empty() {
            return None;
        }
        Found::Records(names.into_iter().map(|name| RData::PTR(PTR(name))).collect())
    } else {
        return None;
    };
    Some(finish(zone, name, ask, found))
}

/// The answer for a name of which it is known what it is, other names that it leads to included.
fn finish(zone: &Zone, name: &Name, ask: &Ask, mut found: Found) -> Answer {
    let mut answer = Answer {
        code: ResponseCode::NoError,
        records: Vec::new(),
        authority: Vec::new(),
        additional: Vec::new(),
        beyond: None,
    };
    let mut owner = name.clone();
    for _ in 0..MAX_ALIASES {
        let record = |data| Record::from_rdata(owner.clone(), TTL, data);
        match found {
            Found::Records(data) => answer.records.extend(data.into_iter().map(record)),
            Found::With(data, additional) => {
                answer.records.extend(data.into_iter().map(record));
                answer.additional = additional;
            }
            Found::Nothing => answer.code = ResponseCode::NXDomain,
            Found::Alias(target) => {
                answer.records.push(record(RData::CNAME(CNAME(target.clone()))));
                if matches!(ask.kind, RecordType::CNAME | RecordType::ANY) {
                    return answer;
                }
                if !zone.domain().zone_of(&target) {
                    answer.beyond = Some(target);
                    return answer;
                }
                found = look_up(zone, &target.to_lowercase(), ask);
                owner = target;
                continue;
            }
        }
        return conclude(zone, answer);
    }
    Answer { code: ResponseCode::ServFail, records: Vec::new(), ..answer }
}

/// Nothing at the end of the way is said with the SOA (RFC 2308 §3). Nothing is said of what is not known yet.
fn conclude(zone: &Zone, mut answer: Answer) -> Answer {
    if !answer.records.iter().all(|record| record.record_type() == RecordType::CNAME) {
        return answer;
    }
    if !zone.is_complete() {
        return Answer { code: ResponseCode::ServFail, records: Vec::new(), ..answer };
    }
    answer.authority.push(Record::from_rdata(zone.domain().clone(), TTL, RData::SOA(soa(zone))));
    answer
}

/// What a name in lower case is.
fn look_up(zone: &Zone, name: &Name, ask: &Ask) -> Found {
    let depth = name.iter().count() - zone.domain().iter().count();
    let Ok(labels) = name.iter().take(depth).map(str::from_utf8).collect::<Result<Vec<_>, _>>() else {
        return Found::Nothing;
    };
    let exists = |is_so| if is_so { Found::Records(Vec::new()) } else { Found::Nothing };
    let kind = ask.kind;
    match labels.as_slice() {
        [] => apex(zone, kind),
        ["dns-version"] => of_type(kind, vec![RData::TXT(TXT::new(vec![VERSION.to_owned()]))]),
        ["ns", "dns"] => of_type(kind, zone.servers().iter().map(|address| data(*address)).collect()),
        ["dns" | "svc" | "pod"] => exists(true),
        [namespace, "svc"] => exists(zone.has_namespace(namespace, false)),
        [namespace, "pod"] => exists(zone.has_namespace(namespace, true)),
        [pod, namespace, "pod"] => match dashed_address(pod) {
            Some(address) if zone.has_namespace(namespace, true) => of_type(kind, vec![data(address)]),
            _ => Found::Nothing,
        },
        [service, namespace, "svc"] => {
            at_entry(zone, namespace, service, |entry, known| whole_service(entry, known, name, ask))
        }
        [label, service, namespace, "svc"] => {
            at_entry(zone, namespace, service, |entry, known| part_of_service(entry, known, label, ask))
        }
        [port, protocol, service, namespace, "svc"] => at_entry(zone, namespace, service, |entry, known| {
            let words = (port.strip_prefix('_'), protocol.strip_prefix('_'));
            let (Some(port), Some(protocol)) = words else { return Found::Nothing };
            let chosen = |said: &Port| !port.is_empty() && said.name == port && said.protocol == protocol;
            services(targets(entry, known, chosen), known, &name.base_name().base_name(), ask)
        }),
        _ => Found::Nothing,
    }
}

fn at_entry(zone: &Zone, namespace: &str, name: &str, found: impl FnOnce(&Entry, &Known) -> Found) -> Found {
    let entry = zone.entry(namespace, name);
    let known = entry.and_then(|entry| Some((entry, entry.service.as_ref()?)));
    known.map_or(Found::Nothing, |(entry, service)| found(entry, service))
}

fn apex(zone: &Zone, kind: RecordType) -> Found {
    let server = name_below(&["ns", "dns"], zone.domain());
    let additional =
        zone.servers().iter().map(|address| Record::from_rdata(server.clone(), TTL, data(*address))).collect();
    match of_type(kind, vec![RData::SOA(soa(zone)), RData::NS(NS(server))]) {
        Found::Records(data) if kind == RecordType::NS => Found::With(data, additional),
        found => found,
    }
}

fn soa(zone: &Zone) -> SOA {
    let server = name_below(&["ns", "dns"], zone.domain());
    let administrator = name_below(&["hostmaster"], zone.domain());
    SOA::new(server, administrator, zone.serial(), 7200, 1800, 86400, TTL)
}

/// `<service>.<namespace>.svc`: with all its ports, named or not, as those want it who look for peers.
fn whole_service(entry: &Entry, known: &Known, name: &Name, ask: &Ask) -> Found {
    match &known.way {
        // What looks like an address is no name of a host (RFC 1123 §2.1).
        Way::Alias(alias) if alias.parse::<IpAddr>().is_ok() => Found::Nothing,
        Way::Alias(alias) => absolute(alias).map_or(Found::Nothing, Found::Alias),
        // "If there are no ready endpoints for the headless Service, the answer should be NXDOMAIN": §2.4.1.
        Way::Endpoints if entry.endpoints().next().is_none() => Found::Nothing,
        _ if ask.kind == RecordType::SRV => match services(targets(entry, known, |_| true), known, name, ask) {
            Found::Nothing => Found::Records(Vec::new()),
            found => found,
        },
        Way::Addresses(addresses) => of_type(ask.kind, addresses.iter().map(|address| data(*address)).collect()),
        Way::Endpoints => found_at(distinct(entry.endpoints().flat_map(|(endpoint, _)| &endpoint.addresses)), ask),
    }
}

/// Addresses of the type asked for.
fn found_at(mut addresses: Vec<IpAddr>, ask: &Ask) -> Found {
    match ask.kind {
        RecordType::A => addresses.retain(IpAddr::is_ipv4),
        RecordType::AAAA => addresses.retain(IpAddr::is_ipv6),
        RecordType::ANY => {}
        _ => addresses.clear(),
    }
    Found::Records(turned(addresses, ask.turn).take(ask.most).map(data).collect())
}

/// `<label>.<service>.<namespace>.svc`: an endpoint, or a protocol that ports have.
fn part_of_service(entry: &Entry, known: &Known, label: &str, ask: &Ask) -> Found {
    if let Some(protocol) = label.strip_prefix('_') {
        let is_there = |port: &Port| port.protocol == protocol && !port.name.is_empty();
        let is_above = match &known.way {
            Way::Alias(_) => false,
            Way::Addresses(_) => known.ports.iter().any(is_there),
            Way::Endpoints => entry.endpoints().any(|(_, ports)| ports.iter().any(is_there)),
        };
        return if is_above { Found::Records(Vec::new()) } else { Found::Nothing };
    }
    let matching = entry.endpoints().filter(|(endpoint, _)| endpoint.hostname.as_deref() == Some(label));
    let mut addresses: Vec<IpAddr> = distinct(matching.flat_map(|(endpoint, _)| &endpoint.addresses));
    if addresses.is_empty()
        && let Some(address) = dashed_address(label)
    {
        let is_it = |endpoint: &Endpoint| endpoint.hostname.is_none() && endpoint.addresses.contains(&address);
        addresses.extend(entry.endpoints().any(|(endpoint, _)| is_it(endpoint)).then_some(address));
    }
    match addresses.is_empty() || matches!(known.way, Way::Alias(_)) {
        true => Found::Nothing,
        false => found_at(addresses, ask),
    }
}

/// Where a service is: at the Service's own name, or at one of its endpoints, by host name or by one of its addresses.
#[derive(Clone, Copy)]
struct Target<'a> {
    endpoint: Option<(&'a Endpoint, Option<IpAddr>)>,
    port: u16,
}

/// All targets at the chosen ports of a Service.
fn targets<'a>(entry: &'a Entry, known: &'a Known, chosen: impl Fn(&Port) -> bool) -> Vec<Target<'a>> {
    let mut found = Vec::new();
    match &known.way {
        Way::Alias(_) => {}
        Way::Addresses(_) => {
            let ports = known.ports.iter().filter(|port| chosen(port));
            found.extend(ports.map(|port| Target { endpoint: None, port: port.number }));
        }
        Way::Endpoints => {
            for (endpoint, ports) in entry.endpoints() {
                for Port { number: port, .. } in ports.iter().filter(|port| chosen(port)) {
                    let whole = endpoint.hostname.is_some().then_some(None);
                    let single = endpoint.addresses.iter().map(|address| Some(*address));
                    let ways = whole.into_iter().chain(single.take(if whole.is_some() { 0 } else { usize::MAX }));
                    found.extend(ways.map(|address| Target { endpoint: Some((endpoint, address)), port: *port }));
                }
            }
        }
    }
    found
}

impl Target<'_> {
    /// Its name and addresses. Endpoints without host name are called by their addresses.
    fn resolved(&self, known: &Known, service: &Name) -> Option<(Name, Vec<IpAddr>)> {
        match (self.endpoint, &known.way) {
            (Some((endpoint, None)), _) => {
                let name = service.prepend_label(endpoint.hostname.as_deref()?.as_bytes()).ok()?;
                Some((name, endpoint.addresses.clone()))
            }
            (Some((_, Some(address))), _) => {
                Some((service.prepend_label(dashed(address).as_bytes()).ok()?, vec![address]))
            }
            (None, Way::Addresses(addresses)) => Some((service.clone(), addresses.clone())),
            (None, _) => None,
        }
    }
}

/// SRV records (RFC 2782) of all targets alike, and where these are.
fn services(targets: Vec<Target>, known: &Known, service: &Name, ask: &Ask) -> Found {
    if targets.is_empty() {
        return Found::Nothing;
    }
    if !matches!(ask.kind, RecordType::SRV | RecordType::ANY) {
        return Found::Records(Vec::new());
    }
    let weight = u16::try_from(100 / targets.len()).unwrap_or(1).max(1);
    let (mut records, mut additional) = (Vec::new(), Vec::new());
    let (mut said, mut placed) = (HashSet::new(), HashSet::new());
    for target in turned(targets, ask.turn).take(ask.most) {
        let Some((name, addresses)) = target.resolved(known, service) else { continue };
        if said.insert((name.clone(), target.port)) {
            records.push(RData::SRV(SRV::new(0, weight, target.port, name.clone())));
        }
        for address in addresses {
            if placed.insert((name.clone(), address)) {
                additional.push(Record::from_rdata(name.clone(), TTL, data(address)));
            }
        }
    }
    Found::With(records, additional)
}

/// The names of an address: of the Service whose it is, else those of the endpoint that has it.
fn reverse(zone: &Zone, address: IpAddr) -> Vec<Name> {
    let named = |(namespace, service): (&str, &str)| name_below(&[service, namespace, "svc"], zone.domain());
    let services: Vec<Name> = zone.owners(address).map(named).collect();
    if !services.is_empty() {
        return services;
    }
    let (mut chosen, mut assigned) = (Vec::new(), Vec::new());
    for (namespace, service) in zone.answered_by(address) {
        let Some(entry) = zone.entry(namespace, service) else { continue };
        let Some(known) = &entry.service else { continue };
        let below = named((namespace, service));
        for (endpoint, _) in entry.endpoints().filter(|(endpoint, _)| endpoint.addresses.contains(&address)) {
            match &endpoint.hostname {
                Some(hostname) => chosen.extend(below.prepend_label(hostname.as_bytes())),
                None if known.way == Way::Endpoints => assigned.extend(below.prepend_label(dashed(address).as_bytes())),
                None => {}
            }
        }
    }
    // A name that somebody has chosen says more than one that only repeats the address.
    let mut names = if chosen.is_empty() { assigned } else { chosen };
    names.sort();
    names.dedup();
    names
}

fn of_type(kind: RecordType, all: Vec<RData>) -> Found {
    Found::Records(all.into_iter().filter(|data| kind == RecordType::ANY || data.record_type() == kind).collect())
}

fn data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

fn distinct<'a>(addresses: impl Iterator<Item = &'a IpAddr>) -> Vec<IpAddr> {
    let mut seen = HashSet::new();
    addresses.filter(|address| seen.insert(**address)).copied().collect()
}

/// All of them, another one first each time, so that clients that take the first spread.
fn turned<T>(mut all: Vec<T>, turn: usize) -> impl Iterator<Item = T> {
    let by = turn.checked_rem(all.len()).unwrap_or(0);
    all.rotate_left(by);
    all.into_iter()
}

/// `10-42-0-7` or `fd00--7`, as CoreDNS writes them.
fn dashed(address: IpAddr) -> String {
    let text = address.to_string().replace(['.', ':'], "-");
    // A label does not end with a dash (RFC 1123 §2.1).
    let end = if text.ends_with('-') { "0" } else { "" };
    let start = if text.starts_with('-') { "0" } else { "" };
    format!("{start}{text}{end}")
}

fn dashed_address(label: &str) -> Option<IpAddr> {
    let is_v4 = label.bytes().filter(|byte| *byte == b'-').count() == 3 && !label.contains("--");
    let text = label.replace('-', if is_v4 { "." } else { ":" });
    text.parse().ok().filter(|address: &IpAddr| address.is_ipv4() == is_v4)
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` stands for.
fn address_of(name: &Name) -> Option<IpAddr> {
    let range = name.parse_arpa_name().ok()?;
    (range.prefix_len() == range.max_prefix_len()).then(|| range.addr())
}

fn absolute(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    (!name.is_root()).then_some(name)
}

/// A name made of labels that the API has checked.
fn name_below(labels: &[&str], domain: &Name) -> Name {
    let mut name = domain.clone();
    for label in labels.iter().rev() {
        match name.prepend_label(label.as_bytes()) {
            Ok(longer) => name = longer,
            // Longer than a name can be: the domain is the best that can be said.
            Err(_) => return domain.clone(),
        }
    }
    name
}
