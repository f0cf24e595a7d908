//! Making responses.

use std::io::Write;

use api::status::ApiError;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER, VARY, WARNING};
use http::{HeaderMap, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, Full};
use serde_json::Value;

use crate::Body;
use crate::negotiate::takes_gzip;

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
const YAML: HeaderValue = HeaderValue::from_static("application/yaml");
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/vnd.kubernetes.protobuf");
const PROTOBUF_EVENTS: HeaderValue = HeaderValue::from_static("application/vnd.kubernetes.protobuf;stream=watch");
pub(crate) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// The text format of Prometheus.
pub(crate) const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
/// Upstream's threshold: below it compressing costs more than it saves.
const WORTH_COMPRESSING: usize = 128 * 1024;
/// Upstream's limit of what all warnings of a response may take.
const WARNINGS_LIMIT: usize = 4 * 1024;

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

/// JSON text, compressed if it is large and the client takes that.
pub(crate) fn large(request: &HeaderMap, content_type: HeaderValue, text: Vec<u8>) -> Response<Body> {
    if text.len() < WORTH_COMPRESSING || !takes_gzip(request) {
        return full(200, content_type, text);
    }
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 4), Compression::fast());
    let Ok(packed) = encoder.write_all(&text).and_then(|()| encoder.finish()) else {
        return full(200, content_type, text);
    };
    let mut response = full(200, content_type, packed);
    response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    response
}

/// A JSON document in YAML; anything else, and what has no end, as it is.
pub(crate) async fn as_yaml(response: Response<Body>) -> Response<Body> {
    rewritten(response, YAML, api::json::to_yaml).await
}

/// A JSON document for people, a field a line; anything else, and what has no end, as it is.
pub(crate) async fn indented(response: Response<Body>) -> Response<Body> {
    rewritten(response, JSON, |value| serde_json::to_string_pretty(value).map_err(ApiError::internal)).await
}

/// A JSON document in another form; anything else, and what has no end, as it is.
async fn rewritten(
    response: Response<Body>,
    content_type: HeaderValue,
    write: impl Fn(&Value) -> Result<String, ApiError>,
) -> Response<Body> {
    let is_json = response.headers().get(CONTENT_TYPE) == Some(&JSON);
    if !is_json || response.headers().contains_key(CONTENT_ENCODING) || response.body().size_hint().exact().is_none() {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let text = match body.collect().await {
        Ok(body) => {
            serde_json::from_slice(&body.to_bytes()).map_err(ApiError::internal).and_then(|value| write(&value))
        }
        Err(failed) => Err(ApiError::internal(failed)),
    };
    match text {
        Ok(text) => {
            parts.headers.insert(CONTENT_TYPE, content_type);
            Response::from_parts(parts, Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed())
        }
        Err(failed) => error(&failed),
    }
}

/// JSON documents and events of watches in protobuf; anything else as it is.
pub(crate) async fn as_protobuf(response: Response<Body>) -> Response<Body> {
    let is_json = response.headers().get(CONTENT_TYPE) == Some(&JSON);
    if !is_json || response.headers().contains_key(CONTENT_ENCODING) {
        return response;
    }
    let has_end = response.body().size_hint().exact().is_some();
    let (mut parts, body) = response.into_parts();
    if !has_end {
        parts.headers.insert(CONTENT_TYPE, PROTOBUF_EVENTS);
        return Response::from_parts(parts, body.map_frame(events_to_protobuf).boxed());
    }
    let encoded = match body.collect().await {
        Ok(body) => serde_json::from_slice(&body.to_bytes())
            .map_err(ApiError::internal)
            .and_then(|value| api::proto::encode(&value)),
        Err(failed) => Err(ApiError::internal(failed)),
    };
    match encoded {
        Ok(bytes) => {
            parts.headers.insert(CONTENT_TYPE, PROTOBUF);
            Response::from_parts(parts, Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed())
        }
        Err(failed) => error(&failed),
    }
}

/// Each frame of a watch holds whole events, a line each.
fn events_to_protobuf(frame: http_body::Frame<Bytes>) -> http_body::Frame<Bytes> {
    frame.map_data(|lines| {
        let encode = |line: &[u8]| {
            let event: Value = serde_json::from_slice(line).map_err(ApiError::internal)?;
            api::proto::encode_event(&event)
        };
        let mut frames = Vec::new();
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match encode(line) {
                Ok(event) => frames.extend(event),
                Err(failed) => {
                    let event = serde_json::json!({"type": "ERROR", "object": failed.to_value()});
                    frames.extend(api::proto::encode_event(&event).unwrap_or_default());
                }
            }
        }
        Bytes::from(frames)
    })
}

/// A `Status` with its code, and `Retry-After` where it says when.
pub(crate) fn error(error: &ApiError) -> Response<Body> {
    let mut response = json(error.code, &error.to_value());
    if let Some(details) = error.details.as_ref().filter(|details| details.retry_after_seconds > 0) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(details.retry_after_seconds));
    }
    response
}

/// A body that has nothing.
pub(crate) fn empty() -> Body {
    Full::default().map_err(|never| match never {}).boxed()
}

/// What Go's own router says to a path that nobody serves; clients tell it from a missing object by its type.
pub(crate) fn no_such_path() -> Response<Body> {
    full(404, TEXT, "404 page not found\n")
}

/// Adds `Warning` headers (RFC 7234 §5.5), which kubectl prints.
pub(crate) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    let mut left = WARNINGS_LIMIT;
    for warning in warnings {
        let escaped: String = warning
            .chars()
            .filter(|character| !character.is_control())
            .flat_map(|character| matches!(character, '"' | '\\').then_some('\\').into_iter().chain([character]))
            .collect();
        let text = format!("299 - \"{escaped}\"");
        let Some(rest) = left.checked_sub(text.len()) else { return };
        left = rest;
        if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::ACCEPT_ENCODING;

    use super::*;

    #[test]
    fn warnings_are_quoted_and_bounded() {
        let mut response = no_such_path();
        warn(&mut response, &["unknown field \"spec.x\"".to_owned(), "y".repeat(5000)]);
        let values: Vec<_> = response.headers().get_all(WARNING).iter().collect();
        assert_eq!(values, [r#"299 - "unknown field \"spec.x\"""#]);
    }

    #[test]
    fn only_large_answers_are_compressed_and_only_when_asked() {
        let gzip = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("gzip"))]);
        let packed = |headers: &HeaderMap, length| {
            large(headers, JSON, vec![b'x'; length]).headers().contains_key(CONTENT_ENCODING)
        };
        assert!(packed(&gzip, WORTH_COMPRESSING));
        assert!(!packed(&gzip, WORTH_COMPRESSING - 1));
        assert!(!packed(&HeaderMap::new(), WORTH_COMPRESSING));
    }
}
