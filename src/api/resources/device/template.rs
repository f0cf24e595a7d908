//! ResourceClaimTemplates: of which claims are made, one for each pod.

use serde_json::Value;

use super::{GROUP, IDLE, request};
use crate::resources::path::{Path, object_mut};
use crate::resources::{BLANK, Resource, metadata, rule};
use crate::status::FieldError;

/// `resourceclaimtemplates`.
pub(in crate::resources) const ROW: Resource = Resource {
    group: GROUP,
    kind: "ResourceClaimTemplate",
    list_kind: "ResourceClaimTemplateList",
    plural: "resourceclaimtemplates",
    singular: "resourceclaimtemplate",
    default: |template| {
        if let Some(spec) = object_mut(template, "spec").and_then(|spec| object_mut(spec, "spec")) {
            request::default(spec);
        }
    },
    validate,
    validate_update: |new, old| rule::immutable("spec", &new["spec"], &old["spec"]),
    warn: |_| vec![IDLE.to_owned()],
    returns_deleted: true,
    ..BLANK
};

fn validate(template: &Value) -> Vec<FieldError> {
    let (spec, path) = (&template["spec"], Path::new("spec"));
    let (meta, meta_path) = (&spec["metadata"], path.child("metadata"));
    let mut errors = metadata::check_annotations(meta, &meta_path.child("annotations"));
    errors.extend(rule::labels(&meta_path.child("labels"), meta, "labels"));
    request::check(&spec["spec"], &path.child("spec"), &mut errors);
    errors
}
