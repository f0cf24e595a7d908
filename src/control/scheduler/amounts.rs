//! Amounts of resources.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

/// Amounts by resource name: thousandths for `cpu`, whole units (bytes, pieces) for everything else. Resources of which
/// there is nothing are absent. Quantities that cannot be read count as nothing; the API server admits none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Amounts(BTreeMap<String, i64>);

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
        self.0.get(resource).copied().unwrap_or(0)
    }

    pub(super) fn set(&mut self, resource: &str, amount: i64) {
        if amount == 0 {
            self.0.remove(resource);
        } else {
            self.0.insert(resource.to_owned(), amount);
        }
    }

    /// Every resource of which there is something.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(resource, amount)| (resource.as_str(), *amount))
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (resource, amount) in other.iter() {
            self.set(resource, self.get(resource).saturating_add(amount));
        }
    }

    pub(super) fn subtract(&mut self, other: &Self) {
        for (resource, amount) in other.iter() {
            self.set(resource, self.get(resource).saturating_sub(amount));
        }
    }

    /// Raises each amount to that of `other`.
    pub(super) fn raise_to(&mut self, other: &Self) {
        for (resource, amount) in other.iter() {
            self.set(resource, self.get(resource).max(amount));
        }
    }
}
