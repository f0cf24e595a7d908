//! CustomResourceDefinitions, by which kinds come at run time.
//!
//! Follows `pkg/registry/customresourcedefinition` of apiextensions. Which names are accepted and whether the kind is
//! served, [`super::status`] decides.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{check, unknown};
use crate::resources::cell::{self, column};
use crate::resources::path::{Path, default_number, default_text, ensure_object, items, text};
use crate::resources::{BLANK, Generation, Resource, rule, status_of};
use crate::status::FieldError;

const GROUP: &str = "apiextensions.k8s.io";
const KIND: &str = "CustomResourceDefinition";

/// `customresourcedefinitions.apiextensions.k8s.io`.
pub(in crate::resources) const ROW: Resource = Resource {
    group: GROUP,
    kind: KIND,
    list_kind: "CustomResourceDefinitionList",
    plural: "customresourcedefinitions",
    singular: "customresourcedefinition",
    short_names: &["crd", "crds"],
    categories: &["api-extensions"],
    namespaced: false,
    subresources: &[status_of(GROUP, "v1", KIND)],
    default,
    prepare: |definition| store_version(definition),
    prepare_update: |new, _| store_version(new),
    validate,
    validate_update,
    validate_status,
    has_status: true,
    generation: Generation::SPEC,
    unconditional_update: false,
    columns: &[cell::NAME, column("Created At", "date", "", "When the definition was created.", 0)],
    cells,
    ..BLANK
};

fn cells(definition: &Value, _: Timestamp) -> Vec<Value> {
    vec![cell::name(definition), text(&definition["metadata"], "creationTimestamp").into()]
}

/// `pkg/apis/apiextensions/v1/defaults.go`.
fn default(definition: &mut Value) {
    let spec = ensure_object(definition, "spec");
    let names = ensure_object(spec, "names");
    let kind = text(names, "kind").to_owned();
    if !kind.is_empty() {
        default_text(names, "singular", &kind.to_lowercase());
        default_text(names, "listKind", &format!("{kind}List"));
    }
    let conversion = ensure_object(spec, "conversion");
    default_text(conversion, "strategy", "None");
    if let Some(service) = conversion.pointer_mut("/webhook/clientConfig/service").filter(|service| service.is_object())
    {
        default_number(service, "port", 443);
    }
}

/// A version in which objects are stored from now on is one in which some may be.
fn store_version(definition: &mut Value) {
    let versions = items(&definition["spec"], "versions");
    let Some(name) = versions.iter().find(|version| version["storage"] == true).map(|version| version["name"].clone())
    else {
        return;
    };
    let stored = &mut ensure_object(definition, "status")["storedVersions"];
    if !stored.is_array() {
        *stored = json!([]);
    }
    if let Some(stored) = stored.as_array_mut().filter(|stored| !stored.contains(&name)) {
        stored.push(name);
    }
}

fn validate(definition: &Value) -> Vec<FieldError> {
    if let Some(detail) = unknown::mistyped(definition) {
        return vec![FieldError::wrong("spec.versions", &detail)];
    }
    check::definition(definition)
}

fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = if new["spec"] == old["spec"] { Vec::new() } else { validate(new) };
    let (new_spec, old_spec) = (&new["spec"], &old["spec"]);
    let fixed = |path: &str, new: &Value, old: &Value| rule::immutable(path, new, old);
    if super::status::is_established(old) {
        errors.extend(fixed("spec.scope", &new_spec["scope"], &old_spec["scope"]));
        errors.extend(fixed("spec.names.kind", &new_spec["names"]["kind"], &old_spec["names"]["kind"]));
    }
    errors.extend(fixed("spec.group", &new_spec["group"], &old_spec["group"]));
    errors.extend(fixed("spec.names.plural", &new_spec["names"]["plural"], &old_spec["names"]["plural"]));
    errors.extend(validate_status(new, old));
    errors
}

fn validate_status(new: &Value, _: &Value) -> Vec<FieldError> {
    let (status, path) = (&new["status"], Path::new("status"));
    let mut errors = Vec::new();
    check::names(&status["acceptedNames"], &path.child("acceptedNames"), &mut errors);
    let (stored, path) = (items(status, "storedVersions"), path.child("storedVersions"));
    if stored.is_empty() {
        errors.push(FieldError::invalid(&path, &json!([]), "must have at least one stored version"));
        return errors;
    }
    let versions = items(&new["spec"], "versions");
    for version in versions.iter().filter(|version| version["storage"] == true && !stored.contains(&version["name"])) {
        let detail = format!("must have the storage version {}", text(version, "name"));
        errors.push(FieldError::invalid(&path, &version["name"], &detail));
    }
    for (index, name) in stored.iter().enumerate() {
        if !versions.iter().any(|version| version["name"] == *name) {
            errors.push(FieldError::invalid(path.index(index), name, "must appear in spec.versions"));
        }
    }
    errors
}
