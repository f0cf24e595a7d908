//! MutatingAdmissionPolicies: what their expressions make of an object that is written.
//!
//! After `k8s.io/apiserver/pkg/admission/plugin/policy/mutating`. Pure and bounded: the conditions, and each change with the
//! variables that it uses, pay from a budget of their own, and what they make is no larger than a request may be. Which
//! writes a policy is about is said as for ValidatingAdmissionPolicies.

use serde_json::Value;

use super::policy::{Attempt, Court, Programs};
use crate::cel;
use crate::resources::path::text;

/// What is to be done with an object.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// It is laid over the object.
    Configuration(Value),
    /// Operations of a JSON patch.
    Operations(Value),
}

/// The expression of a mutation, and whether it makes operations.
pub fn expression(mutation: &Value) -> (&str, bool) {
    let is_patch = text(mutation, "patchType") == "JSONPatch";
    let field = if is_patch { "jsonPatch" } else { "applyConfiguration" };
    (text(&mutation[field], "expression").trim(), is_patch)
}

/// Whether the conditions of a policy hold.
///
/// # Errors
/// A sentence if one cannot be evaluated, none of the others fails, and the policy does not ignore that.
pub fn conditions_hold(
    policy: &Value,
    programs: &Programs,
    params: &Value,
    attempt: &Attempt<'_>,
) -> Result<bool, String> {
    Court::new(programs, params, attempt).conditions_hold(&policy["spec"])
}

/// What a mutation of a policy makes of the object as it is now.
///
/// # Errors
/// A sentence if its expression has no value, or one that changes nothing of an object.
pub fn change(
    policy: &Value,
    mutation: &Value,
    programs: &Programs,
    params: &Value,
    attempt: &Attempt<'_>,
) -> Result<Change, String> {
    let mut court = Court::new(programs, params, attempt);
    court.define_all(&policy["spec"]);
    let (expression, is_patch) = expression(mutation);
    let value = court.eval(expression)?;
    if is_patch {
        cel::operations(&value).map(Change::Operations)
    } else {
        cel::configuration(&value).map(Change::Configuration)
    }
}
