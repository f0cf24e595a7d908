//! Roles and their bindings (`rbac.authorization.k8s.io/v1`), as `pkg/apis/rbac` of upstream has them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cell::{self, column};
use super::path::{Path, default_text, items, present, text};
use super::{BLANK, Column, NameRule, Resource, rule};
use crate::status::FieldError;

/// The API group.
pub const GROUP: &str = "rbac.authorization.k8s.io";

const CREATED: Column = column("Created At", "date", "", "When the object was created.", 0);
const BINDING_COLUMNS: &[Column] = &[
    cell::NAME,
    column("Role", "string", "", "What is granted.", 0),
    cell::AGE,
    column("Users", "string", "", "Users in the roleBinding", 1),
    column("Groups", "string", "", "Groups in the roleBinding", 1),
    column("ServiceAccounts", "string", "", "ServiceAccounts in the roleBinding", 1),
];

const ROLE_BASE: Resource = Resource {
    group: GROUP,
    name_rule: NameRule::PathSegment,
    columns: &[cell::NAME, CREATED],
    cells: |object, _| vec![cell::name(object), text(&object["metadata"], "creationTimestamp").into()],
    ..BLANK
};

const BINDING_BASE: Resource = Resource {
    group: GROUP,
    name_rule: NameRule::PathSegment,
    default: default_binding,
    columns: BINDING_COLUMNS,
    cells: binding_cells,
    ..BLANK
};

/// `roles`.
pub(super) const ROLE: Resource = Resource {
    kind: "Role",
    list_kind: "RoleList",
    plural: "roles",
    singular: "role",
    validate: |role| rules(role, true),
    validate_update: |role, _| rules(role, true),
    ..ROLE_BASE
};

/// `clusterroles`.
pub(super) const CLUSTER_ROLE: Resource = Resource {
    kind: "ClusterRole",
    list_kind: "ClusterRoleList",
    plural: "clusterroles",
    singular: "clusterrole",
    namespaced: false,
    validate: |role| rules(role, false),
    validate_update: |role, _| rules(role, false),
    ..ROLE_BASE
};

/// `rolebindings`.
pub(super) const ROLE_BINDING: Resource = Resource {
    kind: "RoleBinding",
    list_kind: "RoleBindingList",
    plural: "rolebindings",
    singular: "rolebinding",
    validate: |binding| check_binding(binding, &["ClusterRole", "Role"]),
    validate_update: |new, old| check_change(new, old, &["ClusterRole", "Role"]),
    ..BINDING_BASE
};

/// `clusterrolebindings`.
pub(super) const CLUSTER_ROLE_BINDING: Resource = Resource {
    kind: "ClusterRoleBinding",
    list_kind: "ClusterRoleBindingList",
    plural: "clusterrolebindings",
    singular: "clusterrolebinding",
    namespaced: false,
    validate: |binding| check_binding(binding, &["ClusterRole"]),
    validate_update: |new, old| check_change(new, old, &["ClusterRole"]),
    ..BINDING_BASE
};

fn default_binding(binding: &mut Value) {
    if let Some(role) = binding.get_mut("roleRef") {
        default_text(role, "apiGroup", GROUP);
    }
    for subject in binding.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten() {
        if matches!(text(subject, "kind"), "User" | "Group") {
            default_text(subject, "apiGroup", GROUP);
        }
    }
}

fn binding_cells(binding: &Value, now: Timestamp) -> Vec<Value> {
    let role = &binding["roleRef"];
    let of_kind = |kind: &str| {
        let subjects = items(binding, "subjects").iter().filter(|subject| text(subject, "kind") == kind);
        let names: Vec<String> = subjects
            .map(|subject| match kind {
                "ServiceAccount" => format!("{}/{}", text(subject, "namespace"), text(subject, "name")),
                _ => text(subject, "name").to_owned(),
            })
            .collect();
        Value::from(names.join(", "))
    };
    vec![
        cell::name(binding),
        format!("{}/{}", text(role, "kind"), text(role, "name")).into(),
        cell::age(binding, now),
        of_kind("User"),
        of_kind("Group"),
        of_kind("ServiceAccount"),
    ]
}

/// `ValidatePolicyRule` of `pkg/apis/rbac/validation`.
fn rules(role: &Value, namespaced: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, rule) in items(role, "rules").iter().enumerate() {
        let path = Path::new("rules").index(index);
        let missing = |field: &str| items(rule, field).is_empty();
        if missing("verbs") {
            errors.push(FieldError::required(path.child("verbs"), "verbs must contain at least one value"));
        }
        if !missing("nonResourceURLs") {
            let urls = &rule["nonResourceURLs"];
            if namespaced {
                let detail = "namespaced rules cannot apply to non-resource URLs";
                errors.push(FieldError::invalid(path.child("nonResourceURLs"), urls, detail));
            }
            if !missing("apiGroups") || !missing("resources") || !missing("resourceNames") {
                let detail = "rules cannot apply to both regular resources and non-resource URLs";
                errors.push(FieldError::invalid(path.child("nonResourceURLs"), urls, detail));
            }
            continue;
        }
        if missing("apiGroups") {
            let detail = "resource rules must supply at least one api group";
            errors.push(FieldError::required(path.child("apiGroups"), detail));
        }
        if missing("resources") {
            let detail = "resource rules must supply at least one resource";
            errors.push(FieldError::required(path.child("resources"), detail));
        }
    }
    errors
}

/// `ValidateRoleBinding` and `ValidateClusterRoleBinding`.
fn check_binding(binding: &Value, kinds: &[&str]) -> Vec<FieldError> {
    let (role, path) = (&binding["roleRef"], Path::new("roleRef"));
    let mut errors = Vec::new();
    if text(role, "apiGroup") != GROUP {
        errors.push(FieldError::not_supported(path.child("apiGroup"), &json!(text(role, "apiGroup")), &[GROUP]));
    }
    if !kinds.contains(&text(role, "kind")) {
        errors.push(FieldError::not_supported(path.child("kind"), &json!(text(role, "kind")), kinds));
    }
    match text(role, "name") {
        "" => errors.push(FieldError::required(path.child("name"), "")),
        name => errors.extend(rule::each(&path.child("name"), name, crate::names::path_segment(name))),
    }
    for (index, subject) in items(binding, "subjects").iter().enumerate() {
        errors.extend(check_subject(subject, &Path::new("subjects").index(index)));
    }
    errors
}

fn check_subject(subject: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (name, group) = (text(subject, "name"), text(subject, "apiGroup"));
    if name.is_empty() {
        errors.push(FieldError::required(path.child("name"), ""));
    }
    let wrong_group = |wanted: &str| FieldError::not_supported(path.child("apiGroup"), &json!(group), &[wanted]);
    match text(subject, "kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                errors.extend(rule::subdomain(&path.child("name"), name));
            }
            if !group.is_empty() {
                errors.push(wrong_group(""));
            }
            if text(subject, "namespace").is_empty() {
                errors.push(FieldError::required(path.child("namespace"), ""));
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                errors.push(wrong_group(GROUP));
            }
        }
        other => {
            let supported = ["Group", "ServiceAccount", "User"];
            errors.push(FieldError::not_supported(path.child("kind"), &json!(other), &supported));
        }
    }
    errors
}

fn check_change(new: &Value, old: &Value, kinds: &[&str]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if present(old, "roleRef") && new["roleRef"] != old["roleRef"] {
        errors.push(FieldError::invalid("roleRef", &new["roleRef"], "cannot change roleRef"));
    }
    errors.extend(check_binding(new, kinds));
    errors
}
