//! Taking fields out of an object (`typed.RemoveItems` of structured-merge-diff).

use serde_json::{Map, Value};

use super::element::Element;
use super::layout::{Form, Layout};
use super::set::Set;

/// The value without the fields of a set; none if nothing of it is left.
pub(super) fn fields<L: Layout>(layout: L, value: Value, gone: &Set) -> Option<Value> {
    without(layout, value, gone, &|| None)
}

/// As [`fields`], but what lost all that it held is still there as a null: who was not taken out itself is not gone.
pub(super) fn contents<L: Layout>(layout: L, value: Value, gone: &Set) -> Value {
    without(layout, value, gone, &|| Some(Value::Null)).unwrap_or(Value::Null)
}

fn without<L: Layout>(layout: L, value: Value, gone: &Set, hollow: &dyn Fn() -> Option<Value>) -> Option<Value> {
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
                    Some((below, _)) => without(below, value, &node.parts, hollow).or_else(hollow)?,
                    None => value,
                };
                Some((name, value))
            });
            let fields: Map<String, Value> = fields.collect();
            (!fields.is_empty()).then_some(Value::Object(fields))
        }
        (Form::Set | Form::Keyed, Value::Array(items)) => {
            let items = items.into_iter().filter_map(|item| {
                let node = layout.identify(&item).ok().and_then(|element| gone.get(&element));
                match node {
                    None => Some(item),
                    Some(node) if node.is_member => None,
                    Some(node) => without(layout.item(), item, &node.parts, hollow).or_else(hollow),
                }
            });
            let items: Vec<Value> = items.collect();
            (!items.is_empty()).then_some(Value::Array(items))
        }
        (Form::AtomicList | Form::AtomicMap, _) => None,
        (_, value) => Some(value),
    }
}
