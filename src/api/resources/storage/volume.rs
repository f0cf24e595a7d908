//! PersistentVolumes.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{VOLUME_MODES, check_driver, check_modes, check_positive, class_of, modes_cell, size_cell, unset};
use crate::quantity::Quantity;
use crate::resources::cell::{self, column};
use crate::resources::path::{
    Path, default_text, default_to, ensure_object, entries, items, object_mut, present, put, remove, text,
};
use crate::resources::pod::{affinity, volume as source};
use crate::resources::{BLANK, Resource, rule, status_of};
use crate::status::FieldError;

/// Kinds of volumes, in the order in which upstream looks at them.
const SOURCES: [&str; 22] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

/// Those that nodes mount.
const MOUNTED: [&str; 3] = ["hostPath", "local", "nfs"];

/// `persistentvolumes`.
pub(in crate::resources) const ROW: Resource = Resource {
    kind: "PersistentVolume",
    list_kind: "PersistentVolumeList",
    plural: "persistentvolumes",
    singular: "persistentvolume",
    short_names: &["pv"],
    namespaced: false,
    subresources: &[status_of("", "v1", "PersistentVolume")],
    default,
    prepare,
    validate: |volume| validate(&volume["spec"]),
    validate_update,
    warn: |volume| idle_fields(&volume["spec"]),
    has_status: true,
    columns: &[
        cell::NAME,
        column("Capacity", "string", "", "How much fits into it.", 0),
        column("Access Modes", "string", "", "What it may be used for.", 0),
        column("Reclaim Policy", "string", "", "What becomes of it when its claim is gone.", 0),
        column("Status", "string", "", "Whether it is available, bound or released.", 0),
        column("Claim", "string", "", "Which claim it is bound to.", 0),
        column("StorageClass", "string", "", "StorageClass of the pv", 0),
        column("VolumeAttributesClass", "string", "", "VolumeAttributesClass of the pv", 0),
        column("Reason", "string", "", "Why it is in this state.", 0),
        cell::AGE,
        column("VolumeMode", "string", "", "Whether it has a file system or is a device.", 1),
    ],
    cells,
    returns_deleted: true,
    ..BLANK
};

/// What a volume asks for that no node here does.
fn idle_fields(spec: &Value) -> Vec<String> {
    let mut idle: Vec<&str> =
        SOURCES.into_iter().filter(|kind| !MOUNTED.contains(kind) && present(spec, kind)).collect();
    if !items(spec, "mountOptions").is_empty() && !present(spec, "nfs") {
        idle.push("mountOptions");
    }
    if present(&spec["local"], "fsType") {
        idle.push("local.fsType");
    }
    idle.into_iter().map(|field| format!("spec.{field}: no node here acts on this field")).collect()
}

fn cells(volume: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&volume["spec"], &volume["status"]);
    let phase = if present(&volume["metadata"], "deletionTimestamp") { "Terminating" } else { text(status, "phase") };
    let claim = &spec["claimRef"];
    let claim =
        if claim.is_object() { format!("{}/{}", text(claim, "namespace"), text(claim, "name")) } else { String::new() };
    vec![
        cell::name(volume),
        size_cell(&spec["capacity"]),
        modes_cell(spec),
        text(spec, "persistentVolumeReclaimPolicy").into(),
        phase.into(),
        claim.into(),
        class_of(volume).into(),
        unset(spec, "volumeAttributesClassName"),
        text(status, "reason").into(),
        cell::age(volume, now),
        unset(spec, "volumeMode"),
    ]
}

fn default(volume: &mut Value) {
    default_text(ensure_object(volume, "status"), "phase", "Pending");
    let spec = ensure_object(volume, "spec");
    default_text(spec, "persistentVolumeReclaimPolicy", "Retain");
    default_to(spec, "volumeMode", "Filesystem");
    default_source(spec);
}

/// Fills in the source of a volume.
fn default_source(spec: &mut Value) {
    if let Some(path) = object_mut(spec, "hostPath") {
        default_to(path, "type", "");
    }
    if let Some(iscsi) = object_mut(spec, "iscsi") {
        default_text(iscsi, "iscsiInterface", "default");
    }
}

/// A new volume has been pending since it was made.
fn prepare(volume: &mut Value) {
    let since = volume["metadata"]["creationTimestamp"].clone();
    volume["status"] = json!({"phase": "Pending"});
    put(&mut volume["status"], "lastPhaseTransitionTime", &since);
}

fn validate(spec: &Value) -> Vec<FieldError> {
    let path = Path::new("spec");
    let mut errors = Vec::new();
    check_modes(spec, "", &path, &mut errors);
    capacity(spec, &path.child("capacity"), &mut errors);
    let policy = text(spec, "persistentVolumeReclaimPolicy");
    if !policy.is_empty() {
        let path = path.child("persistentVolumeReclaimPolicy");
        errors.extend(rule::one_of(&path, policy, &["Delete", "Recycle", "Retain"]));
    }
    let has_affinity = node_affinity(spec, &path.child("nodeAffinity"), &mut errors);
    sources(spec, has_affinity, &path, &mut errors);
    if text(&spec["hostPath"], "path").trim_end_matches('/').is_empty()
        && present(spec, "hostPath")
        && policy == "Recycle"
    {
        let detail = "may not be 'recycle' for a hostPath mount of '/'";
        errors.push(FieldError::forbidden(path.child("persistentVolumeReclaimPolicy"), detail));
    }
    let class = text(spec, "storageClassName");
    if !class.is_empty() {
        errors.extend(rule::subdomain(&path.child("storageClassName"), class));
    }
    if present(spec, "volumeMode") {
        errors.extend(rule::one_of(&path.child("volumeMode"), text(spec, "volumeMode"), &VOLUME_MODES));
    }
    attributes_class(spec, &path, &mut errors);
    errors
}

fn capacity(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let amounts = &spec["capacity"];
    let count = entries(spec, "capacity").count();
    if count == 0 {
        errors.push(FieldError::required(path, ""));
    }
    if !present(amounts, "storage") || count > 1 {
        errors.push(FieldError::not_supported(path, amounts, &["storage"]));
    }
    for (name, amount) in entries(spec, "capacity") {
        let path = path.key(name);
        if let Ok(size) = Quantity::from_value(amount)
            && size.is_negative()
        {
            errors.push(FieldError::invalid(&path, &size.value().into(), "must be a valid resource quantity"));
        }
        errors.extend(check_positive(&path, amount));
    }
}

/// Checks on which nodes a volume can be used, and returns whether it says so.
fn node_affinity(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) -> bool {
    let affinity = &spec["nodeAffinity"];
    if affinity.is_null() {
        return false;
    }
    if !present(affinity, "required") {
        errors.push(FieldError::required(path.child("required"), "must specify required node constraints"));
        return true;
    }
    affinity::check_node_selector(&affinity["required"], &path.child("required"), errors);
    true
}

fn sources(spec: &Value, has_affinity: bool, path: &Path, errors: &mut Vec<FieldError>) {
    let mut found = SOURCES.into_iter().filter(|source| present(spec, source));
    let Some(kind) = found.next() else {
        errors.push(FieldError::required(path, "must specify a volume type"));
        return;
    };
    let own = &spec[kind];
    let own_path = path.child(kind);
    match kind {
        "hostPath" => source::host_path(own, &own_path, errors),
        "nfs" => nfs(own, &own_path, errors),
        "local" => {
            local(own, &own_path, errors);
            if !has_affinity {
                let detail = "Local volume requires node affinity";
                errors.push(FieldError::required(path.child("nodeAffinity"), detail));
            }
        }
        "csi" => csi(own, &own_path, errors),
        _ => (),
    }
    let detail = "may not specify more than 1 volume type";
    errors.extend(found.map(|other| FieldError::forbidden(path.child(other), detail)));
}

fn nfs(source: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    errors.extend(rule::not_empty(&path.child("server"), text(source, "server")));
    let location = text(source, "path");
    errors.extend(rule::not_empty(&path.child("path"), location));
    if !location.starts_with('/') {
        errors.push(FieldError::invalid(path.child("path"), &location.into(), "must be an absolute path"));
    }
}

fn local(source: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let (path, location) = (path.child("path"), text(source, "path"));
    errors.extend(rule::not_empty(&path, location));
    if location.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(path, &location.into(), "must not contain '..'"));
    }
}

fn csi(source: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    errors.extend(check_driver(&path.child("driver"), text(source, "driver")));
    errors.extend(rule::not_empty(&path.child("volumeHandle"), text(source, "volumeHandle")));
    let secrets =
        ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"];
    for field in secrets.into_iter().filter(|field| present(source, field)) {
        let (secret, path) = (&source[field], path.child(field));
        match text(secret, "name") {
            "" => errors.push(FieldError::required(path.child("name"), "")),
            name => errors.extend(rule::subdomain(&path.child("name"), name)),
        }
        match text(secret, "namespace") {
            "" => errors.push(FieldError::required(path.child("namespace"), "")),
            namespace => errors.extend(rule::label(&path.child("namespace"), namespace)),
        }
    }
}

fn attributes_class(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let Some(class) = spec["volumeAttributesClassName"].as_str() else { return };
    let class_path = path.child("volumeAttributesClassName");
    if class.is_empty() {
        errors.push(FieldError::required(class_path, "an empty string is disallowed"));
    } else {
        errors.extend(rule::subdomain(&class_path, class));
    }
    if !present(spec, "csi") {
        let detail = "has to be specified when using volumeAttributesClassName";
        errors.push(FieldError::required(path.child("csi"), detail));
    }
}

/// Checks a volume within a VolumeAttachment (`validateInlinePersistentVolumeSpec`).
pub(super) fn validate_inline(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let inline = "may not be specified in the context of inline volumes";
    for field in ["claimRef", "capacity"].into_iter().filter(|field| present(spec, field)) {
        errors.push(FieldError::forbidden(path.child(field), inline));
    }
    if !present(spec, "csi") {
        errors.push(FieldError::required(path.child("csi"), "has to be specified in the context of inline volumes"));
    }
    check_modes(spec, "", path, errors);
    let policy = text(spec, "persistentVolumeReclaimPolicy");
    if !matches!(policy, "" | "Retain") {
        let detail = "may only be Retain in the context of inline volumes";
        errors.push(FieldError::forbidden(path.child("persistentVolumeReclaimPolicy"), detail));
    }
    if present(spec, "nodeAffinity") {
        errors.push(FieldError::forbidden(path.child("nodeAffinity"), inline));
    }
    sources(spec, false, path, errors);
    if !text(spec, "storageClassName").is_empty() {
        errors.push(FieldError::forbidden(path.child("storageClassName"), inline));
    }
    if !matches!(text(spec, "volumeMode"), "" | "Filesystem") {
        let detail = "may not specify volumeMode other than Filesystem in the context of inline volumes";
        errors.push(FieldError::forbidden(path.child("volumeMode"), detail));
    }
}

fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let (spec, old_spec) = (&new["spec"], &old["spec"]);
    let mut errors = validate(spec);
    let mut sources = spec.clone();
    // The secret for growing may be added later.
    if present(old_spec, "csi")
        && !present(&old_spec["csi"], "controllerExpandSecretRef")
        && let Some(csi) = object_mut(&mut sources, "csi")
    {
        remove(csi, "controllerExpandSecretRef");
    }
    if SOURCES.into_iter().any(|source| sources[source] != old_spec[source]) {
        let detail = "spec.persistentvolumesource is immutable after creation";
        errors.push(FieldError::forbidden("spec.persistentvolumesource", detail));
    }
    errors.extend(rule::immutable("volumeMode", &spec["volumeMode"], &old_spec["volumeMode"]));
    if present(old_spec, "nodeAffinity") {
        errors.extend(rule::immutable("nodeAffinity", &spec["nodeAffinity"], &old_spec["nodeAffinity"]));
    }
    if present(old_spec, "volumeAttributesClassName") && !present(spec, "volumeAttributesClassName") {
        let detail = "update from non-nil value to nil is forbidden";
        errors.push(FieldError::forbidden("spec.volumeAttributesClassName", detail));
    }
    errors
}
