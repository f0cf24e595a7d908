//! DeviceClasses: which devices, and with what configuration, are meant by a name.

use serde_json::Value;

use super::{GROUP, IDLE, MOST, configuration, each, selectors};
use crate::resources::path::{Path, text};
use crate::resources::{BLANK, Generation, Resource, pod};
use crate::status::FieldError;

/// `deviceclasses`.
pub(in crate::resources) const ROW: Resource = Resource {
    group: GROUP,
    kind: "DeviceClass",
    list_kind: "DeviceClassList",
    plural: "deviceclasses",
    singular: "deviceclass",
    namespaced: false,
    validate,
    validate_update: |new, _| validate(new),
    warn: |_| vec![IDLE.to_owned()],
    generation: Generation::SPEC,
    returns_deleted: true,
    ..BLANK
};

fn validate(class: &Value) -> Vec<FieldError> {
    let (spec, path) = (&class["spec"], Path::new("spec"));
    let mut errors = Vec::new();
    selectors(spec, &path, &mut errors);
    each(spec, "config", MOST, &path, &mut errors, configuration);
    let extended = text(spec, "extendedResourceName");
    if spec["extendedResourceName"].is_string() && !pod::resources::is_extended(extended) {
        let detail = "must be a valid extended resource name";
        errors.push(FieldError::invalid(path.child("extendedResourceName"), &extended.into(), detail));
    }
    errors
}
