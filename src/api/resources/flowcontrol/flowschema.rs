//! FlowSchemas: which requests belong to which level, and which of them are one flow.

use jiff::Timestamp;
use serde_json::Value;

use super::{BASE, CATCH_ALL, EXEMPT, GROUP, bootstrap, check_conditions};
use crate::names;
use crate::resources::cell::{self, column};
use crate::resources::path::{Path, default_number, ensure_object, items, number, present, text};
use crate::resources::{Resource, rule, status_of};
use crate::status::FieldError;

const HIGHEST: i64 = 10_000;
const VERBS: [&str; 9] = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

/// `flowschemas`.
pub(in crate::resources) const ROW: Resource = Resource {
    kind: "FlowSchema",
    list_kind: "FlowSchemaList",
    plural: "flowschemas",
    singular: "flowschema",
    subresources: &[status_of(GROUP, "v1", "FlowSchema")],
    default: |schema| default_number(ensure_object(schema, "spec"), "matchingPrecedence", 1000),
    validate,
    validate_update: |new, _| validate(new),
    validate_status: |new, _| status(new),
    columns: &[
        cell::NAME,
        column("PriorityLevel", "string", "", "Which level its requests belong to.", 0),
        column("MatchingPrecedence", "string", "", "Which schema is asked first.", 0),
        column("DistinguisherMethod", "string", "", "What makes its requests one flow.", 0),
        cell::AGE,
        column("MissingPL", "string", "", "references a broken or non-existent PriorityLevelConfiguration", 0),
    ],
    cells,
    ..BASE
};

fn cells(schema: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &schema["spec"];
    let dangling = items(&schema["status"], "conditions").iter().find(|condition| condition["type"] == "Dangling");
    vec![
        cell::name(schema),
        text(&spec["priorityLevelConfiguration"], "name").into(),
        number(spec, "matchingPrecedence").into(),
        cell::or(text(&spec["distinguisherMethod"], "type"), "<none>"),
        cell::age(schema, now),
        dangling.map_or("?", |condition| text(condition, "status")).into(),
    ]
}

fn validate(schema: &Value) -> Vec<FieldError> {
    let (name, spec, path) = (text(&schema["metadata"], "name"), &schema["spec"], Path::new("spec"));
    let mut errors = Vec::new();
    precedence(spec, name, &path.child("matchingPrecedence"), &mut errors);
    let method = &spec["distinguisherMethod"];
    let methods = ["ByNamespace", "ByUser"];
    if !method.is_null() && !methods.contains(&text(method, "type")) {
        let path = path.child("distinguisherMethod").child("type");
        errors.push(FieldError::not_supported(path, method, &methods));
    }
    let (level, own) = (text(&spec["priorityLevelConfiguration"], "name"), path.child("priorityLevelConfiguration"));
    if level.is_empty() {
        errors.push(FieldError::required(own.child("name"), "must reference a priority level"));
    } else {
        errors.extend(rule::subdomain(&own.child("name"), level));
    }
    for (index, policy) in items(spec, "rules").iter().enumerate() {
        check_rule(policy, &path.child("rules").index(index), &mut errors);
    }
    let is_fixed = [EXEMPT, CATCH_ALL].contains(&name);
    if is_fixed && bootstrap::schema(name).is_some_and(|fixed| fixed["spec"] != *spec) {
        errors.push(FieldError::invalid(path, spec, &format!("spec of '{name}' must equal the fixed value")));
    }
    errors.extend(status(schema));
    errors
}

fn status(schema: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    check_conditions(&schema["status"], &Path::new("status"), &mut errors);
    errors
}

fn precedence(spec: &Value, name: &str, path: &Path, errors: &mut Vec<FieldError>) {
    let own = number(spec, "matchingPrecedence");
    let mut invalid = |detail: &str| errors.push(FieldError::invalid(path, &own.into(), detail));
    if own <= 0 {
        invalid("must be a positive value");
    }
    if own > HIGHEST {
        invalid(&format!("must not be greater than {HIGHEST}"));
    }
    if own == 1 && name != EXEMPT {
        invalid("only the schema named 'exempt' may have matchingPrecedence 1");
    }
}

fn check_rule(policy: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let (subjects, own) = (items(policy, "subjects"), path.child("subjects"));
    if subjects.is_empty() {
        errors.push(FieldError::required(&own, "subjects must contain at least one value"));
    }
    for (index, subject) in subjects.iter().enumerate() {
        check_subject(subject, &own.index(index), errors);
    }
    let (of_resources, of_paths) = (items(policy, "resourceRules"), items(policy, "nonResourceRules"));
    if of_resources.is_empty() && of_paths.is_empty() {
        let detail = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(FieldError::required(path, detail));
    }
    for (index, rule) in of_resources.iter().enumerate() {
        resource_rule(rule, &path.child("resourceRules").index(index), errors);
    }
    for (index, rule) in of_paths.iter().enumerate() {
        path_rule(rule, &path.child("nonResourceRules").index(index), errors);
    }
}

/// `ValidateFlowSchemaSubject`.
fn check_subject(subject: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let kinds = [("serviceAccount", "ServiceAccount"), ("user", "User"), ("group", "Group")];
    let kind = text(subject, "kind");
    let Some((field, _)) = kinds.into_iter().find(|(_, own)| *own == kind) else {
        let supported = ["Group", "ServiceAccount", "User"];
        errors.push(FieldError::not_supported(path.child("kind"), &kind.into(), &supported));
        return;
    };
    let (own, own_path) = (&subject[field], path.child(field));
    if own.is_null() {
        let detail = format!("{field} is required when subject kind is '{kind}'");
        errors.push(FieldError::required(own_path, &detail));
    } else {
        named(own, kind, &own_path, errors);
    }
    for (other, other_kind) in kinds.into_iter().filter(|(other, _)| *other != field && present(subject, other)) {
        let detail = format!("{other} is forbidden when subject kind is not '{other_kind}'");
        errors.push(FieldError::forbidden(path.child(other), &detail));
    }
}

fn named(subject: &Value, kind: &str, path: &Path, errors: &mut Vec<FieldError>) {
    let (name, is_account) = (text(subject, "name"), kind == "ServiceAccount");
    match name {
        "" => errors.push(FieldError::required(path.child("name"), "")),
        "*" => {}
        _ if is_account => errors.extend(rule::subdomain(&path.child("name"), name)),
        _ => {}
    }
    match text(subject, "namespace") {
        _ if !is_account => {}
        "" => {
            let detail = "must specify namespace for service account";
            errors.push(FieldError::required(path.child("namespace"), detail));
        }
        namespace => errors.extend(rule::label(&path.child("namespace"), namespace)),
    }
}

/// Checks a list that may say "all", but then nothing else; whether it has members to be looked at.
fn members<'a>(
    rule: &'a Value,
    field: &str,
    (missing, others): (&str, &str),
    path: &Path,
    errors: &mut Vec<FieldError>,
) -> &'a [Value] {
    let list = items(rule, field);
    if list.is_empty() {
        errors.push(FieldError::required(path.child(field), missing));
    }
    if !list.iter().any(|member| member == "*") {
        return list;
    }
    if list.len() > 1 {
        let detail = format!("if '*' is present, must not specify other {others}");
        errors.push(FieldError::invalid(path.child(field), &rule[field], &detail));
    }
    &[]
}

fn verbs(rule: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let list = members(rule, "verbs", ("verbs must contain at least one value", "verbs"), path, errors);
    if !list.iter().all(|verb| VERBS.iter().any(|known| verb == known)) {
        errors.push(FieldError::not_supported(path.child("verbs"), &rule["verbs"], &VERBS));
    }
}

/// `ValidateFlowSchemaResourcePolicyRule`.
fn resource_rule(rule: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    verbs(rule, path, errors);
    let groups = ("resource rules must supply at least one api group", "api groups");
    members(rule, "apiGroups", groups, path, errors);
    members(rule, "resources", ("resource rules must supply at least one resource", "resources"), path, errors);
    if rule["clusterScope"] == true && items(rule, "namespaces").is_empty() {
        return;
    }
    let missing = "resource rules that are not cluster scoped must supply at least one namespace";
    for (index, namespace) in members(rule, "namespaces", (missing, "namespaces"), path, errors).iter().enumerate() {
        let (path, namespace) = (path.child("namespaces").index(index), namespace.as_str().unwrap_or_default());
        for sentence in names::dns1123_label(namespace) {
            let detail = format!("each member of this list must be '*' or a DNS-1123 label; {sentence}");
            errors.push(FieldError::invalid(&path, &namespace.into(), &detail));
        }
    }
}

/// `ValidateFlowSchemaNonResourcePolicyRule`.
fn path_rule(rule: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    verbs(rule, path, errors);
    let words = ("nonResourceURLs must contain at least one value", "non-resource URLs");
    for (index, location) in members(rule, "nonResourceURLs", words, path, errors).iter().enumerate() {
        let own = location.as_str().unwrap_or_default();
        if let Some(detail) = wrong_path(own) {
            errors.push(FieldError::invalid(path.child("nonResourceURLs").index(index), location, detail));
        }
    }
}

/// `ValidateNonResourceURLPath`.
fn wrong_path(path: &str) -> Option<&'static str> {
    let stars = path.matches('*').count();
    match path {
        "" => Some("must not be empty"),
        "/" => None,
        _ if !path.starts_with('/') => Some("must start with slash"),
        _ if path.contains(' ') => Some("must not contain white-space"),
        _ if path.contains("//") => Some("must not contain double slash"),
        _ if stars > 1 || (stars == 1 && !path.ends_with("/*")) => Some("wildcard can only do suffix matching"),
        _ => None,
    }
}
