//! Whether a configuration is one of its type (`typed.Validate` of structured-merge-diff).
//!
//! What scalars may be is not looked at here: decoding the result says that.

use std::collections::BTreeSet;

use serde_json::Value;

use super::element::Element;
use super::layout::{Form, Layout};

/// No more problems are told.
const MAX_PROBLEMS: usize = 100;

/// What is wrong with a configuration, in upstream's words; none if nothing is.
pub(super) fn problem<L: Layout>(layout: L, configuration: &Value) -> Option<String> {
    let mut problems = Vec::new();
    walk(layout, configuration, &mut String::new(), &mut problems);
    problems.truncate(MAX_PROBLEMS);
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
    let mut wrong = |text: &str, path: &str| {
        problems.push(if path.is_empty() { text.to_owned() } else { format!("{path}: {text}") });
    };
    match (layout.form(), value) {
        (Form::Map | Form::AtomicMap, Value::Object(fields)) => {
            for (name, value) in fields {
                let length = path.len();
                path.push('.');
                path.push_str(name);
                match layout.field(name) {
                    Some((below, _)) => walk(below, value, path, problems),
                    None => problems.push(format!("{path}: field not declared in schema")),
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
        (Form::Map | Form::AtomicMap, other) => wrong(&format!("expected map, got {other}"), path),
        (_, other) => wrong(&format!("expected list, got {other}"), path),
    }
}

fn list<L: Layout>(layout: L, items: &[Value], path: &mut String, problems: &mut Vec<String>) {
    let mut known: BTreeSet<Element> = BTreeSet::new();
    for (place, item) in items.iter().enumerate() {
        match layout.identify(item) {
            Ok(element) => {
                let text = element.to_string();
                if !known.insert(element) {
                    problems.push(format!("{path}: duplicate entries for key {text}"));
                }
                at(layout, &text, item, path, problems);
            }
            Err(text) => problems.push(format!("{path}: element {place}: {text}")),
        }
    }
}

fn at<L: Layout>(layout: L, step: &str, item: &Value, path: &mut String, problems: &mut Vec<String>) {
    let length = path.len();
    path.push_str(step);
    walk(layout.item(), item, path, problems);
    path.truncate(length);
}
