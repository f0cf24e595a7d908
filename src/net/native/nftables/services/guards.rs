//! Who may connect to a frontend: equal sets of ranges are one chain, to which the addresses of all frontends lead that
//! admit nobody else.

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::nfnetlink::Messages;
use super::super::expressions::{Compare, SOURCE};
use super::super::spread::{Map, Value};
use super::{Change, key};
use crate::range::Range;
use crate::services::{Frontend, Services};

/// The chains that there are.
#[derive(Debug, Default)]
pub(super) struct Guards {
    numbers: BTreeMap<BTreeSet<Range>, u32>,
    last: u32,
}

/// A chain that lets some pass.
#[derive(Debug, PartialEq)]
pub(super) struct Guard {
    number: u32,
    pub(super) admitted: BTreeSet<Range>,
}

impl Guards {
    /// Notes what is wanted instead of what is.
    pub(super) fn change(&mut self, now: &Services, wanted: &Services, change: &mut Change) {
        if now.admitted == wanted.admitted {
            return;
        }
        let sets = |services: &Services| -> BTreeSet<BTreeSet<Range>> { services.admitted.values().cloned().collect() };
        let (before, after) = (sets(now), sets(wanted));
        for admitted in after.difference(&before) {
            self.last = self.last.wrapping_add(1);
            self.numbers.insert(admitted.clone(), self.last);
            change.new_guards.push(Guard { number: self.last, admitted: admitted.clone() });
        }
        let verdict = |services: &Services, frontend: &Frontend| {
            let number = services.admitted.get(frontend).and_then(|admitted| self.numbers.get(admitted))?;
            Some(Value::Jump(name(*number)))
        };
        let frontends: BTreeSet<&Frontend> = now.admitted.keys().chain(wanted.admitted.keys()).collect();
        for frontend in frontends {
            change.element(Map::Guarded, key(frontend), verdict(now, frontend), verdict(wanted, frontend));
        }
        for gone in before.difference(&after) {
            change.gone_guards.extend(self.numbers.remove(gone));
        }
    }
}

impl Guard {
    pub(super) fn render(&self, batch: &mut Messages, table: &str) {
        let chain = name(self.number);
        batch.add_plain_chain(table, &chain);
        for range in &self.admitted {
            batch.add_rule(table, &chain, |b| {
                b.address_in(SOURCE, range, Compare::Equal);
                b.give_back();
            });
        }
        batch.add_rule(table, &chain, Messages::drop_packet);
    }
}

/// The chain by its number.
pub(super) fn name(number: u32) -> String {
    format!("guard-{number}")
}
