//! PersistentVolumeClaims.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{CLASS_ANNOTATION, VOLUME_MODES, check_modes, check_positive, class_of, modes_cell, size_cell, unset};
use crate::quantity::Quantity;
use crate::resources::cell::{self, column};
use crate::resources::path::{Path, default_text, default_to, ensure_object, entries, object_mut, present, put, text};
use crate::resources::pod::resources::{check_quantity, is_native};
use crate::resources::{BLANK, Resource, rule, selector, status_of};
use crate::status::FieldError;

const RESIZES: [&str; 5] = [
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

/// `persistentvolumeclaims`.
pub(in crate::resources) const ROW: Resource = Resource {
    kind: "PersistentVolumeClaim",
    list_kind: "PersistentVolumeClaimList",
    plural: "persistentvolumeclaims",
    singular: "persistentvolumeclaim",
    short_names: &["pvc"],
    subresources: &[status_of("", "v1", "PersistentVolumeClaim")],
    default,
    prepare,
    prepare_update: |new, _| same_sources(ensure_object(new, "spec")),
    validate: |claim| {
        let mut errors = Vec::new();
        validate_spec(&claim["spec"], &Path::new("spec"), &mut errors);
        errors
    },
    validate_update,
    validate_status,
    has_status: true,
    columns: &[
        cell::NAME,
        column("Status", "string", "", "Whether it has a volume.", 0),
        column("Volume", "string", "", "Which volume it has.", 0),
        column("Capacity", "string", "", "How much fits into the volume.", 0),
        column("Access Modes", "string", "", "What the volume may be used for.", 0),
        column("StorageClass", "string", "", "StorageClass of the pvc", 0),
        column("VolumeAttributesClass", "string", "", "VolumeAttributesClass of the pvc", 0),
        cell::AGE,
        column("VolumeMode", "string", "", "Whether it wants a file system or a device.", 1),
    ],
    cells,
    returns_deleted: true,
    ..BLANK
};

fn cells(claim: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&claim["spec"], &claim["status"]);
    let phase = if present(&claim["metadata"], "deletionTimestamp") { "Terminating" } else { text(status, "phase") };
    let volume = text(spec, "volumeName");
    let (size, modes) =
        if volume.is_empty() { ("".into(), "".into()) } else { (size_cell(&status["capacity"]), modes_cell(status)) };
    vec![
        cell::name(claim),
        phase.into(),
        volume.into(),
        size,
        modes,
        class_of(claim).into(),
        unset(spec, "volumeAttributesClassName"),
        cell::age(claim, now),
        unset(spec, "volumeMode"),
    ]
}

fn default(claim: &mut Value) {
    default_text(ensure_object(claim, "status"), "phase", "Pending");
    default_to(ensure_object(claim, "spec"), "volumeMode", "Filesystem");
}

/// A new claim is pending, and says in both fields what its volume is made from.
fn prepare(claim: &mut Value) {
    claim["status"] = json!({"phase": "Pending"});
    let spec = ensure_object(claim, "spec");
    // The old field names claims and snapshots only; all else is dropped from it (`EnforceDataSourceBackwardsCompatibility`).
    if present(spec, "dataSource") && !is_old_source(&spec["dataSource"]) {
        put(spec, "dataSource", &Value::Null);
    }
    same_sources(spec);
}

fn is_old_source(source: &Value) -> bool {
    matches!(
        (text(source, "apiGroup"), text(source, "kind")),
        ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
    )
}

/// `NormalizeDataSources`.
fn same_sources(spec: &mut Value) {
    let (old, new) = (spec["dataSource"].clone(), spec["dataSourceRef"].clone());
    if !text(&new, "namespace").is_empty() {
        return;
    }
    if old.is_object() && new.is_null() {
        put(spec, "dataSourceRef", &old);
    } else if new.is_object() && old.is_null() && is_old_source(&new) {
        put(spec, "dataSource", &new);
    }
}

/// Checks what a claim asks for, also in the template of a volume (`ValidatePersistentVolumeClaimSpec`).
pub(in crate::resources) fn validate_spec(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    check_modes(spec, "at least 1 access mode is required", path, errors);
    selector::check(&spec["selector"], &path.child("selector"), errors);
    let size_path = path.child("resources").key("storage");
    match &spec["resources"]["requests"]["storage"] {
        Value::Null => errors.push(FieldError::required(size_path, "")),
        size => match check_positive(&size_path, size) {
            Some(error) => errors.push(error),
            None => check_quantity(&size_path, "storage", size, errors),
        },
    }
    for field in ["storageClassName", "volumeAttributesClassName"] {
        let class = text(spec, field);
        if !class.is_empty() {
            errors.extend(rule::subdomain(&path.child(field), class));
        }
        if field == "storageClassName" {
            if present(spec, "volumeMode") {
                errors.extend(rule::one_of(&path.child("volumeMode"), text(spec, "volumeMode"), &VOLUME_MODES));
            }
            data_sources(spec, path, errors);
        }
    }
}

fn data_sources(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let (old, new) = (&spec["dataSource"], &spec["dataSourceRef"]);
    for (field, source) in [("dataSource", old), ("dataSourceRef", new)] {
        if !source.is_null() {
            data_source(source, &path.child(field), errors);
        }
    }
    if old.is_null() || new.is_null() {
        return;
    }
    let old_path = Value::from(String::from(path.child("dataSource")));
    let differs = ["apiGroup", "kind", "name"].into_iter().any(|field| old[field] != new[field]);
    if !text(new, "namespace").is_empty() {
        let detail = "may not be specified when dataSourceRef.namespace is specified";
        errors.push(FieldError::invalid(path, &old_path, detail));
    } else if differs {
        errors.push(FieldError::invalid(path, &old_path, "must match dataSourceRef"));
    }
}

fn data_source(source: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    errors.extend(rule::not_empty(&path.child("name"), text(source, "name")));
    errors.extend(rule::not_empty(&path.child("kind"), text(source, "kind")));
    match text(source, "apiGroup") {
        "" if text(source, "kind") != "PersistentVolumeClaim" => {
            let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            errors.push(FieldError::invalid(path, &text(source, "kind").into(), detail));
        }
        "" => (),
        group => errors.extend(rule::subdomain(&path.child("apiGroup"), group)),
    }
    let namespace = text(source, "namespace");
    if !namespace.is_empty() {
        errors.extend(rule::label(&path.child("namespace"), namespace));
    }
}

fn size(spec: &Value) -> Quantity {
    Quantity::from_value(&spec["resources"]["requests"]["storage"]).unwrap_or(Quantity::ZERO)
}

/// What a claim asks for may not change, but: it is given its volume once, it may be given a class once, and a bound one
/// may grow (`ValidatePersistentVolumeClaimUpdate`).
fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = (ROW.validate)(new);
    let (spec, old_spec) = (&new["spec"], &old["spec"]);
    let annotation = |claim: &Value| claim["metadata"]["annotations"][CLASS_ANNOTATION].clone();
    let (class, old_class) = (&spec["storageClassName"], annotation(old));
    let mut rest = spec.clone();
    if text(old_spec, "volumeName").is_empty() {
        put(&mut rest, "volumeName", &old_spec["volumeName"]);
    }
    let from_annotation = !old_class.is_null()
        && !present(old_spec, "storageClassName")
        && *class == old_class
        && (annotation(new).is_null() || annotation(new) == old_class);
    if from_annotation {
        put(&mut rest, "storageClassName", &Value::Null);
    } else {
        if annotation(new) != old_class {
            let path = Path::new("metadata").child("annotations").key(CLASS_ANNOTATION);
            errors.push(FieldError::invalid(path, &annotation(new), "field is immutable"));
        }
        let from_none = !present(old_spec, "storageClassName") && (old_class.is_null() || *class == old_class);
        if from_none && !class.is_null() {
            put(&mut rest, "storageClassName", &Value::Null);
        }
    }
    if new["status"]["phase"] == "Bound"
        && let Some(requests) = object_mut(&mut rest, "resources").and_then(|own| object_mut(own, "requests"))
    {
        put(requests, "storage", &old_spec["resources"]["requests"]["storage"]);
    }
    put(&mut rest, "volumeAttributesClassName", &old_spec["volumeAttributesClassName"]);
    if rest != *old_spec {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for \
                      bound claims";
        errors.push(FieldError::forbidden("spec", detail));
    }
    let kept = Quantity::from_value(&new["status"]["capacity"]["storage"]).unwrap_or(Quantity::ZERO);
    if size(spec) < size(old_spec) && size(spec) <= kept {
        let detail = "field can not be less than status.capacity";
        errors.push(FieldError::forbidden("spec.resources.requests.storage", detail));
    }
    errors.extend(rule::immutable("volumeMode", &spec["volumeMode"], &old_spec["volumeMode"]));
    if present(old_spec, "volumeAttributesClassName") {
        let detail = match spec["volumeAttributesClassName"].as_str() {
            None => "update from non-nil value to nil is forbidden",
            Some("") => "update from non-nil value to an empty string is forbidden",
            Some(_) => return errors,
        };
        errors.push(FieldError::forbidden("spec.volumeAttributesClassName", detail));
    }
    errors
}

fn validate_status(new: &Value, _: &Value) -> Vec<FieldError> {
    let (status, path) = (&new["status"], Path::new("status"));
    let mut errors = Vec::new();
    let check_sign = |path: &Path, amount: &Value| {
        let is_negative = Quantity::from_value(amount).is_ok_and(Quantity::is_negative);
        let detail = "must be a valid resource quantity";
        is_negative.then(|| FieldError::invalid(path, amount, detail))
    };
    let capacity = path.child("capacity");
    errors.extend(entries(status, "capacity").filter_map(|(name, amount)| check_sign(&capacity.key(name), amount)));
    // Upstream's path of this one is not that of the field.
    let states = path.child("allocatedResourceStatus");
    for (name, state) in entries(status, "allocatedResourceStatuses") {
        check_key(&states, name, &mut errors);
        if !RESIZES.iter().any(|known| state == known) {
            errors.push(FieldError::not_supported(&states, &name.as_str().into(), &RESIZES));
        }
    }
    let allocated = path.child("allocatedResources");
    for (name, amount) in entries(status, "allocatedResources") {
        check_key(&allocated, name, &mut errors);
        check_quantity(&allocated.key(name), "storage", amount, &mut errors);
    }
    errors
}

/// The name of what a claim gets: storage, or something with a domain of its own.
fn check_key(path: &Path, name: &str, errors: &mut Vec<FieldError>) {
    let wrong = rule::qualified(path, name);
    if wrong.is_empty() && is_native(name) && name != "storage" {
        errors.push(FieldError::not_supported(path, &name.into(), &["storage"]));
    }
    errors.extend(wrong);
}
