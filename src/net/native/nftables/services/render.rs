//! A change as messages to the kernel.

use std::io;

use super::super::super::nfnetlink::{Messages, Netfilter};
use super::super::Table;
use super::super::expressions::{Compare, DESTINATION, Hook, SOURCE};
use super::super::spread::{Map, Value};
use super::{By, Chain, Change, Turn, guards};
use crate::range::Range;

impl Chain {
    fn render(&self, batch: &mut Messages, table: &str) {
        let name = self.name();
        batch.add_plain_chain(table, &name);
        batch.add_rule(table, &name, |b| b.lead_to_one_of(self.by, self.count));
    }
}

impl Turn {
    /// Before anything leads there.
    fn render(&self, batch: &mut Messages, table: &str) {
        let sticky = self.sticky;
        if self.begins {
            batch.add_plain_chain(table, &sticky.chain());
        }
        for endpoint in &self.new {
            let (chain, clients) = (sticky.chain_of(*endpoint), sticky.clients_of(*endpoint));
            batch.add_clients(table, &clients);
            batch.add_plain_chain(table, &chain);
            // Two rules: one whose set is full ends there.
            batch.add_rule(table, &chain, |b| b.remember(&clients, sticky.seconds));
            batch.add_rule(table, &chain, |b| b.change_destination(*endpoint));
        }
        if !self.begins {
            batch.flush_chain(table, &sticky.chain());
        }
        for endpoint in &self.endpoints {
            batch.add_rule(table, &sticky.chain(), |b| {
                b.address_is_in_group(SOURCE, &sticky.clients_of(*endpoint));
                b.go_to(&sticky.chain_of(*endpoint));
            });
        }
        // Each of those that are left is as likely as any other.
        for (left, endpoint) in (1_u32..).zip(&self.endpoints).collect::<Vec<_>>().into_iter().rev() {
            batch.add_rule(table, &sticky.chain(), |b| {
                b.is_chosen_of(left);
                b.go_to(&sticky.chain_of(*endpoint));
            });
        }
    }

    /// Once nothing leads there any more.
    fn clean(&self, batch: &mut Messages, table: &str) {
        if self.ends {
            batch.delete_chain(table, &self.sticky.chain());
        }
        for endpoint in &self.gone {
            batch.delete_chain(table, &self.sticky.chain_of(*endpoint));
            batch.delete_set(table, &self.sticky.clients_of(*endpoint));
        }
    }
}

impl Change {
    fn render(&self, batch: &mut Messages, table: &str) {
        for chain in &self.chains {
            chain.render(batch, table);
        }
        for turn in &self.turns {
            turn.render(batch, table);
        }
        for guard in &self.new_guards {
            guard.render(batch, table);
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
        for guard in &self.gone_guards {
            batch.delete_chain(table, &guards::name(*guard));
        }
        for turn in &self.turns {
            turn.clean(batch, table);
        }
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
    pub(in crate::native) fn commit_whole(
        &self,
        netfilter: &Netfilter,
        table: &Table,
        (pods, services): (&Range, &[Range]),
    ) -> io::Result<()> {
        let Table { name: table, family } = table;
        let mut batch = Messages::large_batch();
        batch.about(*family);
        batch.replace_table(table);
        Map::ALL.into_iter().for_each(|map| batch.add_map(table, map));
        render_base(&mut batch, table, pods, services);
        self.render(&mut batch, table);
        batch.commit_large(netfilter, table)
    }
}

fn render_base(batch: &mut Messages, table: &str, pods: &Range, services: &[Range]) {
    batch.add_chain(table, "prerouting", Hook::ARRIVING);
    batch.add_chain(table, "output", Hook::LEAVING);
    for chain in ["prerouting", "output"] {
        batch.add_rule(table, chain, Messages::guard);
    }
    for by in [By::NearAddress, By::Address] {
        batch.add_rule(table, "prerouting", |b| {
            b.address_in(SOURCE, pods, Compare::Equal);
            b.spread(by);
        });
        batch.add_rule(table, "output", |b| b.spread(by));
    }
    batch.add_rule(table, "prerouting", |b| {
        services.iter().for_each(|range| b.address_in(DESTINATION, range, Compare::NotEqual));
        b.spread(By::Address);
    });
    for by in [By::NearPort, By::Port] {
        for chain in ["prerouting", "output"] {
            batch.add_rule(table, chain, |b| {
                if (chain, by) == ("prerouting", By::NearPort) {
                    b.address_in(SOURCE, pods, Compare::Equal);
                }
                b.is_for_host();
                b.address_in(DESTINATION, &Range::loopback(pods.family()), Compare::NotEqual);
                b.spread(by);
            });
        }
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

fn render_refusals(batch: &mut Messages, table: &str, pods: &Range, services: &[Range]) {
    for (chain, hook) in [("input", Hook::TAKEN), ("forward", Hook::FORWARDED), ("sent", Hook::SENT)] {
        batch.add_chain(table, chain, hook);
        for range in services.iter().filter(|_| chain != "input") {
            refuse(batch, table, chain, |b| {
                if chain == "forward" {
                    b.address_in(SOURCE, pods, Compare::Equal);
                }
                b.address_in(DESTINATION, range, Compare::Equal);
            });
        }
        refuse(batch, table, chain, |b| b.is_refused());
        if chain != "forward" {
            refuse(batch, table, chain, |b| {
                b.is_for_host();
                b.address_in(DESTINATION, &Range::loopback(pods.family()), Compare::NotEqual);
                b.is_refused_port();
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
