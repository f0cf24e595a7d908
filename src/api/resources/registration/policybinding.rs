//! ValidatingAdmissionPolicyBindings: where a policy holds, and what happens if it does not.

use jiff::Timestamp;
use serde_json::Value;

use super::{BASE, check_match, default_match};
use crate::names;
use crate::resources::cell::{self, column};
use crate::resources::path::{Path, ensure_object, items, object_mut, present, text};
use crate::resources::{Resource, rule, selector};
use crate::status::FieldError;

/// `validatingadmissionpolicybindings`.
pub(in crate::resources) const ROW: Resource = Resource {
    kind: "ValidatingAdmissionPolicyBinding",
    list_kind: "ValidatingAdmissionPolicyBindingList",
    plural: "validatingadmissionpolicybindings",
    singular: "validatingadmissionpolicybinding",
    default: |binding| {
        if let Some(resources) = object_mut(ensure_object(binding, "spec"), "matchResources") {
            default_match(resources);
        }
    },
    validate: |binding| validate(&binding["spec"]),
    validate_update: |new, _| validate(&new["spec"]),
    columns: &[
        cell::NAME,
        column("PolicyName", "string", "", "Which policy.", 0),
        column("ParamRef", "string", "", "Where its settings are.", 0),
        cell::AGE,
    ],
    cells,
    ..BASE
};

fn cells(binding: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, param) = (&binding["spec"], &binding["spec"]["paramRef"]);
    let shown = match (param.is_null(), text(param, "name"), text(param, "namespace")) {
        (true, ..) => "<unset>".to_owned(),
        (false, "", _) => selector::query(&param["selector"]),
        (false, name, "") => format!("*/{name}"),
        (false, name, namespace) => format!("{namespace}/{name}"),
    };
    vec![cell::name(binding), text(spec, "policyName").into(), shown.into(), cell::age(binding, now)]
}

fn validate(spec: &Value) -> Vec<FieldError> {
    let path = Path::new("spec");
    let mut errors = references(spec, &path);
    if present(spec, "matchResources") {
        // Upstream's path of this one is not that of the field.
        check_match(&spec["matchResources"], &path.child("matchResouces"), &mut errors);
    }
    actions(spec, &path.child("validationActions"), &mut errors);
    errors
}

/// What a binding of either kind refers to.
pub(super) fn references(spec: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    policy_name(spec, &path.child("policyName"), &mut errors);
    if present(spec, "paramRef") {
        param_ref(&spec["paramRef"], &path.child("paramRef"), &mut errors);
    }
    errors
}

fn policy_name(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let name = text(spec, "policyName");
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else {
        errors.extend(rule::each(path, name, names::dns1123_subdomain(name)));
    }
}

/// `validateParamRef`.
fn param_ref(param: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let name = text(param, "name");
    if !name.is_empty() {
        errors.extend(rule::each(&path.child("name"), name, names::path_segment(name)));
    }
    match (name.is_empty(), present(param, "selector")) {
        (false, true) => {
            let detail = "name and selector are mutually exclusive";
            errors.push(FieldError::forbidden(path.child("name"), detail));
            selector::check(&param["selector"], &path.child("selector"), errors);
            errors.push(FieldError::forbidden(path.child("selector"), detail));
        }
        (true, false) => errors.push(FieldError::required(path, "one of name or selector must be specified")),
        (_, selects) => {
            if selects {
                selector::check(&param["selector"], &path.child("selector"), errors);
            }
        }
    }
    let (action, path) = (text(param, "parameterNotFoundAction"), path.child("parameterNotFoundAction"));
    errors.extend(rule::required_one_of(&path, action, &["Deny", "Allow"]));
}

/// `validateValidationActions`.
fn actions(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let actions = items(spec, "validationActions");
    for (index, action) in actions.iter().enumerate() {
        let path = path.index(index);
        errors.extend(rule::one_of(&path, action.as_str().unwrap_or_default(), &["Audit", "Deny", "Warn"]));
        if actions[..index].contains(action) {
            errors.push(FieldError::duplicate(path, action));
        }
    }
    if ["Deny", "Warn"].iter().all(|wanted| actions.iter().any(|action| action == wanted)) {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API \
                      response and headers serves no purpose)";
        errors.push(FieldError::invalid(path, &spec["validationActions"], detail));
    }
    if actions.is_empty() {
        errors.push(FieldError::required(path, "at least one validation action is required"));
    }
}
