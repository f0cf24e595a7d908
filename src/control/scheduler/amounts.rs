//! Amounts of resources.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

/// What every node has; kept apart from the others because these are compared for every pod and node.
const USUAL: [&str; 4] = ["cpu", "ephemeral-storage", "memory", "pods"];

/// Amounts by resource name: thousandths for `cpu`, whole units (bytes, pieces) for everything else. Resources of which
/// there is nothing are absent. Quantities that cannot be read count as nothing; the API server admits none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Amounts {
    usual: [i64; USUAL.len()],
    others: BTreeMap<String, i64>,
}

fn place(resource: &str) -> Option<usize> {
    USUAL.iter().position(|usual| *usual == resource)
}

impl Amounts {
    /// The amounts of an object's field.
    pub fn read(field: Option<&BTreeMap<String, Text>>) -> Self {
        let mut amounts = Self::default();
        for (resource, text) in field.into_iter().flatten() {
            let quantity = Quantity::parse(&text.0).unwrap_or(Quantity::ZERO);
            amounts.set(resource, if resource == "cpu" { quantity.milli_value() } else { quantity.value() });
        }
        amounts
    }

    /// The amount of one resource.
    pub fn get(&self, resource: &str) -> i64 {
        match place(resource) {
            Some(place) => self.usual[place],
            None => self.others.get(resource).copied().unwrap_or(0),
        }
    }

    pub(super) fn cpu(&self) -> i64 {
        self.usual[0]
    }

    pub(super) fn memory(&self) -> i64 {
        self.usual[2]
    }

    pub(super) fn pods(&self) -> i64 {
        self.usual[3]
    }

    pub(super) fn set(&mut self, resource: &str, amount: i64) {
        if let Some(place) = place(resource) {
            self.usual[place] = amount;
        } else if amount == 0 {
            self.others.remove(resource);
        } else {
            self.others.insert(resource.to_owned(), amount);
        }
    }

    /// Every resource of which there is something.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        let usual = USUAL.into_iter().zip(self.usual).filter(|(_, amount)| *amount != 0);
        usual.chain(self.others.iter().map(|(resource, amount)| (resource.as_str(), *amount)))
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.merge(other, i64::saturating_add);
    }

    pub(super) fn subtract(&mut self, other: &Self) {
        self.merge(other, i64::saturating_sub);
    }

    /// Raises each amount to that of `other`.
    pub(super) fn raise_to(&mut self, other: &Self) {
        self.merge(other, i64::max);
    }

    fn merge(&mut self, other: &Self, of: fn(i64, i64) -> i64) {
        for (own, other) in self.usual.iter_mut().zip(other.usual) {
            // What the other has nothing of stays as it is, also when the greater of both is asked for.
            if other != 0 {
                *own = of(*own, other);
            }
        }
        for (resource, amount) in &other.others {
            self.set(resource, of(self.get(resource), *amount));
        }
    }
}
