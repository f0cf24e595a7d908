//! Taking fields out of an object (`typed.RemoveItems` of structured-merge-diff).

use serde_json::Value;

use super::element::Element;
use super::layout::{Form, Layout};
use super::set::Set;

/// The value without the fields of a set; none if nothing of it is left.
pub(super) fn fields<L: Layout>(layout: L, value: Value, gone: &Set) -> Option<Value> {
    if gone.is_empty() {
        return Some(value);
    }
    match (layout.form_of(None, Some(&value)), value) {
        (Form::Map, Value::Object(fields)) => {
            let fields = fields.into_iter().filter_map(|(name, value)| {
                let Some(node) = gone.get(&Element::field(&name)) else { return Some((name, value)) };
                if node.is_member {
                    return None;
                }
                let value = match layout.field(&name) {
                    Some((below, _)) => self::fields(below, value, &node.parts)?,
                    None => value,
                };
                Some((name, value))
            });
            let fields: serde_json::Map<String, Value> = fields.collect();
            (!fields.is_empty()).then_some(Value::Object(fields))
        }
        (Form::Set | Form::Keyed, Value::Array(items)) => {
            let items = items.into_iter().filter_map(|item| {
                let node = layout.identify(&item).ok().and_then(|element| gone.get(&element));
                match node {
                    None => Some(item),
                    Some(node) if node.is_member => None,
                    Some(node) => fields(layout.item(), item, &node.parts),
                }
            });
            let items: Vec<Value> = items.collect();
            (!items.is_empty()).then_some(Value::Array(items))
        }
        (Form::AtomicList | Form::AtomicMap, _) => None,
        (_, value) => Some(value),
    }
}
