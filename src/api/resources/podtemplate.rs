//! PodTemplates: templates that nothing makes pods of by itself.

use jiff::Timestamp;
use serde_json::Value;

use super::cell::{self, column};
use super::path::Path;
use super::workload::{CONTAINERS, IMAGES, container_cells};
use super::{BLANK, Column, Generation, Resource, pod, selector};
use crate::status::FieldError;

/// `podtemplates`.
pub(super) const ROW: Resource = Resource {
    kind: "PodTemplate",
    list_kind: "PodTemplateList",
    plural: "podtemplates",
    singular: "podtemplate",
    default: pod::default_template,
    validate,
    validate_update: |new, _| validate(new),
    generation: Generation::Of(&["/template"]),
    columns: &[
        cell::NAME,
        Column { priority: 0, ..CONTAINERS },
        Column { priority: 0, ..IMAGES },
        column("Pod Labels", "string", "", "Labels of its pods.", 0),
    ],
    cells,
    warn: |template| pod::warn_of_idle_fields(&template["template"]["spec"], "template.spec"),
    returns_deleted: true,
    ..BLANK
};

fn cells(template: &Value, _: Timestamp) -> Vec<Value> {
    let [containers, images] = container_cells(&template["template"]);
    vec![cell::name(template), containers, images, selector::map_cell(&template["template"]["metadata"]["labels"])]
}

fn validate(template: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    pod::validate_template(&template["template"], &Path::new("template"), &mut errors);
    errors
}
