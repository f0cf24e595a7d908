//! MutatingAdmissionPolicyBindings: where a policy changes what is written.

use serde_json::Value;

use super::{check_match, check_mutating, policybinding};
use crate::resources::Resource;
use crate::resources::path::{Path, present};
use crate::status::FieldError;

/// `mutatingadmissionpolicybindings`: shown and defaulted as the bindings of policies that validate.
pub(in crate::resources) const ROW: Resource = Resource {
    kind: "MutatingAdmissionPolicyBinding",
    list_kind: "MutatingAdmissionPolicyBindingList",
    plural: "mutatingadmissionpolicybindings",
    singular: "mutatingadmissionpolicybinding",
    validate: |binding| validate(&binding["spec"]),
    validate_update: |new, _| validate(&new["spec"]),
    ..policybinding::ROW
};

/// `validateMutatingAdmissionPolicyBindingSpec`.
fn validate(spec: &Value) -> Vec<FieldError> {
    let path = Path::new("spec");
    let mut errors = policybinding::references(spec, &path);
    if present(spec, "matchResources") {
        let path = path.child("matchResources");
        check_match(&spec["matchResources"], &path, &mut errors);
        check_mutating(&spec["matchResources"], &path, &mut errors);
    }
    errors
}
