//! Pod templates in workloads: what pods of them would be given, and what pods of them would be refused for
//! (`SetDefaults_PodSpec`, `ValidatePodTemplateSpec`).

use serde_json::Value;

use super::default::default_spec;
use super::spec::{pod_annotations, validate_spec};
use crate::resources::metadata::check_annotations;
use crate::resources::path::{Path, ensure_object, items};
use crate::resources::rule;
use crate::status::FieldError;

/// Fills in the template of a workload; `parent` is what has the field `template`. What only pods are given (requests
/// from limits, host ports) templates are not.
pub(in crate::resources) fn default_template(parent: &mut Value) {
    default_spec(ensure_object(ensure_object(parent, "template"), "spec"));
}

/// Checks a template. Upstream's paths leave out `metadata` here.
pub(in crate::resources) fn validate_template(template: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let (meta, spec) = (&template["metadata"], &template["spec"]);
    let annotations = path.child("annotations");
    errors.extend(rule::labels(&path.child("labels"), meta, "labels"));
    errors.extend(check_annotations(meta, &annotations));
    errors.extend(pod_annotations(&meta["annotations"], spec, &annotations));
    let path = path.child("spec");
    validate_spec(spec, &path, errors);
    if !items(spec, "ephemeralContainers").is_empty() {
        let detail = "ephemeral containers not allowed in pod template";
        errors.push(FieldError::forbidden(path.child("ephemeralContainers"), detail));
    }
}
