//! ValidatingAdmissionPolicies: expressions that decide about writes.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{BASE, GROUP, check_conditions, check_match, default_match};
use crate::cel::Wanted;
use crate::names;
use crate::resources::admission::policy::compile_for;
use crate::resources::cell::{self, column};
use crate::resources::path::{Path, default_text, ensure_object, items, object_mut, present, text};
use crate::resources::{Resource, rule, status_of};
use crate::status::FieldError;

/// Most annotations that a policy may make.
const MOST_ANNOTATIONS: usize = 20;

/// `validatingadmissionpolicies`.
pub(in crate::resources) const ROW: Resource = Resource {
    kind: "ValidatingAdmissionPolicy",
    list_kind: "ValidatingAdmissionPolicyList",
    plural: "validatingadmissionpolicies",
    singular: "validatingadmissionpolicy",
    subresources: &[status_of(GROUP, "v1", "ValidatingAdmissionPolicy")],
    default: |policy| {
        let spec = ensure_object(policy, "spec");
        default_text(spec, "failurePolicy", "Fail");
        if let Some(constraints) = object_mut(spec, "matchConstraints") {
            default_match(constraints);
        }
    },
    validate,
    validate_update: |new, _| validate(new),
    has_status: true,
    new_status: || json!({}),
    status_keeps: &["labels", "annotations", "finalizers", "ownerReferences"],
    warn: unheard,
    columns: &[
        cell::NAME,
        column("Validations", "integer", "", "How many expressions must hold.", 0),
        column("ParamKind", "string", "", "What kind of object it takes settings from.", 0),
        cell::AGE,
    ],
    cells,
    ..BASE
};

fn cells(policy: &Value, now: Timestamp) -> Vec<Value> {
    let count = items(&policy["spec"], "validations").len();
    vec![cell::name(policy), count.into(), shown_kind(policy).into(), cell::age(policy, now)]
}

pub(super) fn shown_kind(policy: &Value) -> String {
    let kind = &policy["spec"]["paramKind"];
    if kind.is_null() {
        return "<unset>".to_owned();
    }
    format!("{}/{}", text(kind, "apiVersion"), text(kind, "kind"))
}

/// What a policy is about that it is not asked about here.
fn unheard(policy: &Value) -> Vec<String> {
    if items(&policy["spec"], "auditAnnotations").is_empty() {
        return Vec::new();
    }
    vec!["spec.auditAnnotations: this server keeps no audit log".to_owned()]
}

fn validate(policy: &Value) -> Vec<FieldError> {
    let (spec, path) = (&policy["spec"], Path::new("spec"));
    let mut errors = Vec::new();
    let failure = path.child("failurePolicy");
    errors.extend(rule::required_one_of(&failure, text(spec, "failurePolicy"), &["Fail", "Ignore"]));
    if present(spec, "paramKind") {
        param_kind(&spec["paramKind"], &path.child("paramKind"), &mut errors);
    }
    constraints(spec, &path.child("matchConstraints"), &mut errors);
    check_conditions(spec, &path, &mut errors);
    variables(spec, &path.child("variables"), &mut errors);
    if items(spec, "validations").is_empty() && items(spec, "auditAnnotations").is_empty() {
        let detail = "validations or auditAnnotations must contain at least one item";
        for field in ["validations", "auditAnnotations"] {
            errors.push(FieldError::required(path.child(field), detail));
        }
    }
    for (index, validation) in items(spec, "validations").iter().enumerate() {
        check_validation(validation, &path.child("validations").index(index), &mut errors);
    }
    annotations(policy, &path.child("auditAnnotations"), &mut errors);
    for (field, word, wanted) in [
        ("matchConditions", "expression", Wanted::Truth),
        ("variables", "expression", Wanted::Anything),
        ("validations", "expression", Wanted::Truth),
        ("validations", "messageExpression", Wanted::Text),
        ("auditAnnotations", "valueExpression", Wanted::Anything),
    ] {
        expressions(spec, field, word, wanted, &path, &mut errors);
    }
    errors
}

/// A policy says of itself what it is about.
pub(super) fn constraints(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let constraints = &spec["matchConstraints"];
    if constraints.is_null() {
        return errors.push(FieldError::required(path, ""));
    }
    check_match(constraints, path, errors);
    if items(constraints, "resourceRules").is_empty() {
        errors.push(FieldError::required(path.child("resourceRules"), ""));
    }
}

/// Refuses expressions that can never be evaluated; those that are left out are told elsewhere.
pub(super) fn expressions(
    spec: &Value,
    field: &str,
    word: &str,
    wanted: Wanted,
    path: &Path,
    errors: &mut Vec<FieldError>,
) {
    for (index, parent) in items(spec, field).iter().enumerate() {
        let (expression, path) = (text(parent, word), path.child(field).index(index).child(word));
        if let (false, Err(detail)) = (expression.trim().is_empty(), compile_for(expression, wanted)) {
            errors.push(FieldError::invalid(path, &expression.into(), &detail));
        }
    }
}

/// `validateParamKind`.
pub(super) fn param_kind(kind: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let (version, version_path) = (text(kind, "apiVersion"), path.child("apiVersion"));
    let mut invalid = |part: &str, sentences: &[String]| {
        if !sentences.is_empty() {
            errors.push(FieldError::invalid(&version_path, &part.into(), &sentences.join(",")));
        }
    };
    match version.split('/').collect::<Vec<_>>().as_slice() {
        [""] => errors.push(FieldError::required(&version_path, "")),
        [plain] => invalid(plain, &names::dns1035_label(plain)),
        ["", ""] | [_, ""] => invalid(version, &["version must be specified".to_owned()]),
        [group, own] => {
            if !group.is_empty() {
                invalid(group, &names::dns1123_subdomain(group));
            }
            invalid(own, &names::dns1035_label(own));
        }
        _ => invalid(version, &[format!("unexpected GroupVersion string: {version}")]),
    }
    let (name, path) = (text(kind, "kind"), path.child("kind"));
    let wrong = names::dns1035_label(&name.to_lowercase());
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else if !wrong.is_empty() {
        let detail = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
        errors.push(FieldError::invalid(path, &name.into(), &detail));
    }
}

pub(super) fn variables(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    for (index, variable) in items(spec, "variables").iter().enumerate() {
        let path = path.index(index);
        let name = text(variable, "name");
        let is_identifier = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if name.trim().is_empty() {
            errors.push(FieldError::required(path.child("name"), "name is not specified"));
        } else if !is_identifier {
            let detail = "name is not a valid CEL identifier";
            errors.push(FieldError::invalid(path.child("name"), &name.into(), detail));
        }
        if text(variable, "expression").trim().is_empty() {
            errors.push(FieldError::required(path.child("expression"), "expression is not specified"));
        }
    }
}

/// `validateValidation`.
fn check_validation(validation: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    if text(validation, "expression").trim().is_empty() {
        errors.push(FieldError::required(path.child("expression"), "expression is not specified"));
    }
    let told = text(validation, "messageExpression");
    if !told.is_empty() && told.trim().is_empty() {
        let detail = "must be non-empty if specified";
        errors.push(FieldError::invalid(path.child("messageExpression"), &told.into(), detail));
    }
    let (message, message_path) = (text(validation, "message"), path.child("message"));
    if !message.is_empty() && message.trim().is_empty() {
        let detail = "message must be non-empty if specified";
        errors.push(FieldError::invalid(message_path, &message.into(), detail));
    } else if message.trim().contains(['\r', '\n']) {
        errors.push(FieldError::invalid(message_path, &message.into(), "message must not contain line breaks"));
    }
    if present(validation, "reason") {
        let known = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
        errors.extend(rule::one_of(&path.child("reason"), text(validation, "reason"), &known));
    }
}

fn annotations(policy: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let list = items(&policy["spec"], "auditAnnotations");
    if list.len() > MOST_ANNOTATIONS {
        let detail = format!("must not have more than {MOST_ANNOTATIONS} auditAnnotations");
        errors.push(FieldError::invalid(path, &json!(list), &detail));
    }
    let mut known = BTreeSet::new();
    for (index, annotation) in list.iter().enumerate() {
        let path = path.index(index);
        let key = text(annotation, "key");
        let full = format!("{}/{key}", text(&policy["metadata"], "name"));
        errors.extend(rule::qualified(&path.child("key"), &full));
        if text(annotation, "valueExpression").trim().is_empty() {
            errors.push(FieldError::required(path.child("valueExpression"), "valueExpression is not specified"));
        }
        if !known.insert(key) {
            errors.push(FieldError::duplicate(path.child("key"), &key.into()));
        }
    }
}
