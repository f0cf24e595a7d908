//! TokenRequests (`authentication.k8s.io/v1`): what is sent to the subresource `token` of a service account.

use serde_json::{Value, json};

use super::path::{Path, default_to, ensure_object, items, number, present};
use crate::status::FieldError;

/// Shortest lifetime, in seconds.
const SHORTEST: i64 = 10 * 60;
const LONGEST: i64 = 1 << 32;

/// Fills in what was left out (`pkg/apis/authentication/v1/defaults.go`); what the answer is filled in with is dropped.
pub fn default(request: &mut Value) {
    default_to(ensure_object(request, "spec"), "expirationSeconds", 60 * 60);
    request["status"] = json!({});
}

/// `pkg/apis/authentication/validation`.
pub fn validate(request: &Value) -> Vec<FieldError> {
    let (spec, path) = (&request["spec"], Path::new("spec"));
    let mut errors = Vec::new();
    let seconds = number(spec, "expirationSeconds");
    let mut wrong = |detail: &str| {
        errors.push(FieldError::invalid(path.child("expirationSeconds"), &seconds.into(), detail));
    };
    if seconds < SHORTEST {
        wrong("may not specify a duration less than 10 minutes");
    }
    if seconds > LONGEST {
        wrong("may not specify a duration larger than 2^32 seconds");
    }
    errors
}

/// The audiences that a pod's own volumes ask tokens for; empty for those of the API server.
pub fn audiences_of_pod(pod: &Value) -> Vec<&str> {
    let sources = items(&pod["spec"], "volumes").iter().flat_map(|volume| items(&volume["projected"], "sources"));
    let tokens = sources.filter(|source| present(source, "serviceAccountToken"));
    tokens.map(|source| source["serviceAccountToken"]["audience"].as_str().unwrap_or_default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lasts_an_hour_unless_asked_and_never_less_than_ten_minutes() {
        let mut request = json!({});
        default(&mut request);
        assert_eq!(request["spec"]["expirationSeconds"], 3600);
        let check = |seconds: i64| {
            let wrong = validate(&json!({"spec": {"expirationSeconds": seconds}}));
            wrong.first().map(|error| format!("{}: {}", error.field, error.text))
        };
        assert_eq!(check(600), None);
        assert_eq!(
            check(599).unwrap(),
            "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes"
        );
        assert!(check(LONGEST + 1).unwrap().ends_with("larger than 2^32 seconds"));
    }
}
