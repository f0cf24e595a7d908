//! The table of network policies, beside our own: rendered whole as one batch, then changed by what differs.
//!
//! ```text
//! table inet <name>.policies {
//!   map ingress { ipv4_addr : jump fence-<n> }     map egress { ipv4_addr : jump fence-<n> }
//!   set selves  { ipv4_addr . ipv4_addr }          set group-<n> { ipv4_addr }
//!   chain forward { type filter hook forward priority filter - 5;
//!     ct state established,related accept
//!     ip saddr . ip daddr @selves accept
//!     ip saddr vmap @egress
//!     ip daddr vmap @ingress }
//!   chain fence-<n> { <peer> <port> return; …; drop }
//! }
//! ```
//!
//! It sees what one pod or stranger sends to another after addresses of Services have become those of endpoints, and before
//! senders are hidden. What the node itself sends or takes in passes, as upstream has it: its probes must reach the pods.
//! Equal fences are one chain. A change of a group is a change of its elements; fences are never changed but made and
//! removed, so that in one step of the kernel a pod goes from one to the other. A table is about one family; that of IPv6
//! has `.v6` at the end of its name, and `ip6` and `ipv6_addr` for the above.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use super::super::nfnetlink::{Messages, Netfilter};
use super::Table;
use super::expressions::{Compare, DESTINATION, Hook, SOURCE, SetForm, octets};
use crate::policies::{Fence, Opening, Peers, Policies};

const INGRESS: &str = "ingress";
const EGRESS: &str = "egress";
const SELVES: &str = "selves";

/// Which end of a packet is the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// To the pod.
    In,
    /// From the pod.
    Out,
}

/// What is in the table now.
#[derive(Debug, Default)]
pub(in crate::native) struct Book {
    now: Policies,
    fences: BTreeMap<(Way, Fence), u32>,
    groups: BTreeMap<String, u32>,
    last: u32,
}

/// What leads from one state of the table to another.
#[derive(Debug, Default, PartialEq)]
pub(in crate::native) struct Change {
    new_groups: Vec<u32>,
    gone_groups: Vec<u32>,
    /// Who joins a group, and who leaves it.
    joins: Vec<(u32, IpAddr)>,
    leaves: Vec<(u32, IpAddr)>,
    new_fences: Vec<(u32, Way, Vec<Rule>)>,
    gone_fences: Vec<u32>,
    fenced: Vec<(Way, IpAddr, u32)>,
    freed: Vec<(Way, IpAddr)>,
    /// Who has any fence from now on, and who has none.
    selves: Vec<IpAddr>,
    others: Vec<IpAddr>,
}

/// An opening, and the number of the group that it names.
type Rule = (Opening, Option<u32>);

impl Book {
    /// What was noted last.
    pub(in crate::native) fn into_wanted(self) -> Policies {
        self.now
    }

    /// Notes what is wanted; what is to be done for that.
    pub(in crate::native) fn change(&mut self, wanted: Policies) -> Change {
        let mut change = Change::default();
        self.change_groups(&wanted, &mut change);
        let old = std::mem::replace(&mut self.now, wanted);
        let wanted = &self.now;
        let fences = |policies: &Policies| -> BTreeSet<(Way, Fence)> {
            let ways = [(Way::In, &policies.ingress), (Way::Out, &policies.egress)];
            ways.into_iter().flat_map(|(way, all)| all.values().map(move |fence| (way, fence.clone()))).collect()
        };
        let (before, after) = (fences(&old), fences(wanted));
        for (way, fence) in after.difference(&before) {
            self.last = self.last.wrapping_add(1);
            let rules = fence.iter().map(|opening| {
                let group = match &opening.peers {
                    Peers::Group(name) => self.groups.get(name).copied(),
                    Peers::All | Peers::Block { .. } => None,
                };
                (opening.clone(), group)
            });
            change.new_fences.push((self.last, *way, rules.collect()));
            self.fences.insert((*way, fence.clone()), self.last);
        }
        for (way, old, new) in [(Way::In, &old.ingress, &wanted.ingress), (Way::Out, &old.egress, &wanted.egress)] {
            change.freed.extend(old.iter().filter(|(at, fence)| new.get(at) != Some(fence)).map(|(at, _)| (way, *at)));
            for (at, fence) in new.iter().filter(|(at, fence)| old.get(at) != Some(fence)) {
                let number = self.fences.get(&(way, fence.clone())).copied().unwrap_or_default();
                change.fenced.push((way, *at, number));
            }
        }
        for gone in before.difference(&after) {
            change.gone_fences.extend(self.fences.remove(gone));
        }
        let pods = |policies: &Policies| -> BTreeSet<IpAddr> {
            policies.ingress.keys().chain(policies.egress.keys()).copied().collect()
        };
        let (before, after) = (pods(&old), pods(wanted));
        change.selves = after.difference(&before).copied().collect();
        change.others = before.difference(&after).copied().collect();
        change
    }

    fn change_groups(&mut self, wanted: &Policies, change: &mut Change) {
        let none = BTreeSet::new();
        let names: BTreeSet<&String> = self.now.groups.keys().chain(wanted.groups.keys()).collect();
        for name in names {
            let (before, after) = (self.now.groups.get(name), wanted.groups.get(name));
            let number = match (before, after) {
                (None, _) => {
                    self.last = self.last.wrapping_add(1);
                    self.groups.insert(name.clone(), self.last);
                    change.new_groups.push(self.last);
                    self.last
                }
                (Some(_), Some(_)) => self.groups.get(name).copied().unwrap_or_default(),
                (Some(_), None) => {
                    change.gone_groups.extend(self.groups.remove(name));
                    continue;
                }
            };
            let (before, after) = (before.unwrap_or(&none), after.unwrap_or(&none));
            change.joins.extend(after.difference(before).map(|member| (number, *member)));
            change.leaves.extend(before.difference(after).map(|member| (number, *member)));
        }
    }
}

impl Change {
    pub(in crate::native) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn render(&self, batch: &mut Messages, table: &str) {
        self.new_groups.iter().for_each(|group| batch.add_set(table, &group_name(*group), SetForm::ADDRESSES));
        for (members, present) in [(&self.leaves, false), (&self.joins, true)] {
            for (group, member) in members {
                batch.element(table, &group_name(*group), &octets(*member), None, present);
            }
        }
        for (number, way, rules) in &self.new_fences {
            render_fence(batch, table, &chain_name(*number), *way, rules);
        }
        for (way, address) in &self.freed {
            batch.jump_element(table, map_name(*way), &octets(*address), None);
        }
        for (way, address, fence) in &self.fenced {
            batch.jump_element(table, map_name(*way), &octets(*address), Some(&chain_name(*fence)));
        }
        for (addresses, present) in [(&self.others, false), (&self.selves, true)] {
            for address in addresses {
                let own = octets(*address);
                batch.element(table, SELVES, &[&own[..], &own].concat(), None, present);
            }
        }
        self.gone_fences.iter().for_each(|fence| batch.delete_chain(table, &chain_name(*fence)));
        self.gone_groups.iter().for_each(|group| batch.delete_set(table, &group_name(*group)));
    }

    /// Changes the table.
    pub(in crate::native) fn commit(&self, netfilter: &Netfilter, table: &Table) -> io::Result<()> {
        let Table { name: table, family } = table;
        let mut batch = Messages::large_batch();
        batch.about(*family);
        self.render(&mut batch, table);
        batch.commit_large(netfilter, table)
    }

    /// Replaces the table, which is empty before the change, in one step.
    pub(in crate::native) fn commit_whole(&self, netfilter: &Netfilter, table: &Table) -> io::Result<()> {
        let Table { name: table, family } = table;
        let mut batch = Messages::large_batch();
        batch.about(*family);
        batch.replace_table(table);
        [INGRESS, EGRESS].into_iter().for_each(|map| batch.add_verdict_map(table, map));
        batch.add_set(table, SELVES, SetForm::PAIRS);
        batch.add_chain(table, "forward", Hook::FILTERED);
        batch.add_rule(table, "forward", |b| {
            b.is_of_known_connection();
            b.accept();
        });
        batch.add_rule(table, "forward", |b| {
            b.addresses_in(SELVES, SetForm::PAIRS);
            b.accept();
        });
        for (map, end) in [(EGRESS, SOURCE), (INGRESS, DESTINATION)] {
            batch.add_rule(table, "forward", |b| b.go_by_address(map, end));
        }
        self.render(&mut batch, table);
        batch.commit_large(netfilter, table)
    }
}

fn render_fence(batch: &mut Messages, table: &str, chain: &str, way: Way, rules: &[Rule]) {
    batch.add_plain_chain(table, chain);
    let other = match way {
        Way::In => SOURCE,
        Way::Out => DESTINATION,
    };
    for (opening, group) in rules {
        let mut open = |is_peer: &dyn Fn(&mut Messages)| {
            batch.add_rule(table, chain, |b| {
                is_peer(b);
                if let Some(ports) = opening.port {
                    b.is_for_ports(ports);
                }
                b.give_back();
            });
        };
        match &opening.peers {
            Peers::All => open(&|_| {}),
            Peers::Group(_) => open(&|b| b.address_is_in_group(other, &group_name(group.unwrap_or_default()))),
            // A rule has room for some forty ranges only (`NFT_RULE_MAXEXPRS`), so each gets one of its own.
            Peers::Block { range, except } => {
                range.without(except).iter().for_each(|part| open(&|b| b.address_in(other, part, Compare::Equal)));
            }
        }
    }
    batch.add_rule(table, chain, Messages::drop_packet);
}

fn map_name(way: Way) -> &'static str {
    match way {
        Way::In => INGRESS,
        Way::Out => EGRESS,
    }
}

fn group_name(number: u32) -> String {
    format!("group-{number}")
}

fn chain_name(number: u32) -> String {
    format!("fence-{number}")
}

#[cfg(test)]
mod tests;
