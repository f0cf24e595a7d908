//! ValidatingAdmissionPolicies and their bindings: what they say of a write decides whether it is done.
//!
//! The pure part is [`api::resources::admission::policy`].

use api::resources::admission::policy::{self, Attempt, Failure};
use api::selector::LabelSelector;
use api::status::{ApiError, Cause};
use serde_json::Value;

use super::attempt::Write;
use super::registered::{Policy, Registered};
use super::rights::Rights;
use crate::authz::rbac::Policy as Roles;
use crate::call::Call;
use crate::object::meta;
use crate::storage;

/// Refuses a write that a policy denies.
pub(super) async fn check(registered: &Registered, write: &Write<'_>) -> Result<(), ApiError> {
    for binding in &registered.bindings {
        let name = binding["spec"]["policyName"].as_str().unwrap_or_default();
        // A binding may come before its policy.
        let Some(policy) = registered.policies.iter().find(|policy| meta(&policy.object, "name") == name) else {
            continue;
        };
        let constraints = &policy.object["spec"]["matchConstraints"];
        // A binding that names no resources is about those of the policy.
        let Some(form) = write.form(&[constraints, &binding["spec"]["matchResources"]]).await? else { continue };
        let attempt = form.attempt(write);
        for params in params(write.call, &policy.object, binding).await? {
            let failures = match params {
                Ok(params) => judge(policy, &params, &attempt, write.call).await?,
                Err(failure) => failure.into_iter().collect(),
            };
            failures.iter().try_for_each(|failure| act(&policy.object, binding, write, failure))?;
        }
    }
    Ok(())
}

/// What a policy says, which may ask who may do what.
async fn judge(policy: &Policy, params: &Value, attempt: &Attempt<'_>, call: &Call) -> Result<Vec<Failure>, ApiError> {
    if !policy.asks {
        return Ok(policy::judge(&policy.object, &policy.programs, params, attempt));
    }
    let judged = |roles: &Roles| {
        let rights = Rights { policy: roles, user: &call.user };
        policy::judge(&policy.object, &policy.programs, params, &Attempt { authorizer: &rights, ..*attempt })
    };
    call.server.ask_policy(judged).await
}

/// What is done about a failure: the write is refused, or its author is told.
fn act(policy: &Value, binding: &Value, write: &Write<'_>, failure: &Failure) -> Result<(), ApiError> {
    let call = write.call;
    let (policy, by) = (meta(policy, "name"), meta(binding, "name"));
    let message = &failure.message;
    let has =
        |word: &str| binding["spec"]["validationActions"].as_array().into_iter().flatten().any(|action| action == word);
    if has("Warn") {
        call.warn(format!("Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{by}': {message}"));
    }
    if has("Audit") {
        tracing::info!(policy, binding = by, message, "a write fails a policy");
    }
    if !has("Deny") {
        return Ok(());
    }
    let text = format!("ValidatingAdmissionPolicy '{policy}' with binding '{by}' denied request: {message}");
    let mut error = ApiError::forbidden(call.row.group, call.row.plural, write.name, &text);
    (error.code, error.reason) = match failure.reason.as_str() {
        "Forbidden" => (403, "Forbidden".to_owned()),
        "Unauthorized" => (401, "Unauthorized".to_owned()),
        "RequestEntityTooLarge" => (413, "RequestEntityTooLarge".to_owned()),
        _ => (422, "Invalid".to_owned()),
    };
    if let Some(details) = &mut error.details {
        details.causes.push(Cause { reason: String::new(), message: text, field: String::new() });
    }
    Err(error)
}

/// The settings with which a policy is asked, one after another: null if it has none, and a failure instead if they cannot
/// be had, none of which is none if that is nothing to anybody.
pub(super) async fn params(
    call: &Call,
    policy: &Value,
    binding: &Value,
) -> Result<Vec<Result<Value, Option<Failure>>>, ApiError> {
    let (kind, reference) = (&policy["spec"]["paramKind"], &binding["spec"]["paramRef"]);
    if kind.is_null() {
        return Ok(vec![Ok(Value::Null)]);
    }
    let fail = |message: String| {
        let ignored = policy["spec"]["failurePolicy"] == "Ignore";
        vec![Err((!ignored).then_some(Failure { message, reason: String::new() }))]
    };
    if reference.is_null() {
        return Ok(vec![Ok(Value::Null)]);
    }
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let version = text(kind, "apiVersion");
    let (group, version) = version.split_once('/').unwrap_or(("", &version));
    let word = text(kind, "kind");
    let kinds = call.server.kinds().await?;
    let found = kinds.all().into_iter().find(|row| row.group == group && row.version == version && row.kind == word);
    let Some(row) = found else {
        return Ok(fail(format!(
            "failed to configure binding: failed to find resource referenced by paramKind: '{word}'"
        )));
    };
    let own = text(reference, "namespace");
    if !row.namespaced && !own.is_empty() {
        let message =
            "failed to configure binding: paramRef.namespace must not be provided for a cluster-scoped `paramKind`";
        return Ok(fail(message.to_owned()));
    }
    let namespace = if own.is_empty() { call.namespace().to_owned() } else { own };
    if row.namespaced && namespace.is_empty() {
        let message = "failed to configure binding: cannot use namespaced paramRef in policy binding that matches \
                       cluster-scoped resources";
        return Ok(fail(message.to_owned()));
    }
    let mut objects = Vec::new();
    let name = text(reference, "name");
    if name.is_empty() {
        let range = store::Range { prefix: storage::prefix(row, &namespace), after: None, limit: None, at: None };
        let page = call.server.config.store.list(range).await.map_err(storage::failed)?;
        let selector = LabelSelector::from_object(&reference["selector"])?;
        for object in call.server.load_all(row, &page.entries).await? {
            if selector.matches(object["metadata"]["labels"].as_object()) {
                objects.push(Ok(object));
            }
        }
    } else {
        match call.server.read(row, &namespace, &name).await {
            Ok((object, _)) => objects.push(Ok(object)),
            Err(error) if error.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    if objects.is_empty() && reference["parameterNotFoundAction"] != "Allow" {
        let message = "failed to configure binding: no params found for policy binding with `Deny` \
                       parameterNotFoundAction";
        return Ok(fail(message.to_owned()));
    }
    Ok(objects)
}
