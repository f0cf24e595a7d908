//! Making responses.

use api::status::ApiError;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;

use crate::Body;

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(crate) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// A response with all of its bytes.
pub(crate) fn full(code: u16, content_type: HeaderValue, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).map_err(|never| match never {}).boxed());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// A JSON document.
pub(crate) fn json(code: u16, document: &Value) -> Response<Body> {
    full(code, JSON, document.to_string())
}

/// A `Status` with its code, and `Retry-After` where it says when.
pub(crate) fn error(error: &ApiError) -> Response<Body> {
    let mut response = json(error.code, &error.to_value());
    if let Some(details) = error.details.as_ref().filter(|details| details.retry_after_seconds > 0) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(details.retry_after_seconds));
    }
    response
}

/// What Go's own router says to a path that nobody serves; clients tell it from a missing object by its type.
pub(crate) fn no_such_path() -> Response<Body> {
    full(404, TEXT, "404 page not found\n")
}
