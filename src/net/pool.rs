//! Who has which address: a pure record.
//!
//! Addresses are handed out in a circle, so that one that was given back is used last; it rests until its old link is
//! gone, because the kernel removes links some milliseconds after their namespace. Where the network has IPv6 beside, a
//! sandbox's IPv6 address has the same place in its range as the IPv4 address in its.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::range::Ranges;
use crate::{NetworkError, PortMapping};

/// The record, as kept on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pool {
    /// Sandbox → address.
    used: BTreeMap<String, Ipv4Addr>,
    /// Those that were given an IPv6 address with it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    beside: BTreeMap<String, Ipv6Addr>,
    /// Sandboxes whose links have been made whole; the others have an address on record only.
    connected: BTreeSet<String>,
    /// Address → name of the link that may still exist.
    resting: BTreeMap<Ipv4Addr, String>,
    /// Ports of the host that lead to sandboxes.
    #[serde(default)]
    ports: BTreeMap<String, Vec<PortMapping>>,
    /// The last address that was handed out.
    last: Option<Ipv4Addr>,
}

impl Pool {
    /// The addresses of a sandbox, that of IPv4 first; none if it has none.
    pub(crate) fn get(&self, sandbox: &str) -> Vec<IpAddr> {
        let own = self.used.get(sandbox).copied().map(IpAddr::V4);
        own.into_iter().chain(self.beside.get(sandbox).copied().map(IpAddr::V6)).collect()
    }

    /// The addresses of a sandbox, if it is connected.
    pub(crate) fn get_connected(&self, sandbox: &str) -> Option<Vec<IpAddr>> {
        self.connected.contains(sandbox).then(|| self.get(sandbox)).filter(|addresses| !addresses.is_empty())
    }

    /// Notes that a sandbox is connected, unless its address was taken back meanwhile; false if that was known.
    pub(crate) fn connect(&mut self, sandbox: &str) -> bool {
        self.used.contains_key(sandbox) && self.connected.insert(sandbox.to_owned())
    }

    /// Gives ports of the host to a sandbox that has an address.
    pub(crate) fn take_ports(&mut self, sandbox: &str, ports: &[PortMapping]) -> Result<(), NetworkError> {
        let key = |port: &PortMapping| (port.protocol, port.host_ip, port.host_port);
        for (other, taken) in self.ports.iter().filter(|(other, _)| *other != sandbox) {
            if let Some(port) = ports.iter().find(|port| taken.iter().any(|taken| key(taken) == key(port))) {
                return Err(NetworkError::PortTaken { port: *port, by: other.clone() });
            }
        }
        if !ports.is_empty() {
            self.ports.insert(sandbox.to_owned(), ports.to_vec());
        }
        Ok(())
    }

    /// The addresses of a sandbox and its ports of the host, if it has any.
    pub(crate) fn published(&self, sandbox: &str) -> Option<(Vec<IpAddr>, &[PortMapping])> {
        let (addresses, ports) = (self.get(sandbox), self.ports.get(sandbox)?);
        (!addresses.is_empty()).then_some((addresses, ports.as_slice()))
    }

    /// All sandboxes that are connected, with their addresses.
    pub(crate) fn all_connected(&self) -> impl Iterator<Item = (&String, Vec<IpAddr>)> {
        self.connected.iter().map(|sandbox| (sandbox, self.get(sandbox)))
    }

    /// All sandboxes that are connected and have ports of the host.
    pub(crate) fn all_published(&self) -> impl Iterator<Item = (Vec<IpAddr>, &[PortMapping])> {
        self.connected.iter().filter_map(|sandbox| self.published(sandbox))
    }

    /// Gives a sandbox addresses: those that it has, or the next free ones, or none when there are none. `is_gone` tells
    /// whether a link no longer exists.
    pub(crate) fn take(
        &mut self,
        sandbox: &str,
        ranges: &Ranges,
        mut is_gone: impl FnMut(&str) -> bool,
    ) -> Option<Vec<IpAddr>> {
        let known = self.get(sandbox);
        if !known.is_empty() {
            return Some(known);
        }
        let used: BTreeSet<IpAddr> =
            self.used.values().copied().map(IpAddr::V4).chain(self.beside.values().copied().map(IpAddr::V6)).collect();
        let (v4, places) = (ranges.v4, ranges.v4.places());
        let last = self.last.map(IpAddr::V4).filter(|last| v4.contains(*last));
        let start = last.map_or(places.start, |last| v4.place_of(last) + 1).clamp(places.start, places.end);
        for place in (start..places.end).chain(places.start..start) {
            let Some(IpAddr::V4(address)) = v4.at(place) else { continue };
            let beside = ranges.v6.and_then(|range| range.at(place));
            let rests = self.resting.get(&address).is_some_and(|link| !is_gone(link));
            if used.contains(&IpAddr::V4(address)) || beside.is_some_and(|beside| used.contains(&beside)) || rests {
                continue;
            }
            self.resting.remove(&address);
            self.used.insert(sandbox.to_owned(), address);
            if let Some(IpAddr::V6(beside)) = beside {
                self.beside.insert(sandbox.to_owned(), beside);
            }
            self.last = Some(address);
            return Some(self.get(sandbox));
        }
        None
    }

    /// Takes a sandbox's address back; it rests until `link` is gone.
    pub(crate) fn give_back(&mut self, sandbox: &str, link: String) -> bool {
        let Some(address) = self.used.remove(sandbox) else { return false };
        self.beside.remove(sandbox);
        self.connected.remove(sandbox);
        self.ports.remove(sandbox);
        self.resting.insert(address, link);
        true
    }

    /// Notes that an address is that of a link whose sandbox is not known.
    pub(crate) fn rest(&mut self, address: Ipv4Addr, link: String) {
        self.resting.insert(address, link);
    }

    /// Gives a sandbox without an address that of its own link, if that rests, and the one beside it.
    pub(crate) fn reclaim(&mut self, sandbox: &str, link: &str, ranges: &Ranges) {
        let own = self.resting.iter().find(|(_, resting)| *resting == link).map(|(address, _)| *address);
        if let Some(address) = own.filter(|_| !self.used.contains_key(sandbox)) {
            self.resting.remove(&address);
            self.used.insert(sandbox.to_owned(), address);
            let place = ranges.v4.place_of(IpAddr::V4(address));
            if let Some(IpAddr::V6(beside)) = ranges.v6.and_then(|range| range.at(place)) {
                self.beside.insert(sandbox.to_owned(), beside);
            }
        }
    }

    /// Sandboxes that have an address.
    pub(crate) fn sandboxes(&self) -> impl Iterator<Item = &String> {
        self.used.keys()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range() -> Ranges {
        "10.1.2.0/29,fd00:1::/64".parse().unwrap()
    }

    #[test]
    fn an_address_that_was_given_back_is_used_last() {
        let mut pool = Pool::default();
        let first = pool.take("a", &range(), |_| true);
        pool.give_back("a", "link-a".to_owned());
        let second = pool.take("b", &range(), |_| true);
        assert_ne!(first, second);
    }

    #[test]
    fn an_address_rests_while_its_old_link_exists() {
        let mut pool = Pool::default();
        let sandboxes = ["a", "b", "c", "d", "e"];
        for sandbox in sandboxes {
            assert!(pool.take(sandbox, &range(), |_| true).is_some());
        }
        assert_eq!(pool.take("f", &range(), |_| true), None);
        let freed = pool.get("c");
        pool.give_back("c", "link-c".to_owned());
        assert_eq!(pool.take("f", &range(), |link| link != "link-c"), None);
        assert_eq!(pool.take("f", &range(), |_| true), Some(freed));
    }

    #[test]
    fn an_ipv6_address_has_the_place_of_the_other_and_only_new_sandboxes_get_one() {
        let single: Ranges = "10.1.2.0/29".parse().unwrap();
        let mut pool = Pool::default();
        let said = |addresses: Option<Vec<IpAddr>>| -> Vec<String> {
            addresses.unwrap().iter().map(ToString::to_string).collect()
        };
        assert_eq!(said(pool.take("old", &single, |_| true)), ["10.1.2.2"]);
        assert_eq!(said(pool.take("new", &range(), |_| true)), ["10.1.2.3", "fd00:1::3"]);
        assert_eq!(said(pool.take("old", &range(), |_| true)), ["10.1.2.2"]);
        let kept: Pool = serde_json::from_slice(&serde_json::to_vec(&pool).unwrap()).unwrap();
        assert_eq!(kept, pool);
        assert!(pool.give_back("new", String::new()) && pool.get("new").is_empty());
    }

    #[test]
    fn an_ipv6_address_that_somebody_kept_from_other_ranges_is_not_given_again() {
        let mut pool = Pool::default();
        pool.take("kept", &range(), |_| true);
        let moved: Ranges = "10.9.9.0/29,fd00:1::/64".parse().unwrap();
        assert_eq!(
            pool.take("next", &moved, |_| true),
            Some(vec!["10.9.9.3".parse().unwrap(), "fd00:1::3".parse().unwrap()])
        );
    }

    #[test]
    fn a_sandbox_has_the_address_of_its_link_again_if_the_record_was_lost() {
        let mut pool = Pool::default();
        let address = Ipv4Addr::new(10, 1, 2, 4);
        pool.rest(address, "link-a".to_owned());
        for other in ["b", "c", "d", "e"] {
            pool.reclaim(other, &format!("link-{other}"), &range());
            assert_ne!(pool.take(other, &range(), |_| false).map(|own| own[0]), Some(IpAddr::V4(address)));
        }
        pool.reclaim("a", "link-a", &range());
        let own: Vec<IpAddr> = vec![IpAddr::V4(address), "fd00:1::4".parse().unwrap()];
        assert_eq!(pool.take("a", &range(), |_| false), Some(own.clone()));
        pool.rest(Ipv4Addr::new(10, 1, 2, 6), "link-a".to_owned());
        pool.reclaim("a", "link-a", &range());
        assert_eq!(pool.get("a"), own, "who has one keeps it");
    }

    proptest! {
        #[test]
        fn no_address_is_ever_handed_out_twice(steps in proptest::collection::vec((0_u8..8, any::<bool>()), 0..80)) {
            let mut pool = Pool::default();
            for (sandbox, take) in steps {
                let name = sandbox.to_string();
                if take {
                    let address = pool.take(&name, &range(), |_| true);
                    let is_inside = |address: &IpAddr| {
                        let range = range().of(crate::Family::of(*address)).unwrap();
                        range.contains(*address) && range.places().contains(&range.place_of(*address))
                    };
                    prop_assert!(address.is_none_or(|addresses| addresses.len() == 2 && addresses.iter().all(is_inside)));
                } else {
                    pool.give_back(&name, format!("link-{name}"));
                }
                let distinct: BTreeSet<_> = pool.used.values().collect();
                prop_assert_eq!(distinct.len(), pool.used.len());
                let distinct: BTreeSet<_> = pool.beside.values().collect();
                prop_assert_eq!(distinct.len(), pool.used.len());
            }
        }
    }
}
