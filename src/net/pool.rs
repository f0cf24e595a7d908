//! Who has which address: a pure record.
//!
//! Addresses are handed out in a circle, so that one that was given back is used last; it rests until its old link is
//! gone, because the kernel removes links some milliseconds after their namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::range::Range;
use crate::{NetworkError, PortMapping};

/// The record, as kept on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pool {
    /// Sandbox → address.
    used: BTreeMap<String, Ipv4Addr>,
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
    /// The address of a sandbox.
    pub(crate) fn get(&self, sandbox: &str) -> Option<Ipv4Addr> {
        self.used.get(sandbox).copied()
    }

    /// The address of a sandbox that is connected.
    pub(crate) fn get_connected(&self, sandbox: &str) -> Option<Ipv4Addr> {
        self.get(sandbox).filter(|_| self.connected.contains(sandbox))
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

    /// The address of a sandbox and its ports of the host, if it has any.
    pub(crate) fn published(&self, sandbox: &str) -> Option<(Ipv4Addr, &[PortMapping])> {
        Some((self.get(sandbox)?, self.ports.get(sandbox)?))
    }

    /// All sandboxes that are connected and have ports of the host.
    pub(crate) fn all_published(&self) -> impl Iterator<Item = (Ipv4Addr, &[PortMapping])> {
        self.connected.iter().filter_map(|sandbox| self.published(sandbox))
    }

    /// Gives a sandbox an address: the one it has, or the next free one, or none when there is none. `is_gone` tells
    /// whether a link no longer exists.
    pub(crate) fn take(
        &mut self,
        sandbox: &str,
        range: &Range,
        mut is_gone: impl FnMut(&str) -> bool,
    ) -> Option<Ipv4Addr> {
        if let Some(address) = self.get(sandbox) {
            return Some(address);
        }
        let used: BTreeSet<Ipv4Addr> = self.used.values().copied().collect();
        let (first, end) = (range.first(), range.last());
        let start = self.last.map_or(first, |last| u32::from(last) + 1).clamp(first, end);
        for candidate in (start..end).chain(first..start) {
            let address = Ipv4Addr::from(candidate);
            let rests = self.resting.get(&address).is_some_and(|link| !is_gone(link));
            if used.contains(&address) || rests {
                continue;
            }
            self.resting.remove(&address);
            self.used.insert(sandbox.to_owned(), address);
            self.last = Some(address);
            return Some(address);
        }
        None
    }

    /// Takes a sandbox's address back; it rests until `link` is gone.
    pub(crate) fn give_back(&mut self, sandbox: &str, link: String) -> bool {
        let Some(address) = self.used.remove(sandbox) else { return false };
        self.connected.remove(sandbox);
        self.ports.remove(sandbox);
        self.resting.insert(address, link);
        true
    }

    /// Notes that an address is that of a link whose sandbox is not known.
    pub(crate) fn rest(&mut self, address: Ipv4Addr, link: String) {
        self.resting.insert(address, link);
    }

    /// Gives a sandbox without an address that of its own link, if that rests.
    pub(crate) fn reclaim(&mut self, sandbox: &str, link: &str) {
        let own = self.resting.iter().find(|(_, resting)| *resting == link).map(|(address, _)| *address);
        if let Some(address) = own.filter(|_| !self.used.contains_key(sandbox)) {
            self.resting.remove(&address);
            self.used.insert(sandbox.to_owned(), address);
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

    fn range() -> Range {
        "10.1.2.0/29".parse().unwrap()
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
        assert_eq!(pool.take("f", &range(), |_| true), freed);
    }

    #[test]
    fn a_sandbox_has_the_address_of_its_link_again_if_the_record_was_lost() {
        let mut pool = Pool::default();
        let address = Ipv4Addr::new(10, 1, 2, 4);
        pool.rest(address, "link-a".to_owned());
        for other in ["b", "c", "d", "e"] {
            pool.reclaim(other, &format!("link-{other}"));
            assert_ne!(pool.take(other, &range(), |_| false), Some(address));
        }
        pool.reclaim("a", "link-a");
        assert_eq!(pool.take("a", &range(), |_| false), Some(address));
        pool.rest(Ipv4Addr::new(10, 1, 2, 6), "link-a".to_owned());
        pool.reclaim("a", "link-a");
        assert_eq!(pool.get("a"), Some(address), "who has one keeps it");
    }

    proptest! {
        #[test]
        fn no_address_is_ever_handed_out_twice(steps in proptest::collection::vec((0_u8..8, any::<bool>()), 0..80)) {
            let mut pool = Pool::default();
            for (sandbox, take) in steps {
                let name = sandbox.to_string();
                if take {
                    let address = pool.take(&name, &range(), |_| true);
                    let inside = address.is_none_or(|address| (range().first()..range().last()).contains(&address.into()));
                    prop_assert!(inside);
                } else {
                    pool.give_back(&name, format!("link-{name}"));
                }
                let distinct: BTreeSet<_> = pool.used.values().collect();
                prop_assert_eq!(distinct.len(), pool.used.len());
            }
        }
    }
}
