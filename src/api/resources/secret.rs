//! Secrets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::cell::{self, column};
use super::configmap::{MAX_DATA, decoded_len, immutable_data};
use super::path::{Path, default_text, ensure_object, entries, text};
use super::{BLANK, Resource, rule};
use crate::status::FieldError;

/// `secrets`.
pub(super) const ROW: Resource = Resource {
    kind: "Secret",
    list_kind: "SecretList",
    plural: "secrets",
    singular: "secret",
    default,
    validate,
    validate_update,
    columns: &[
        cell::NAME,
        column("Type", "string", "", "What the secret is for.", 0),
        column("Data", "string", "", "Number of entries.", 0),
        cell::AGE,
    ],
    cells,
    selectable: &[("type", |secret| text(secret, "type").to_owned())],
    ..BLANK
};

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let count = entries(object, "data").count();
    vec![cell::name(object), text(object, "type").into(), count.into(), cell::age(object, now)]
}

/// `stringData` is a way to write `data`, never stored (`Convert_v1_Secret_To_core_Secret`).
fn default(secret: &mut Value) {
    default_text(secret, "type", "Opaque");
    let plain = secret.as_object_mut().and_then(|map| map.remove("stringData"));
    let Some(Value::Object(plain)) = plain else { return };
    if plain.is_empty() {
        return;
    }
    let data = ensure_object(secret, "data");
    for (key, value) in plain {
        data[key] = STANDARD.encode(value.as_str().unwrap_or_default()).into();
    }
}

fn validate(secret: &Value) -> Vec<FieldError> {
    let path = Path::new("data");
    let mut errors: Vec<FieldError> =
        entries(secret, "data").flat_map(|(key, _)| rule::config_key(&path.key(key), key)).collect();
    if entries(secret, "data").map(|(_, value)| decoded_len(value)).sum::<usize>() > MAX_DATA {
        errors.push(FieldError::too_long(&path, MAX_DATA));
    }
    errors.extend(validate_type(secret, &path));
    errors
}

/// Each well-known type has entries that its users rely on.
fn validate_type(secret: &Value, path: &Path) -> Vec<FieldError> {
    const ACCOUNT: &str = "kubernetes.io/service-account.name";
    let data = &secret["data"];
    let missing = |key: &str| data[key].is_null().then(|| FieldError::required(path.key(key), ""));
    match text(secret, "type") {
        "kubernetes.io/service-account-token" if text(&secret["metadata"]["annotations"], ACCOUNT).is_empty() => {
            vec![FieldError::required(Path::new("metadata").child("annotations").key(ACCOUNT), "")]
        }
        "kubernetes.io/dockercfg" => validate_json(data, ".dockercfg", path),
        "kubernetes.io/dockerconfigjson" => validate_json(data, ".dockerconfigjson", path),
        "kubernetes.io/basic-auth" => {
            let (username, password) = (missing("username"), missing("password"));
            if username.is_some() && password.is_some() {
                username.into_iter().chain(password).collect()
            } else {
                Vec::new()
            }
        }
        "kubernetes.io/ssh-auth" if text(data, "ssh-privatekey").is_empty() => {
            vec![FieldError::required(path.key("ssh-privatekey"), "")]
        }
        "kubernetes.io/tls" => missing("tls.crt").into_iter().chain(missing("tls.key")).collect(),
        _ => Vec::new(),
    }
}

fn validate_json(data: &Value, key: &str, path: &Path) -> Vec<FieldError> {
    let Some(encoded) = data[key].as_str() else {
        return vec![FieldError::required(path.key(key), "")];
    };
    let bytes = STANDARD.decode(encoded).unwrap_or_default();
    match serde_json::from_slice::<Map<String, Value>>(&bytes) {
        Ok(_) => Vec::new(),
        Err(error) => {
            let redacted = Value::from("<secret contents redacted>");
            vec![FieldError::invalid(path.key(key), &redacted, &error.to_string())]
        }
    }
}

fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = rule::immutable("type", &new["type"], &old["type"]);
    errors.extend(immutable_data(new, old, &["data"]));
    errors.extend(validate(new));
    errors
}
