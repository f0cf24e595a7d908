//! Why a registry did not give what was asked for.

use std::error::Error;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

/// A failure on the way to a registry or of the registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No connection: the name has no address, nobody listens, or TLS failed.
    #[error("cannot connect to {registry}")]
    Connect {
        /// Host and port.
        registry: String,
        /// Why not.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The connection broke.
    #[error("request for {url} failed")]
    Request {
        /// What was asked for.
        url: String,
        /// What happened.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Nothing came for too long.
    #[error("no answer to the request for {url}")]
    Silent {
        /// What was asked for.
        url: String,
    },
    /// The host has no trust store.
    #[error("the host trusts no certificate authority; install its package of CA certificates")]
    NoTrust,
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
    /// The registry wants (other) credentials.
    #[error("{registry} denies access: {message}")]
    Denied {
        /// Host and port.
        registry: String,
        /// The registry's own words.
        message: String,
    },
    /// There is no such thing.
    #[error("{url}: not found: {message}")]
    NotFound {
        /// What was asked for.
        url: String,
        /// The registry's own words.
        message: String,
    },
    /// The registry limits the rate of requests.
    #[error("{registry} limits the rate of requests; it asks to come back {}: {message}", after(*.retry_after))]
    TooManyRequests {
        /// Host and port.
        registry: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
        /// The registry's own words.
        message: String,
    },
    /// Any other refusal.
    #[error("{url}: {status}: {message}")]
    Status {
        /// What was asked for.
        url: String,
        /// The status.
        status: StatusCode,
        /// The registry's own words.
        message: String,
    },
    /// The answer makes no sense.
    #[error("{url}: {message}")]
    Protocol {
        /// What was asked for.
        url: String,
        /// What is wrong.
        message: String,
    },
    /// What came is longer than it may be.
    #[error("{url} is longer than {limit} bytes")]
    TooLong {
        /// What was asked for.
        url: String,
        /// The limit, or the size that the manifest promises.
        limit: u64,
    },
    /// What came is shorter than promised, also after trying again.
    #[error("{url} is truncated: {received} of {size} bytes")]
    Truncated {
        /// What was asked for.
        url: String,
        /// What came.
        received: u64,
        /// What the manifest promises.
        size: u64,
    },
}

impl RegistryError {
    /// Whether it says nothing about the image: later or elsewhere it may well succeed.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Request { .. } | Self::Silent { .. } | Self::TooManyRequests { .. } => true,
            Self::Status { status, .. } => status.is_server_error(),
            _ => false,
        }
    }
}

fn after(time: Option<Duration>) -> String {
    time.map_or_else(|| "later".to_owned(), |time| format!("in {} s", time.as_secs()))
}

/// The body of an error, distribution-spec "Error Codes".
#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    errors: Vec<Item>,
    /// Token servers have various forms of their own.
    #[serde(default)]
    details: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// The registry's own words, from the body of an error.
pub(super) fn words(status: StatusCode, body: &[u8]) -> String {
    let parsed: Option<Body> = serde_json::from_slice(body).ok();
    let said: Vec<String> = match parsed {
        Some(Body { errors, .. }) if !errors.is_empty() => errors.into_iter().map(Item::text).collect(),
        Some(Body { details: Some(details), .. }) => vec![details],
        _ => Vec::new(),
    };
    match said.is_empty() {
        true => status.canonical_reason().unwrap_or("unknown status").to_lowercase(),
        false => said.join("; "),
    }
}

impl Item {
    fn text(self) -> String {
        let code = self.code.to_lowercase().replace('_', " ");
        match (code.is_empty(), self.message.is_empty()) {
            (true, _) => self.message,
            (false, true) => code,
            (false, false) => format!("{code}: {}", self.message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_registry_are_kept() {
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#;
        assert_eq!(words(StatusCode::NOT_FOUND, body), "manifest unknown: manifest unknown");
        assert_eq!(words(StatusCode::BAD_GATEWAY, b"<html>"), "bad gateway");
        assert_eq!(
            words(StatusCode::UNAUTHORIZED, br#"{"details":"incorrect username or password"}"#),
            "incorrect username or password"
        );
    }
}
