//! The fields that an object or a configuration sets (`typed.ToFieldSet` of structured-merge-diff).

use std::collections::BTreeMap;

use serde_json::Value;

use super::element::Element;
use super::layout::{Form, Layout};
use super::set::{Node, Set};

/// All leaves, the items of lists and the entries of maps.
pub(super) fn set<L: Layout>(layout: L, object: &Value) -> Set {
    node(layout, object).parts
}

fn node<L: Layout>(layout: L, value: &Value) -> Node {
    match (layout.form_of(None, Some(value)), value) {
        (Form::Map, Value::Object(fields)) => {
            let mut parts = Set::default();
            for (name, value) in fields {
                let Some((below, is_declared)) = layout.field(name) else { continue };
                let mut part = node(below, value);
                // What holds nothing shows nothing of itself below.
                let is_hollow = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
                part.is_member |= is_hollow || !is_declared;
                parts.put(Element::field(name), part);
            }
            Node { is_member: false, parts }
        }
        (Form::Set | Form::Keyed, Value::Array(items)) => Node { is_member: false, parts: list(layout, items) },
        (Form::Map | Form::Set | Form::Keyed, _) => Node::default(),
        _ => Node::leaf(),
    }
}

/// Items that occur twice are in the set as such, without their parts.
fn list<L: Layout>(layout: L, items: &[Value]) -> Set {
    let mut known: BTreeMap<Element, Option<&Value>> = BTreeMap::new();
    for item in items {
        let Ok(element) = layout.identify(item) else { continue };
        known.entry(element).and_modify(|first| *first = None).or_insert(Some(item));
    }
    let mut parts = Set::default();
    for (element, item) in known {
        let below = item.map(|item| node(layout.item(), item).parts).unwrap_or_default();
        parts.put(element, Node { is_member: true, parts: below });
    }
    parts
}
