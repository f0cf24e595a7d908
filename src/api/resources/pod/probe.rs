//! Checks of probes and lifecycle hooks (`validateProbe`, `validateHandler`).

use serde_json::Value;

use crate::resources::path::{Path, items, present, text};
use crate::resources::rule;
use crate::status::FieldError;

/// Sorts of probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Liveness,
    Readiness,
    Startup,
}

/// Fields of a container that hold probes.
pub(super) const SORTS: [(&str, Sort); 3] =
    [("livenessProbe", Sort::Liveness), ("readinessProbe", Sort::Readiness), ("startupProbe", Sort::Startup)];

/// Checks a probe.
pub(super) fn check(probe: &Value, sort: Sort, path: &Path, errors: &mut Vec<FieldError>) {
    check_handler(probe, &["exec", "httpGet", "tcpSocket", "grpc"], None, path, errors);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        errors.extend(rule::not_negative(&path.child(field), &probe[field]));
    }
    let grace = &probe["terminationGracePeriodSeconds"];
    let grace_path = path.child("terminationGracePeriodSeconds");
    if grace.as_i64().is_some_and(|seconds| seconds <= 0) {
        errors.push(FieldError::invalid(&grace_path, grace, "must be greater than 0"));
    }
    if sort == Sort::Readiness {
        if !grace.is_null() {
            errors.push(FieldError::invalid(&grace_path, grace, "must not be set for readinessProbes"));
        }
    } else if probe["successThreshold"] != 1 {
        let successes = probe["successThreshold"].as_i64().unwrap_or(0);
        errors.push(FieldError::invalid(path.child("successThreshold"), &successes.into(), "must be 1"));
    }
}

/// Checks `postStart` or `preStop`.
pub(super) fn check_hook(handler: &Value, grace: Option<i64>, path: &Path, errors: &mut Vec<FieldError>) {
    check_handler(handler, &["exec", "httpGet", "tcpSocket", "sleep"], grace, path, errors);
}

fn check_handler(handler: &Value, sorts: &[&str], grace: Option<i64>, path: &Path, errors: &mut Vec<FieldError>) {
    let mut found = sorts.iter().copied().filter(|sort| present(handler, sort));
    let Some(first) = found.next() else {
        errors.push(FieldError::required(path, "must specify a handler type"));
        return;
    };
    let (action, first_path) = (&handler[first], path.child(first));
    match first {
        "exec" if items(action, "command").is_empty() => {
            errors.push(FieldError::required(first_path.child("command"), ""));
        }
        "httpGet" => check_http(action, &first_path, errors),
        "tcpSocket" => errors.extend(rule::port(&first_path.child("port"), &action["port"])),
        "grpc" => errors.extend(rule::port(&first_path.child("port"), &action["port"])),
        "sleep" => errors.extend(check_sleep(action, grace, &first_path)),
        _ => (),
    }
    for other in found {
        errors.push(FieldError::forbidden(path.child(other), "may not specify more than 1 handler type"));
    }
}

fn check_http(action: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    errors.extend(rule::not_empty(&path.child("path"), text(action, "path")));
    errors.extend(rule::port(&path.child("port"), &action["port"]));
    errors.extend(rule::one_of(&path.child("scheme"), text(action, "scheme"), &["HTTP", "HTTPS"]));
    for header in items(action, "httpHeaders") {
        let name = text(header, "name");
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            let detail = "a valid HTTP header must consist of alphanumeric characters or '-' \
                          (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
            errors.push(FieldError::invalid(path.child("httpHeaders"), &name.into(), detail));
        }
    }
}

fn check_sleep(action: &Value, grace: Option<i64>, path: &Path) -> Option<FieldError> {
    let (grace, seconds) = (grace?, action["seconds"].as_i64().unwrap_or(0));
    let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
    (!(0..=grace).contains(&seconds)).then(|| FieldError::invalid(path, &seconds.into(), &detail))
}
