//! CSIDrivers: what a driver of the container storage interface can do and needs.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::GROUP;
use crate::resources::cell::{self, column};
use crate::resources::path::{Path, default_to, ensure_object, items, present, text};
use crate::resources::{BLANK, Generation, Resource, rule};
use crate::status::FieldError;

/// `csidrivers`.
pub(in crate::resources) const ROW: Resource = Resource {
    group: GROUP,
    kind: "CSIDriver",
    list_kind: "CSIDriverList",
    plural: "csidrivers",
    singular: "csidriver",
    namespaced: false,
    default,
    validate: |driver| validate(&driver["spec"]),
    validate_update,
    generation: Generation::Of(&["/spec/tokenRequests", "/spec/requiresRepublish", "/spec/seLinuxMount"]),
    columns: &[
        cell::NAME,
        column("AttachRequired", "boolean", "", "Whether volumes are attached before they are mounted.", 0),
        column("PodInfoOnMount", "boolean", "", "Whether it is told which pod a volume is for.", 0),
        column("StorageCapacity", "boolean", "", "Whether it says how much storage is left.", 0),
        column("TokenRequests", "string", "", "For whom it wants tokens of pods.", 0),
        column("RequiresRepublish", "boolean", "", "Whether volumes are mounted again from time to time.", 0),
        column("Modes", "string", "", "How long its volumes live.", 0),
        cell::AGE,
    ],
    cells,
    returns_deleted: true,
    ..BLANK
};

fn cells(driver: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &driver["spec"];
    let words =
        |list: Vec<&str>, instead: &str| Value::from(if list.is_empty() { instead.to_owned() } else { list.join(",") });
    let tokens = items(spec, "tokenRequests").iter().map(|token| text(token, "audience")).collect();
    let modes = items(spec, "volumeLifecycleModes").iter().filter_map(Value::as_str).collect();
    vec![
        cell::name(driver),
        spec["attachRequired"].as_bool().unwrap_or(true).into(),
        (spec["podInfoOnMount"] == true).into(),
        (spec["storageCapacity"] == true).into(),
        words(tokens, "<unset>"),
        (spec["requiresRepublish"] == true).into(),
        words(modes, "<none>"),
        cell::age(driver, now),
    ]
}

fn default(driver: &mut Value) {
    let spec = ensure_object(driver, "spec");
    default_to(spec, "attachRequired", true);
    for field in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
        default_to(spec, field, false);
    }
    default_to(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    if items(spec, "volumeLifecycleModes").is_empty() {
        spec["volumeLifecycleModes"] = json!(["Persistent"]);
    }
}

fn validate(spec: &Value) -> Vec<FieldError> {
    let path = Path::new("spec");
    // Upstream's path of the first one is not that of the field.
    let must = [
        ("attachRequired", "attachedRequired"),
        ("podInfoOnMount", "podInfoOnMount"),
        ("storageCapacity", "storageCapacity"),
    ];
    let missing = must.into_iter().filter(|(field, _)| !present(spec, field));
    let mut errors: Vec<FieldError> = missing.map(|(_, word)| FieldError::required(path.child(word), "")).collect();
    if present(spec, "fsGroupPolicy") {
        let known = ["File", "None", "ReadWriteOnceWithFSType"];
        errors.extend(rule::one_of(&path.child("fsGroupPolicy"), text(spec, "fsGroupPolicy"), &known));
    }
    tokens(spec, &path.child("tokenRequests"), &mut errors);
    for mode in items(spec, "volumeLifecycleModes") {
        let known = ["Persistent", "Ephemeral"];
        errors.extend(rule::one_of(&path.child("volumeLifecycleModes"), mode.as_str().unwrap_or_default(), &known));
    }
    let field = "nodeAllocatableUpdatePeriodSeconds";
    if spec[field].as_i64().is_some_and(|seconds| seconds < 10) {
        let detail = "must be greater than or equal to 10 seconds";
        errors.push(FieldError::invalid(path.child(field), &spec[field], detail));
    }
    errors
}

fn tokens(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let mut audiences = BTreeSet::new();
    for (index, token) in items(spec, "tokenRequests").iter().enumerate() {
        let path = path.index(index);
        if !audiences.insert(text(token, "audience")) {
            errors.push(FieldError::duplicate(path.child("audience"), &text(token, "audience").into()));
            continue;
        }
        let seconds = &token["expirationSeconds"];
        let detail = match seconds.as_i64() {
            Some(..600) => "may not specify a duration less than 10 minutes",
            Some(0x1_0000_0001..) => "may not specify a duration larger than 2^32 seconds",
            _ => continue,
        };
        errors.push(FieldError::invalid(path.child("expirationSeconds"), seconds, detail));
    }
}

fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = validate(&new["spec"]);
    for (field, word) in [("attachRequired", "attachedRequired"), ("volumeLifecycleModes", "volumeLifecycleModes")] {
        errors.extend(rule::immutable(format!("spec.{word}"), &new["spec"][field], &old["spec"][field]));
    }
    errors
}
