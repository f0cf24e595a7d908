//! Questions to the API server: who is somebody, and what may he do (`authentication.k8s.io/v1`,
//! `authorization.k8s.io/v1`). They are created, answered and forgotten.

use serde_json::Value;

use super::path::{Path, present, text};
use super::{BLANK, Resource, Verb};
use crate::status::FieldError;

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

const BASE: Resource = Resource { namespaced: false, verbs: &[Verb::Create], is_review: true, ..BLANK };

/// `tokenreviews`.
pub(super) const TOKEN: Resource = Resource {
    group: AUTHENTICATION,
    kind: "TokenReview",
    plural: "tokenreviews",
    singular: "tokenreview",
    validate: |review| {
        let token = text(&review["spec"], "token");
        if token.is_empty() { vec![FieldError::required("spec.token", "token is required")] } else { Vec::new() }
    },
    ..BASE
};

/// `selfsubjectreviews`.
pub(super) const SELF_SUBJECT: Resource = Resource {
    group: AUTHENTICATION,
    kind: "SelfSubjectReview",
    plural: "selfsubjectreviews",
    singular: "selfsubjectreview",
    ..BASE
};

/// `subjectaccessreviews`.
pub(super) const SUBJECT_ACCESS: Resource = Resource {
    group: AUTHORIZATION,
    kind: "SubjectAccessReview",
    plural: "subjectaccessreviews",
    singular: "subjectaccessreview",
    validate: subject_access,
    ..BASE
};

/// `selfsubjectaccessreviews`.
pub(super) const SELF_SUBJECT_ACCESS: Resource = Resource {
    group: AUTHORIZATION,
    kind: "SelfSubjectAccessReview",
    plural: "selfsubjectaccessreviews",
    singular: "selfsubjectaccessreview",
    validate: attributes,
    ..BASE
};

/// `localsubjectaccessreviews`.
pub(super) const LOCAL_SUBJECT_ACCESS: Resource = Resource {
    group: AUTHORIZATION,
    kind: "LocalSubjectAccessReview",
    plural: "localsubjectaccessreviews",
    singular: "localsubjectaccessreview",
    namespaced: true,
    validate: local_access,
    ..BASE
};

/// `selfsubjectrulesreviews`.
pub(super) const SELF_SUBJECT_RULES: Resource = Resource {
    group: AUTHORIZATION,
    kind: "SelfSubjectRulesReview",
    plural: "selfsubjectrulesreviews",
    singular: "selfsubjectrulesreview",
    ..BASE
};

/// `pkg/apis/authorization/validation`.
fn attributes(review: &Value) -> Vec<FieldError> {
    let (spec, path) = (&review["spec"], Path::new("spec"));
    match (present(spec, "resourceAttributes"), present(spec, "nonResourceAttributes")) {
        (true, true) => {
            let detail = "cannot be specified in combination with resourceAttributes";
            let value = &spec["nonResourceAttributes"];
            vec![FieldError::invalid(path.child("nonResourceAttributes"), value, detail)]
        }
        (false, false) => {
            let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            vec![FieldError::invalid(path.child("resourceAttributes"), &Value::Null, detail)]
        }
        _ => Vec::new(),
    }
}

fn subject_access(review: &Value) -> Vec<FieldError> {
    let mut errors = attributes(review);
    let spec = &review["spec"];
    if text(spec, "user").is_empty() && spec["groups"].as_array().is_none_or(Vec::is_empty) {
        let detail = "at least one of user or group must be specified";
        errors.push(FieldError::invalid("spec.user", &text(spec, "user").into(), detail));
    }
    errors
}

fn local_access(review: &Value) -> Vec<FieldError> {
    let mut errors = subject_access(review);
    let spec = &review["spec"];
    if present(spec, "nonResourceAttributes") {
        let detail = "disallowed on this kind of request";
        errors.push(FieldError::invalid("spec.nonResourceAttributes", &spec["nonResourceAttributes"], detail));
    }
    let (asked, own) = (text(&spec["resourceAttributes"], "namespace"), text(&review["metadata"], "namespace"));
    if asked != own {
        let detail = "must match metadata.namespace";
        errors.push(FieldError::invalid("spec.resourceAttributes.namespace", &asked.into(), detail));
    }
    errors
}
