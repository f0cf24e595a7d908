//! Webhooks: servers that are asked about writes, and may change what is written.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{BASE, check_conditions, check_rule, default_rules};
use crate::names;
use crate::resources::admission::policy::compile_of_hook;
use crate::resources::cell::{self, column};
use crate::resources::path::{
    Path, default_number, default_text, default_to, items, items_mut, object_mut, present, text,
};
use crate::resources::{Generation, Resource, rule, selector};
use crate::status::FieldError;

const WEBHOOKS: Resource = Resource {
    generation: Generation::Of(&["/webhooks"]),
    validate: |configuration| validate(configuration, false),
    validate_update: |new, old| validate(new, keeps_side_effects(old)),
    columns: &[cell::NAME, column("Webhooks", "integer", "", "How many webhooks there are.", 0), cell::AGE],
    cells: |configuration, now: Timestamp| {
        let count = items(configuration, "webhooks").len().into();
        vec![cell::name(configuration), count, cell::age(configuration, now)]
    },
    ..BASE
};

/// `mutatingwebhookconfigurations`.
pub(in crate::resources) const MUTATING: Resource = Resource {
    kind: "MutatingWebhookConfiguration",
    list_kind: "MutatingWebhookConfigurationList",
    plural: "mutatingwebhookconfigurations",
    singular: "mutatingwebhookconfiguration",
    default: |configuration| {
        default(configuration);
        items_mut(configuration, "webhooks").for_each(|hook| default_text(hook, "reinvocationPolicy", "Never"));
    },
    ..WEBHOOKS
};

/// `validatingwebhookconfigurations`.
pub(in crate::resources) const VALIDATING: Resource = Resource {
    kind: "ValidatingWebhookConfiguration",
    list_kind: "ValidatingWebhookConfigurationList",
    plural: "validatingwebhookconfigurations",
    singular: "validatingwebhookconfiguration",
    default,
    ..WEBHOOKS
};

fn default(configuration: &mut Value) {
    for hook in items_mut(configuration, "webhooks") {
        default_text(hook, "failurePolicy", "Fail");
        default_text(hook, "matchPolicy", "Equivalent");
        for field in ["namespaceSelector", "objectSelector"] {
            default_to(hook, field, json!({}));
        }
        default_to(hook, "timeoutSeconds", 10);
        default_rules(hook, "rules");
        if let Some(service) = object_mut(hook, "clientConfig").and_then(|config| object_mut(config, "service")) {
            default_number(service, "port", 443);
        }
    }
}

/// Whether webhooks that were there before say no, or too little, about their side effects: then they may go on so.
fn keeps_side_effects(old: &Value) -> bool {
    items(old, "webhooks").iter().any(|hook| !matches!(text(hook, "sideEffects"), "None" | "NoneOnDryRun"))
}

fn validate(configuration: &Value, any_side_effects: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut known = BTreeSet::new();
    for (index, hook) in items(configuration, "webhooks").iter().enumerate() {
        let path = Path::new("webhooks").index(index);
        check_hook(hook, any_side_effects, &path, &mut errors);
        let field = "admissionReviewVersions";
        check_review_versions(hook, field, &path.child(field), &mut errors);
        let name = text(hook, "name");
        if !name.is_empty() && !known.insert(name) {
            errors.push(FieldError::duplicate(path.child("name"), &name.into()));
        }
    }
    errors
}

fn check_hook(hook: &Value, any_side_effects: bool, path: &Path, errors: &mut Vec<FieldError>) {
    errors.extend(rule::domain_of_three(&path.child("name"), text(hook, "name")));
    for (index, rule) in items(hook, "rules").iter().enumerate() {
        check_rule(rule, &path.child("rules").index(index), errors);
    }
    let words: [(&str, &[&str]); 3] = [
        ("failurePolicy", &["Fail", "Ignore"]),
        ("matchPolicy", &["Equivalent", "Exact"]),
        ("reinvocationPolicy", &["IfNeeded", "Never"]),
    ];
    for (field, known) in words.into_iter().filter(|(field, _)| present(hook, field)) {
        errors.extend(rule::one_of(&path.child(field), text(hook, field), known));
    }
    side_effects(hook, any_side_effects, &path.child("sideEffects"), errors);
    let timeout = &hook["timeoutSeconds"];
    if timeout.as_i64().is_some_and(|seconds| !(1..=30).contains(&seconds)) {
        let detail = "the timeout value must be between 1 and 30 seconds";
        errors.push(FieldError::invalid(path.child("timeoutSeconds"), timeout, detail));
    }
    for field in ["namespaceSelector", "objectSelector"] {
        selector::check(&hook[field], &path.child(field), errors);
    }
    check_client(&hook["clientConfig"], &path.child("clientConfig"), errors);
    check_conditions(hook, path, errors);
    for (index, condition) in items(hook, "matchConditions").iter().enumerate() {
        let (expression, path) = (text(condition, "expression"), path.child("matchConditions").index(index));
        if let (false, Err(error)) = (expression.trim().is_empty(), compile_of_hook(expression)) {
            let detail = format!("compilation failed: {error}");
            errors.push(FieldError::invalid(path.child("expression"), &expression.into(), &detail));
        }
    }
}

fn side_effects(hook: &Value, any: bool, path: &Path, errors: &mut Vec<FieldError>) {
    let known: &[&str] = if any { &["None", "NoneOnDryRun", "Some", "Unknown"] } else { &["None", "NoneOnDryRun"] };
    if present(hook, "sideEffects") {
        errors.extend(rule::one_of(path, text(hook, "sideEffects"), known));
    } else {
        errors.push(FieldError::required(path, &format!("must specify one of {}", known.join(", "))));
    }
}

/// Where a webhook is, of whatever kind it is.
pub(in crate::resources) fn check_client(config: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    match (config["url"].as_str(), present(config, "service")) {
        (Some(address), false) => url(address, &path.child("url"), errors),
        (None, true) => service(&config["service"], &path.child("service"), errors),
        _ => errors.push(FieldError::required(path, "exactly one of url or service is required")),
    }
}

/// `ValidateWebhookURL`.
fn url(address: &str, path: &Path, errors: &mut Vec<FieldError>) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
    let mut invalid = |part: &str, detail: &str| errors.push(FieldError::invalid(path, &part.into(), detail));
    if scheme != "https" {
        invalid(scheme, &format!("'https' is the only allowed URL scheme{FORM}"));
    }
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = if scheme.is_empty() { "" } else { rest.split('/').next().unwrap_or_default() };
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if host.is_empty() {
        invalid("", &format!("host must be specified{FORM}"));
    }
    if !user.is_empty() {
        invalid(user, "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        invalid(fragment, "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        invalid(query, "query parameters are not permitted in the URL");
    }
}

/// `ValidateWebhookService`.
fn service(service: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    for (field, detail) in [("name", "service name is required"), ("namespace", "service namespace is required")] {
        if text(service, field).is_empty() {
            errors.push(FieldError::required(path.child(field), detail));
        }
    }
    let port = service["port"].as_i64().unwrap_or(0);
    let wrong = names::port_number(port);
    if !wrong.is_empty() {
        let detail = format!("port is not valid: {}", wrong.join(","));
        errors.push(FieldError::invalid(path.child("port"), &port.into(), &detail));
    }
    let location = text(service, "path");
    if matches!(location, "" | "/") {
        return;
    }
    let mut invalid = |detail: &str| errors.push(FieldError::invalid(path.child("path"), &location.into(), detail));
    if location == "//" {
        invalid("segment[0] may not be empty");
        return;
    }
    if !location.starts_with('/') {
        invalid("must start with a '/'");
    }
    let steps = location.strip_prefix('/').unwrap_or(location);
    let steps = steps.strip_suffix('/').unwrap_or(steps);
    for (index, step) in steps.split('/').enumerate() {
        if step.is_empty() {
            invalid(&format!("segment[{index}] may not be empty"));
            continue;
        }
        for sentence in names::dns1123_subdomain(step) {
            invalid(&format!("segment[{index}]: {sentence}"));
        }
    }
}

/// `validateAdmissionReviewVersions`, `validateConversionReviewVersions`.
pub(in crate::resources) fn check_review_versions(
    hook: &Value,
    field: &str,
    path: &Path,
    errors: &mut Vec<FieldError>,
) {
    const KNOWN: [&str; 2] = ["v1", "v1beta1"];
    let versions = items(hook, field);
    if versions.is_empty() {
        // Of a definition nothing more is said.
        let detail = format!("must specify one of {}", KNOWN.join(", "));
        errors.push(FieldError::required(path, if field == "admissionReviewVersions" { &detail } else { "" }));
        return;
    }
    for (index, version) in versions.iter().enumerate() {
        let (path, word) = (path.index(index), version.as_str().unwrap_or_default());
        if versions[..index].contains(version) {
            errors.push(FieldError::invalid(path, version, "duplicate version"));
        } else {
            errors.extend(rule::each(&path, word, names::dns1035_label(word)));
        }
    }
    if !versions.iter().any(|version| KNOWN.iter().any(|known| version == known)) {
        let detail = format!("must include at least one of {}", KNOWN.join(", "));
        errors.push(FieldError::invalid(path, &hook[field], &detail));
    }
}
