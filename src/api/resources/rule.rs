//! Rules of single values as field errors: the sentences of [`crate::names`] with the path they apply to.

use std::net::IpAddr;

use serde_json::Value;

use super::path::{Path, entries};
use crate::names;
use crate::status::FieldError;

/// Upstream's words for a number below zero.
pub(super) const NEGATIVE: &str = "must be greater than or equal to 0";

/// One `Invalid value` per sentence.
pub(super) fn each(path: &Path, value: &str, sentences: Vec<String>) -> Vec<FieldError> {
    let value = Value::from(value);
    sentences.iter().map(|sentence| FieldError::invalid(path, &value, sentence)).collect()
}

/// An RFC 1123 label.
pub(super) fn label(path: &Path, value: &str) -> Vec<FieldError> {
    each(path, value, names::dns1123_label(value))
}

/// An RFC 1123 subdomain.
pub(super) fn subdomain(path: &Path, value: &str) -> Vec<FieldError> {
    each(path, value, names::dns1123_subdomain(value))
}

/// A name with an optional prefix, such as a condition type.
pub(super) fn qualified(path: &Path, value: &str) -> Vec<FieldError> {
    each(path, value, names::qualified_name(value))
}

/// The key of a label.
pub(super) fn label_name(path: &Path, value: &str) -> Vec<FieldError> {
    each(path, value, names::qualified_name(value))
}

/// The value of a label, all sentences in one error.
pub(super) fn label_value_joined(path: &Path, value: &str) -> Option<FieldError> {
    let sentences = names::label_value(value);
    (!sentences.is_empty()).then(|| FieldError::invalid(path, &value.into(), &sentences.join(";")))
}

/// A map of labels.
pub(super) fn labels(path: &Path, parent: &Value, field: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (key, value) in entries(parent, field) {
        let value = value.as_str().unwrap_or_default();
        errors.extend(label_name(path, key));
        errors.extend(each(path, value, names::label_value(value)));
    }
    errors
}

/// A key of a ConfigMap or Secret; `path` names the key.
pub(super) fn config_key(path: &Path, key: &str) -> Vec<FieldError> {
    each(path, key, names::config_map_key(key))
}

/// The effect of a taint, which must be said.
pub(super) fn taint_effect(path: &Path, effect: &str) -> Option<FieldError> {
    if effect.is_empty() {
        return Some(FieldError::required(path, ""));
    }
    one_of(path, effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"])
}

/// A domain with a path below it (`IsDomainPrefixedPath`).
pub(super) fn domain_path(path: &Path, value: &str) -> Vec<FieldError> {
    const FORM: &str = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
    if value.is_empty() {
        return vec![FieldError::required(path, "")];
    }
    let Some((host, rest)) = value.split_once('/').filter(|(host, rest)| !host.is_empty() && !rest.is_empty()) else {
        let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        return vec![FieldError::invalid(path, &value.into(), detail)];
    };
    let mut errors = subdomain(path, host);
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte);
    if !rest.bytes().all(is_fine) {
        errors.push(FieldError::invalid(path, &rest.into(), FORM));
    }
    errors
}

/// A domain of three parts at least (`IsFullyQualifiedName`).
pub(super) fn domain_of_three(path: &Path, value: &str) -> Vec<FieldError> {
    if value.is_empty() {
        return vec![FieldError::required(path, "")];
    }
    let sentences = names::dns1123_subdomain(value);
    let mut errors = Vec::new();
    if !sentences.is_empty() {
        errors.push(FieldError::invalid(path, &value.into(), &sentences.join(",")));
        return errors;
    }
    if value.split('.').count() < 3 {
        let detail = "should be a domain with at least three segments separated by dots";
        errors.push(FieldError::invalid(path, &value.into(), detail));
    }
    errors
}

/// A word of a closed set.
pub(super) fn one_of(path: &Path, value: &str, supported: &[&str]) -> Option<FieldError> {
    (!supported.contains(&value)).then(|| FieldError::not_supported(path, &value.into(), supported))
}

/// A word of a closed set that must be said.
pub(super) fn required_one_of(path: &Path, value: &str, supported: &[&str]) -> Option<FieldError> {
    if value.is_empty() { Some(FieldError::required(path, "")) } else { one_of(path, value, supported) }
}

/// A text that must be said.
pub(super) fn not_empty(path: &Path, value: &str) -> Option<FieldError> {
    value.is_empty().then(|| FieldError::required(path, ""))
}

/// A number that may not be negative, if it is said.
pub(super) fn not_negative(path: &Path, value: &Value) -> Option<FieldError> {
    (value.as_i64()? < 0).then(|| FieldError::invalid(path, value, NEGATIVE))
}

/// A number that is not negative, or a percentage (`ValidatePositiveIntOrPercent`).
pub(super) fn int_or_percent(path: &Path, value: &Value) -> Vec<FieldError> {
    const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or \
                           '93%', regex used for validation is '[0-9]+%')";
    match value.as_str() {
        Some(text) if percent(text).is_none() => vec![FieldError::invalid(path, value, PERCENT)],
        Some(_) => Vec::new(),
        None => not_negative(path, value).into_iter().collect(),
    }
}

/// A percentage that is not more than all (`IsNotMoreThan100Percent`).
pub(super) fn at_most_all(path: &Path, value: &Value) -> Option<FieldError> {
    let is_more = value.as_str().and_then(percent).is_some_and(|percent| percent > 100);
    is_more.then(|| FieldError::invalid(path, value, "must not be greater than 100%"))
}

/// The number of an amount or of its percentage; 0 if it is neither.
pub(super) fn amount(value: &Value) -> i64 {
    value.as_i64().or_else(|| value.as_str().and_then(percent)).unwrap_or(0)
}

fn percent(text: &str) -> Option<i64> {
    let digits = text.strip_suffix('%').filter(|digits| !digits.is_empty())?;
    // A number that does not fit is more than anything that is compared with it.
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().unwrap_or(i64::MAX))
}

/// A port by number or name.
pub(super) fn port(path: &Path, value: &Value) -> Vec<FieldError> {
    match value.as_str() {
        Some(name) => each(path, name, names::port_name(name)),
        None => port_number(path, value.as_i64().unwrap_or(0)),
    }
}

/// A port number.
pub(super) fn port_number(path: &Path, number: i64) -> Vec<FieldError> {
    let invalid = |sentence: String| FieldError::invalid(path, &number.into(), &sentence);
    names::port_number(number).into_iter().map(invalid).collect()
}

/// A user or group id, if it is said (`IsValidUserID`).
pub(super) fn id(path: &Path, value: &Value) -> Option<FieldError> {
    const HIGHEST: i64 = i32::MAX as i64;
    let id = value.as_i64()?;
    let detail = "must be between 0 and 2147483647, inclusive";
    (!(0..=HIGHEST).contains(&id)).then(|| FieldError::invalid(path, value, detail))
}

/// An address with a prefix length.
pub(super) fn cidr(path: &Path, value: &str) -> Option<FieldError> {
    let is_valid = value.split_once('/').is_some_and(|(address, bits)| {
        let most = address.parse::<IpAddr>().map(|address| if address.is_ipv4() { 32 } else { 128 });
        let bits = bits.parse::<u8>();
        most.is_ok_and(|most| bits.is_ok_and(|bits| bits <= most))
    });
    let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    (!is_valid).then(|| FieldError::invalid(path, &value.into(), detail))
}

/// An address.
pub(super) fn ip(path: &Path, value: &str) -> Vec<FieldError> {
    each(path, value, names::ip_address(value))
}

/// An address at which another host can be (`ValidateEndpointIP`); one that cannot be read is no matter here.
pub(super) fn endpoint_ip(path: &Path, value: &str) -> Vec<FieldError> {
    let Ok(ip) = value.parse::<IpAddr>() else { return Vec::new() };
    let is_link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80,
    };
    let is_link_local_multicast = match ip {
        IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
    };
    let wrong = [
        (ip.is_unspecified(), format!("may not be unspecified ({value})")),
        (ip.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned()),
        (is_link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned()),
        (is_link_local_multicast, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned()),
    ];
    let wrong = wrong.into_iter().filter(|(is, _)| *is);
    wrong.map(|(_, detail)| FieldError::invalid(path, &value.into(), &detail)).collect()
}

/// A field that may not change.
pub(super) fn immutable(path: impl Into<String>, new: &Value, old: &Value) -> Vec<FieldError> {
    if new == old { Vec::new() } else { vec![FieldError::invalid(path, new, "field is immutable")] }
}

/// A finalizer: one of the standard ones or a name with a domain.
pub(super) fn finalizer(path: &Path, name: &str) -> Vec<FieldError> {
    const STANDARD: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];
    let mut errors = qualified(path, name);
    if !name.contains('/') && !STANDARD.contains(&name) {
        let detail = "name is neither a standard finalizer name nor is it fully qualified";
        errors.push(FieldError::invalid(path, &name.into(), detail));
    }
    errors
}
