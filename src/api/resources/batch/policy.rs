//! Checks of what a Job says about its own end: which failures count, which successes are enough, who sees to it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::indexes;
use crate::names;
use crate::resources::path::{Path, items, number, present, text};
use crate::resources::rule;
use crate::status::FieldError;

const MOST_RULES: usize = 20;
const MOST_PATTERNS: usize = 20;
const MOST_EXIT_CODES: usize = 255;
const MOST_SUCCEEDED: usize = 64 * 1024;
const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];

/// Checks `podFailurePolicy`, `successPolicy` and `podReplacementPolicy`.
pub(super) fn check(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    if present(spec, "podFailurePolicy") {
        failure(spec, &path.child("podFailurePolicy").child("rules"), errors);
    }
    if present(spec, "successPolicy") {
        let path = path.child("successPolicy");
        if spec["completionMode"] == "Indexed" {
            success(spec, &path.child("rules"), errors);
        } else {
            errors.push(FieldError::invalid(path, &spec["successPolicy"], "requires indexed completion mode"));
        }
    }
    if present(spec, "podReplacementPolicy") {
        let known: &[&str] =
            if present(spec, "podFailurePolicy") { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
        errors.extend(rule::one_of(&path.child("podReplacementPolicy"), text(spec, "podReplacementPolicy"), known));
    }
}

/// Checks `managedBy`: a name with a domain (`IsDomainPrefixedPath`).
pub(super) fn managed_by(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    const MOST: usize = 63;
    let Some(name) = spec["managedBy"].as_str() else { return };
    let path = path.child("managedBy");
    match name.split_once('/') {
        _ if name.is_empty() => errors.push(FieldError::required(&path, "")),
        Some((domain, rest)) if !domain.is_empty() && !rest.is_empty() => {
            errors.extend(rule::each(&path, domain, names::dns1123_subdomain(domain)));
        }
        _ => {
            let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            errors.push(FieldError::invalid(&path, &name.into(), detail));
        }
    }
    if name.len() > MOST {
        errors.push(FieldError::too_long(&path, MOST));
    }
}

/// A word that must be said, with the words there are in the message.
fn said(path: &Path, word: &str, known: &[&str], errors: &mut Vec<FieldError>) {
    if word.is_empty() {
        let list: Vec<String> = known.iter().map(|word| format!("{word:?}")).collect();
        errors.push(FieldError::required(path, &format!("valid values: [{}]", list.join(" "))));
    } else {
        errors.extend(rule::one_of(path, word, known));
    }
}

fn failure(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let rules = items(&spec["podFailurePolicy"], "rules");
    if rules.len() > MOST_RULES {
        errors.push(FieldError::too_many(path, rules.len(), MOST_RULES));
    }
    for (index, failing) in rules.iter().enumerate() {
        let path = path.index(index);
        let action = text(failing, "action");
        if action == "FailIndex" && !present(spec, "backoffLimitPerIndex") {
            let detail = "requires the backoffLimitPerIndex to be set";
            errors.push(FieldError::invalid(path.child("action"), &action.into(), detail));
        }
        said(&path.child("action"), action, &ACTIONS, errors);
        let (codes, patterns) = (&failing["onExitCodes"], items(failing, "onPodConditions"));
        if !codes.is_null() {
            exit_codes(codes, spec, &path.child("onExitCodes"), errors);
        }
        conditions(patterns, &path.child("onPodConditions"), errors);
        let detail = match (codes.is_null(), patterns.is_empty()) {
            (false, false) => "specifying both OnExitCodes and OnPodConditions is not supported",
            (true, true) => "specifying one of OnExitCodes and OnPodConditions is required",
            _ => continue,
        };
        errors.push(FieldError::wrong(&path, detail));
    }
}

fn exit_codes(codes: &Value, spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let operator = text(codes, "operator");
    said(&path.child("operator"), operator, &["In", "NotIn"], errors);
    if let Some(name) = codes["containerName"].as_str() {
        let pod = &spec["template"]["spec"];
        let mut all = items(pod, "containers").iter().chain(items(pod, "initContainers"));
        if all.all(|container| container["name"] != name) {
            let detail = "must be one of the container or initContainer names in the pod template";
            errors.push(FieldError::invalid(path.child("containerName"), &name.into(), detail));
        }
    }
    let values: Vec<i64> = items(codes, "values").iter().map(|value| value.as_i64().unwrap_or(0)).collect();
    let path = path.child("values");
    if values.is_empty() {
        let value = Value::Array(Vec::new());
        errors.push(FieldError::invalid(&path, &value, "at least one value is required"));
    } else if values.len() > MOST_EXIT_CODES {
        errors.push(FieldError::too_many(&path, values.len(), MOST_EXIT_CODES));
    }
    let mut seen = BTreeSet::new();
    for (index, code) in values.iter().enumerate() {
        let path = path.index(index);
        if operator == "In" && *code == 0 {
            errors.push(FieldError::invalid(&path, &0.into(), "must not be 0 for the In operator"));
        }
        if !seen.insert(code) {
            errors.push(FieldError::duplicate(&path, &(*code).into()));
        }
    }
    if !values.is_sorted() {
        errors.push(FieldError::invalid(&path, &codes["values"], "must be ordered"));
    }
}

fn conditions(patterns: &[Value], path: &Path, errors: &mut Vec<FieldError>) {
    if patterns.len() > MOST_PATTERNS {
        errors.push(FieldError::too_many(path, patterns.len(), MOST_PATTERNS));
    }
    for (index, pattern) in patterns.iter().enumerate() {
        let path = path.index(index);
        errors.extend(rule::qualified(&path.child("type"), text(pattern, "type")));
        said(&path.child("status"), text(pattern, "status"), &["False", "True", "Unknown"], errors);
    }
}

fn success(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let rules = items(&spec["successPolicy"], "rules");
    if rules.is_empty() {
        let detail = "at least one rules must be specified when the successPolicy is specified";
        errors.push(FieldError::required(path, detail));
    }
    if rules.len() > MOST_RULES {
        errors.push(FieldError::too_many(path, rules.len(), MOST_RULES));
    }
    let completions = number(spec, "completions");
    for (index, enough) in rules.iter().enumerate() {
        let path = path.index(index);
        let (count, listed) = (enough["succeededCount"].as_i64(), enough["succeededIndexes"].as_str());
        if count.is_none() && listed.is_none() {
            let detail = "at least one of succeededCount or succeededIndexes must be specified";
            errors.push(FieldError::required(&path, detail));
        }
        let total = listed.map(|listed| succeeded(listed, completions, &path.child("succeededIndexes"), errors));
        let Some(count) = count else { continue };
        let path = path.child("succeededCount");
        errors.extend(rule::not_negative(&path, &count.into()));
        let mut at_most = |limit: i64, what: &str| {
            if count > limit {
                let detail = format!("must be less than or equal to {limit} (the number of {what})");
                errors.push(FieldError::invalid(&path, &count.into(), &detail));
            }
        };
        at_most(completions, "specified completions");
        if let Some(total) = total {
            at_most(total, "indexes in the specified succeededIndexes field");
        }
    }
}

/// How many indexes are listed; 0 if the list cannot be read.
fn succeeded(listed: &str, completions: i64, path: &Path, errors: &mut Vec<FieldError>) -> i64 {
    if listed.len() > MOST_SUCCEEDED {
        errors.push(FieldError::too_long(path, MOST_SUCCEEDED));
    }
    indexes::parse(listed, completions).map_or_else(
        |error| {
            let detail = format!("error parsing succeededIndexes: {error}");
            errors.push(FieldError::invalid(path, &listed.into(), &detail));
            0
        },
        |found| found.iter().map(|(first, last)| last - first + 1).sum(),
    )
}
