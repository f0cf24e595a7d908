//! An object with a configuration laid over it (`typed.Merge` of structured-merge-diff).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Map, Value};

use super::element::Element;
use super::layout::{Form, Layout, items};

/// The live value with all that the configuration sets; nothing goes.
pub(super) fn values<L: Layout>(layout: L, live: Option<&Value>, set: Option<&Value>) -> Value {
    let keep = || set.or(live).cloned().unwrap_or(Value::Null);
    let (Some(old), Some(new)) = (live, set) else { return keep() };
    match (layout.form_of(live, set), old, new) {
        (Form::Map, Value::Object(old), Value::Object(new)) => Value::Object(maps(layout, old, new)),
        (Form::Map, Value::Object(old), Value::Null) if !old.is_empty() => live.cloned().unwrap_or(Value::Null),
        (Form::Set | Form::Keyed, Value::Array(old), Value::Array(_) | Value::Null) if !old.is_empty() => {
            Value::Array(lists(layout, old, items(set)))
        }
        _ => keep(),
    }
}

fn maps<L: Layout>(layout: L, live: &Map<String, Value>, set: &Map<String, Value>) -> Map<String, Value> {
    let mut merged = live.clone();
    for (name, value) in set {
        let value = match layout.field(name) {
            Some((below, _)) => values(below, live.get(name), Some(value)),
            None => value.clone(),
        };
        merged.insert(name.clone(), value);
    }
    merged
}

/// The items of both: those that the configuration has in its order, the others where they stood between those.
fn lists<L: Layout>(layout: L, live: &[Value], set: &[Value]) -> Vec<Value> {
    let identified = |list: &[Value]| -> Vec<(Element, usize)> {
        let places = list.iter().enumerate();
        places.filter_map(|(place, item)| Some((layout.identify(item).ok()?, place))).collect()
    };
    let (live_items, set_items) = (identified(live), identified(set));
    let wanted: BTreeMap<&Element, usize> = set_items.iter().map(|(element, place)| (element, *place)).collect();
    // Of an item that stands there more than once nobody can say what merges; the configuration's replaces them.
    let mut once: BTreeMap<&Element, Option<&Value>> = BTreeMap::new();
    for (element, place) in &live_items {
        once.entry(element).and_modify(|first| *first = None).or_insert(live.get(*place));
    }
    let merged =
        |element: &Element, place: usize| values(layout.item(), once.get(element).copied().flatten(), set.get(place));
    let mut shared: VecDeque<&Element> =
        set_items.iter().map(|(element, _)| element).filter(|element| once.contains_key(element)).collect();
    let mut next_shared = shared.pop_front();
    let mut done: BTreeSet<&Element> = BTreeSet::new();
    let mut result = Vec::with_capacity(live.len().max(set.len()));
    let (mut left, mut right) = (live_items.iter().peekable(), set_items.iter().peekable());
    while left.peek().is_some() || right.peek().is_some() {
        if let (Some((ours, _)), Some((theirs, place))) = (left.peek(), right.peek()) {
            if ours == theirs {
                result.push(merged(ours, *place));
                done.insert(ours);
                left.next();
                right.next();
                next_shared = shared.pop_front();
                continue;
            }
            if wanted.contains_key(ours) && next_shared.is_some_and(|next| next != ours) {
                // Its turn comes with the configuration.
                left.next();
                continue;
            }
        }
        if let Some((ours, place)) = left.peek() {
            if !wanted.contains_key(ours) {
                result.extend(live.get(*place).cloned());
                left.next();
                continue;
            }
            if done.contains(ours) {
                left.next();
            }
        }
        if let Some((theirs, place)) = right.next() {
            result.push(merged(theirs, *place));
            done.insert(theirs);
            if next_shared == Some(theirs) {
                next_shared = shared.pop_front();
            }
        }
    }
    // Nothing is lost that cannot be told apart.
    result.extend(live.iter().filter(|item| layout.identify(item).is_err()).cloned());
    result
}
