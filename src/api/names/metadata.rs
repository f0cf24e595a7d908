//! What `metadata` of an object may hold, as `k8s.io/apimachinery/pkg/api/validation` says.

use serde_json::{Map, Value, json};

use super::{Rule, dns1123_label, label_value, qualified_name};
use crate::status::FieldError;

/// All annotations of an object together, keys included.
const ANNOTATIONS_MAX: usize = 256 * 1024;

/// Checks `metadata` of an object: name (by the kind's rule), namespace, labels, annotations, finalizers and owners.
pub fn validate_metadata(metadata: &Value, namespaced: bool, rule: Rule) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if metadata["generation"].as_i64().is_some_and(|generation| generation < 0) {
        let detail = "must be greater than or equal to 0";
        errors.push(FieldError::invalid("metadata.generation", &metadata["generation"], detail));
    }
    check_names(metadata, namespaced, rule, &mut errors);
    errors.extend(validate_labels(metadata["labels"].as_object(), "metadata.labels"));
    errors.extend(validate_annotations(metadata["annotations"].as_object(), "metadata.annotations"));
    check_owners(metadata, &mut errors);
    check_finalizers(metadata, &mut errors);
    errors
}

/// Checks labels at a path.
pub fn validate_labels(labels: Option<&Map<String, Value>>, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (key, value) in labels.into_iter().flatten() {
        errors.extend(qualified_name(key).iter().map(|e| FieldError::invalid(path, &json!(key), e)));
        let text = value.as_str().unwrap_or_default();
        errors.extend(label_value(text).iter().map(|e| FieldError::invalid(path, &json!(text), e)));
    }
    errors
}

/// Checks annotations at a path.
pub fn validate_annotations(annotations: Option<&Map<String, Value>>, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut size = 0;
    for (key, value) in annotations.into_iter().flatten() {
        let lower = key.to_lowercase();
        errors.extend(qualified_name(&lower).iter().map(|e| FieldError::invalid(path, &json!(key), e)));
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_MAX {
        errors.push(FieldError::too_long(path, ANNOTATIONS_MAX));
    }
    errors
}

fn check_names(metadata: &Value, namespaced: bool, rule: Rule, errors: &mut Vec<FieldError>) {
    let text = |field: &str| metadata[field].as_str().unwrap_or_default();
    let (name, base, namespace) = (text("name"), text("generateName"), text("namespace"));
    if !base.is_empty() {
        // A trailing dash is fine in a prefix: the random suffix follows it.
        let probe = base.strip_suffix('-').map_or_else(|| base.to_owned(), |stem| format!("{stem}a"));
        errors.extend(rule(&probe).iter().map(|e| FieldError::invalid("metadata.generateName", &json!(base), e)));
    }
    if name.is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
    } else {
        errors.extend(rule(name).iter().map(|e| FieldError::invalid("metadata.name", &json!(name), e)));
    }
    match (namespaced, namespace.is_empty()) {
        (true, true) => errors.push(FieldError::required("metadata.namespace", "")),
        (true, false) => {
            let found = dns1123_label(namespace);
            errors.extend(found.iter().map(|e| FieldError::invalid("metadata.namespace", &json!(namespace), e)));
        }
        (false, false) => errors.push(FieldError::forbidden("metadata.namespace", "not allowed on this type")),
        (false, true) => {}
    }
}

fn check_owners(metadata: &Value, errors: &mut Vec<FieldError>) {
    const PATH: &str = "metadata.ownerReferences";
    let mut controllers = Vec::new();
    for owner in metadata["ownerReferences"].as_array().into_iter().flatten() {
        let text = |field: &str| owner[field].as_str().unwrap_or_default();
        if text("apiVersion").rsplit('/').next().unwrap_or_default().is_empty() {
            let value = json!(text("apiVersion"));
            errors.push(FieldError::invalid(format!("{PATH}.apiVersion"), &value, "version must not be empty"));
        }
        for field in ["kind", "name", "uid"] {
            if text(field).is_empty() {
                let detail = format!("{field} must not be empty");
                errors.push(FieldError::invalid(format!("{PATH}.{field}"), &json!(""), &detail));
            }
        }
        if text("kind") == "Event" && matches!(text("apiVersion"), "v1" | "events.k8s.io/v1") {
            let detail = format!("{}, Kind=Event is disallowed from being an owner", text("apiVersion"));
            errors.push(FieldError::invalid(PATH, owner, &detail));
        }
        if owner["controller"] == json!(true) {
            controllers.push(format!("{}/{}", text("kind"), text("name")));
        }
    }
    if let [first, second, ..] = controllers.as_slice() {
        let detail = format!(
            "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {second}"
        );
        errors.push(FieldError::invalid(PATH, &metadata["ownerReferences"], &detail));
    }
}

fn check_finalizers(metadata: &Value, errors: &mut Vec<FieldError>) {
    const PATH: &str = "metadata.finalizers";
    let finalizers: Vec<&str> =
        metadata["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (index, name) in finalizers.iter().enumerate() {
        errors.extend(qualified_name(name).iter().map(|e| FieldError::invalid(PATH, &json!(name), e)));
        // Only Kubernetes' own finalizers may lack a prefix.
        if !name.contains('/') && !matches!(*name, "kubernetes" | "orphan" | "foregroundDeletion") {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(format!("{PATH}[{index}]"), &json!(name), detail));
        }
    }
    if finalizers.contains(&"orphan") && finalizers.contains(&"foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(FieldError::invalid(PATH, &metadata["finalizers"], detail));
    }
}
