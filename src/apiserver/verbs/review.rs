//! `POST` of a question: who is somebody, what may he do. Answered with the same object, its status filled in, and never
//! stored (`pkg/registry/authorization`, `pkg/registry/authentication`).

use api::status::ApiError;
use api::user::UserInfo;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::authn::TokenError;
use crate::authz::Access;
use crate::body::{self, FieldValidation, Kind};
use crate::call::{Call, Outcome};
use crate::object::{meta, metadata_mut};
use crate::query::Query;
use crate::request::{RequestInfo, ResourceRequest};

pub(super) async fn review(call: &Call, bytes: &Bytes) -> Result<Outcome, ApiError> {
    let validation = FieldValidation::from_query(&call.query, "CreateOptions")?;
    body::dry_run(call.query.all("dryRun"), "CreateOptions")?;
    let decoded = body::decode(bytes, &call.headers, Kind::of(&call.row), validation)?;
    let mut object = decoded.object;
    if call.row.namespaced && meta(&object, "namespace").is_empty() {
        metadata_mut(&mut object).insert("namespace".to_owned(), call.request.namespace.clone().into());
    }
    let wrong = (call.row.validate)(&object);
    if !wrong.is_empty() {
        return Err(ApiError::invalid(call.row.group, call.row.kind, "", &wrong));
    }
    object["status"] = answer(call, &object).await?;
    Ok(Outcome { code: 201, object, warnings: decoded.warnings })
}

async fn answer(call: &Call, object: &Value) -> Result<Value, ApiError> {
    let spec = &object["spec"];
    match call.row.kind {
        "SelfSubjectReview" => Ok(json!({ "userInfo": shown(&call.user) })),
        "TokenReview" => token(call, spec).await,
        "SelfSubjectRulesReview" => rules(call, spec["namespace"].as_str().unwrap_or_default()).await,
        "SelfSubjectAccessReview" => access(call, &call.user, spec).await,
        _ => access(call, &subject(spec), spec).await,
    }
}

fn shown(user: &UserInfo) -> Value {
    serde_json::to_value(user).unwrap_or_default()
}

/// The user that a review asks about.
fn subject(spec: &Value) -> UserInfo {
    let text = |field: &str| spec[field].as_str().unwrap_or_default().to_owned();
    let groups = spec["groups"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    let values =
        |value: &Value| value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let extra = spec["extra"].as_object().into_iter().flatten().map(|(key, value)| (key.clone(), values(value)));
    UserInfo { username: text("user"), uid: text("uid"), groups: groups.collect(), extra: extra.collect() }
}

async fn access(call: &Call, user: &UserInfo, spec: &Value) -> Result<Value, ApiError> {
    let Access { allowed, reason } = call.server.access(user, &attempt(spec), &Query::default()).await?;
    let mut status = json!({ "allowed": allowed });
    if !reason.is_empty() {
        status["reason"] = json!(reason);
    }
    Ok(status)
}

fn attempt(spec: &Value) -> RequestInfo {
    let (resource, other) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let of = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    if resource.is_null() {
        return RequestInfo::Path { verb: of(other, "verb"), path: of(other, "path") };
    }
    RequestInfo::Resource(ResourceRequest {
        verb: of(resource, "verb"),
        group: of(resource, "group"),
        version: of(resource, "version"),
        namespace: of(resource, "namespace"),
        resource: of(resource, "resource"),
        subresource: of(resource, "subresource"),
        name: of(resource, "name"),
        ..ResourceRequest::default()
    })
}

/// The rules of the asking user, for `kubectl auth can-i --list`.
async fn rules(call: &Call, namespace: &str) -> Result<Value, ApiError> {
    if namespace.is_empty() {
        return Err(ApiError::bad_request("no namespace on request"));
    }
    let masters = call.user.is_in(api::user::MASTERS);
    let found = call.server.ask_policy(|policy| policy.rules(&call.user, namespace)).await?;
    let mut resources: Vec<Value> = Vec::new();
    let mut paths: Vec<Value> = Vec::new();
    if masters {
        resources.push(json!({ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] }));
        paths.push(json!({ "verbs": ["*"], "nonResourceURLs": ["*"] }));
    }
    for rule in found {
        let list = if rule.paths.is_empty() { &mut resources } else { &mut paths };
        list.push(rule.to_value());
    }
    // What a node may do is not said by rules alone.
    let incomplete = call.user.node_name().is_some();
    let mut status = json!({ "resourceRules": resources, "nonResourceRules": paths, "incomplete": incomplete });
    if incomplete {
        status["evaluationError"] = json!("node authorizer does not support user rule resolution");
    }
    Ok(status)
}

/// Whose token it is, for whoever asks on behalf of a server of his own (`pkg/registry/authentication/tokenreview`).
async fn token(call: &Call, spec: &Value) -> Result<Value, ApiError> {
    let token = spec["token"].as_str().unwrap_or_default();
    let asked: Vec<String> = serde_json::from_value(spec["audiences"].clone()).unwrap_or_default();
    let audiences = if asked.is_empty() { call.server.config.issuer.audiences() } else { &asked };
    match call.server.token_user(token, audiences).await {
        Ok(known) => Ok(json!({ "authenticated": true, "user": shown(&known.user), "audiences": known.audiences })),
        Err(TokenError::Api(error)) => Err(error),
        Err(error) => Ok(json!({ "user": {}, "error": error.to_string() })),
    }
}
