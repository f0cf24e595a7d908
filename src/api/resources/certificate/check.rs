//! Checks of CertificateSigningRequests.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::asked;
use super::request::check_certificates;
use crate::names;
use crate::resources::path::{Path, items, present, text};
use crate::resources::{metadata, rule};
use crate::status::FieldError;

const DENIED: &str = "Denied";
const APPROVED: &str = "Approved";
const FAILED: &str = "Failed";
/// A certificate that ends sooner would be of little use.
const SHORTEST: i64 = 600;
/// What of a signer's name the older version of the API gave to requests that named none.
const LEGACY: &str = "kubernetes.io/legacy-unknown";
/// Most bytes of a domain.
const DOMAIN: usize = 253;
/// Most bytes of a signer's name: a domain, a slash, and a subdomain, a dot and a label.
const SIGNER: usize = DOMAIN + 1 + DOMAIN + 63 + 1;
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// A field of bytes.
pub(super) fn bytes(value: &Value, field: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text(value, field)).ok()
}

/// Checks an object as a whole.
pub(super) fn whole(object: &Value) -> Vec<FieldError> {
    let (path, spec) = (Path::new("spec"), &object["spec"]);
    let mut errors = Vec::new();
    if let Err(error) = asked(object) {
        errors.push(FieldError::invalid(path.child("request"), &spec["request"], &error.to_string()));
    }
    let usages = items(spec, "usages");
    if usages.is_empty() {
        errors.push(FieldError::required(path.child("usages"), ""));
    }
    for (index, usage) in usages.iter().enumerate() {
        let path = path.child("usages").index(index);
        errors.extend(rule::one_of(&path, usage.as_str().unwrap_or_default(), &USAGES));
    }
    let repeated = usages.iter().enumerate().filter(|(index, usage)| usages[..*index].contains(usage));
    errors.extend(repeated.map(|(index, usage)| FieldError::duplicate(path.child("usages").index(index), usage)));
    errors.extend(signer(&path.child("signerName"), text(spec, "signerName")));
    if spec["expirationSeconds"].as_i64().is_some_and(|seconds| seconds < SHORTEST) {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(FieldError::invalid(path.child("expirationSeconds"), &spec["expirationSeconds"], detail));
    }
    errors.extend(conditions(&object["status"]));
    if present(&object["status"], "certificate") && !text(&object["status"], "certificate").is_empty() {
        let checked = bytes(&object["status"], "certificate").map_or_else(
            || Err("illegal base64 data".to_owned()),
            |chain| check_certificates(&chain).map_err(|error| error.to_string()),
        );
        if let Err(error) = checked {
            let path = Path::new("status").child("certificate");
            errors.push(FieldError::invalid(path, &"<certificate data>".into(), &error));
        }
    }
    errors
}

/// A signer has a name of its owner's domain (`ValidateSignerName` of `pkg/apis/core/validation`).
fn signer(path: &Path, name: &str) -> Vec<FieldError> {
    if name.is_empty() {
        return vec![FieldError::required(path, "")];
    }
    if name == LEGACY {
        let detail = "the legacy signerName is not allowed via this API version";
        return vec![FieldError::invalid(path, &name.into(), detail)];
    }
    let (Some((domain, rest)), 1) = (name.split_once('/'), name.matches('/').count()) else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return vec![FieldError::invalid(path, &name.into(), detail)];
    };
    let mut errors = Vec::new();
    if domain.len() > DOMAIN {
        errors.push(FieldError::too_long(path, DOMAIN));
    }
    let wrong = |whole: &str, label: &str, sentence: String| {
        FieldError::invalid(path, &whole.into(), &format!("validating label {label:?}: {sentence}"))
    };
    for label in domain.split('.') {
        errors.extend(names::dns1123_label(label).into_iter().map(|sentence| wrong(domain, label, sentence)));
    }
    if !domain.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        errors.push(FieldError::invalid(path, &domain.into(), detail));
    }
    for label in rest.split('.') {
        errors.extend(names::dns1123_subdomain(label).into_iter().map(|sentence| wrong(rest, label, sentence)));
    }
    if name.len() > SIGNER {
        errors.push(FieldError::too_long(path, SIGNER));
    }
    errors
}

fn conditions(status: &Value) -> Vec<FieldError> {
    let path = Path::new("status").child("conditions");
    let list = items(status, "conditions");
    let mut errors = Vec::new();
    for (index, condition) in list.iter().enumerate() {
        let (path, kind) = (path.index(index), text(condition, "type"));
        if kind.is_empty() {
            errors.push(FieldError::required(path.child("type"), ""));
        }
        // What is not so is said by the absence of the condition.
        let allowed: &[&str] =
            if [APPROVED, DENIED, FAILED].contains(&kind) { &["True"] } else { &["False", "True", "Unknown"] };
        errors.extend(rule::required_one_of(&path.child("status"), text(condition, "status"), allowed));
        if list[..index].iter().any(|before| text(before, "type") == kind) {
            errors.push(FieldError::duplicate(path.child("type"), &kind.into()));
        }
    }
    let at = |wanted: &str| list.iter().position(|condition| text(condition, "type") == wanted);
    if let (Some(approved), Some(denied)) = (at(APPROVED), at(DENIED)) {
        let later = if approved > denied { APPROVED } else { DENIED };
        let detail = "Approved and Denied conditions are mutually exclusive";
        errors.push(FieldError::invalid(&path, &later.into(), detail));
    }
    errors
}

/// What somebody may change who uses one of the paths of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum May {
    Nothing,
    Decide,
    Issue,
}

/// Checks an update of the object itself.
pub(super) fn update(new: &Value, old: &Value) -> Vec<FieldError> {
    transition(new, old, May::Nothing)
}

/// Checks an update through `status`.
pub(super) fn status(new: &Value, old: &Value) -> Vec<FieldError> {
    transition(new, old, May::Issue)
}

/// Checks an update through `approval`.
pub(super) fn approval(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = metadata::check_update(new, old);
    errors.extend(transition(new, old, May::Decide));
    errors
}

fn transition(new: &Value, old: &Value, may: May) -> Vec<FieldError> {
    let mut errors = whole(new);
    let path = Path::new("status").child("conditions");
    let of = |object: &Value, kind: &str| -> Vec<Value> {
        let list = items(&object["status"], "conditions").iter();
        list.filter(|condition| text(condition, "type") == kind).cloned().collect()
    };
    for kind in [APPROVED, DENIED, FAILED] {
        let (now, before) = (of(new, kind), of(old, kind));
        let refuse =
            |what: &str| FieldError::forbidden(&path, &format!("updates may not {what} a condition of type {kind:?}"));
        if now.len() < before.len() {
            errors.push(refuse("remove"));
        } else if may != May::Decide && kind != FAILED && now.len() > before.len() {
            errors.push(refuse("add"));
        } else if may != May::Decide && kind != FAILED && now != before {
            errors.push(refuse("modify"));
        }
    }
    let (now, before) = (text(&new["status"], "certificate"), text(&old["status"], "certificate"));
    let path = Path::new("status").child("certificate");
    if now != before && may != May::Issue {
        errors.push(FieldError::forbidden(path, "updates may not set certificate content"));
    } else if now != before && !before.is_empty() {
        errors.push(FieldError::forbidden(path, "updates may not modify existing certificate content"));
    }
    errors
}
