//! The small languages of the API: label selectors, field selectors, quantities, names.

use api::names;
use api::quantity::Quantity;
use api::selector::{FieldSelector, LabelSelector};
use serde_json::json;

use crate::memory::{Bound, bounded};

pub(crate) const WORDS: &[&str] = &[
    " in (",
    " notin (",
    "==",
    "!=",
    "!",
    ",",
    ")",
    ">",
    "<",
    "example.com/",
    "metadata.name=",
    "spec.nodeName!=",
    "\\,",
    "\\\\",
    "\\=",
    "Ki",
    "Mi",
    "Ei",
    "m",
    "n",
    "e9",
    "E-3",
    "+",
    "-",
    ".",
    "9223372036854775807",
    "0.000000000000000001",
];

/// Each requirement keeps its key and values.
const BOUND: Bound = Bound { base: 16 << 10, held: 256, ever: 1024 };

pub(crate) fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    labels(text);
    fields(text);
    quantity(text);
    variables(text);
    for check in [
        names::dns1123_label,
        names::dns1123_subdomain,
        names::dns1035_label,
        names::qualified_name,
        names::label_value,
        names::port_name,
    ] {
        let problems = bounded(text.len(), BOUND, || check(text));
        assert!(problems.iter().all(|problem| !problem.is_empty()));
        assert!(text.len() <= 512 || !problems.is_empty(), "a name of {} bytes is sound", text.len());
    }
}

/// Names of environment variables alone have no limit.
fn variables(text: &str) {
    let problems = bounded(text.len(), BOUND, || names::env_var_name(text));
    assert!(problems.iter().all(|problem| !problem.is_empty()) && (!text.is_empty() || !problems.is_empty()));
}

fn labels(text: &str) {
    match bounded(text.len(), BOUND, || LabelSelector::parse(text)) {
        Ok(selector) => {
            let spaced = LabelSelector::parse(&format!(" \t{text} \n")).expect("space around a selector means nothing");
            for labels in [json!({}), json!({"a": "b"}), json!({"example.com/a": "1", "x": ""})] {
                assert_eq!(selector.matches(labels.as_object()), spaced.matches(labels.as_object()), "{text:?}");
            }
            assert!(!selector.is_everything() || selector.matches(None));
        }
        Err(error) => assert!(error.code == 400 && !error.message.is_empty(), "{error:?}"),
    }
}

fn fields(text: &str) {
    match bounded(text.len(), BOUND, || FieldSelector::parse(text)) {
        Ok(selector) => {
            let escape = |value: &str| value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            let terms = selector
                .requirements
                .iter()
                .map(|each| format!("{}{}{}", each.field, if each.equal { "=" } else { "!=" }, escape(&each.value)));
            let written = terms.collect::<Vec<_>>().join(",");
            let again = FieldSelector::parse(&written);
            assert_eq!(again.ok().as_ref(), Some(&selector), "{text:?} is written {written:?}, which is another");
        }
        Err(error) => assert!(error.code == 400 && !error.message.is_empty(), "{error:?}"),
    }
}

fn quantity(text: &str) {
    match bounded(text.len(), BOUND, || Quantity::parse(text)) {
        Ok(quantity) => {
            let shown = quantity.to_string();
            assert!(shown.len() <= 64, "{text:?} is shown as {shown:?}");
            let again = Quantity::parse(&shown).unwrap_or_else(|error| panic!("{text:?}: {shown:?}: {error}"));
            assert_eq!(again, quantity, "{text:?} is shown as {shown:?}, which is another");
            assert_eq!(again.to_string(), shown, "{text:?} has two forms");
            assert_eq!(quantity.minus(quantity).value(), 0);
            assert!(quantity.plus(quantity) >= quantity || quantity.is_negative());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
