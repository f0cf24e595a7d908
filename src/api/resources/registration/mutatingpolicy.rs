//! MutatingAdmissionPolicies: expressions that change what is written (KEP-3962).

use jiff::Timestamp;
use serde_json::Value;

use super::policy::{constraints, expressions, param_kind, shown_kind, variables};
use super::{BASE, check_conditions, check_mutating, default_match};
use crate::cel::Wanted;
use crate::resources::admission::mutation;
use crate::resources::admission::policy::compile_for;
use crate::resources::cell::{self, column};
use crate::resources::path::{Path, default_text, ensure_object, items, object_mut, present, text};
use crate::resources::{Resource, rule};
use crate::status::FieldError;

/// `mutatingadmissionpolicies`.
pub(in crate::resources) const ROW: Resource = Resource {
    kind: "MutatingAdmissionPolicy",
    list_kind: "MutatingAdmissionPolicyList",
    plural: "mutatingadmissionpolicies",
    singular: "mutatingadmissionpolicy",
    default: |policy| {
        let spec = ensure_object(policy, "spec");
        default_text(spec, "failurePolicy", "Fail");
        if let Some(constraints) = object_mut(spec, "matchConstraints") {
            default_match(constraints);
        }
    },
    validate: |policy| validate(&policy["spec"]),
    validate_update: |new, _| validate(&new["spec"]),
    columns: &[
        cell::NAME,
        column("Mutations", "integer", "", "How many changes it makes.", 0),
        column("ParamKind", "string", "", "What kind of object it takes settings from.", 0),
        cell::AGE,
    ],
    cells,
    ..BASE
};

fn cells(policy: &Value, now: Timestamp) -> Vec<Value> {
    let count = items(&policy["spec"], "mutations").len();
    vec![cell::name(policy), count.into(), shown_kind(policy).into(), cell::age(policy, now)]
}

/// `validateMutatingAdmissionPolicySpec`.
fn validate(spec: &Value) -> Vec<FieldError> {
    let path = Path::new("spec");
    let mut errors = Vec::new();
    let failure = path.child("failurePolicy");
    errors.extend(rule::required_one_of(&failure, text(spec, "failurePolicy"), &["Fail", "Ignore"]));
    if present(spec, "paramKind") {
        param_kind(&spec["paramKind"], &path.child("paramKind"), &mut errors);
    }
    let own = path.child("matchConstraints");
    constraints(spec, &own, &mut errors);
    check_mutating(&spec["matchConstraints"], &own, &mut errors);
    check_conditions(spec, &path, &mut errors);
    expressions(spec, "matchConditions", "expression", Wanted::Truth, &path, &mut errors);
    variables(spec, &path.child("variables"), &mut errors);
    expressions(spec, "variables", "expression", Wanted::Anything, &path, &mut errors);
    if items(spec, "mutations").is_empty() {
        errors.push(FieldError::required(path.child("mutations"), "mutations must contain at least one item"));
    }
    for (index, mutation) in items(spec, "mutations").iter().enumerate() {
        check_mutation(mutation, &path.child("mutations").index(index), &mut errors);
    }
    let again = path.child("reinvocationPolicy");
    errors.extend(rule::required_one_of(&again, text(spec, "reinvocationPolicy"), &["IfNeeded", "Never"]));
    errors
}

/// `validateMutation`: of the two fields there is the one that the type names.
fn check_mutation(mutation: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let (kind, own) = (text(mutation, "patchType"), path.child("patchType"));
    let known = rule::required_one_of(&own, kind, &["ApplyConfiguration", "JSONPatch"]);
    if known.is_some() {
        return errors.extend(known);
    }
    let (field, other, wanted) = match kind {
        "JSONPatch" => ("jsonPatch", "applyConfiguration", Wanted::Operations),
        _ => ("applyConfiguration", "jsonPatch", Wanted::Configuration),
    };
    if present(mutation, field) {
        let (expression, own) = (mutation::expression(mutation).0, path.child(field).child("expression"));
        match compile_for(expression, wanted) {
            _ if expression.is_empty() => errors.push(FieldError::required(own, "")),
            Err(detail) => errors.push(FieldError::invalid(own, &expression.into(), &detail)),
            Ok(_) => {}
        }
    } else {
        errors.push(FieldError::required(path.child(field), &format!("must be specified when patchType is {kind}")));
    }
    if present(mutation, other) {
        let detail = format!("must not be specified when patchType is {kind}");
        errors.push(FieldError::invalid(path.child(other), &format!("{{{other}}}").into(), &detail));
    }
}
