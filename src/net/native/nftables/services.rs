//! The table of Services, beside our own: rendered whole as one batch, then changed by elements.
//!
//! ```text
//! table inet <name>.services {
//!   map spread             { ipv4_addr . inet_proto . inet_service : goto address-<n> | goto sticky-<k> | drop }
//!   map spread-ports       { inet_proto . inet_service : goto port-<n> | goto sticky-<k> | drop }
//!   map endpoints          { ipv4_addr . inet_proto . inet_service . number : ipv4_addr . inet_service }
//!   map endpoints-of-ports { inet_proto . inet_service . number : ipv4_addr . inet_service }
//!   maps near, near-ports, near-endpoints, near-endpoints-of-ports: the same four for pods of this node and the host
//!   map guarded            { ipv4_addr . inet_proto . inet_service : jump guard-<m> }
//!   set hairpins, remote, refused, refused-ports
//!   chain guard-<m> {               sources that are admitted return; drop }
//!   chain prerouting, output {      destinations vmap @guarded; destinations vmap @near, @spread, ports of the host vmap @near-ports, @spread-ports }
//!   chain address-<n>, port-<n>, near-address-<n>, near-port-<n> {
//!                                   dnat to destination . numgen random mod n map @endpoints }
//!   chain postrouting {             masquerade hairpins and what others sent to endpoints elsewhere }
//!   chain input, forward, sent {    reject what nobody took }
//!   set clients-<k>-<endpoint>      { ipv4_addr timeout }
//!   chain sticky-<k> {              source in @clients-<k>-<endpoint> goto <endpoint's>; numgen random mod n 0 goto … }
//!   chain sticky-<k>-<endpoint> {   update @clients-<k>-<endpoint>; dnat to the endpoint }
//! }
//! ```
//!
//! Chains of the first kind depend on the number of endpoints only, so all Services with three endpoints share one; a further
//! endpoint is one element of `endpoints` for each frontend, one of `hairpins`, and a changed verdict. Pools to which clients
//! return have chains of their own, which are made anew when their endpoints change, while an endpoint that stays keeps its
//! clients; what they cost grows with their endpoints. Packets of pods and of the host are translated for addresses of
//! Services; those of strangers for other addresses only, so that several instances may have the same range. The table
//! outlives the agent, as connections do. Keys are made of the packet and of numbers alone: nft(8) 1.0.6 cannot show a key
//! with something in it that came out of a map (`netlink_parse_concat_expr`), nor would it show any other table of the host
//! then. A table is about one family; that of IPv6 has `.v6` at the end of its name, and `ipv6_addr` for `ipv4_addr`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::super::conntrack::{Flow, Which};
use super::spread::{Map, Value};
use super::{octets, padded};
use crate::Protocol;
use crate::range::{Family, Range};
use crate::services::{Frontend, Pool, Senders, Services};

/// What is in the table now.
#[derive(Debug, Default)]
pub(in crate::native) struct Book {
    now: Services,
    laid: BTreeMap<String, Arc<Laid>>,
    /// How many frontends use a chain.
    chains: BTreeMap<Chain, usize>,
    /// How many endpoints have an address.
    addresses: BTreeMap<IpAddr, usize>,
    guards: guards::Guards,
    /// The number of the pool to which clients return that came last.
    last: u32,
}

/// A pool as it is in the table.
#[derive(Debug, Default)]
struct Laid {
    /// The endpoints in the order of their numbers.
    slots: Vec<SocketAddr>,
    sticky: Option<Sticky>,
    is_silent: bool,
}

/// A chain that chooses among a number of endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Chain {
    pub(super) by: By,
    pub(super) count: u32,
}

/// By what frontends are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum By {
    Address,
    Port,
    NearAddress,
    NearPort,
}

/// The chains of a pool to which clients return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sticky {
    number: u32,
    /// For how long they do.
    pub(super) seconds: u32,
}

/// What is to be done to the chains of such a pool.
#[derive(Debug, PartialEq)]
pub(super) struct Turn {
    pub(super) sticky: Sticky,
    /// Whether there was none before, and whether there is none afterwards.
    pub(super) begins: bool,
    pub(super) ends: bool,
    /// All endpoints, those that were not there before, and those that were.
    pub(super) endpoints: Vec<SocketAddr>,
    pub(super) new: Vec<SocketAddr>,
    pub(super) gone: Vec<SocketAddr>,
}

/// Elements by their keys.
pub(super) type Elements = BTreeMap<(Map, Vec<u8>), Value>;

/// What leads from one state of the table to another.
#[derive(Debug, Default, PartialEq)]
pub(in crate::native) struct Change {
    pub(super) chains: Vec<Chain>,
    pub(super) unused: Vec<Chain>,
    pub(super) turns: Vec<Turn>,
    new_guards: Vec<guards::Guard>,
    gone_guards: Vec<u32>,
    pub(super) gone: Elements,
    pub(super) new: Elements,
    /// Connections that must not go on as they are.
    pub(in crate::native) stale: Vec<Which>,
}

impl By {
    fn of(frontend: &Frontend) -> Self {
        match (frontend.address, frontend.senders) {
            (Some(_), Senders::All) => Self::Address,
            (None, Senders::All) => Self::Port,
            (Some(_), Senders::Near) => Self::NearAddress,
            (None, Senders::Near) => Self::NearPort,
        }
    }

    pub(super) fn spread(self) -> Map {
        match self {
            Self::Address => Map::Spread,
            Self::Port => Map::SpreadPorts,
            Self::NearAddress => Map::Near,
            Self::NearPort => Map::NearPorts,
        }
    }

    pub(super) fn endpoints(self) -> Map {
        match self {
            Self::Address => Map::Endpoints,
            Self::Port => Map::EndpointsOfPorts,
            Self::NearAddress => Map::NearEndpoints,
            Self::NearPort => Map::NearEndpointsOfPorts,
        }
    }

    /// What is said of those who are near is not that nobody answers.
    fn refused(self) -> Option<Map> {
        match self {
            Self::Address => Some(Map::Refused),
            Self::Port => Some(Map::RefusedPorts),
            Self::NearAddress | Self::NearPort => None,
        }
    }
}

impl Chain {
    pub(super) fn name(&self) -> String {
        let by = match self.by {
            By::Address => "address",
            By::Port => "port",
            By::NearAddress => "near-address",
            By::NearPort => "near-port",
        };
        format!("{by}-{}", self.count)
    }
}

impl Sticky {
    pub(super) fn chain(&self) -> String {
        format!("sticky-{}", self.number)
    }

    pub(super) fn chain_of(&self, endpoint: SocketAddr) -> String {
        format!("sticky-{}-{}-{}", self.number, word(endpoint.ip()), endpoint.port())
    }

    pub(super) fn clients_of(&self, endpoint: SocketAddr) -> String {
        format!("clients-{}-{}-{}", self.number, word(endpoint.ip()), endpoint.port())
    }
}

impl Laid {
    /// The chain shared with others.
    fn chain(&self, by: By) -> Option<Chain> {
        let count = u32::try_from(self.slots.len()).ok().filter(|count| *count > 0 && self.sticky.is_none())?;
        Some(Chain { by, count })
    }

    fn verdict(&self, by: By) -> Option<Value> {
        if self.slots.is_empty() {
            return self.is_silent.then_some(Value::Drop);
        }
        match self.sticky {
            Some(sticky) => Some(Value::Goto(sticky.chain())),
            None => self.chain(by).map(|chain| Value::Goto(chain.name())),
        }
    }

    /// What is looked up by the number of an endpoint.
    fn numbered(&self) -> &[SocketAddr] {
        if self.sticky.is_some() { &[] } else { &self.slots }
    }
}

impl Book {
    /// What was noted last.
    pub(in crate::native) fn into_wanted(self) -> Services {
        self.now
    }

    /// Notes what is wanted; what is to be done for that.
    pub(in crate::native) fn change(&mut self, wanted: Services, pods: &Range) -> Change {
        let mut change = Change::default();
        let names: BTreeSet<&String> = self.now.pools.keys().chain(wanted.pools.keys()).collect();
        let touched: Vec<String> =
            names.into_iter().filter(|name| self.now.pools.get(*name) != wanted.pools.get(*name)).cloned().collect();
        change.stale = self.stale(&wanted, &touched, pods.family());
        let before = self.laid.clone();
        for name in &touched {
            self.change_pool(name, wanted.pools.get(name), pods, &mut change);
        }
        let frontends: BTreeSet<&Frontend> = self.now.frontends.keys().chain(wanted.frontends.keys()).collect();
        for frontend in frontends {
            let former = self.now.frontends.get(frontend).and_then(|name| before.get(name));
            let present = wanted.frontends.get(frontend).and_then(|name| self.laid.get(name));
            change.lead(frontend, former.map(|laid| &**laid), present.map(|laid| &**laid));
            let chain = |laid: Option<&Arc<Laid>>| laid.and_then(|laid| laid.chain(By::of(frontend)));
            let (former, present) = (chain(former), chain(present));
            count_chains(&mut self.chains, (former, present), &mut change);
        }
        self.guards.change(&self.now, &wanted, &mut change);
        self.now = wanted;
        change
    }

    fn change_pool(&mut self, name: &str, wanted: Option<&Pool>, pods: &Range, change: &mut Change) {
        let former = self.laid.remove(name).unwrap_or_default();
        let present = wanted.map(|pool| Arc::new(self.lay(pool, &former)));
        let (old, new): (BTreeSet<_>, BTreeSet<_>) = (
            former.slots.iter().copied().collect(),
            present.iter().flat_map(|laid| laid.slots.iter().copied()).collect(),
        );
        for gone in old.difference(&new) {
            self.count_address(gone.ip(), false, pods, change);
        }
        for came in new.difference(&old) {
            self.count_address(came.ip(), true, pods, change);
        }
        let later = present.as_deref();
        change.turn(&former, later);
        if let Some(present) = present {
            self.laid.insert(name.to_owned(), present);
        }
    }

    /// The last endpoint takes the place of one that goes, so that few numbers change.
    fn lay(&mut self, pool: &Pool, former: &Laid) -> Laid {
        let mut slots = former.slots.clone();
        let known: BTreeSet<SocketAddr> = slots.iter().copied().collect();
        for gone in known.difference(&pool.endpoints) {
            if let Some(place) = slots.iter().position(|endpoint| endpoint == gone) {
                slots.swap_remove(place);
            }
        }
        slots.extend(pool.endpoints.difference(&known));
        let sticky = pool.sticky.filter(|_| !slots.is_empty()).map(|seconds| {
            former.sticky.filter(|sticky| sticky.seconds == seconds).unwrap_or_else(|| {
                self.last = self.last.wrapping_add(1);
                Sticky { number: self.last, seconds }
            })
        });
        Laid { slots, sticky, is_silent: pool.is_silent }
    }

    fn count_address(&mut self, address: IpAddr, comes: bool, pods: &Range, change: &mut Change) {
        let count = self.addresses.entry(address).or_default();
        let before = *count > 0;
        *count = if comes { *count + 1 } else { count.saturating_sub(1) };
        let after = *count > 0;
        if !after {
            self.addresses.remove(&address);
        }
        let mut elements = Elements::new();
        let own = octets(address);
        elements.insert((Map::Hairpins, [&own[..], &own].concat()), Value::None);
        if !pods.contains(address) {
            elements.insert((Map::Remote, own), Value::None);
        }
        for (key, value) in elements {
            // What was to go a moment ago stays, and the other way round.
            let (these, others) = match (before, after) {
                (false, true) => (&mut change.new, &mut change.gone),
                (true, false) => (&mut change.gone, &mut change.new),
                _ => continue,
            };
            if others.remove(&key).is_none() {
                these.insert(key, value);
            }
        }
    }

    /// The further ranges of which the table knows.
    pub(in crate::native) fn further(&self) -> &BTreeSet<Range> {
        &self.now.further
    }

    /// Whether datagrams go elsewhere than they would if they were the first (`pkg/proxy/conntrack/cleanup.go`).
    pub(in crate::native) fn is_misled(&self, flow: &Flow, services: &[Range]) -> bool {
        if flow.protocol != Protocol::Udp.number() {
            return false;
        }
        let is_led = flow.by != flow.to;
        let pools = |address: Option<IpAddr>| {
            let of = |senders: Senders| Frontend { address, protocol: Protocol::Udp, port: flow.to.port(), senders };
            let names = [Senders::All, Senders::Near].map(|senders| self.now.frontends.get(&of(senders)));
            names.into_iter().flatten().filter_map(|name| self.now.pools.get(name)).collect::<Vec<_>>()
        };
        let (own, host) = (pools(Some(flow.to.ip())), pools(None));
        if own.is_empty() && (host.is_empty() || !is_led) {
            // Nobody is here any more.
            return is_led && services.iter().any(|range| range.contains(flow.to.ip()));
        }
        let all = if own.is_empty() { host } else { own };
        let is_known = all.iter().any(|pool| pool.endpoints.contains(&flow.by) || pool.serving.contains(&flow.by));
        let has_any = all.iter().any(|pool| !pool.endpoints.is_empty());
        !is_known && (is_led || has_any)
    }

    /// Datagrams that the kernel would go on sending where they went: to endpoints that no longer serve, and past frontends
    /// that had none. An endpoint serves if it does for anybody, as who sent them is not known (`pkg/proxy/conntrack`).
    fn stale(&self, wanted: &Services, touched: &[String], family: Family) -> Vec<Which> {
        let mut stale = Vec::new();
        let of_udp =
            self.now.frontends.keys().chain(wanted.frontends.keys()).filter(|own| own.protocol == Protocol::Udp);
        let places: BTreeSet<_> = of_udp.map(|frontend| Frontend { senders: Senders::All, ..*frontend }).collect();
        for place in places {
            let frontends = [Senders::All, Senders::Near].map(|senders| Frontend { senders, ..place });
            let is_as_before = |frontend: &Frontend| {
                let (before, after) = (self.now.frontends.get(frontend), wanted.frontends.get(frontend));
                before == after && before.is_none_or(|name| touched.binary_search(name).is_err())
            };
            if frontends.iter().all(is_as_before) {
                continue;
            }
            let pools = |services: &Services| -> Vec<Pool> {
                let names = frontends.iter().filter_map(|frontend| services.frontends.get(frontend));
                names.filter_map(|name| services.pools.get(name)).cloned().collect()
            };
            let (before, after) = (pools(&self.now), pools(wanted));
            let is_led = |pools: &[Pool]| pools.iter().any(|pool| !pool.endpoints.is_empty());
            let serving = |pools: &[Pool]| -> BTreeSet<SocketAddr> {
                pools.iter().flat_map(|pool| pool.endpoints.union(&pool.serving).copied()).collect()
            };
            let (protocol, address, port) = (place.protocol.number(), place.address, place.port);
            if !is_led(&before) && is_led(&after) {
                stale.push(Which::To { protocol, address, port, family });
            }
            let addresses: BTreeSet<_> = serving(&before).difference(&serving(&after)).map(SocketAddr::ip).collect();
            stale.extend(addresses.into_iter().map(|by| Which::Through { protocol, address, port, by }));
        }
        stale
    }
}

impl Change {
    pub(in crate::native) fn is_empty(&self) -> bool {
        self.chains.is_empty()
            && self.unused.is_empty()
            && self.turns.is_empty()
            && self.gone.is_empty()
            && self.new.is_empty()
    }

    /// Leads a frontend elsewhere than before.
    fn lead(&mut self, frontend: &Frontend, before: Option<&Laid>, after: Option<&Laid>) {
        let same = |one: Option<&Laid>, other: Option<&Laid>| match (one, other) {
            (Some(one), Some(other)) => std::ptr::eq(one, other),
            (None, None) => true,
            _ => false,
        };
        if same(before, after) {
            return;
        }
        let (by, key) = (By::of(frontend), key(frontend));
        let verdict = |laid: Option<&Laid>| laid.and_then(|laid| laid.verdict(by));
        self.element(by.spread(), key.clone(), verdict(before), verdict(after));
        let refused =
            |laid: Option<&Laid>| laid.filter(|laid| laid.slots.is_empty() && !laid.is_silent).map(|_| Value::None);
        if let Some(map) = by.refused() {
            self.element(map, key.clone(), refused(before), refused(after));
        }
        let (before, after) = (before.map_or(&[][..], Laid::numbered), after.map_or(&[][..], Laid::numbered));
        for (number, place) in (0_u32..).zip(0..before.len().max(after.len())) {
            let (old, new) = (before.get(place), after.get(place));
            if old != new {
                let target = |endpoint: &SocketAddr| {
                    Value::Bytes([&octets(endpoint.ip())[..], &padded(endpoint.port())].concat())
                };
                let key = [&key[..], &number.to_ne_bytes()].concat();
                self.element(by.endpoints(), key, old.map(target), new.map(target));
            }
        }
    }

    pub(super) fn element(&mut self, map: Map, key: Vec<u8>, before: Option<Value>, after: Option<Value>) {
        if before == after {
            return;
        }
        if let Some(before) = before {
            self.gone.insert((map, key.clone()), before);
        }
        if let Some(after) = after {
            self.new.insert((map, key), after);
        }
    }

    /// What becomes of the chains of a pool to which clients return.
    fn turn(&mut self, before: &Laid, after: Option<&Laid>) {
        let (old, new) = (before.sticky, after.and_then(|laid| laid.sticky));
        let none = Vec::new();
        let slots = after.map_or(&none, |laid| &laid.slots);
        let differ = |one: &[SocketAddr], other: &[SocketAddr]| {
            let other: BTreeSet<_> = other.iter().collect();
            one.iter().filter(|endpoint| !other.contains(endpoint)).copied().collect()
        };
        let mut turn = |sticky: Sticky, before: &[SocketAddr], after: &[SocketAddr]| {
            let (begins, ends) = (before.is_empty(), after.is_empty());
            let (new, gone) = (differ(after, before), differ(before, after));
            self.turns.push(Turn { sticky, begins, ends, endpoints: after.to_vec(), new, gone });
        };
        match (old, new) {
            (Some(old), Some(new)) if old == new => {
                if before.slots != *slots {
                    turn(new, &before.slots, slots);
                }
            }
            (old, new) => {
                if let Some(new) = new {
                    turn(new, &[], slots);
                }
                if let Some(old) = old {
                    turn(old, &before.slots, &[]);
                }
            }
        }
    }
}

/// Makes a chain for the first frontend that uses it, and removes it after the last.
fn count_chains(
    chains: &mut BTreeMap<Chain, usize>,
    (before, after): (Option<Chain>, Option<Chain>),
    change: &mut Change,
) {
    if before == after {
        return;
    }
    if let Some(chain) = after {
        let count = chains.entry(chain).or_default();
        *count += 1;
        if *count == 1 {
            // What was to go a moment ago is still there.
            let known = change.unused.iter().position(|unused| *unused == chain);
            match known {
                Some(place) => _ = change.unused.swap_remove(place),
                None => change.chains.push(chain),
            }
        }
    }
    if let Some(chain) = before {
        let count = chains.entry(chain).or_default();
        *count = count.saturating_sub(1);
        if *count == 0 {
            chains.remove(&chain);
            let new = change.chains.iter().position(|new| *new == chain);
            match new {
                Some(place) => _ = change.chains.swap_remove(place),
                None => change.unused.push(chain),
            }
        }
    }
}

/// An address as part of a name; nft(8) reads no names with colons.
fn word(address: IpAddr) -> String {
    address.to_string().replace(':', "_")
}

/// The key of a frontend.
fn key(frontend: &Frontend) -> Vec<u8> {
    let port = [[frontend.protocol.number(), 0, 0, 0], padded(frontend.port)].concat();
    match frontend.address {
        Some(address) => [&octets(address)[..], &port].concat(),
        None => port,
    }
}

mod guards;
mod render;

#[cfg(test)]
mod tests;
