//! Golden cases: each file of `testdata/managed` is a history of one object, with what each step makes of it.

use std::path::Path;

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{ApplyError, Element, RowKind, Set, Writer, apply, check_manager, update};
use crate::patch::{self, PatchType};
use crate::resources::find_kind;

/// Takes one step; its answer is the object, or why there is none.
fn step(case: &Value, step: &Value, live: &mut Value, second: i64) -> Value {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let version = if step["apiVersion"].is_string() { text(&step["apiVersion"]) } else { text(&case["apiVersion"]) };
    let (group, short) = version.rsplit_once('/').unwrap_or(("", &version));
    let row = find_kind(group, short, case["kind"].as_str().unwrap()).unwrap();
    let (name, subresource) = (text(&step["manager"]), text(&step["subresource"]));
    let kind = RowKind::new(row, &subresource);
    let writer = Writer { name: &name, subresource: &subresource, now: Timestamp::from_second(second).unwrap() };
    let of_kind = |value: &Value| {
        let mut object = value.clone();
        (object["apiVersion"], object["kind"]) = (json!(version), json!(row.kind));
        object
    };
    let seen = if live.is_null() { json!({}) } else { row.of_stored(row.stored().of_stored(live.clone())) };
    let new = if step["apply"].is_object() {
        let force = step["force"] == true;
        match apply(&kind, &seen, &of_kind(&step["apply"]), &writer, force) {
            Ok(object) => object,
            Err(ApplyError::Malformed(text)) => return json!({"malformed": text}),
            Err(ApplyError::Conflicts(error)) => return error.to_value(),
        }
    } else {
        let patch = step["update"].to_string();
        let mut new = patch::apply(PatchType::Merge, None, &of_kind(&seen), patch.as_bytes()).unwrap();
        update(&kind, &seen, &mut new, &writer);
        new
    };
    let mut new = new;
    new["metadata"]["uid"] = json!("1");
    *live = row.to_stored(&new).into_owned();
    new
}

fn run(case: &Value) -> Vec<Value> {
    let mut live = Value::Null;
    let steps = case["steps"].as_array().unwrap();
    (1..).zip(steps).map(|(second, one)| step(case, one, &mut live, second)).collect()
}

#[test]
fn every_history_of_the_golden_files_goes_as_expected() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/managed");
    let mut cases = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let mut case: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let found = run(&case);
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            case["steps"].as_array_mut().unwrap().iter_mut().zip(&found).for_each(|(step, found)| {
                step["expected"] = found.clone();
            });
            std::fs::write(&path, format!("{case:#}\n")).unwrap();
        }
        for (place, found) in found.iter().enumerate() {
            assert_eq!(case["steps"][place]["expected"], *found, "{} step {place}", path.display());
        }
        cases += 1;
    }
    assert!(cases > 15, "the golden files are found: {cases}");
}

#[test]
fn a_manager_has_at_most_128_printable_bytes() {
    let check =
        |name: &str| check_manager("fieldManager", name).into_iter().map(|error| error.text).collect::<Vec<_>>();
    assert!(check("").is_empty() && check("kubectl client (x) ü").is_empty());
    assert_eq!(check(&"x".repeat(129)), ["Too long: may not be more than 128 bytes"]);
    let wrong = "Invalid value: \"a\\tb\": invalid character U+0009 (at position 1)";
    assert_eq!(check("a\tb"), [wrong]);
}

#[test]
fn fields_of_a_future_version_are_left_out_and_malformed_ones_refused() {
    let set = Set::from_fields(&json!({"f:a": {"x:?": {}}, "y:1": {}, "f:b": {".": {}, "f:c": {}}})).unwrap();
    assert_eq!(set.to_fields(), json!({"f:a": {}, "f:b": {".": {}, "f:c": {}}}));
    for wrong in [
        json!([]),
        json!({"a": {}}),
        json!({"": {}}),
        json!({"v:{": {}}),
        json!({"k:[]": {}}),
        json!({"i:x": {}}),
        json!({"f:a": 1}),
    ] {
        assert!(Set::from_fields(&wrong).is_err(), "{wrong}");
    }
}

#[test]
fn who_manages_nothing_of_an_object_that_nobody_manages_stays_unknown() {
    let kind = RowKind::new(find_kind("", "v1", "ConfigMap").unwrap(), "");
    let writer = Writer { name: "late", subresource: "", now: Timestamp::UNIX_EPOCH };
    let live = json!({"metadata": {"name": "old", "uid": "1"}, "data": {"a": "1"}});
    let mut new = json!({"metadata": {"name": "old", "uid": "1"}, "data": {"a": "2"}});
    update(&kind, &live, &mut new, &writer);
    assert_eq!(new["metadata"]["managedFields"], Value::Null);
}

fn elements() -> impl Strategy<Value = Element> {
    prop_oneof![
        prop::sample::select(vec!["spec", "a", "b", "."]).prop_map(Element::field),
        prop::sample::select(vec![json!({"k:{\"name\":\"x\"}": {}}), json!({"k:{\"p\":1,\"q\":\"TCP\"}": {}})])
            .prop_map(|fields| Set::from_fields(&fields).unwrap().paths().remove(0).remove(0)),
        (0..3_i64).prop_map(Element::Index),
        prop::sample::select(vec!["v:1", "v:\"x\"", "v:true"]).prop_map(|text| Set::from_fields(&json!({text: {}}))
            .unwrap()
            .paths()
            .remove(0)
            .remove(0)),
    ]
}

fn sets() -> impl Strategy<Value = Set> {
    prop::collection::vec(prop::collection::vec(elements(), 1..4), 0..12).prop_map(|paths| {
        let mut set = Set::default();
        paths.iter().for_each(|path| set.insert(path));
        set
    })
}

/// ConfigMaps and parts of pods.
fn configurations() -> impl Strategy<Value = Value> {
    let names = prop::sample::subsequence(vec!["a", "b", "c"], 0..3);
    let values = prop::collection::vec(prop::sample::select(vec!["1", "2"]), 3);
    let containers = prop::sample::subsequence(vec!["x", "y", "z"], 0..3).prop_shuffle();
    (names, values, containers, prop::option::of(0..3_i64)).prop_map(|(names, values, containers, grace)| {
        let labels: serde_json::Map<String, Value> =
            names.iter().zip(&values).map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let containers: Vec<Value> = containers
            .iter()
            .zip(&values)
            .map(|(name, image)| json!({"name": name, "image": image, "ports": [{"containerPort": 80}], "args": [image]}))
            .collect();
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": labels}, "spec": {"containers": containers}});
        if let Some(grace) = grace {
            pod["spec"]["terminationGracePeriodSeconds"] = json!(grace);
        }
        pod
    })
}

fn applied(live: &Value, name: &str, configuration: &Value, force: bool) -> Result<Value, ApplyError> {
    let kind = RowKind::new(find_kind("", "v1", "Pod").unwrap(), "");
    let writer = Writer { name, subresource: "", now: Timestamp::UNIX_EPOCH };
    apply(&kind, live, configuration, &writer, force)
}

proptest! {
    #[test]
    fn sets_are_what_they_were_when_read_again(set in sets()) {
        prop_assert_eq!(Set::from_fields(&set.to_fields()).unwrap(), set);
    }

    #[test]
    fn set_operations_agree_with_those_of_lists_of_paths(left in sets(), right in sets()) {
        let check = |set: Set, wanted: &dyn Fn(&[Element]) -> bool| {
            let all = left.clone().union(&right);
            all.paths().iter().all(|path| set.contains(path) == wanted(path)) && set.paths().iter().all(|path| all.contains(path))
        };
        prop_assert!(check(left.intersection(&right), &|path| left.contains(path) && right.contains(path)));
        prop_assert!(check(left.clone().difference(&right), &|path| left.contains(path) && !right.contains(path)));
        prop_assert!(left.clone().difference(&left).is_empty());
        prop_assert_eq!(left.clone().union(&left), left);
    }

    #[test]
    fn applying_again_changes_nothing(first in configurations(), second in configurations()) {
        let live = applied(&json!({}), "a", &first, false).unwrap();
        let once = applied(&live, "b", &second, true).unwrap();
        prop_assert_eq!(applied(&once, "b", &second, false).unwrap(), once);
    }

    #[test]
    fn what_one_manager_applied_is_what_it_applies_last(configurations in prop::collection::vec(configurations(), 1..4)) {
        let mut live = json!({});
        for configuration in &configurations {
            live = applied(&live, "a", configuration, false).unwrap();
        }
        let last = applied(&json!({}), "a", configurations.last().unwrap(), false).unwrap();
        let plain = |object: &Value| patch::apply(PatchType::Merge, None, object, br#"{"metadata": {"managedFields": null}}"#).unwrap();
        prop_assert_eq!(hollow(plain(&live)), hollow(plain(&last)));
        prop_assert_eq!(&live["metadata"]["managedFields"], &last["metadata"]["managedFields"]);
    }

    #[test]
    fn with_force_every_field_of_the_configuration_is_its_managers(first in configurations(), second in configurations()) {
        let live = applied(&json!({}), "a", &first, false).unwrap();
        let forced = applied(&live, "b", &second, true).unwrap();
        let without = |object: &Value| applied(object, "b", &json!({"apiVersion": "v1", "kind": "Pod"}), false).unwrap();
        let alone = applied(&json!({}), "b", &second, false).unwrap();
        let fields = |object: &Value| {
            let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
            entries.into_iter().find(|entry| entry["manager"] == "b").map(|entry| entry["fieldsV1"].clone())
        };
        prop_assert_eq!(fields(&forced), fields(&alone));
        prop_assert_eq!(fields(&without(&forced)), None);
    }

    #[test]
    fn without_conflict_nobody_loses_what_it_applied(first in configurations(), second in configurations()) {
        let live = applied(&json!({}), "a", &first, false).unwrap();
        let Ok(both) = applied(&live, "b", &second, false) else { return Ok(()) };
        for (name, configuration) in [("a", &first), ("b", &second)] {
            // Nobody manages the order of items.
            let again = applied(&both, name, configuration, false).unwrap();
            prop_assert_eq!(by_name(again), by_name(both.clone()), "{}", name);
        }
    }
}

fn by_name(mut pod: Value) -> Value {
    if let Some(containers) = pod["spec"]["containers"].as_array_mut() {
        containers.sort_by_key(|container| container["name"].to_string());
    }
    pod
}

/// Without empty maps and lists, which mean what absent ones do.
fn hollow(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            let all: Vec<String> = fields.keys().cloned().collect();
            for name in all {
                let part = hollow(fields[&name].take());
                let is_empty = part.as_object().is_some_and(serde_json::Map::is_empty)
                    || part.as_array().is_some_and(Vec::is_empty);
                if is_empty {
                    fields.remove(&name)
                } else {
                    fields.insert(name, part)
                };
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = hollow(item.take())),
        _ => {}
    }
    value
}
