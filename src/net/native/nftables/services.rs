//! The table of Services, beside our own: rendered whole as one batch, then changed by elements.
//!
//! ```text
//! table inet <name>.services {
//!   map frontends     { ipv4_addr . inet_proto . inet_service : pool }
//!   map node-ports    { inet_proto . inet_service : pool }
//!   map spread        { pool : goto address-<n> | drop }           map spread-ports { pool : goto port-<n> | drop }
//!   map endpoints     { pool . number : ipv4_addr . inet_service }
//!   set members       { pool . ipv4_addr . inet_service }          map clients { ipv4_addr . pool : ipv4_addr . inet_service }
//!   set hairpins, remote, refused, refused-ports
//!   chain prerouting, output {          pool of the destination vmap @spread, ports of the host vmap @spread-ports }
//!   chain address-<n>, port-<n> {       dnat to pool . numgen random mod n map @endpoints }
//!   chain address-<n>-<s>s, port-<n>-<s>s { dnat to where the client went, if that is a member, for s seconds; else as above }
//!   chain postrouting {                 masquerade hairpins and what others sent to endpoints elsewhere }
//!   chain input, forward, sent {        reject what nobody took }
//! }
//! ```
//!
//! Chains depend on the number of endpoints only, so all Services with three endpoints share one; a further endpoint is one
//! element of `endpoints`, one of `hairpins`, and one changed verdict. Packets of pods and of the host are translated for
//! addresses of Services; those of strangers for other addresses only, so that several instances may have the same range.
//! The table outlives the agent, as connections do. nft(8) 1.0.6 cannot show it: what comes out of a map has no length there
//! (`netlink_parse_concat_expr`), so it may not be part of a key, as the pool is of those of `endpoints`, `members` and `clients`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use super::super::conntrack::Which;
use super::super::nfnetlink::Messages;
use super::expressions::{Compare, DESTINATION, Hook, SOURCE};
use super::padded;
use super::spread::{FIRST, Map, Value};
use crate::Protocol;
use crate::range::Range;
use crate::services::{Frontend, Pool, Services};

/// What is in the table now.
#[derive(Debug, Default)]
pub(in crate::native) struct Book {
    now: Services,
    /// The number of each pool; together with those that are free they are 1, 2, 3 and so on.
    numbers: BTreeMap<String, u32>,
    free: Vec<u32>,
    /// The endpoints of a pool in the order of their numbers.
    slots: BTreeMap<String, Vec<SocketAddrV4>>,
    /// How many pools use a chain.
    chains: BTreeMap<Chain, usize>,
    /// How many endpoints have an address.
    addresses: BTreeMap<Ipv4Addr, usize>,
}

/// A chain that chooses among a number of endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Chain {
    by: Map,
    count: u32,
    sticky: Option<u32>,
}

/// Elements by their keys; `None` is one that goes.
type Elements = BTreeMap<(Map, Vec<u8>), Value>;

/// What leads from one state of the table to another.
#[derive(Debug, Default, PartialEq)]
pub(in crate::native) struct Change {
    chains: Vec<Chain>,
    unused: Vec<Chain>,
    gone: Elements,
    new: Elements,
    /// Connections that must not go on as they are.
    pub(in crate::native) stale: Vec<Which>,
}

impl Chain {
    fn name(&self) -> String {
        let by = if self.by == Map::NodePorts { "port" } else { "address" };
        let sticky = self.sticky.map_or_else(String::new, |seconds| format!("-{seconds}s"));
        format!("{by}-{}{sticky}", self.count)
    }

    fn render(&self, batch: &mut Messages, table: &str) {
        let name = self.name();
        batch.add_plain_chain(table, &name);
        let Some(seconds) = self.sticky else {
            batch.add_rule(table, &name, |b| {
                b.find_pool(self.by, FIRST);
                b.dice(self.count, FIRST + 1);
                b.find(Map::Endpoints, FIRST, Some(FIRST));
                b.lead_to(FIRST);
            });
            return;
        };
        // Client, pool, address and port stand one after another, so that two of them, or three, are a key.
        let (client, pool, endpoint) = (FIRST, FIRST + 1, FIRST + 2);
        batch.add_rule(table, &name, |b| {
            b.find_pool(self.by, pool);
            b.load_source(client);
            b.find(Map::Clients, client, Some(endpoint));
            b.find(Map::Members, pool, None);
            b.remember(client, endpoint, seconds);
            b.lead_to(endpoint);
        });
        batch.add_rule(table, &name, |b| {
            b.find_pool(self.by, pool);
            b.dice(self.count, endpoint);
            b.find(Map::Endpoints, pool, Some(endpoint));
            b.load_source(client);
            b.forget_client(client, endpoint);
            b.remember(client, endpoint, seconds);
            b.lead_to(endpoint);
        });
    }
}

impl Book {
    /// Notes what is wanted; what is to be done for that.
    pub(in crate::native) fn change(&mut self, wanted: Services, pods: &Range) -> Change {
        let mut change = Change::default();
        let names: BTreeSet<&String> = self.now.pools.keys().chain(wanted.pools.keys()).collect();
        let touched: Vec<String> =
            names.into_iter().filter(|name| self.now.pools.get(*name) != wanted.pools.get(*name)).cloned().collect();
        let before = self.elements_of_frontends(&self.now, &wanted, &touched);
        let stale = self.stale(&wanted, &touched);
        for name in &touched {
            self.change_pool(name, wanted.pools.get(name), pods, &mut change);
        }
        let after = self.elements_of_frontends(&wanted, &self.now, &touched);
        settle(&mut change, before, after);
        change.stale = stale;
        self.now = wanted;
        change
    }

    fn change_pool(&mut self, name: &str, wanted: Option<&Pool>, pods: &Range, change: &mut Change) {
        let before = self.elements_of_pool(name, self.now.pools.get(name));
        let former: BTreeSet<SocketAddrV4> = self.slots.get(name).into_iter().flatten().copied().collect();
        let none = BTreeSet::new();
        let present = wanted.map_or(&none, |pool| &pool.endpoints);
        for gone in former.difference(present) {
            let slots = self.slots.entry(name.to_owned()).or_default();
            if let Some(place) = slots.iter().position(|endpoint| endpoint == gone) {
                slots.swap_remove(place);
            }
            self.count_address(*gone.ip(), false, pods, change);
        }
        for new in present.difference(&former) {
            self.slots.entry(name.to_owned()).or_default().push(*new);
            self.count_address(*new.ip(), true, pods, change);
        }
        if wanted.is_some() && !self.numbers.contains_key(name) {
            let free = self.free.pop().unwrap_or_else(|| u32::try_from(self.numbers.len() + 1).unwrap_or(u32::MAX));
            self.numbers.insert(name.to_owned(), free);
        }
        let after = self.elements_of_pool(name, wanted);
        self.count_chains(self.now.pools.get(name).and_then(chains), wanted.and_then(chains), change);
        settle(change, before, after);
        if wanted.is_none() {
            self.free.extend(self.numbers.remove(name));
            self.slots.remove(name);
        }
    }

    fn count_chains(&mut self, before: Option<[Chain; 2]>, after: Option<[Chain; 2]>, change: &mut Change) {
        for chain in after.into_iter().flatten() {
            let count = self.chains.entry(chain).or_default();
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
        for chain in before.into_iter().flatten() {
            let count = self.chains.entry(chain).or_default();
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.chains.remove(&chain);
                let new = change.chains.iter().position(|new| *new == chain);
                match new {
                    Some(place) => _ = change.chains.swap_remove(place),
                    None => change.unused.push(chain),
                }
            }
        }
    }

    fn count_address(&mut self, address: Ipv4Addr, comes: bool, pods: &Range, change: &mut Change) {
        let count = self.addresses.entry(address).or_default();
        let before = *count > 0;
        *count = if comes { *count + 1 } else { count.saturating_sub(1) };
        let after = *count > 0;
        if !after {
            self.addresses.remove(&address);
        }
        let mut elements = Elements::new();
        let own = address.octets();
        elements.insert((Map::Hairpins, [own, own].concat()), Value::None);
        if !pods.contains(address) {
            elements.insert((Map::Remote, own.to_vec()), Value::None);
        }
        match (before, after) {
            (false, true) => settle(change, Elements::new(), elements),
            (true, false) => settle(change, elements, Elements::new()),
            _ => {}
        }
    }

    /// The elements of a pool whose number and endpoints are noted.
    fn elements_of_pool(&self, name: &str, pool: Option<&Pool>) -> Elements {
        let mut elements = Elements::new();
        let (Some(pool), Some(number)) = (pool, self.numbers.get(name)) else { return elements };
        let number = number.to_ne_bytes();
        for (map, chain) in [Map::Spread, Map::SpreadPorts].into_iter().zip(chains(pool).into_iter().flatten()) {
            elements.insert((map, number.to_vec()), Value::Goto(chain.name()));
        }
        if pool.endpoints.is_empty() && pool.is_silent {
            for map in [Map::Spread, Map::SpreadPorts] {
                elements.insert((map, number.to_vec()), Value::Drop);
            }
        }
        for (slot, endpoint) in (0_u32..).zip(self.slots.get(name).into_iter().flatten()) {
            let target = [endpoint.ip().octets(), padded(endpoint.port())].concat();
            if pool.sticky.is_some() {
                elements.insert((Map::Members, [&number[..], &target].concat()), Value::None);
            }
            let key = [number, slot.to_ne_bytes()].concat();
            elements.insert((Map::Endpoints, key), Value::Bytes(target));
        }
        elements
    }

    /// The elements of those frontends that differ from others, or lead to pools that change.
    fn elements_of_frontends(&self, services: &Services, others: &Services, touched: &[String]) -> Elements {
        let mut elements = Elements::new();
        for (frontend, name) in &services.frontends {
            if others.frontends.get(frontend) == Some(name) && touched.binary_search(name).is_err() {
                continue;
            }
            let (Some(pool), Some(number)) = (services.pools.get(name), self.numbers.get(name)) else { continue };
            let (key, maps) = key(frontend);
            elements.insert((maps.0, key.clone()), Value::Bytes(number.to_ne_bytes().to_vec()));
            if pool.endpoints.is_empty() && !pool.is_silent {
                elements.insert((maps.1, key), Value::None);
            }
        }
        elements
    }

    /// Datagrams that the kernel would go on sending where they went: to endpoints that are gone, and past frontends that
    /// had none.
    fn stale(&self, wanted: &Services, touched: &[String]) -> Vec<Which> {
        let mut stale = Vec::new();
        let old_and_new = self.now.frontends.iter().chain(&wanted.frontends);
        let frontends: BTreeSet<&Frontend> =
            old_and_new.map(|(frontend, _)| frontend).filter(|frontend| frontend.protocol == Protocol::Udp).collect();
        for frontend in frontends {
            let (before, after) = (self.now.frontends.get(frontend), wanted.frontends.get(frontend));
            if before == after && before.is_some_and(|name| touched.binary_search(name).is_err()) {
                continue;
            }
            let endpoints = |services: &Services, name: Option<&String>| {
                let pool = name.and_then(|name| services.pools.get(name));
                pool.map_or_else(BTreeSet::new, |pool| pool.endpoints.clone())
            };
            let (old, new) = (endpoints(&self.now, before), endpoints(wanted, after));
            let (protocol, address, port) = (frontend.protocol.number(), frontend.address, frontend.port);
            if old.is_empty() && !new.is_empty() {
                stale.push(Which::To { protocol, address, port });
            }
            let addresses: BTreeSet<Ipv4Addr> = old.difference(&new).map(|endpoint| *endpoint.ip()).collect();
            stale.extend(addresses.into_iter().map(|by| Which::Through { protocol, address, port, by }));
        }
        stale
    }
}

/// The chains that choose among a pool's endpoints, for addresses and for ports of the host.
fn chains(pool: &Pool) -> Option<[Chain; 2]> {
    let count = u32::try_from(pool.endpoints.len()).ok().filter(|count| *count > 0)?;
    Some([Map::Frontends, Map::NodePorts].map(|by| Chain { by, count, sticky: pool.sticky }))
}

/// The key of a frontend, and the map of its pool and the set of those that are refused.
fn key(frontend: &Frontend) -> (Vec<u8>, (Map, Map)) {
    let port = [[frontend.protocol.number(), 0, 0, 0], padded(frontend.port)].concat();
    match frontend.address {
        Some(address) => ([&address.octets()[..], &port].concat(), (Map::Frontends, Map::Refused)),
        None => (port, (Map::NodePorts, Map::RefusedPorts)),
    }
}

/// Adds to a change what leads from some elements to others.
fn settle(change: &mut Change, before: Elements, after: Elements) {
    for (key, value) in &before {
        // What was to be added a moment ago need not be.
        if after.get(key) != Some(value) && change.new.remove(key).is_none() {
            change.gone.insert(key.clone(), value.clone());
        }
    }
    for (key, value) in after {
        if before.get(&key) != Some(&value) {
            if change.gone.get(&key) == Some(&value) {
                change.gone.remove(&key);
            } else {
                change.new.insert(key, value);
            }
        }
    }
}

impl Change {
    pub(in crate::native) fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.unused.is_empty() && self.gone.is_empty() && self.new.is_empty()
    }

    fn render(&self, batch: &mut Messages, table: &str) {
        for chain in &self.chains {
            chain.render(batch, table);
        }
        for (elements, present) in [(&self.gone, false), (&self.new, true)] {
            for map in Map::ALL {
                let some: Vec<(&[u8], &Value)> = elements
                    .iter()
                    .filter(|((own, _), _)| *own == map)
                    .map(|((_, key), value)| (&key[..], value))
                    .collect();
                batch.elements(table, map, &some, present);
            }
        }
        for chain in &self.unused {
            batch.delete_chain(table, &chain.name());
        }
    }

    /// Changes the table.
    pub(in crate::native) fn commit(&self, table: &str) -> io::Result<()> {
        let mut batch = Messages::large_batch();
        self.render(&mut batch, table);
        finish(batch, table)
    }

    /// Replaces the table, which is empty before the change, in one step.
    pub(in crate::native) fn commit_whole(&self, table: &str, pods: &Range, services: &Range) -> io::Result<()> {
        let mut batch = Messages::large_batch();
        // Created first, so that the removal finds it in any case.
        batch.add_table(table);
        batch.delete_table(table);
        batch.add_table(table);
        Map::ALL.into_iter().for_each(|map| batch.add_map(table, map));
        render_base(&mut batch, table, pods, services);
        self.render(&mut batch, table);
        finish(batch, table)
    }
}

/// The last message changes nothing and is answered.
fn finish(mut batch: Messages, table: &str) -> io::Result<()> {
    batch.acknowledge_last();
    batch.add_table(table);
    batch.commit()
}

fn render_base(batch: &mut Messages, table: &str, pods: &Range, services: &Range) {
    batch.add_chain(table, "prerouting", Hook::ARRIVING);
    batch.add_rule(table, "prerouting", |b| {
        b.address_in(SOURCE, pods, Compare::Equal);
        b.find_pool(Map::Frontends, FIRST);
        b.go(Map::Spread, FIRST);
    });
    batch.add_rule(table, "prerouting", |b| {
        b.address_in(DESTINATION, services, Compare::NotEqual);
        b.find_pool(Map::Frontends, FIRST);
        b.go(Map::Spread, FIRST);
    });
    batch.add_chain(table, "output", Hook::LEAVING);
    batch.add_rule(table, "output", |b| {
        b.find_pool(Map::Frontends, FIRST);
        b.go(Map::Spread, FIRST);
    });
    for chain in ["prerouting", "output"] {
        batch.add_rule(table, chain, |b| {
            b.is_for_host();
            b.address_in(DESTINATION, &Range::loopback(), Compare::NotEqual);
            b.find_pool(Map::NodePorts, FIRST);
            b.go(Map::SpreadPorts, FIRST);
        });
    }
    batch.add_chain(table, "postrouting", Hook::PASSED);
    batch.add_rule(table, "postrouting", |b| {
        b.is_hairpin();
        b.masquerade();
    });
    batch.add_rule(table, "postrouting", |b| {
        b.address_in(SOURCE, pods, Compare::NotEqual);
        b.is_led_away();
        b.masquerade();
    });
    render_refusals(batch, table, pods, services);
}

fn render_refusals(batch: &mut Messages, table: &str, pods: &Range, services: &Range) {
    for (chain, hook) in [("input", Hook::TAKEN), ("forward", Hook::FORWARDED), ("sent", Hook::SENT)] {
        batch.add_chain(table, chain, hook);
        if chain != "input" {
            refuse(batch, table, chain, |b| {
                if chain == "forward" {
                    b.address_in(SOURCE, pods, Compare::Equal);
                }
                b.address_in(DESTINATION, services, Compare::Equal);
            });
        }
        refuse(batch, table, chain, |b| b.is_refused(Map::Refused));
        if chain != "forward" {
            refuse(batch, table, chain, |b| {
                b.is_for_host();
                b.address_in(DESTINATION, &Range::loopback(), Compare::NotEqual);
                b.is_refused(Map::RefusedPorts);
            });
        }
    }
}

fn refuse(batch: &mut Messages, table: &str, chain: &str, which: impl Fn(&mut Messages)) {
    for how in [Compare::Equal, Compare::NotEqual] {
        batch.add_rule(table, chain, |b| {
            which(b);
            b.is_tcp(how);
            match how {
                Compare::Equal => b.reset(),
                Compare::NotEqual => b.refuse(),
            }
        });
    }
}

#[cfg(test)]
mod tests;
