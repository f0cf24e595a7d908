//! Request bodies: reading them within bounds and decoding them into objects.

use std::time::Duration;

use api::resources::Resource;
use api::resources::custom::{self, Custom};
use api::status::{ApiError, FieldError};
use api::{json, proto, schema};
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Value, json};

use crate::BoxError;
use crate::negotiate::MediaType;
use crate::query::Query;

/// How much of a body that cannot be read its writer is shown.
const SUMMARY: usize = 30;
/// Upstream's limit of a body.
pub(crate) const LIMIT: u32 = 3 * 1024 * 1024;
/// How much of a body that goes beyond it is taken in and forgotten, and how long the next piece may take to come.
const MOST_DISCARDED: u32 = 2 * LIMIT;
const LINGER: Duration = Duration::from_millis(500);
/// A body that takes longer, even over a bad line, will not come.
const PATIENCE: Duration = Duration::from_secs(60);
const ACCEPTED: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

/// All of a body that must not have more than `limit` bytes. (`Limited` of http-body-util would make a future that uses it
/// one whose errors must be of any lifetime.)
pub(crate) async fn whole<B>(mut body: B, limit: usize) -> Result<Bytes, ApiError>
where
    B: http_body::Body<Data = Bytes, Error = BoxError> + Unpin,
{
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let unreadable = |error| ApiError::bad_request(format!("the body of the request could not be read: {error}"));
        let Ok(data) = frame.map_err(unreadable)?.into_data() else { continue };
        bytes.extend_from_slice(&data);
        if bytes.len() > limit {
            return Err(ApiError::too_large(format!("Request entity too large: limit is {limit}")));
        }
    }
    Ok(bytes.freeze())
}

/// The whole body; what is compressed is not unpacked but refused, so that it cannot be larger than it looks.
pub(crate) async fn read<B>(headers: &HeaderMap, body: B) -> Result<Bytes, ApiError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let is_plain = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(CONTENT_ENCODING).iter().all(is_plain) {
        let text = "the body of the request was in a content encoding that is not accepted: it must not be compressed";
        return Err(ApiError::new(415, "UnsupportedMediaType", text));
    }
    let too_large = || ApiError::too_large(format!("Request entity too large: limit is {LIMIT}"));
    let announced = body.size_hint().lower();
    let mut body = std::pin::pin!(body);
    if announced > LIMIT.into() {
        if announced <= MOST_DISCARDED.into() {
            discard(&mut body).await;
        }
        return Err(too_large());
    }
    let reading = tokio::time::timeout(PATIENCE, Limited::new(&mut body, LIMIT as usize).collect());
    let late = |_| ApiError::new(408, "Timeout", "the body of the request did not arrive in time");
    match reading.await.map_err(late)? {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            discard(&mut body).await;
            Err(too_large())
        }
        Err(error) => Err(ApiError::bad_request(format!("the body of the request could not be read: {error}"))),
    }
}

/// Takes in the rest of a body that is a little too large: most clients read an answer only when they have sent all, and
/// find the connection closed otherwise. Who waits for the answer first gets it soon.
async fn discard<B: http_body::Body<Data = Bytes> + Unpin>(body: &mut B) {
    let mut left = MOST_DISCARDED as usize;
    let rest = async {
        while let Ok(Some(Ok(frame))) = tokio::time::timeout(LINGER, body.frame()).await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            if length > left {
                return;
            }
            left -= length;
        }
    };
    // It is refused either way.
    let _ = tokio::time::timeout(PATIENCE, rest).await;
}

/// The media type of the body without parameters; JSON if the client does not say.
pub(crate) fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.and_then(MediaType::parse).map_or_else(|| ACCEPTED[0].to_owned(), |media_type| media_type.name)
}

/// What happens to fields that the server does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Strict,
    Warn,
    Ignore,
}

impl FieldValidation {
    /// From the query; `options` is the kind of the request's options, for the error.
    pub(crate) fn from_query(query: &Query, options: &str) -> Result<Self, ApiError> {
        match query.get("fieldValidation") {
            None | Some("Warn") => Ok(Self::Warn),
            Some("Strict") => Ok(Self::Strict),
            Some("Ignore") => Ok(Self::Ignore),
            Some(other) => {
                let error = FieldError::not_supported("fieldValidation", &json!(other), &["Ignore", "Strict", "Warn"]);
                Err(ApiError::invalid("meta.k8s.io", options, "", &[error]))
            }
        }
    }
}

/// Group, version and kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind<'a> {
    pub(crate) group: &'a str,
    pub(crate) version: &'a str,
    pub(crate) kind: &'a str,
    /// What is known of a kind that came at run time.
    pub(crate) custom: Option<&'a Custom>,
}

impl<'a> Kind<'a> {
    pub(crate) fn of(row: &'a Resource) -> Self {
        Self { group: row.group, version: row.version, kind: row.kind, custom: row.custom.as_deref() }
    }

    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// An object from a body, brought into the form of its type.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) object: Value,
    /// What the client is to be told, as `Warning` headers.
    pub(crate) warnings: Vec<String>,
}

/// A body as a value with what was odd about its text.
pub(crate) fn parse(bytes: &[u8], media_type: &str) -> Result<json::Parsed, ApiError> {
    match media_type {
        "application/json" => json::parse(bytes),
        "application/yaml" => json::parse_yaml(bytes),
        "application/vnd.kubernetes.protobuf" => {
            Ok(json::Parsed { value: proto::decode(bytes)?, duplicates: Vec::new() })
        }
        _ => Err(ApiError::unsupported_media_type(&ACCEPTED)),
    }
}

/// Decodes the object of a create or update.
pub(crate) fn decode(
    bytes: &[u8],
    headers: &HeaderMap,
    kind: Kind<'_>,
    validation: FieldValidation,
) -> Result<Decoded, ApiError> {
    let parsed = parse(bytes, &media_type(headers)).map_err(|error| unreadable(error, bytes, kind.kind))?;
    conform(parsed.value, parsed.duplicates, kind, validation)
}

/// The error of a body of which not even the kind can be read, with its beginning (`transformDecodeError` and
/// `summarizeData` in `k8s.io/apiserver/pkg/endpoints/handlers/rest.go`).
fn unreadable(error: ApiError, bytes: &[u8], kind: &str) -> ApiError {
    if error.code != 400 {
        return error;
    }
    let beginning = &bytes[..bytes.len().min(SUMMARY)];
    let summary = match (bytes, std::str::from_utf8(beginning)) {
        ([], _) => "<empty>".to_owned(),
        ([b'{', ..], Ok(text)) => text.to_owned(),
        _ => beginning.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    let more = if bytes.len() > SUMMARY { " ..." } else { "" };
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; {error} ({summary}{more})"
    ))
}

/// Brings a value into the form of a kind and reports what does not belong there.
pub(crate) fn conform(
    mut object: Value,
    mut oddities: Vec<String>,
    kind: Kind<'_>,
    validation: FieldValidation,
) -> Result<Decoded, ApiError> {
    check_kind(&mut object, kind)?;
    let cannot = |text: &str| {
        let Kind { version, kind, .. } = kind;
        ApiError::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {text}"))
    };
    keep_reset(&mut object);
    if let Some(ty) = schema::lookup(kind.group, kind.version, kind.kind) {
        let unknown = schema::decode(ty, &mut object)?;
        oddities.extend(unknown.iter().map(ToString::to_string));
    }
    if let Some(custom) = kind.custom {
        oddities.extend(custom.decode(&mut object)?);
    } else if (kind.group, kind.kind) == ("apiextensions.k8s.io", "CustomResourceDefinition") {
        oddities.extend(custom::unknown_fields(&mut object));
    }
    if validation == FieldValidation::Strict && !oddities.is_empty() {
        return Err(cannot(&format!("strict decoding error: {}", oddities.join(", "))));
    }
    if validation == FieldValidation::Ignore {
        oddities.clear();
    }
    Ok(Decoded { object, warnings: oddities })
}

/// An empty list of managers, by which a client takes all of them away, is no list that is left out.
fn keep_reset(object: &mut Value) {
    if let Some(managers) = object.pointer_mut("/metadata/managedFields").and_then(Value::as_array_mut)
        && managers.is_empty()
    {
        managers.push(json!({}));
    }
}

/// `apiVersion` and `kind` must be those of the path; absent ones are filled in.
fn check_kind(object: &mut Value, kind: Kind<'_>) -> Result<(), ApiError> {
    let Some(map) = object.as_object_mut() else {
        return Err(ApiError::bad_request("the body of the request is not an object"));
    };
    let expected = kind.api_version();
    for (field, expected) in [("apiVersion", expected.as_str()), ("kind", kind.kind)] {
        match map.get(field).and_then(Value::as_str).unwrap_or_default() {
            "" => {
                map.insert(field.to_owned(), expected.into());
            }
            given if given == expected => {}
            given if field == "apiVersion" => {
                let text = format!(
                    "the API version in the data ({given}) does not match the expected API version ({expected})"
                );
                return Err(ApiError::bad_request(text));
            }
            given => {
                let version = kind.version;
                let text = format!(
                    "{given} in version {version:?} cannot be handled as a {expected}: converting ({version}.{given}) to \
                     ({version}.{expected}): unknown conversion"
                );
                return Err(ApiError::bad_request(text));
            }
        }
    }
    Ok(())
}

/// Whether nothing is to be stored; 422 for a value that nobody knows.
pub(crate) fn dry_run<'a>(values: impl Iterator<Item = &'a str>, options: &str) -> Result<bool, ApiError> {
    let mut dry = false;
    for value in values {
        if value != "All" {
            let error = FieldError::not_supported("dryRun", &json!(value), &["All"]);
            return Err(ApiError::invalid("meta.k8s.io", options, "", &[error]));
        }
        dry = true;
    }
    Ok(dry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_beyond_the_limit_is_refused() {
        let body = || http_body_util::Full::new(Bytes::from(vec![b' '; LIMIT as usize + 1]));
        let without_length = http_body_util::StreamBody::new(futures_util::stream::iter(
            [Bytes::from(vec![b' '; LIMIT as usize]), Bytes::from_static(b" ")]
                .map(|part| Ok::<_, BoxError>(http_body::Frame::data(part))),
        ));
        for error in [
            read(&HeaderMap::new(), body()).await.unwrap_err(),
            read(&HeaderMap::new(), without_length).await.unwrap_err(),
        ] {
            assert_eq!((error.code, error.reason.as_str()), (413, "RequestEntityTooLarge"));
        }
    }

    #[tokio::test]
    async fn a_client_that_sends_a_little_too_much_can_send_all_of_it_and_no_more() {
        let taken = async |frames: usize| {
            let taken = std::cell::Cell::new(0);
            let piece = || {
                taken.set(taken.get() + 1);
                Ok::<_, BoxError>(http_body::Frame::data(Bytes::from(vec![b' '; 1 << 20])))
            };
            let body = http_body_util::StreamBody::new(futures_util::stream::iter((0..frames).map(|_| piece())));
            let refused = read(&HeaderMap::new(), body).await;
            assert_eq!(refused.unwrap_err().code, 413);
            taken.get()
        };
        assert_eq!((taken(5).await, taken(6).await), (5, 6));
        assert!(taken(100).await < 12);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_given_up() {
        let never = http_body_util::StreamBody::new(futures_util::stream::pending::<Result<_, BoxError>>());
        assert_eq!(read(&HeaderMap::new(), never).await.unwrap_err().code, 408);
    }

    #[tokio::test]
    async fn a_compressed_body_is_refused_unread() {
        let check = async |encoding| {
            let headers = HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static(encoding))]);
            read(&headers, http_body_util::Full::new(Bytes::from_static(b"{}"))).await.map_err(|error| error.code)
        };
        assert_eq!(check("identity").await, Ok(Bytes::from_static(b"{}")));
        assert_eq!((check("gzip").await, check("identity, deflate").await), (Err(415), Err(415)));
    }

    #[test]
    fn a_body_of_another_kind_or_version_is_refused() {
        let pod = Kind { group: "", version: "v1", kind: "Pod", custom: None };
        let check = |body: Value| conform(body, Vec::new(), pod, FieldValidation::Warn).unwrap_err().message;
        assert!(check(json!({ "apiVersion": "v1", "kind": "Secret" })).contains("cannot be handled as a Pod"));
        assert!(check(json!({ "apiVersion": "v2", "kind": "Pod" })).contains("(v2) does not match"));
        assert_eq!(check(json!([])), "the body of the request is not an object");
    }

    #[test]
    fn only_all_is_a_dry_run() {
        assert!(dry_run(["All"].into_iter(), "CreateOptions").unwrap());
        assert!(!dry_run([].into_iter(), "CreateOptions").unwrap());
        assert_eq!(dry_run(["Some"].into_iter(), "CreateOptions").unwrap_err().code, 422);
    }
}
