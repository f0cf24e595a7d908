//! Paths that describe the server: discovery, OpenAPI, version.

use std::collections::BTreeSet;

use api::discovery::{self, Aggregated};
use api::status::ApiError;
use http::header::HeaderValue;
use http::{HeaderMap, Response};
use serde_json::{Value, json};

use crate::Body;
use crate::aggregation::discovery::{into_aggregated, into_group, into_groups, into_index};
use crate::health;
use crate::negotiate::{self, Form};
use crate::openapi;
use crate::openid;
use crate::query::Query;
use crate::respond;
use crate::server::ApiServer;

/// What is there without groups.
const PATHS: [&str; 12] = [
    "/.well-known/openid-configuration",
    "/api",
    "/api/v1",
    "/apis",
    "/healthz",
    "/livez",
    "/metrics",
    "/openapi/v2",
    "/openapi/v3",
    "/openid/v1/jwks",
    "/readyz",
    "/version",
];

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
    let (rows, remotes) = (rows.as_slice(), server.aggregation.remotes());
    let own_groups = || {
        let groups = discovery::groups(api::resources::all());
        groups["groups"].as_array().map_or(0, Vec::len)
    };
    let document = match segments.as_slice() {
        ["api" | "apis"] if aggregated(headers).is_some() => {
            let form = aggregated(headers).unwrap_or(Aggregated::V2);
            let document = if segments == ["api"] {
                discovery::aggregated_core(rows, form)
            } else {
                let mut document = discovery::aggregated_groups(rows, form);
                into_aggregated(&mut document, own_groups(), &remotes);
                document
            };
            let content_type = HeaderValue::from_static(form.content_type());
            return Ok(respond::full(200, content_type, document.to_string()));
        }
        ["api"] => Some(discovery::versions(host(headers))),
        [] | ["apis"] => {
            let mut document = discovery::groups(rows);
            into_groups(&mut document, own_groups(), &remotes);
            Some(if segments.is_empty() { index(&document) } else { document })
        }
        ["api", version] => discovery::resources(rows, "", version),
        ["apis", group] => into_group(discovery::group(rows, group), group, &remotes),
        ["apis", group, version] => discovery::resources(rows, group, version),
        ["metrics"] => {
            return Ok(respond::full(200, respond::METRICS, server.requests.render(&server.config.version)));
        }
        ["version"] => Some(serde_json::to_value(&server.config.version).map_err(ApiError::internal)?),
        [".well-known", "openid-configuration"] => return Ok(openid::configuration(server)),
        ["openid", "v1", "jwks"] => return Ok(openid::key_set(server)),
        ["openapi", "v3"] if !remotes.is_empty() => {
            let mut document = openapi::index(rows)?;
            into_index(&mut document, &remotes);
            Some(document)
        }
        ["openapi", rest @ ..] => {
            let document = server.documents.answer(rest, rows, query, headers)?;
            return Ok(document.unwrap_or_else(respond::no_such_path));
        }
        _ => None,
    };
    let Some(document) = document else { return Ok(respond::no_such_path()) };
    if negotiate::form(headers, false)? == Form::Plain {
        return Ok(respond::large(headers, respond::JSON, document.to_string().into_bytes()));
    }
    Err(ApiError::not_acceptable(&["application/json"]))
}

/// The paths that lead on, with those of groups (`apiserver/pkg/server/routes/index.go`).
fn index(groups: &Value) -> Value {
    let mut paths: BTreeSet<String> = PATHS.map(str::to_owned).into();
    for group in groups["groups"].as_array().into_iter().flatten() {
        let versions = group["versions"].as_array().into_iter().flatten().map(|version| &version["groupVersion"]);
        let names = versions.chain([&group["name"]]).filter_map(Value::as_str);
        paths.extend(names.map(|name| format!("/apis/{name}")));
    }
    json!({ "paths": paths })
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

/// Where the client reached us.
fn host(headers: &HeaderMap) -> &str {
    headers.get(http::header::HOST).and_then(|value| value.to_str().ok()).unwrap_or("localhost")
}
