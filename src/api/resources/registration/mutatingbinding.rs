//! MutatingAdmissionPolicyBindings: where a policy changes what is written.

use serde_json::Value;

use super::policybinding::{cells, param_ref, policy_name};
use super::{BASE, check_match, check_mutating, default_match};
use crate::resources::Resource;
use crate::resources::cell::{self, column};
use crate::resources::path::{Path, ensure_object, object_mut, present};
use crate::status::FieldError;

/// `mutatingadmissionpolicybindings`.
pub(in crate::resources) const ROW: Resource = Resource {
    kind: "MutatingAdmissionPolicyBinding",
    list_kind: "MutatingAdmissionPolicyBindingList",
    plural: "mutatingadmissionpolicybindings",
    singular: "mutatingadmissionpolicybinding",
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

/// `validateMutatingAdmissionPolicyBindingSpec`.
fn validate(spec: &Value) -> Vec<FieldError> {
    let path = Path::new("spec");
    let mut errors = Vec::new();
    policy_name(spec, &path.child("policyName"), &mut errors);
    if present(spec, "paramRef") {
        param_ref(&spec["paramRef"], &path.child("paramRef"), &mut errors);
    }
    if present(spec, "matchResources") {
        let path = path.child("matchResources");
        check_match(&spec["matchResources"], &path, &mut errors);
        check_mutating(&spec["matchResources"], &path, &mut errors);
    }
    errors
}
