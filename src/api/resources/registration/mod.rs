//! Who else is asked about writes: webhooks and policies (`admissionregistration.k8s.io/v1`).
//!
//! Here they are checked only; who asks them is the API server. Follows `pkg/apis/admissionregistration` of upstream.

mod mutatingbinding;
mod mutatingpolicy;
mod policy;
mod policybinding;
mod webhook;

pub(super) use mutatingbinding::ROW as MUTATING_BINDING;
pub(super) use mutatingpolicy::ROW as MUTATING_POLICY;
pub(super) use policy::ROW as POLICY;
pub(super) use policybinding::ROW as POLICY_BINDING;
pub(super) use webhook::{MUTATING, VALIDATING, check_client, check_review_versions};

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::path::{Path, default_text, default_to, items, items_mut, present, text};
use super::{BLANK, Generation, Resource, rule, selector};
use crate::names;
use crate::status::FieldError;

/// The API group.
const GROUP: &str = "admissionregistration.k8s.io";

/// Most conditions under which something is asked.
const MOST_CONDITIONS: usize = 64;

const BASE: Resource = Resource { group: GROUP, namespaced: false, generation: Generation::SPEC, ..BLANK };

/// Fills in what a rule leaves out.
fn default_rules(parent: &mut Value, field: &str) {
    items_mut(parent, field).for_each(|rule| default_text(rule, "scope", "*"));
}

/// Fills in about which objects something is asked (`SetDefaults_MatchResources`).
fn default_match(resources: &mut Value) {
    default_text(resources, "matchPolicy", "Equivalent");
    for field in ["namespaceSelector", "objectSelector"] {
        default_to(resources, field, json!({}));
    }
    default_rules(resources, "resourceRules");
    default_rules(resources, "excludeResourceRules");
}

/// `validateRuleWithOperations`.
fn check_rule(rule: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let operations = path.child("operations");
    words(rule, "operations", "operations", path, errors);
    for (index, operation) in items(rule, "operations").iter().enumerate() {
        let known = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
        errors.extend(rule::one_of(&operations.index(index), operation.as_str().unwrap_or_default(), &known));
    }
    words(rule, "apiGroups", "API groups", path, errors);
    words(rule, "apiVersions", "API versions", path, errors);
    for (index, version) in items(rule, "apiVersions").iter().enumerate() {
        errors.extend(rule::not_empty(&path.child("apiVersions").index(index), version.as_str().unwrap_or_default()));
    }
    check_resources(rule, &path.child("resources"), errors);
    if present(rule, "scope") {
        let known = ["*", "Cluster", "Namespaced"];
        errors.extend(rule::one_of(&path.child("scope"), text(rule, "scope"), &known));
    }
}

/// A list that must have something in it: some words, or one for all of them.
fn words(rule: &Value, field: &str, what: &str, path: &Path, errors: &mut Vec<FieldError>) {
    let (list, path) = (items(rule, field), path.child(field));
    if list.is_empty() {
        errors.push(FieldError::required(&path, ""));
    }
    if list.len() > 1 && list.iter().any(|word| word == "*") {
        let detail = format!("if '*' is present, must not specify other {what}");
        errors.push(FieldError::invalid(path, &rule[field], &detail));
    }
}

/// `validateResources`.
fn check_resources(rule: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let resources: Vec<&str> = items(rule, "resources").iter().map(|word| word.as_str().unwrap_or_default()).collect();
    if resources.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    let (mut whole, mut everywhere) = (BTreeSet::new(), BTreeSet::new());
    for (index, resource) in resources.iter().enumerate() {
        let path = path.index(index);
        errors.extend(rule::not_empty(&path, resource));
        let Some((name, sub)) = resource.split_once('/') else { continue };
        if whole.contains(name) {
            let detail = format!("if '{name}/*' is present, must not specify {resource}");
            errors.push(FieldError::invalid(&path, &(*resource).into(), &detail));
        }
        if everywhere.contains(sub) {
            let detail = format!("if '*/{sub}' is present, must not specify {resource}");
            errors.push(FieldError::invalid(&path, &(*resource).into(), &detail));
        }
        if sub == "*" {
            whole.insert(name);
        }
        if name == "*" {
            everywhere.insert(sub);
        }
    }
    let value = &rule["resources"];
    if resources.len() > 1 && resources.contains(&"*/*") {
        let detail = "if '*/*' is present, must not specify other resources";
        errors.push(FieldError::invalid(path, value, detail));
    }
    let last_plain = resources.iter().rev().find(|resource| !resource.is_empty() && !resource.contains('/'));
    if resources.contains(&"*") && last_plain.is_some_and(|resource| *resource != "*") {
        let detail = "if '*' is present, must not specify other resources without subresources";
        errors.push(FieldError::invalid(path, value, detail));
    }
}

/// `validateMatchConditions`, without the expressions' grammar.
fn check_conditions(parent: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let (conditions, path) = (items(parent, "matchConditions"), path.child("matchConditions"));
    if conditions.len() > MOST_CONDITIONS {
        errors.push(FieldError::too_many(&path, conditions.len(), MOST_CONDITIONS));
    }
    let mut known = BTreeSet::new();
    for (index, condition) in conditions.iter().enumerate() {
        let path = path.index(index);
        errors.extend(rule::not_empty(&path.child("expression"), text(condition, "expression").trim()));
        let (name, path) = (text(condition, "name"), path.child("name"));
        if name.is_empty() {
            errors.push(FieldError::required(path, ""));
            continue;
        }
        errors.extend(rule::qualified(&path, name));
        if !known.insert(name) {
            errors.push(FieldError::duplicate(path, &name.into()));
        }
    }
}

/// What cannot be changed is not written: nothing of what goes (`validateMatchConstraints`' `supportedMutatingOperations`).
fn check_mutating(resources: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let path = path.child("resourceRules").child("operations");
    for operation in items(resources, "resourceRules").iter().flat_map(|rule| items(rule, "operations")) {
        let known = ["*", "CONNECT", "CREATE", "UPDATE"];
        errors.extend(rule::one_of(&path, operation.as_str().unwrap_or_default(), &known));
    }
}

/// `validateMatchResources`.
fn check_match(resources: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let policy = path.child("matchPolicy");
    errors.extend(rule::required_one_of(&policy, text(resources, "matchPolicy"), &["Equivalent", "Exact"]));
    for field in ["namespaceSelector", "objectSelector"] {
        if present(resources, field) {
            selector::check(&resources[field], &path.child(field), errors);
        } else {
            errors.push(FieldError::required(path.child(field), ""));
        }
    }
    for field in ["resourceRules", "excludeResourceRules"] {
        for (index, rule) in items(resources, field).iter().enumerate() {
            let path = path.child(field).index(index);
            let known = items(rule, "resourceNames");
            for (at, name) in known.iter().enumerate() {
                let path = path.child("resourceNames").index(at);
                let word = name.as_str().unwrap_or_default();
                errors.extend(rule::each(&path, word, names::path_segment(word)));
                if known[..at].contains(name) {
                    errors.push(FieldError::duplicate(path, name));
                }
            }
            check_rule(rule, &path, errors);
        }
    }
}
