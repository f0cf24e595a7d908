//! Patches of all three kinds.
//!
//! The input is a JSON object with `original`, `patch`, `apiVersion` and `kind`, as the cases in `testdata/patch` are.

use api::patch::{PatchType, apply};
use api::schema;
use serde_json::Value;

use crate::api_body::stored;
use crate::memory::{Bound, bounded};

pub(crate) const WORDS: &[&str] = &[
    "\"op\":\"copy\"",
    "\"op\":\"move\"",
    "\"op\":\"add\"",
    "\"op\":\"remove\"",
    "\"op\":\"test\"",
    "\"from\":\"\"",
    "\"path\":\"/a/-\"",
    "\"path\":\"\"",
    "/metadata/labels",
    "~1",
    "~0",
    "/0",
    "\"$patch\":\"replace\"",
    "\"$patch\":\"delete\"",
    "\"$retainKeys\":[",
    "\"$setElementOrder/containers\":[",
    "\"$deleteFromPrimitiveList/finalizers\":[",
    "\"name\":",
    "null",
];

/// A JSON patch may copy three megabytes, which are many more in memory.
const BOUND: Bound = Bound { base: 256 << 20, held: 1024, ever: 64 << 10 };

pub(crate) fn check(data: &[u8]) {
    let Ok(case) = api::json::parse(data) else { return };
    let case = case.value;
    let patch = case["patch"].to_string();
    let (version, kind) = (case["apiVersion"].as_str().unwrap_or("v1"), case["kind"].as_str().unwrap_or("Pod"));
    let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
    let ty = schema::lookup(group, version, kind);
    let original = &case["original"];
    for kind in [PatchType::Json, PatchType::Merge, PatchType::Strategic] {
        let result = bounded(data.len(), BOUND, || apply(kind, ty, original, patch.as_bytes()));
        let patched = match result {
            Ok(patched) => patched,
            Err(error) => {
                assert!((400..500).contains(&error.code) && !error.message.is_empty(), "{error:?}");
                continue;
            }
        };
        assert_eq!(stored(&patched), patched, "the patched object is another when read again");
        assert!(
            size(&patched) <= size(original) + patch.len() + (3 << 20),
            "a patch makes more than it holds and copies"
        );
        if kind == PatchType::Merge {
            let twice = apply(kind, ty, &patched, patch.as_bytes());
            assert_eq!(twice.ok().as_ref(), Some(&patched), "a merge patch does the same when applied again");
        }
    }
}

fn size(value: &Value) -> usize {
    value.to_string().len()
}
