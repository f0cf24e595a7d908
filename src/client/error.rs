//! Why a request failed.

use api::status::ApiError;

use crate::transport::{BoxError, TransportError};

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The API server refused it.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The API server could not be reached.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The answer broke off.
    #[error("answer to {request} broke off")]
    Body {
        /// Method and path.
        request: String,
        #[source]
        source: BoxError,
    },
    /// The answer is not what the API promises.
    #[error("answer to {request} cannot be read")]
    Decode {
        /// Method and path.
        request: String,
        #[source]
        source: serde_json::Error,
    },
    /// The object to be sent cannot be written as JSON.
    #[error("body of {request} cannot be written")]
    Encode {
        /// Method and path.
        request: String,
        #[source]
        source: serde_json::Error,
    },
    /// The caller's arguments do not make a request.
    #[error("{request} is no valid request")]
    Request {
        /// Method and path.
        request: String,
        #[source]
        source: http::Error,
    },
    /// The watch sent nothing for longer than the server promised.
    #[error("watch of {request} went silent")]
    Silent {
        /// Method and path.
        request: String,
    },
}

/// What came of a write of something as it was seen; none if that is no longer so, which the informer will tell.
///
/// # Errors
/// All others.
pub fn unless_overtaken<T>(result: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match result {
        Err(error) if error.is_overtaken() => Ok(None),
        result => result.map(Some),
    }
}

impl ClientError {
    /// The server's own error, if it answered.
    pub fn api(&self) -> Option<&ApiError> {
        if let Self::Api(error) = self { Some(error) } else { None }
    }

    fn has_reason(&self, code: u16, reasons: &[&str]) -> bool {
        self.api().is_some_and(|error| error.code == code && reasons.contains(&error.reason.as_str()))
    }

    /// The object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.api().is_some_and(|error| error.code == 404)
    }

    /// The object has changed since it was read, or a precondition does not hold.
    pub fn is_conflict(&self) -> bool {
        self.has_reason(409, &["Conflict"])
    }

    /// The object is no longer as it was seen: it has changed or is gone, which its informer tells.
    pub fn is_overtaken(&self) -> bool {
        self.is_conflict() || self.is_not_found()
    }

    /// The name is taken.
    pub fn is_already_exists(&self) -> bool {
        self.has_reason(409, &["AlreadyExists"])
    }

    /// The history asked for is gone: list again.
    pub fn is_expired(&self) -> bool {
        self.api().is_some_and(|error| error.code == 410)
    }

    /// The caller may not do this.
    pub fn is_forbidden(&self) -> bool {
        self.api().is_some_and(|error| error.code == 403)
    }

    /// The object breaks the rules of its kind.
    pub fn is_invalid(&self) -> bool {
        self.api().is_some_and(|error| error.code == 422)
    }

    /// The server was not reached or the answer was lost: what was asked may or may not have happened.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Transport(_) | Self::Body { .. } | Self::Silent { .. })
    }

    /// When the server wants to be asked again, if it said so.
    pub fn retry_after(&self) -> Option<std::time::Duration> {
        let seconds = self.api()?.details.as_ref()?.retry_after_seconds;
        (seconds > 0).then(|| std::time::Duration::from_secs(u64::from(seconds)))
    }
}
