//! IngressClasses: who serves Ingresses.

use jiff::Timestamp;
use serde_json::Value;

use super::{GROUP, reference};
use crate::resources::cell::{self, column};
use crate::resources::path::{Path, default_text, ensure_object, object_mut, text};
use crate::resources::{BLANK, Generation, Resource, rule};
use crate::status::FieldError;

const LONGEST_CONTROLLER: usize = 250;
/// Which class is that of Ingresses which name none.
const DEFAULT_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";

/// `ingressclasses`.
pub(in crate::resources) const ROW: Resource = Resource {
    group: GROUP,
    kind: "IngressClass",
    list_kind: "IngressClassList",
    plural: "ingressclasses",
    singular: "ingressclass",
    namespaced: false,
    default: |class| {
        if let Some(parameters) = object_mut(ensure_object(class, "spec"), "parameters") {
            default_text(parameters, "scope", "Cluster");
        }
    },
    validate: |class| validate(&class["spec"]),
    validate_update: |new, old| {
        let mut errors = rule::immutable("spec.controller", &new["spec"]["controller"], &old["spec"]["controller"]);
        errors.extend(validate(&new["spec"]));
        errors
    },
    generation: Generation::SPEC,
    columns: &[
        cell::NAME,
        column("Controller", "string", "", "Who serves its Ingresses.", 0),
        column("Parameters", "string", "", "What says more about how.", 0),
        cell::AGE,
    ],
    cells,
    ..BLANK
};

/// Whether a class is that of Ingresses which name none.
pub(in crate::resources) fn is_default(class: &Value) -> bool {
    class["metadata"]["annotations"][DEFAULT_ANNOTATION] == "true"
}

fn cells(class: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, parameters) = (&class["spec"], &class["spec"]["parameters"]);
    let kind = match parameters["apiGroup"].as_str() {
        Some(group) => format!("{}.{group}", text(parameters, "kind")),
        None => text(parameters, "kind").to_owned(),
    };
    let shown = if parameters.is_null() { "<none>".to_owned() } else { format!("{kind}/{}", text(parameters, "name")) };
    vec![cell::name(class), text(spec, "controller").into(), shown.into(), cell::age(class, now)]
}

fn validate(spec: &Value) -> Vec<FieldError> {
    let path = Path::new("spec");
    let (controller, own) = (text(spec, "controller"), path.child("controller"));
    let mut errors = Vec::new();
    if controller.len() > LONGEST_CONTROLLER {
        errors.push(FieldError::too_long(&own, LONGEST_CONTROLLER));
    }
    errors.extend(rule::domain_path(&own, controller));
    let parameters = &spec["parameters"];
    if !parameters.is_null() {
        check_parameters(parameters, &path.child("parameters"), &mut errors);
    }
    errors
}

fn check_parameters(parameters: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    reference(parameters, path, errors);
    let namespace = path.child("namespace");
    match (parameters["scope"].as_str(), parameters["namespace"].as_str()) {
        (None, _) => errors.push(FieldError::required(path.child("scope"), "")),
        (Some("Namespace"), None) => {
            errors.push(FieldError::required(namespace, "`parameters.scope` is set to 'Namespace'"));
        }
        (Some("Namespace"), Some(name)) => errors.extend(rule::label(&namespace, name)),
        (Some("Cluster"), Some(_)) => {
            errors.push(FieldError::forbidden(namespace, "`parameters.scope` is set to 'Cluster'"));
        }
        (Some("Cluster"), None) => (),
        (Some(scope), _) => {
            errors.extend(rule::one_of(&path.child("scope"), scope, &["Cluster", "Namespace"]));
        }
    }
}
