//! Rows against the cases in `testdata/api/resources`, and laws that hold for all rows.
//!
//! A file names a resource, what to `do` with it, a `base` object and cases: a JSON merge patch of the base and what is
//! expected. `UPDATE_EXPECT=1` writes what came out as expected.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{Resource, all, find};
use crate::status::FieldError;

const NOW: &str = "2026-01-02T03:04:05Z";

fn now() -> jiff::Timestamp {
    NOW.parse().unwrap()
}

fn row(file: &Value) -> &'static Resource {
    let part = |index: usize| file["resource"][index].as_str().unwrap();
    find(part(0), part(1), part(2)).unwrap()
}

fn patched(base: &Value, patch: &Value) -> Value {
    let mut object = base.clone();
    json_patch::merge(&mut object, patch);
    object
}

fn texts(errors: &[FieldError]) -> Value {
    errors.iter().map(|error| format!("{}: {}", error.field, error.text)).collect()
}

/// The first state of an object, as the server makes it.
fn created(row: &Resource, object: &Value) -> Value {
    let mut object = object.clone();
    (row.default)(&mut object);
    row.prepare_create(&mut object);
    object
}

/// What comes out of a case.
fn outcome(row: &Resource, action: &str, base: &Value, patch: &Value) -> Value {
    match action {
        "create" => created(row, &patched(base, patch)),
        "check" => texts(&row.check(&created(row, &patched(base, patch)))),
        "cells" => {
            json!({"cells": (row.cells)(&patched(base, patch), now()), "completion": (row.completion)(&patched(base, patch))})
        }
        "update" => {
            let old = created(row, base);
            let mut new = patched(&old, patch);
            (row.default)(&mut new);
            row.prepare_update(&mut new, &old);
            let generation = [&old, &new].map(|object| object["metadata"]["generation"].clone());
            json!({"errors": texts(&row.check_update(&new, &old)), "generation": generation})
        }
        "status" => {
            let mut old = created(row, base);
            super::path::put(&mut old, "status", &base["status"]);
            let mut new = patched(&old, patch);
            row.prepare_status(&mut new, &old);
            texts(&row.check_status(&new, &old))
        }
        "requests" => {
            let pod = created(row, &patched(base, patch));
            let shown = |amounts: super::pod::requests::Amounts| -> Map<String, Value> {
                amounts.into_iter().map(|(name, amount)| (name, amount.to_string().into())).collect()
            };
            json!({
                "requests": shown(super::pod::requests::pod_requests(&pod)),
                "limits": shown(super::pod::requests::pod_limits(&pod)),
                "qosClass": pod["status"]["qosClass"],
            })
        }
        other => panic!("no such action: {other}"),
    }
}

#[test]
fn rows_do_with_objects_what_the_cases_expect() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/api/resources");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut wrong = Vec::new();
    for path in files {
        let mut file: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let (row, action, base) = (row(&file), file["do"].as_str().unwrap().to_owned(), file["base"].clone());
        for case in file["cases"].as_array_mut().unwrap() {
            let found = outcome(row, &action, &base, &case["patch"]);
            if found != case["expected"] {
                wrong.push(format!(
                    "{}: {}\n  found    {found}\n  expected {}",
                    path.display(),
                    case["name"],
                    case["expected"]
                ));
                case["expected"] = found;
            }
        }
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&path, serde_json::to_string_pretty(&file).unwrap() + "\n").unwrap();
        }
    }
    assert!(wrong.is_empty() || std::env::var_os("UPDATE_EXPECT").is_some(), "{}", wrong.join("\n"));
}

#[test]
fn every_row_has_as_many_cells_as_columns() {
    for row in all() {
        assert_eq!((row.cells)(&json!({}), now()).len(), row.columns.len(), "{}", row.plural);
    }
}

#[test]
fn rows_have_unique_paths_kinds_and_short_names_within_their_group() {
    let mut seen = std::collections::BTreeSet::new();
    for row in all() {
        // Endpoints are several even when there is one.
        let names = std::collections::BTreeSet::from([row.plural, row.singular, row.kind]);
        for name in names.iter().chain(row.short_names).filter(|name| !name.is_empty()) {
            assert!(seen.insert((row.group, row.version, *name)), "{name} is used twice");
        }
    }
}

#[test]
fn fields_that_selectors_may_name_are_read_and_others_are_not() {
    let pods = find("", "v1", "pods").unwrap();
    let pod = json!({"metadata": {"name": "web"}, "spec": {"nodeName": "edge-1"}});
    assert_eq!(pods.field(&pod, "spec.nodeName").as_deref(), Some("edge-1"));
    assert_eq!(pods.field(&pod, "metadata.name").as_deref(), Some("web"));
    assert_eq!(pods.field(&pod, "status.phase").as_deref(), Some(""));
    assert_eq!(pods.field(&pod, "spec.containers"), None);
    let nodes = find("", "v1", "nodes").unwrap();
    assert_eq!(nodes.field(&json!({}), "metadata.namespace"), None);
    assert_eq!(nodes.field_names(), ["metadata.name", "spec.unschedulable"]);
}

#[test]
fn only_heartbeats_events_and_node_leases_are_written_behind() {
    let find = |plural: &str| all().iter().copied().find(|row| row.plural == plural).unwrap();
    let node = |time: &str, ready: &str| {
        json!({"metadata": {"name": "n", "resourceVersion": time}, "status": {"conditions": [
            {"type": "Ready", "status": ready, "lastHeartbeatTime": time}]}})
    };
    assert!(find("nodes").written_behind(&node("2", "True"), Some(&node("1", "True"))));
    assert!(!find("nodes").written_behind(&node("2", "False"), Some(&node("1", "True"))));
    assert!(!find("nodes").written_behind(&node("2", "True"), None));
    assert!(find("events").written_behind(&json!({}), None));
    assert!(find("leases").written_behind(&json!({"metadata": {"namespace": "kube-node-lease"}}), None));
    assert!(!find("leases").written_behind(&json!({"metadata": {"namespace": "default"}}), None));
    assert!(!find("pods").written_behind(&json!({}), None));
}

#[test]
fn a_status_write_changes_status_and_labels_but_nothing_else() {
    let pods = find("", "v1", "pods").unwrap();
    let old =
        json!({"metadata": {"name": "web", "uid": "1", "generation": 3}, "spec": {"nodeName": "a"}, "status": {}});
    let mut new =
        json!({"metadata": {"name": "web", "labels": {"a": "b"}}, "spec": {}, "status": {"phase": "Running"}});
    pods.prepare_status(&mut new, &old);
    let expected = json!({"metadata": {"name": "web", "uid": "1", "generation": 3, "labels": {"a": "b"}},
        "spec": {"nodeName": "a"}, "status": {"phase": "Running"}});
    assert_eq!(new, expected);
}

#[test]
fn a_write_of_the_main_resource_drops_status() {
    let pods = find("", "v1", "pods").unwrap();
    let old = json!({"metadata": {"name": "web", "uid": "1"}, "spec": {}, "status": {"phase": "Running"}});
    let mut new = json!({"metadata": {"name": "web"}, "spec": {}, "status": {"phase": "Failed"}});
    pods.prepare_update(&mut new, &old);
    assert_eq!(new["status"], json!({"phase": "Running"}));
    assert_eq!(new["metadata"]["uid"], "1");
}

/// Any JSON value of some depth, with the words that rows look for among its keys and values.
fn any_value() -> impl Strategy<Value = Value> {
    let words = prop::sample::select(WORDS);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2_i64..70_000).prop_map(Value::from),
        words.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        let map = prop::collection::btree_map(prop::sample::select(WORDS), inner.clone(), 0..6);
        prop_oneof![
            prop::collection::vec(inner, 0..3).prop_map(Value::from),
            map.prop_map(|map| map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

const WORDS: &[&str] = &[
    "metadata",
    "spec",
    "status",
    "name",
    "containers",
    "initContainers",
    "image",
    "resources",
    "limits",
    "requests",
    "cpu",
    "memory",
    "100m",
    "volumes",
    "secret",
    "projected",
    "sources",
    "items",
    "downwardAPI",
    "fieldRef",
    "env",
    "valueFrom",
    "livenessProbe",
    "httpGet",
    "ports",
    "hostNetwork",
    "containerPort",
    "conditions",
    "type",
    "labels",
    "data",
    "stringData",
    "finalizers",
    "taints",
    "restartPolicy",
    "Always",
    "tolerations",
    "ownerReferences",
    "containerStatuses",
    "state",
    "terminated",
    "affinity",
    "securityContext",
    "lifecycle",
    "preStop",
    "",
    "a/b",
    "podCIDR",
    "podCIDRs",
    "annotations",
    "schedulingGates",
    "ephemeralContainers",
    "resourceFieldRef",
    "overhead",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn defaulting_twice_is_defaulting_once(spec in any_value(), metadata in any_value()) {
        let object = json!({"metadata": metadata, "spec": spec.clone(), "status": spec, "data": {}, "stringData": {"a": "b"}});
        for row in all() {
            let mut once = object.clone();
            (row.default)(&mut once);
            let mut twice = once.clone();
            (row.default)(&mut twice);
            prop_assert_eq!(&once, &twice, "{}", row.plural);
        }
    }

    #[test]
    fn rows_survive_whatever_the_shape(new in any_value(), old in any_value(), spec in any_value()) {
        for row in all() {
            for object in [&new, &json!({"metadata": old, "spec": spec, "status": spec})] {
                let mut made = object.clone();
                (row.default)(&mut made);
                row.prepare_create(&mut made);
                row.check(&made);
                (row.cells)(&made, now());
                (row.completion)(&made);
                let mut next = new.clone();
                row.prepare_update(&mut next, &made);
                row.check_update(&next, &made);
                row.prepare_status(&mut next, &made);
                row.check_status(&next, &made);
                row.written_behind(&next, Some(&made));
                for name in row.field_names() {
                    row.field(&made, name);
                }
            }
        }
    }
}
