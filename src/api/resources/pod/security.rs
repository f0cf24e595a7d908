//! Checks of security contexts (`validatePodSpecSecurityContext`, `ValidateSecurityContext`).

use std::collections::BTreeSet;

use serde_json::Value;

use super::container::descending;
use crate::resources::path::{Path, items, present, text};
use crate::resources::rule;
use crate::status::FieldError;

/// Checks the pod's security context.
pub(super) fn check_pod(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let context = &spec["securityContext"];
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        errors.extend(rule::id(&path.child(field), &context[field]));
    }
    for (index, group) in items(context, "supplementalGroups").iter().enumerate() {
        errors.extend(rule::id(&path.child("supplementalGroups").index(index), group));
    }
    if spec["shareProcessNamespace"] == true && spec["hostPID"] == true {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(path.child("shareProcessNamespace"), &true.into(), detail));
    }
    sysctls(spec, &path.child("sysctls"), errors);
    optional_word(context, "fsGroupChangePolicy", &["Always", "OnRootMismatch"], path, errors);
    seccomp(context, &path.child("seccompProfile"), errors);
    app_armor(context, &path.child("appArmorProfile"), errors);
    optional_word(context, "supplementalGroupsPolicy", &["Merge", "Strict"], path, errors);
    optional_word(context, "seLinuxChangePolicy", &["MountOption", "Recursive"], path, errors);
}

/// Checks a container's security context.
pub(super) fn check_container(context: &Value, host_users: bool, path: &Path, errors: &mut Vec<FieldError>) {
    for field in ["runAsUser", "runAsGroup"] {
        errors.extend(rule::id(&path.child(field), &context[field]));
    }
    optional_word(context, "procMount", &["Default", "Unmasked"], path, errors);
    if host_users && context["procMount"] == "Unmasked" {
        let detail = "`hostUsers` must be false to use `Unmasked`";
        errors.push(FieldError::invalid(path.child("procMount"), &context["procMount"], detail));
    }
    seccomp(context, &path.child("seccompProfile"), errors);
    if context["allowPrivilegeEscalation"] == false {
        if context["privileged"] == true {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(FieldError::invalid(path, context, detail));
        }
        if items(&context["capabilities"], "add").iter().any(|capability| capability == "CAP_SYS_ADMIN") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(FieldError::invalid(path, context, detail));
        }
    }
    app_armor(context, &path.child("appArmorProfile"), errors);
}

fn optional_word(context: &Value, field: &str, words: &[&str], path: &Path, errors: &mut Vec<FieldError>) {
    if present(context, field) {
        errors.extend(rule::one_of(&path.child(field), text(context, field), words));
    }
}

fn seccomp(context: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let profile = &context["seccompProfile"];
    if profile.is_null() {
        return;
    }
    match text(profile, "type") {
        "" => errors.push(FieldError::required(path.child("type"), "type is required when seccompProfile is set")),
        word => {
            errors.extend(rule::one_of(&path.child("type"), word, &["Localhost", "RuntimeDefault", "Unconfined"]));
        }
    }
    let local = path.child("localhostProfile");
    match (text(profile, "type"), profile["localhostProfile"].as_str()) {
        ("Localhost", Some(file)) => descending(&local, file, errors),
        ("Localhost", None) => {
            errors.push(FieldError::required(&local, "must be set when seccomp type is Localhost"));
        }
        (_, Some(_)) => {
            errors.push(FieldError::invalid(&local, profile, "can only be set when seccomp type is Localhost"));
        }
        (_, None) => (),
    }
}

fn app_armor(context: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let profile = &context["appArmorProfile"];
    if profile.is_null() {
        return;
    }
    let (kind, local) = (path.child("type"), path.child("localhostProfile"));
    let name = profile["localhostProfile"].as_str();
    match text(profile, "type") {
        "Localhost" => match name {
            None => errors.push(FieldError::required(&local, "must be set when AppArmor type is Localhost")),
            Some(name) if name.trim() != name => {
                errors.push(FieldError::invalid(&local, &name.into(), "must not be padded with whitespace"));
            }
            Some("") => errors.push(FieldError::required(&local, "must be set when AppArmor type is Localhost")),
            // One less than the longest path.
            Some(name) if name.len() > 4095 => errors.push(FieldError::too_long(&local, 4095)),
            Some(_) => (),
        },
        "RuntimeDefault" | "Unconfined" => {
            if let Some(name) = name {
                let detail = "can only be set when AppArmor type is Localhost";
                errors.push(FieldError::invalid(&local, &name.into(), detail));
            }
        }
        "" => errors.push(FieldError::required(&kind, "type is required when appArmorProfile is set")),
        word => errors.extend(rule::one_of(&kind, word, &["Localhost", "RuntimeDefault", "Unconfined"])),
    }
}

fn sysctls(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let mut names = BTreeSet::new();
    for (index, sysctl) in items(&spec["securityContext"], "sysctls").iter().enumerate() {
        let path = path.index(index).child("name");
        let name = text(sysctl, "name");
        if name.is_empty() {
            errors.push(FieldError::required(&path, ""));
        } else if !is_sysctl(name) {
            let detail = "must have at most 253 characters and match regex \
                          ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            errors.push(FieldError::invalid(&path, &name.into(), detail));
        } else if !names.insert(name) {
            errors.push(FieldError::duplicate(&path, &name.into()));
        }
        let plain = name.replace('/', ".");
        let is_ipc = plain.starts_with("kernel.shm")
            || plain.starts_with("kernel.msg")
            || plain.starts_with("fs.mqueue.")
            || plain == "kernel.sem";
        if spec["hostNetwork"] == true && plain.starts_with("net.") {
            errors.push(FieldError::invalid(&path, &name.into(), "may not be specified when 'hostNetwork' is true"));
        } else if spec["hostIPC"] == true && is_ipc {
            errors.push(FieldError::invalid(&path, &name.into(), "may not be specified when 'hostIPC' is true"));
        }
    }
}

/// Segments of lower-case letters, digits and inner `-` and `_`, with dots or slashes between.
fn is_sysctl(name: &str) -> bool {
    let is_edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    let is_segment = |segment: &str| {
        let bytes = segment.as_bytes();
        is_edge(bytes.first()) && is_edge(bytes.last()) && bytes.iter().all(|byte| is_inner(*byte))
    };
    name.len() <= 253 && name.split(['.', '/']).all(is_segment)
}
