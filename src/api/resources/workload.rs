//! What kinds that make pods from a template have in common: checks of the template, of counters in `status`, and cells.

use serde_json::{Value, json};

use super::cell::column;
use super::path::{Path, items, number, present, text};
use super::{BLANK, Column, Generation, Resource, pod, rule, selector};
use crate::status::FieldError;

/// What kinds that make pods have in common: they are among `all`, and whoever acts on their `spec` says so in `status`.
pub(super) const BASE: Resource = Resource {
    categories: &["all"],
    has_status: true,
    new_status: || json!({}),
    generation: Generation::SPEC,
    ..BLANK
};

/// Names of the template's containers.
pub(super) const CONTAINERS: Column = column("Containers", "string", "", "Names of the containers of its pods.", 1);
/// Images of the template's containers.
pub(super) const IMAGES: Column = column("Images", "string", "", "Images of the containers of its pods.", 1);
/// Which pods belong to it.
pub(super) const SELECTOR: Column = column("Selector", "string", "", "Labels by which it knows its pods.", 1);

/// The cells of [`CONTAINERS`] and [`IMAGES`].
pub(super) fn container_cells(template: &Value) -> [Value; 2] {
    let list = |field: &str| {
        let words = items(&template["spec"], "containers").iter().map(|container| text(container, field));
        Value::from(Vec::from_iter(words).join(","))
    };
    [list("name"), list("image")]
}

/// Checks that the pods of a template would be selected; `template` is its path.
pub(super) fn selected(spec: &Value, template: &Path, errors: &mut Vec<FieldError>) {
    let labels = &spec["template"]["metadata"]["labels"];
    if selector::selects(&spec["selector"], labels) == Some(false) {
        errors.push(not_selected(labels, template));
    }
}

/// The error of labels that the workload's own selector does not select.
pub(super) fn not_selected(labels: &Value, template: &Path) -> FieldError {
    let path = template.child("metadata").child("labels");
    FieldError::invalid(path, labels, "`selector` does not match template `labels`")
}

/// Checks the template of a workload whose pods run for ever; `kind` is the word of the messages.
pub(super) fn lasting_template(template: &Value, path: &Path, kind: &str, errors: &mut Vec<FieldError>) {
    pod::validate_template(template, path, errors);
    lasting(template, path, kind, errors);
}

/// Checks that pods of a template run for ever.
pub(super) fn lasting(template: &Value, path: &Path, kind: &str, errors: &mut Vec<FieldError>) {
    let (spec, path) = (&template["spec"], path.child("spec"));
    errors.extend(rule::one_of(&path.child("restartPolicy"), text(spec, "restartPolicy"), &["Always"]));
    if present(spec, "activeDeadlineSeconds") {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.push(FieldError::forbidden(path.child("activeDeadlineSeconds"), &detail));
    }
}

/// Checks that numbers are not negative, where they are said.
pub(super) fn not_negative(object: &Value, fields: &[&str], path: &Path, errors: &mut Vec<FieldError>) {
    errors.extend(fields.iter().filter_map(|field| rule::not_negative(&path.child(field), &object[field])));
}

/// Checks that no part of the replicas is more than all of them.
pub(super) fn parts(status: &Value, fields: &[&str], path: &Path, errors: &mut Vec<FieldError>) {
    for field in fields {
        if number(status, field) > number(status, "replicas") {
            let detail = "cannot be greater than status.replicas";
            errors.push(FieldError::invalid(path.child(field), &number(status, field).into(), detail));
        }
    }
}

/// Checks that no more replicas are available than are ready; `ready` is the word of the message.
pub(super) fn available(status: &Value, ready: &str, path: &Path, errors: &mut Vec<FieldError>) {
    if number(status, "availableReplicas") > number(status, "readyReplicas") {
        let value = number(status, "availableReplicas").into();
        let detail = format!("cannot be greater than {ready}");
        errors.push(FieldError::invalid(path.child("availableReplicas"), &value, &detail));
    }
}

/// Checks that a counter of name collisions only grows.
pub(super) fn collisions(new: &Value, old: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let field = "collisionCount";
    let (new, old) = (&new["status"][field], &old["status"][field]);
    let value = new.as_i64().unwrap_or(0);
    if old.as_i64().is_some_and(|old| new.is_null() || value < old) {
        errors.push(FieldError::invalid(path.child(field), &value.into(), "cannot be decremented"));
    }
}
