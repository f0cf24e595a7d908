//! Sets of fields and their form on the wire, `FieldsV1`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::{Map, Value};

use super::element::Element;
use super::layout::Layout;

/// The way from an object to a field.
pub(super) type Path = Vec<Element>;

/// A set of fields. That a field is in it says nothing of what it holds or is held in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set(BTreeMap<Element, Node>);

/// What a set says of one field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// Whether the field itself is in the set.
    pub(super) is_member: bool,
    /// What is in the set of its parts.
    pub(super) parts: Set,
}

impl Node {
    /// A field whose parts do not matter.
    pub(super) fn leaf() -> Self {
        Self { is_member: true, parts: Set::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.is_member && self.parts.is_empty()
    }
}

impl Set {
    /// Whether it holds no field.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a field; the object itself (an empty path) cannot be in a set.
    pub fn insert(&mut self, path: &[Element]) {
        let Some((first, rest)) = path.split_first() else { return };
        let node = self.0.entry(first.clone()).or_default();
        if rest.is_empty() { node.is_member = true } else { node.parts.insert(rest) }
    }

    /// Adds what is known of one part.
    pub(super) fn put(&mut self, element: Element, node: Node) {
        if node.is_empty() {
            return;
        }
        match self.0.entry(element) {
            Entry::Vacant(entry) => {
                entry.insert(node);
            }
            Entry::Occupied(mut entry) => {
                let own = entry.get_mut();
                own.is_member |= node.is_member;
                own.parts = std::mem::take(&mut own.parts).union(&node.parts);
            }
        }
    }

    /// Whether a field is in it.
    pub fn contains(&self, path: &[Element]) -> bool {
        match path {
            [] => false,
            [last] => self.0.get(last).is_some_and(|node| node.is_member),
            [first, rest @ ..] => self.0.get(first).is_some_and(|node| node.parts.contains(rest)),
        }
    }

    /// What it says of one part.
    pub(super) fn get(&self, element: &Element) -> Option<&Node> {
        self.0.get(element)
    }

    /// The fields of both.
    #[must_use]
    pub fn union(mut self, other: &Self) -> Self {
        other.0.iter().for_each(|(element, node)| self.put(element.clone(), node.clone()));
        self
    }

    /// The fields that are in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut both = Self::default();
        for (element, node) in &self.0 {
            if let Some(theirs) = other.0.get(element) {
                let is_member = node.is_member && theirs.is_member;
                both.put(element.clone(), Node { is_member, parts: node.parts.intersection(&theirs.parts) });
            }
        }
        both
    }

    /// The fields that are not in the other; parts of those that are stay.
    #[must_use]
    pub fn difference(mut self, other: &Self) -> Self {
        for (element, node) in &other.0 {
            let Entry::Occupied(mut entry) = self.0.entry(element.clone()) else { continue };
            let own = entry.get_mut();
            own.is_member &= !node.is_member;
            own.parts = std::mem::take(&mut own.parts).difference(&node.parts);
            if own.is_empty() {
                entry.remove();
            }
        }
        self
    }

    /// Without all below the fields of an object that are not kept.
    #[must_use]
    pub(super) fn only(mut self, keeps: impl Fn(&str) -> bool) -> Self {
        self.0.retain(|element, _| matches!(element, Element::Field(name) if keeps(name)));
        self
    }

    /// With the declared fields that hold others of the set: a struct goes with the last of its fields, a map does not.
    #[must_use]
    pub(super) fn with_holders<L: Layout>(mut self, layout: L) -> Self {
        for (element, node) in &mut self.0 {
            let part = match element {
                Element::Field(name) => layout.field(name),
                Element::Key(_) => Some((layout.item(), false)),
                _ => None,
            };
            let Some((part, is_declared)) = part else { continue };
            node.is_member |= is_declared;
            node.parts = std::mem::take(&mut node.parts).with_holders(part);
        }
        self
    }

    /// How many fields it holds.
    pub(super) fn count(&self) -> usize {
        self.0.values().map(|node| usize::from(node.is_member) + node.parts.count()).sum()
    }

    /// Shows a visitor its fields as people read them, those of a level before those below them, until it has enough.
    pub(super) fn show(&self, visit: &mut dyn FnMut(&str) -> bool) -> bool {
        self.show_below(&mut String::new(), visit)
    }

    fn show_below(&self, path: &mut String, visit: &mut dyn FnMut(&str) -> bool) -> bool {
        let length = path.len();
        for are_members in [true, false] {
            for (element, node) in self.0.iter().filter(|(_, node)| node.is_member || !are_members) {
                path.push_str(&element.to_string());
                let goes_on = if are_members { visit(path) } else { node.parts.show_below(path, visit) };
                path.truncate(length);
                if !goes_on {
                    return false;
                }
            }
        }
        true
    }

    /// All fields.
    #[cfg(test)]
    pub(super) fn paths(&self) -> Vec<Path> {
        let of_node = |(element, node): (&Element, &Node)| {
            let below = node.parts.paths().into_iter().map(|path| [vec![element.clone()], path].concat());
            node.is_member.then(|| vec![element.clone()]).into_iter().chain(below).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of_node).collect()
    }

    /// As `FieldsV1`.
    pub fn to_fields(&self) -> Value {
        Value::Object(self.0.iter().map(|(element, node)| (element.text(), node.to_fields())).collect())
    }

    /// Reads `FieldsV1`. What a future version might know is left out; what is malformed is an error, as upstream has it.
    pub fn from_fields(fields: &Value) -> Result<Self, String> {
        let Value::Object(fields) = fields else { return Err("fieldsV1 is not an object".to_owned()) };
        Ok(Node::from_fields(fields)?.parts)
    }
}

impl Node {
    fn to_fields(&self) -> Value {
        let Value::Object(mut fields) = self.parts.to_fields() else { return Value::Null };
        if self.is_member && !fields.is_empty() {
            fields.insert(".".to_owned(), Value::Object(Map::new()));
        }
        Value::Object(fields)
    }

    /// A field without known parts is meant itself.
    fn from_fields(fields: &Map<String, Value>) -> Result<Self, String> {
        let mut node = Self { is_member: fields.contains_key("."), parts: Set::default() };
        for (key, value) in fields.iter().filter(|(key, _)| *key != ".") {
            let Some(element) = Element::parse(key)? else { continue };
            let Value::Object(fields) = value else { return Err(format!("{key}: not an object")) };
            node.parts.put(element, Self::from_fields(fields)?);
        }
        node.is_member |= node.parts.is_empty();
        Ok(node)
    }
}
