//! Paths that describe the server: discovery, OpenAPI, version.

use api::discovery::{self, Aggregated};
use api::openapi::{self, CustomKind, KindInfo};
use api::resources::Resource;
use api::status::ApiError;
use http::header::{ACCEPT, HeaderValue};
use http::{HeaderMap, Response};

use crate::Body;
use crate::health;
use crate::negotiate::{self, Form};
use crate::openid;
use crate::query::Query;
use crate::respond;
use crate::server::ApiServer;

/// The spelling with `@`, which clients send in `Accept`, is no media type and breaks their parser in an answer.
const OPENAPI_V2: HeaderValue = HeaderValue::from_static("application/com.github.proto-openapi.spec.v2.v1.0+protobuf");

/// Answers a path that names no objects.
pub(crate) async fn answer(
    server: &ApiServer,
    path: &str,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response<Body>, ApiError> {
    if let Some(response) = health::answer(server, path, query).await {
        return Ok(response);
    }
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let snapshot = server.kinds().await?;
    let rows = snapshot.all();
    let rows = rows.as_slice();
    let document = match segments.as_slice() {
        ["api" | "apis"] if aggregated(headers).is_some() => {
            let form = aggregated(headers).unwrap_or(Aggregated::V2);
            let document = if segments == ["api"] {
                discovery::aggregated_core(rows, form)
            } else {
                discovery::aggregated_groups(rows, form)
            };
            let content_type = HeaderValue::from_static(form.content_type());
            return Ok(respond::full(200, content_type, document.to_string()));
        }
        ["api"] => Some(discovery::versions(host(headers))),
        ["apis"] => Some(discovery::groups(rows)),
        ["api", version] => discovery::resources(rows, "", version),
        ["apis", group] => discovery::group(rows, group),
        ["apis", group, version] => discovery::resources(rows, group, version),
        ["version"] => Some(serde_json::to_value(&server.config.version).map_err(ApiError::internal)?),
        [".well-known", "openid-configuration"] => return Ok(openid::configuration(server)),
        ["openid", "v1", "jwks"] => return Ok(openid::key_set(server)),
        ["openapi", "v2"] => return openapi_v2(headers, rows),
        ["openapi", "v3"] => Some(openapi::v3_index(&kinds(rows))?),
        ["openapi", "v3", rest @ ..] => openapi::v3_document(&rest.join("/"), &kinds(rows)),
        _ => None,
    };
    let Some(document) = document else { return Ok(respond::no_such_path()) };
    if negotiate::form(headers, false)? == Form::Plain {
        return Ok(respond::large(headers, respond::JSON, document.to_string().into_bytes()));
    }
    Err(ApiError::not_acceptable(&["application/json"]))
}

/// The highest version of aggregated discovery that the client lists, if it prefers one to the legacy form.
fn aggregated(headers: &HeaderMap) -> Option<Aggregated> {
    let accepted = negotiate::accepted(headers);
    let asked = |version: &str| {
        accepted.iter().any(|entry| {
            entry.name == "application/json"
                && entry.parameter("g") == Some("apidiscovery.k8s.io")
                && entry.parameter("v") == Some(version)
                && entry.parameter("as") == Some("APIGroupDiscoveryList")
        })
    };
    [Aggregated::V2, Aggregated::V2Beta1].into_iter().find(|form| asked(form.version()))
}

fn openapi_v2(headers: &HeaderMap, rows: &[&Resource]) -> Result<Response<Body>, ApiError> {
    let types = negotiate::accepted(headers);
    let takes = |entry: &negotiate::MediaType| {
        matches!(
            entry.name.as_str(),
            "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
                | "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
                | "application/*"
                | "*/*"
        )
    };
    if headers.contains_key(ACCEPT) && !types.iter().any(takes) {
        return Err(ApiError::not_acceptable(&["application/com.github.proto-openapi.spec.v2@v1.0+protobuf"]));
    }
    Ok(respond::large(headers, OPENAPI_V2, openapi::v2_protobuf(&kinds(rows))))
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

/// Where the client reached us.
fn host(headers: &HeaderMap) -> &str {
    headers.get(http::header::HOST).and_then(|value| value.to_str().ok()).unwrap_or("localhost")
}
