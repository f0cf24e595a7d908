//! Golden cases: each file of `testdata/patch` is one patch with what it makes of an object.

use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{PatchType, apply};
use crate::schema::lookup;

fn run(case: &Value) -> Value {
    let text = |field: &str| case[field].as_str().unwrap();
    let kind = PatchType::from_media_type(&format!("application/{}-patch+json", text("type"))).unwrap();
    let (group, version) = text("apiVersion").rsplit_once('/').unwrap_or(("", text("apiVersion")));
    let ty = lookup(group, version, text("kind"));
    match apply(kind, ty, &case["original"], case["patch"].to_string().as_bytes()) {
        Ok(result) => json!({"object": result}),
        Err(error) => json!({"code": error.code, "reason": error.reason, "message": error.message}),
    }
}

#[test]
fn every_patch_of_the_golden_files_gives_the_expected_object() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/patch");
    let mut cases = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut case: Value = serde_json::from_str(&text).unwrap();
        let result = run(&case);
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            case["expected"] = result.clone();
            std::fs::write(&path, format!("{case:#}\n")).unwrap();
        }
        assert_eq!(case["expected"], result, "{}", path.display());
        cases += 1;
    }
    assert!(cases > 20, "the golden files are found: {cases}");
}

#[test]
fn a_strategic_patch_of_a_custom_resource_is_an_unsupported_media_type() {
    let error = apply(PatchType::Strategic, None, &json!({}), b"{}").unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (415, "UnsupportedMediaType"));
}

#[test]
fn what_is_no_patch_is_a_bad_request() {
    for kind in [PatchType::Json, PatchType::Merge, PatchType::Strategic] {
        for patch in [&b""[..], b"{", b"1", b"\"x\"", b"[[]]"] {
            let error = apply(kind, lookup("", "v1", "Pod"), &json!({}), patch).unwrap_err();
            assert_eq!(error.code, 400, "{kind:?} {error:?}");
        }
    }
}

fn json_values() -> impl Strategy<Value = Value> {
    let names = prop::sample::select(vec![
        "spec",
        "containers",
        "name",
        "ports",
        "$patch",
        "$retainKeys",
        "$setElementOrder/containers",
        "replace",
        "metadata",
        "finalizers",
        "$deleteFromPrimitiveList/finalizers",
        "delete",
        "template",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i8>().prop_map(Value::from),
        names.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((names.clone(), inner), 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_patch_applies_or_is_refused(original in json_values(), patch in json_values()) {
        for kind in [PatchType::Json, PatchType::Merge, PatchType::Strategic] {
            let _ = apply(kind, lookup("apps", "v1", "Deployment"), &original, patch.to_string().as_bytes());
        }
    }

    #[test]
    fn an_empty_patch_changes_nothing(original in json_values()) {
        prop_assume!(original.is_object());
        for kind in [PatchType::Merge, PatchType::Strategic] {
            prop_assert_eq!(&apply(kind, lookup("", "v1", "Pod"), &original, b"{}").unwrap(), &original);
        }
    }

    #[test]
    fn a_merge_patch_applied_twice_is_applied_once(original in json_values(), patch in json_values()) {
        prop_assume!(patch.is_object());
        let bytes = patch.to_string();
        let once = apply(PatchType::Merge, None, &original, bytes.as_bytes()).unwrap();
        let twice = apply(PatchType::Merge, None, &once, bytes.as_bytes()).unwrap();
        prop_assert_eq!(once, twice);
    }
}

/// Comparing all with each other would take minutes here.
#[test]
fn lists_of_a_hundred_thousand_items_merge() {
    let name = |number: usize| format!("x.example/{number}");
    let (old, new): (Vec<String>, Vec<String>) =
        ((0..100_000).map(name).collect(), (50_000..150_000).map(name).collect());
    let owner = |uid: &String| json!({"uid": uid, "name": "o"});
    let owners = |uids: &[String]| uids.iter().map(owner).collect::<Vec<_>>();
    let object = |uids: &[String]| json!({"metadata": {"finalizers": uids, "ownerReferences": owners(uids)}});
    let ty = crate::schema::lookup("", "v1", "Pod");
    let merged = apply(PatchType::Strategic, ty, &object(&old), object(&new).to_string().as_bytes()).unwrap();
    for list in ["finalizers", "ownerReferences"] {
        assert_eq!(merged["metadata"][list].as_array().map(Vec::len), Some(150_000), "{list}");
    }
    let gone = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": new}});
    let left = apply(PatchType::Strategic, ty, &object(&old), gone.to_string().as_bytes()).unwrap();
    assert_eq!(left["metadata"]["finalizers"].as_array().map(Vec::len), Some(50_000));
}
