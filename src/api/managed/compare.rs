//! What of an object became another (`typed.Compare` of structured-merge-diff).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::element::Element;
use super::layout::{Form, Layout, fields, items};
use super::set::{Node, Set};

type Fields = Map<String, Value>;

/// How two objects differ; no field is in two of the sets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// What only the old one has.
    pub(super) removed: Set,
    /// What both have, with other values.
    pub(super) modified: Set,
    /// What only the new one has.
    pub(super) added: Set,
}

impl Difference {
    /// What the new object sets that the old one does not.
    pub(super) fn changed(&self) -> Set {
        self.modified.clone().union(&self.added)
    }

    pub(super) fn only(self, keeps: impl Fn(&str) -> bool) -> Self {
        let Self { removed, modified, added } = self;
        Self { removed: removed.only(&keeps), modified: modified.only(&keeps), added: added.only(&keeps) }
    }
}

/// How an object differs from an old one.
pub(super) fn objects<L: Layout>(layout: L, old: &Value, new: &Value) -> Difference {
    let mut found = Difference::default();
    parts(layout, Some(old), Some(new), &mut found);
    found
}

/// A difference at one place: which of the sets it is in itself, and its parts.
#[derive(Default)]
struct Place {
    removed: bool,
    modified: bool,
    added: bool,
    parts: Difference,
}

impl Difference {
    fn put(&mut self, element: &Element, place: Place) {
        let Place { removed, modified, added, parts } = place;
        for (set, is_member, parts) in [
            (&mut self.removed, removed, parts.removed),
            (&mut self.modified, modified, parts.modified),
            (&mut self.added, added, parts.added),
        ] {
            let node = Node { is_member, parts };
            if !node.is_empty() {
                set.put(element.clone(), node);
            }
        }
    }
}

fn place<L: Layout>(layout: L, old: Option<&Value>, new: Option<&Value>) -> Place {
    let mut place = Place { removed: new.is_none(), added: old.is_none(), ..Place::default() };
    if old.is_some() && old == new {
        return place;
    }
    let is_hollow = |value: Option<&Value>| fields(value).is_none_or(Map::is_empty) && items(value).is_empty();
    let has_parts = matches!(layout.form_of(old, new), Form::Map | Form::Set | Form::Keyed);
    if has_parts && !(is_hollow(old) && is_hollow(new)) {
        parts(layout, old, new, &mut place.parts);
    } else {
        place.modified = old.is_some() && new.is_some();
    }
    place
}

fn parts<'v, L: Layout>(layout: L, old: Option<&'v Value>, new: Option<&'v Value>, found: &mut Difference) {
    match layout.form_of(old, new) {
        Form::Map => {
            let (old, new) = (fields(old), fields(new));
            let names = old.into_iter().chain(new).flat_map(|fields| fields.keys());
            for name in names.collect::<BTreeSet<_>>() {
                let Some((below, _)) = layout.field(name) else { continue };
                let at =
                    |fields: Option<&'v Fields>| fields.and_then(|fields| fields.get(name).or_else(|| below.absent()));
                let (old, new) = (at(old), at(new));
                // Most fields do not change.
                if old == new {
                    continue;
                }
                found.put(&Element::field(name), place(below, old, new));
            }
        }
        Form::Set | Form::Keyed => list(layout, items(old), items(new), found),
        _ => {}
    }
}

/// Lists by their items; items that occur more than once are compared as one.
fn list<L: Layout>(layout: L, old: &[Value], new: &[Value], found: &mut Difference) {
    let mut known: BTreeMap<Element, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
    for item in old {
        if let Ok(element) = layout.identify(item) {
            known.entry(element).or_default().0.push(item);
        }
    }
    for item in new {
        if let Ok(element) = layout.identify(item) {
            known.entry(element).or_default().1.push(item);
        }
    }
    for (element, (old, new)) in known {
        let compared = match (old.as_slice(), new.as_slice()) {
            ([] | [_], [] | [_]) => place(layout.item(), old.first().copied(), new.first().copied()),
            ([_, _, ..], [_, _, ..]) => Place { modified: old != new, ..Place::default() },
            // One that stays of several, and several of what was one.
            ([_, _, ..], rest) => {
                let parts = rest.first().map(|item| place(layout.item(), None, Some(item)));
                Place { removed: true, ..parts.unwrap_or_default() }
            }
            (rest, _) => {
                let parts = rest.first().map(|item| place(layout.item(), Some(item), None));
                Place { added: true, ..parts.unwrap_or_default() }
            }
        };
        found.put(&element, compared);
    }
}
