//! `/openapi/v2` and `/openapi/v3`: documents that are rendered once and kept, packed, until the served kinds change.
//!
//! Clients ask for them again and again and have them already: an `ETag` saves the transfer.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use api::openapi::{self, CustomKind, KindInfo};
use api::resources::Resource;
use api::status::ApiError;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use http::{HeaderMap, Response, StatusCode};
use serde_json::Value;

use crate::Body;
use crate::negotiate::{self, Form, takes_gzip};
use crate::query::Query;
use crate::respond;

/// The spelling with `@`, which clients send in `Accept`, is no media type and breaks their parser in an answer.
const V2: HeaderValue = HeaderValue::from_static("application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
const V2_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// A document as it is kept.
#[derive(Debug)]
struct Document {
    /// Of the kinds that it was made of.
    fingerprint: u64,
    packed: Bytes,
}

/// The documents that somebody has asked for, by path.
#[derive(Debug, Default)]
pub(crate) struct Documents(Mutex<HashMap<String, Arc<Document>>>);

impl Documents {
    /// Answers `path`, which is relative to `/openapi`; none if there is no such document.
    pub(crate) fn answer(
        &self,
        path: &[&str],
        rows: &[&Resource],
        query: &Query,
        headers: &HeaderMap,
    ) -> Result<Option<Response<Body>>, ApiError> {
        let kinds = kinds(rows);
        let v2 = path == ["v2"];
        if v2 && !takes_v2(headers) {
            return Err(ApiError::not_acceptable(&[V2_ASKED]));
        }
        if !v2 && negotiate::form(headers, false)? != Form::Plain {
            return Err(ApiError::not_acceptable(&["application/json"]));
        }
        let render = || -> Result<Option<Vec<u8>>, ApiError> {
            Ok(match path {
                ["v2"] => Some(openapi::v2_protobuf(&kinds)),
                ["v3"] => Some(openapi::v3_index(&kinds)?.to_string().into_bytes()),
                ["v3", rest @ ..] => {
                    openapi::v3_document(&rest.join("/"), &kinds).map(|document| document.to_string().into_bytes())
                }
                _ => None,
            })
        };
        let Some(document) = self.document(&path.join("/"), openapi::fingerprint(kinds.iter()), render)? else {
            return Ok(None);
        };
        let content_type = if v2 { V2 } else { respond::JSON };
        let mut response = respond_with(&document, content_type, headers)?;
        if query.has("hash") {
            // Another document would have another address.
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        }
        Ok(Some(response))
    }

    /// The document of a path, rendered unless it is kept.
    fn document(
        &self,
        path: &str,
        fingerprint: u64,
        render: impl FnOnce() -> Result<Option<Vec<u8>>, ApiError>,
    ) -> Result<Option<Arc<Document>>, ApiError> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(document) = kept.get(path).filter(|document| document.fingerprint == fingerprint) {
            return Ok(Some(Arc::clone(document)));
        }
        // What belongs to kinds that are no longer served goes.
        kept.retain(|_, document| document.fingerprint == fingerprint);
        let Some(bytes) = render()? else { return Ok(None) };
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&bytes).map_err(ApiError::internal)?;
        let packed = encoder.finish().map_err(ApiError::internal)?.into();
        let document = Arc::new(Document { fingerprint, packed });
        kept.insert(path.to_owned(), Arc::clone(&document));
        Ok(Some(document))
    }
}

/// The documents of version 3 that there are.
pub(crate) fn index(rows: &[&Resource]) -> Result<Value, ApiError> {
    openapi::v3_index(&kinds(rows))
}

fn respond_with(
    document: &Document,
    content_type: HeaderValue,
    headers: &HeaderMap,
) -> Result<Response<Body>, ApiError> {
    let tag = format!("\"{:016X}\"", document.fingerprint);
    let asked = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let known =
        asked.flat_map(|value| value.split(',')).any(|value| matches!(value.trim(), "*") || value.trim() == tag);
    let tag = HeaderValue::from_str(&tag).map_err(ApiError::internal)?;
    let mut response = if known {
        let mut response = respond::full(304, content_type, Bytes::new());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else if takes_gzip(headers) {
        let mut response = respond::full(200, content_type, document.packed.clone());
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    } else {
        let mut bytes = Vec::new();
        GzDecoder::new(document.packed.as_ref()).read_to_end(&mut bytes).map_err(ApiError::internal)?;
        respond::full(200, content_type, bytes)
    };
    response.headers_mut().insert(ETAG, tag);
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    Ok(response)
}

/// Whether a client takes version 2 in the only form it is served in.
fn takes_v2(headers: &HeaderMap) -> bool {
    let takes = |entry: &negotiate::MediaType| {
        matches!(
            entry.name.as_str(),
            V2_ASKED | "application/com.github.proto-openapi.spec.v2.v1.0+protobuf" | "application/*" | "*/*"
        )
    };
    !headers.contains_key(ACCEPT) || negotiate::accepted(headers).iter().any(takes)
}

/// The served kinds, as OpenAPI lists them.
fn kinds(rows: &[&Resource]) -> Vec<KindInfo> {
    rows.iter()
        .map(|row| KindInfo {
            group: row.group.to_owned(),
            version: row.version.to_owned(),
            kind: row.kind.to_owned(),
            plural: row.plural.to_owned(),
            namespaced: row.namespaced,
            verbs: row.verbs.iter().map(|verb| verb.word().to_owned()).collect(),
            custom: CustomKind::of(row),
        })
        .collect()
}
