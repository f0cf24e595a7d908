//! Checks of volumes (`ValidateVolumes`): exactly one source each, and what the sources that nodes here know must say.
//!
//! Of the other sources (cloud disks, network file systems) only the number is checked: no node here mounts them, and the
//! kubelet says so.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::container::descending;
use super::env::{self, VOLUME_FIELDS};
use crate::quantity::Quantity;
use crate::resources::metadata::check_annotations;
use crate::resources::path::{Path, entries, items, present, text};
use crate::resources::rule;
use crate::resources::storage::claim;
use crate::status::FieldError;

/// Sources in the order in which upstream looks at them.
const SOURCES: [&str; 30] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];

const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// Checks `spec.volumes` and returns the valid ones by name.
pub(super) fn validate_all<'a>(
    spec: &'a Value,
    path: &Path,
    errors: &mut Vec<FieldError>,
) -> BTreeMap<&'a str, &'a Value> {
    let mut valid = BTreeMap::new();
    for (index, volume) in items(spec, "volumes").iter().enumerate() {
        let path = path.index(index);
        let name = text(volume, "name");
        let mut own = Vec::new();
        validate_source(volume, &path, &mut own);
        match name {
            "" => own.push(FieldError::required(path.child("name"), "")),
            name => own.extend(rule::label(&path.child("name"), name)),
        }
        if valid.contains_key(name) {
            own.push(FieldError::duplicate(path.child("name"), &name.into()));
        }
        if own.is_empty() {
            valid.insert(name, volume);
        }
        errors.append(&mut own);
    }
    valid
}

fn validate_source(volume: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let mut found = SOURCES.into_iter().filter(|source| present(volume, source));
    let Some(kind) = found.next() else {
        errors.push(FieldError::required(path, "must specify a volume type"));
        return;
    };
    let (source, source_path) = (&volume[kind], path.child(kind));
    match kind {
        "emptyDir" => {
            let limit = Quantity::from_value(&source["sizeLimit"]).unwrap_or(Quantity::ZERO);
            if limit.is_negative() {
                let detail = "SizeLimit field must be a valid resource quantity";
                errors.push(FieldError::forbidden(source_path.child("sizeLimit"), detail));
            }
        }
        "hostPath" => host_path(source, &source_path, errors),
        "secret" => keyed(source, "secretName", &source_path, errors),
        "configMap" => keyed(source, "name", &source_path, errors),
        "persistentVolumeClaim" => {
            errors.extend(rule::not_empty(&source_path.child("claimName"), text(source, "claimName")));
        }
        "downwardAPI" => {
            mode(source, "defaultMode", &source_path, errors);
            for file in items(source, "items") {
                downward_file(file, &source_path, errors);
            }
        }
        "projected" => projected(source, &source_path, errors),
        "ephemeral" => ephemeral(source, &source_path, errors),
        "csi" => errors.extend(rule::not_empty(&source_path.child("driver"), text(source, "driver"))),
        "image" => {
            errors.extend(rule::not_empty(&source_path.child("reference"), text(source, "reference")));
            errors.extend(rule::required_one_of(
                &source_path.child("pullPolicy"),
                text(source, "pullPolicy"),
                &["Always", "IfNotPresent", "Never"],
            ));
        }
        _ => (),
    }
    for other in found {
        errors.push(FieldError::forbidden(path.child(other), "may not specify more than 1 volume type"));
    }
}

/// A claim that lives as long as the pod (`validateEphemeralVolumeSource`).
fn ephemeral(source: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let (template, path) = (&source["volumeClaimTemplate"], path.child("volumeClaimTemplate"));
    if template.is_null() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let (meta, meta_path) = (&template["metadata"], path.child("metadata"));
    errors.extend(check_annotations(meta, &meta_path.child("annotations")));
    errors.extend(rule::labels(&meta_path.child("labels"), meta, "labels"));
    for (field, _) in
        entries(template, "metadata").filter(|(field, _)| !matches!(field.as_str(), "annotations" | "labels"))
    {
        errors.push(FieldError::forbidden(meta_path.child(field), "cannot be set"));
    }
    claim::validate_spec(&template["spec"], &path.child("spec"), errors);
}

/// Checks a path of the host.
pub(in crate::resources) fn host_path(source: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let location = text(source, "path");
    if location.is_empty() {
        errors.push(FieldError::required(path.child("path"), ""));
        return;
    }
    if location.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(path.child("path"), &location.into(), "must not contain '..'"));
    }
    errors.extend(rule::one_of(&path.child("type"), text(source, "type"), &HOST_PATH_TYPES));
}

/// A Secret or ConfigMap, whole or by keys.
fn keyed(source: &Value, name: &str, path: &Path, errors: &mut Vec<FieldError>) {
    errors.extend(rule::not_empty(&path.child(name), text(source, name)));
    mode(source, "defaultMode", path, errors);
    for (index, item) in items(source, "items").iter().enumerate() {
        key_to_path(item, &path.child("items").index(index), errors);
    }
}

fn key_to_path(item: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    errors.extend(rule::not_empty(&path.child("key"), text(item, "key")));
    errors.extend(rule::not_empty(&path.child("path"), text(item, "path")));
    file_path(&path.child("path"), text(item, "path"), errors);
    mode(item, "mode", path, errors);
}

fn mode(parent: &Value, field: &str, path: &Path, errors: &mut Vec<FieldError>) {
    if let Some(mode) = parent[field].as_i64()
        && !(0..=0o777).contains(&mode)
    {
        let detail = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.push(FieldError::invalid(path.child(field), &mode.into(), detail));
    }
}

/// A path of a file in a volume; names that start with two dots are for the volume's own bookkeeping.
fn file_path(path: &Path, value: &str, errors: &mut Vec<FieldError>) {
    descending(path, value, errors);
    if value.starts_with("..") && !value.starts_with("../") {
        errors.push(FieldError::invalid(path, &value.into(), "must not start with '..'"));
    }
}

fn downward_file(file: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    errors.extend(rule::not_empty(&path.child("path"), text(file, "path")));
    file_path(&path.child("path"), text(file, "path"), errors);
    match (present(file, "fieldRef"), present(file, "resourceFieldRef")) {
        (true, both) => {
            env::field_ref(&file["fieldRef"], &VOLUME_FIELDS, &path.child("fieldRef"), errors);
            if both {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(FieldError::invalid(path, &"resource".into(), detail));
            }
        }
        (false, true) => env::resource_ref(&file["resourceFieldRef"], true, &path.child("resourceFieldRef"), errors),
        (false, false) => {
            errors.push(FieldError::required(path, "one of fieldRef and resourceFieldRef is required"));
        }
    }
    mode(file, "mode", path, errors);
}

fn projected(source: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    mode(source, "defaultMode", path, errors);
    let mut taken = BTreeSet::new();
    for (index, part) in items(source, "sources").iter().enumerate() {
        let part_path = path.child("sources").index(index);
        for kind in ["secret", "configMap"] {
            keyed_projection(part, kind, (path, &part_path), &mut taken, errors);
        }
        for file in items(&part["downwardAPI"], "items") {
            downward_file(file, &part_path.child("downwardAPI"), errors);
            let location = text(file, "path");
            if !location.is_empty() && !taken.insert(location) {
                errors.push(FieldError::invalid(path, &location.into(), "conflicting duplicate paths"));
            }
        }
        if present(part, "serviceAccountToken") {
            token(&part["serviceAccountToken"], path, &part_path.child("serviceAccountToken"), errors);
        }
        let kinds = ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle"];
        if kinds.into_iter().filter(|kind| present(part, kind)).count() > 1 {
            let detail = "may not specify more than 1 volume type per source";
            errors.push(FieldError::forbidden(&part_path, detail));
        }
    }
}

/// A Secret or ConfigMap in a projected volume; `paths` are those of the volume's source and of this part of it.
fn keyed_projection<'a>(
    part: &'a Value,
    kind: &str,
    paths: (&Path, &Path),
    taken: &mut BTreeSet<&'a str>,
    errors: &mut Vec<FieldError>,
) {
    let source = &part[kind];
    if source.is_null() {
        return;
    }
    let path = paths.1.child(kind);
    errors.extend(rule::not_empty(&path.child("name"), text(source, "name")));
    for (index, item) in items(source, "items").iter().enumerate() {
        key_to_path(item, &path.child("items").index(index), errors);
        let location = text(item, "path");
        if !location.is_empty() && !taken.insert(location) {
            errors.push(FieldError::invalid(paths.0, &source["name"], "conflicting duplicate paths"));
        }
    }
}

/// Upstream names the volume's source where it means the token's path.
fn token(token: &Value, source: &Path, path: &Path, errors: &mut Vec<FieldError>) {
    let seconds = &token["expirationSeconds"];
    let mut invalid = |detail: &str| {
        errors.push(FieldError::invalid(path.child("expirationSeconds"), seconds, detail));
    };
    match seconds.as_i64().unwrap_or(0) {
        ..600 => invalid("may not specify a duration less than 10 minutes"),
        600..=0x1_0000_0000 => (),
        _ => invalid("may not specify a duration larger than 2^32 seconds"),
    }
    match text(token, "path") {
        "" => errors.push(FieldError::required(source.child("path"), "")),
        location => file_path(&source.child("path"), location, errors),
    }
}
