//! Nobody has a policy read what he may not read himself.
//!
//! The attack: somebody who may write policies but not read Secrets takes Secrets as settings, and has an expression tell
//! what is in them. So the author of a policy must be able to read all objects of the kind that it takes settings from, and
//! that of a binding the objects that it names (`pkg/registry/admissionregistration/*/authz.go` of upstream).

use api::status::{ApiError, FieldError};
use api::user::{MASTERS, UserInfo};
use serde_json::Value;

use crate::call::Call;
use crate::object::meta;
use crate::query::Query;
use crate::request::{RequestInfo, ResourceRequest};

pub(super) const GROUP: &str = "admissionregistration.k8s.io";

/// Refuses a policy, or a binding of one, with settings that its author may not read.
pub(super) async fn check(call: &Call, new: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    let (spec, before) = (&new["spec"], old.map(|old| &old["spec"]));
    let is_same =
        |fields: &[&str]| before.is_some_and(|before| fields.iter().all(|field| before[field] == spec[field]));
    let (field, error) = match call.row.kind {
        "ValidatingAdmissionPolicy" | "MutatingAdmissionPolicy" => {
            if spec["paramKind"].is_null() || is_same(&["paramKind"]) {
                return Ok(());
            }
            ("spec.paramKind", of_policy(call, &spec["paramKind"]).await?)
        }
        "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding" => {
            if spec["paramRef"].is_null() || is_same(&["paramRef", "policyName"]) {
                return Ok(());
            }
            ("spec.paramRef", of_binding(call, spec).await?)
        }
        _ => return Ok(()),
    };
    match error {
        None => Ok(()),
        Some(text) => {
            let wrong = [FieldError::forbidden(field, &text)];
            Err(ApiError::invalid(call.row.group, call.row.kind, meta(new, "name"), &wrong))
        }
    }
}

async fn of_policy(call: &Call, kind: &Value) -> Result<Option<String>, ApiError> {
    let all = ResourceRequest {
        verb: "get".to_owned(),
        name: "*".to_owned(),
        namespace: "*".to_owned(),
        ..of(call, kind).await?
    };
    if may(call, all).await? {
        return Ok(None);
    }
    let text = |field: &str| kind[field].as_str().unwrap_or_default();
    let (user, kind, version) = (shown(&call.user), text("kind"), text("apiVersion"));
    Ok(Some(format!(
        "user {user} must have \"get\" permission on all objects of the referenced paramKind (kind={kind}, \
         apiVersion={version})"
    )))
}

async fn of_binding(call: &Call, spec: &Value) -> Result<Option<String>, ApiError> {
    let plural =
        if call.row.kind.starts_with('V') { "validatingadmissionpolicies" } else { "mutatingadmissionpolicies" };
    let policies = api::resources::find(GROUP, "v1", plural);
    let policies = policies.ok_or_else(|| ApiError::internal(format!("no {plural}")))?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kind = match call.server.read(policies, "", &text(&spec["policyName"])).await {
        Ok((policy, _)) => policy["spec"]["paramKind"].clone(),
        // What a policy that is not there yet will take is not known.
        Err(error) if error.code == 404 => Value::Null,
        Err(error) => return Err(error),
    };
    let reference = &spec["paramRef"];
    let name = text(&reference["name"]);
    let verb = if name.is_empty() { "list" } else { "get" };
    let namespace = text(&reference["namespace"]);
    let some = ResourceRequest { verb: verb.to_owned(), name, namespace, ..of(call, &kind).await? };
    if may(call, some).await? {
        return Ok(None);
    }
    let user = shown(&call.user);
    Ok(Some(format!("user {user} does not have \"{verb}\" permission on the object referenced by paramRef")))
}

/// The resource of a kind; all of them as far as it is not known which.
async fn of(call: &Call, kind: &Value) -> Result<ResourceRequest, ApiError> {
    let all = || "*".to_owned();
    let any = ResourceRequest { group: all(), version: all(), resource: all(), ..ResourceRequest::default() };
    let (Some(version), Some(word)) = (kind["apiVersion"].as_str(), kind["kind"].as_str()) else { return Ok(any) };
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let kinds = call.server.kinds().await?;
    let found = kinds.all().into_iter().find(|row| row.group == group && row.version == version && row.kind == word);
    let resource = found.map_or_else(all, |row| row.plural.to_owned());
    Ok(ResourceRequest { group: group.to_owned(), version: version.to_owned(), resource, ..any })
}

async fn may(call: &Call, request: ResourceRequest) -> Result<bool, ApiError> {
    if call.user.is_in(MASTERS) {
        return Ok(true);
    }
    let access = call.server.access(&call.user, &RequestInfo::Resource(request), &Query::default()).await?;
    Ok(access.allowed)
}

/// A user, as in the errors of roles.
fn shown(user: &UserInfo) -> String {
    format!("{} (groups={:?})", user.username, user.groups)
}
