//! Whether a configuration is one of its type (`typed.Validate` of structured-merge-diff).
//!
//! What scalars may be is not looked at here: decoding the result says that.

use std::collections::BTreeSet;

use serde_json::Value;

use super::element::Element;
use super::layout::{Form, Layout};

/// No more problems are told.
const MAX_PROBLEMS: usize = 100;
/// No more of a path, or of what stands there, is shown.
const MAX_SHOWN: usize = 1000;

/// What is wrong with a configuration, in upstream's words; none if nothing is.
pub(super) fn problem<L: Layout>(layout: L, configuration: &Value) -> Option<String> {
    let mut problems = Vec::new();
    walk(layout, configuration, &mut String::new(), &mut problems);
    match problems.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        several => Some(format!("errors:\n  {}", several.join("\n  "))),
    }
}

fn walk<L: Layout>(layout: L, value: &Value, path: &mut String, problems: &mut Vec<String>) {
    if problems.len() >= MAX_PROBLEMS {
        return;
    }
    match (layout.form(), value) {
        (Form::Map | Form::AtomicMap, Value::Object(fields)) => {
            for (name, value) in fields {
                let length = path.len();
                path.push('.');
                path.push_str(name);
                match layout.field(name) {
                    Some((below, _)) => walk(below, value, path, problems),
                    None => tell(path, "field not declared in schema", problems),
                }
                path.truncate(length);
            }
        }
        (Form::Set | Form::Keyed, Value::Array(items)) => list(layout, items, path, problems),
        (Form::AtomicList, Value::Array(items)) => {
            for (place, item) in items.iter().enumerate() {
                at(layout, &format!("[{place}]"), item, path, problems);
            }
        }
        (Form::Scalar | Form::Opaque | Form::Untyped, _) | (_, Value::Null) => {}
        (Form::Map | Form::AtomicMap, other) => {
            tell(path, &format!("expected map, got {}", shown(&other.to_string())), problems)
        }
        (_, other) => tell(path, &format!("expected list, got {}", shown(&other.to_string())), problems),
    }
}

fn tell(path: &str, text: &str, problems: &mut Vec<String>) {
    if problems.len() < MAX_PROBLEMS {
        problems.push(if path.is_empty() { text.to_owned() } else { format!("{}: {text}", shown(path)) });
    }
}

fn shown(text: &str) -> &str {
    text.char_indices().nth(MAX_SHOWN).map_or(text, |(end, _)| &text[..end])
}

fn list<L: Layout>(layout: L, items: &[Value], path: &mut String, problems: &mut Vec<String>) {
    let mut known: BTreeSet<Element> = BTreeSet::new();
    for (place, item) in items.iter().enumerate() {
        match layout.identify(item) {
            Ok(element) => {
                let text = element.to_string();
                if !known.insert(element) {
                    tell(path, &format!("duplicate entries for key {}", shown(&text)), problems);
                }
                at(layout, &text, item, path, problems);
            }
            Err(text) => tell(path, &format!("element {place}: {text}"), problems),
        }
    }
}

fn at<L: Layout>(layout: L, step: &str, item: &Value, path: &mut String, problems: &mut Vec<String>) {
    let length = path.len();
    path.push_str(step);
    walk(layout.item(), item, path, problems);
    path.truncate(length);
}
