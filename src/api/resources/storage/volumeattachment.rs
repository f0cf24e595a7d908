//! VolumeAttachments: that a volume is to be attached to a node, and whether it is.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{GROUP, check_driver, volume};
use crate::names;
use crate::resources::cell::{self, column};
use crate::resources::path::{Path, entries, present, text};
use crate::resources::{BLANK, Generation, Resource, rule, status_of};
use crate::status::FieldError;

/// Most bytes of what a driver says of an attached volume, and of an error.
const MOST_METADATA: usize = 256 * 1024;
const MOST_MESSAGE: usize = 1024;

/// `volumeattachments`.
pub(in crate::resources) const ROW: Resource = Resource {
    group: GROUP,
    kind: "VolumeAttachment",
    list_kind: "VolumeAttachmentList",
    plural: "volumeattachments",
    singular: "volumeattachment",
    namespaced: false,
    subresources: &[status_of(GROUP, "v1", "VolumeAttachment")],
    validate,
    validate_update,
    validate_status: validate_update,
    has_status: true,
    new_status: || json!({ "attached": false }),
    generation: Generation::None,
    columns: &[
        cell::NAME,
        column("Attacher", "string", "name", "Who attaches it.", 0),
        column("PV", "string", "", "Which volume.", 0),
        column("Node", "string", "", "To which node.", 0),
        column("Attached", "boolean", "", "Whether it is attached.", 0),
        cell::AGE,
    ],
    cells,
    status_keeps: &["labels", "annotations", "finalizers", "ownerReferences"],
    returns_deleted: true,
    ..BLANK
};

fn cells(attachment: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &attachment["spec"];
    vec![
        cell::name(attachment),
        text(spec, "attacher").into(),
        text(&spec["source"], "persistentVolumeName").into(),
        text(spec, "nodeName").into(),
        (attachment["status"]["attached"] == true).into(),
        cell::age(attachment, now),
    ]
}

fn validate(attachment: &Value) -> Vec<FieldError> {
    let mut errors = check(attachment);
    let (spec, path) = (&attachment["spec"], Path::new("spec"));
    errors.extend(check_driver(&path.child("attacher"), text(spec, "attacher")));
    if let Some(name) = spec["source"]["persistentVolumeName"].as_str() {
        let path = path.child("source").child("persistentVolumeName");
        errors.extend(rule::each(&path, name, names::dns1123_subdomain(name)));
    }
    errors
}

fn check(attachment: &Value) -> Vec<FieldError> {
    let (spec, path) = (&attachment["spec"], Path::new("spec"));
    let mut errors: Vec<FieldError> =
        rule::not_empty(&path.child("attacher"), text(spec, "attacher")).into_iter().collect();
    let (source, source_path) = (&spec["source"], path.child("source"));
    let detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (present(source, "inlineVolumeSpec"), source["persistentVolumeName"].as_str()) {
        (false, None) => errors.push(FieldError::required(&source_path, detail)),
        (true, Some(_)) => errors.push(FieldError::forbidden(&source_path, detail)),
        (false, Some("")) => {
            let detail = "must specify non empty persistentVolumeName";
            errors.push(FieldError::required(source_path.child("persistentVolumeName"), detail));
        }
        (false, Some(_)) => (),
        (true, None) => {
            let path = source_path.child("inlineVolumeSpec");
            volume::validate_inline(&source["inlineVolumeSpec"], &path, &mut errors);
        }
    }
    errors.extend(rule::subdomain(&path.child("nodeName"), text(spec, "nodeName")));
    check_status(&attachment["status"], &Path::new("status"), &mut errors);
    errors
}

fn check_status(status: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let metadata = entries(status, "attachmentMetadata");
    let size: usize = metadata.map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if size > MOST_METADATA {
        errors.push(FieldError::too_long(path.child("attachmentMetadata"), MOST_METADATA));
    }
    for field in ["attachError", "detachError"] {
        if text(&status[field], "message").len() > MOST_MESSAGE {
            errors.push(FieldError::too_long(path.child(field).child("message"), MOST_METADATA));
        }
        let code = &status[field]["errorCode"];
        if code.as_i64().is_some_and(|code| code < 0) {
            let detail = "must be between 0 and 2147483647, inclusive";
            errors.push(FieldError::invalid(path.child(field).child("errorCode"), code, detail));
        }
    }
}

fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = check(new);
    errors.extend(rule::immutable("spec", &new["spec"], &old["spec"]));
    errors
}
