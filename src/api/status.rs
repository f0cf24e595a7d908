//! The one error of the API: a `Status` object with its HTTP code.
//!
//! Wording follows `k8s.io/apimachinery/pkg/api/errors`, which clients print and some parse.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What is wrong with one field; `reason` is one of the `FieldValue…` words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Machine-readable reason.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Path of the field, e.g. `spec.containers[0].image`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// A failed field check, as `k8s.io/apimachinery/pkg/util/validation/field.Error`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Path of the field.
    pub field: String,
    /// Reason word, e.g. `FieldValueRequired`.
    pub reason: &'static str,
    /// The text behind `field: `, e.g. `Required value` or `Invalid value: "x": must be …`.
    pub text: String,
}

impl FieldError {
    /// A missing field.
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        Self::with("FieldValueRequired", field, "Required value".to_owned(), detail)
    }

    /// A value that breaks a rule.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        Self::with("FieldValueInvalid", field, format!("Invalid value: {value}"), detail)
    }

    /// A value of the wrong type.
    pub fn type_invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        Self::with("FieldValueTypeInvalid", field, format!("Invalid value: {value}"), detail)
    }

    /// A combination that breaks a rule, where showing the value would not help.
    pub fn wrong(field: impl Into<String>, detail: &str) -> Self {
        Self::with("FieldValueInvalid", field, "Invalid value".to_owned(), detail)
    }

    /// A list with too many elements.
    pub fn too_many(field: impl Into<String>, count: usize, limit: usize) -> Self {
        let detail = format!("must have at most {limit} items");
        Self::with("FieldValueTooMany", field, format!("Too many: {count}"), &detail)
    }

    /// A value outside a closed set.
    pub fn not_supported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let list: Vec<String> = supported.iter().map(|word| format!("{word:?}")).collect();
        let detail = format!("supported values: {}", list.join(", "));
        Self::with("FieldValueNotSupported", field, format!("Unsupported value: {value}"), &detail)
    }

    /// A value that may not be set here.
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self::with("FieldValueForbidden", field, "Forbidden".to_owned(), detail)
    }

    /// A value that occurs twice.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self::with("FieldValueDuplicate", field, format!("Duplicate value: {value}"), "")
    }

    /// A value that refers to something absent.
    pub fn not_found(field: impl Into<String>, value: &Value) -> Self {
        Self::with("FieldValueNotFound", field, format!("Not found: {value}"), "")
    }

    /// A value that is too long; `limit` in bytes or items as `what` says.
    pub fn too_long(field: impl Into<String>, limit: usize) -> Self {
        let detail = format!("may not be more than {limit} bytes");
        Self::with("FieldValueTooLong", field, "Too long".to_owned(), &detail)
    }

    fn with(reason: &'static str, field: impl Into<String>, mut text: String, detail: &str) -> Self {
        if !detail.is_empty() {
            text.push_str(": ");
            text.push_str(detail);
        }
        Self { field: field.into(), reason, text }
    }
}

/// What the error is about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// Name of the object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// API group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The resource (plural) for most reasons, the Kind for `Invalid`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// UID of the object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// One per field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// When to try again; 0 for unsaid.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// An API error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status code.
    pub code: u16,
    /// Reason word, e.g. `NotFound`.
    pub reason: String,
    /// For people.
    pub message: String,
    /// What it is about.
    pub details: Option<Box<Details>>,
    /// `metadata.continue` of an `Expired` list: where to go on inconsistently.
    pub continue_token: String,
}

impl ApiError {
    /// An error without details.
    pub fn new(code: u16, reason: &str, message: impl Into<String>) -> Self {
        let (reason, message) = (reason.to_owned(), message.into());
        Self { code, reason, message, details: None, continue_token: String::new() }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let (name, group, kind) = (name.to_owned(), group.to_owned(), kind.to_owned());
        self.details = Some(Box::new(Details { name, group, kind, ..Details::default() }));
        self
    }

    /// 400: the request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401: no valid credentials.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403: not allowed; `message` says what.
    pub fn forbidden(group: &str, resource: &str, name: &str, message: &str) -> Self {
        let subject = qualified(group, resource);
        let text = if name.is_empty() {
            format!("{subject} is forbidden: {message}")
        } else {
            format!("{subject} {name:?} is forbidden: {message}")
        };
        Self::new(403, "Forbidden", text).about(group, resource, name)
    }

    /// 404: no such object.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let text = format!("{} {name:?} not found", qualified(group, resource));
        Self::new(404, "NotFound", text).about(group, resource, name)
    }

    /// 405: the resource has no such verb.
    pub fn method_not_allowed() -> Self {
        let text = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", text).about("", "", "")
    }

    /// 406: no representation that the client accepts.
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let text = format!("only the following media types are accepted: {}", accepted.join(", "));
        Self::new(406, "NotAcceptable", text)
    }

    /// 409: the name is taken.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let text = format!("{} {name:?} already exists", qualified(group, resource));
        Self::new(409, "AlreadyExists", text).about(group, resource, name)
    }

    /// 409: a precondition does not hold; `message` says which.
    pub fn conflict(group: &str, resource: &str, name: &str, message: &str) -> Self {
        let text = format!("Operation cannot be fulfilled on {} {name:?}: {message}", qualified(group, resource));
        Self::new(409, "Conflict", text).about(group, resource, name)
    }

    /// 409: the usual one, a stale resourceVersion.
    pub fn modified(group: &str, resource: &str, name: &str) -> Self {
        let message = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(group, resource, name, message)
    }

    /// 410: history is gone.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 413: the body is too large.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(413, "RequestEntityTooLarge", message)
    }

    /// 415: a body of a type that nobody here reads.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let text = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(415, "UnsupportedMediaType", text)
    }

    /// 422: fields are wrong; `kind` is the Kind.
    pub fn invalid(group: &str, kind: &str, name: &str, fields: &[FieldError]) -> Self {
        let subject = qualified(group, kind);
        let texts: Vec<String> = fields.iter().map(|e| format!("{}: {}", e.field, e.text)).collect();
        let list = if let [one] = texts.as_slice() { one.clone() } else { format!("[{}]", texts.join(", ")) };
        let mut error =
            Self::new(422, "Invalid", format!("{subject} {name:?} is invalid: {list}")).about(group, kind, name);
        if let Some(details) = &mut error.details {
            details.causes = fields
                .iter()
                .map(|e| Cause { reason: e.reason.to_owned(), message: e.text.clone(), field: e.field.clone() })
                .collect();
        }
        error
    }

    /// 429: come back later.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let mut error = Self::new(429, "TooManyRequests", message);
        error.details = Some(Box::new(Details { retry_after_seconds, ..Details::default() }));
        error
    }

    /// 500: our fault.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {message}"))
    }

    /// 503: not now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// 504: it took too long.
    pub fn timeout(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let mut error = Self::new(504, "Timeout", message);
        error.details = Some(Box::new(Details { retry_after_seconds, ..Details::default() }));
        error
    }

    /// The `Status` object.
    pub fn to_value(&self) -> Value {
        let mut metadata = json!({});
        if !self.continue_token.is_empty() {
            metadata["continue"] = json!(self.continue_token);
        }
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": metadata, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if let Some(details) = &self.details {
            status["details"] = json!(details);
        }
        status
    }

    /// The error of a `Status` object that a server sent.
    pub fn from_value(code: u16, status: &Value) -> Self {
        let text = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
        let details = serde_json::from_value(status["details"].clone()).ok();
        let continue_token = status["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
        Self { code, reason: text("reason"), message: text("message"), details, continue_token }
    }
}

/// `resource.group`, or just the resource for the core group.
fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}
