//! Whom the cluster's users have set to be asked about writes: policies and webhooks.
//!
//! What the server writes at its start is not asked about, lest somebody keep it from starting; nor are the objects that
//! say who is asked, lest one keep itself from being mended.

use std::sync::Arc;

use api::status::ApiError;
use serde_json::Value;
use tokio::sync::MutexGuard;

use super::attempt::{Subject, Write};
use super::registered::{GROUP, Policy, Registered};
use super::{hooks, policies};
use crate::call::Call;
use crate::{services, storage};

/// Who makes what every cluster has.
const SERVER: &str = "system:apiserver";

/// Those who are asked about what a call writes; none if nobody is.
pub(super) async fn asked(call: &Call) -> Result<Option<Arc<Registered>>, ApiError> {
    if call.row.group == GROUP || call.user.username == SERVER {
        return Ok(None);
    }
    let server = &call.server;
    server.registered.now(server.config.store.as_ref()).await.map(Some).map_err(storage::failed)
}

/// Lets webhooks change a new object or the next state of one.
pub(crate) async fn mutate(
    call: &Call,
    object: &mut Value,
    old: Option<&Value>,
    dry: bool,
) -> Result<hooks::Again, ApiError> {
    match asked(call).await? {
        Some(registered) if !registered.mutating.is_empty() => {
            hooks::mutate(call, None, &registered.mutating, object, old, dry).await
        }
        _ => Ok(hooks::Again::default()),
    }
}

/// Asks about the final form of a new object or of the next state of one. What a Service was given is let go while
/// webhooks are asked, for which nothing else is to wait, and taken again; settings of policies may have to be converted
/// by one.
pub(crate) async fn ask<'a>(
    call: &'a Call,
    new: &mut Value,
    old: Option<&Value>,
    dry: bool,
    given: Option<MutexGuard<'a, ()>>,
) -> Result<Option<MutexGuard<'a, ()>>, ApiError> {
    let Some(registered) = asked(call).await? else { return Ok(given) };
    if registered.validating.is_empty() && registered.policies.is_empty() {
        return Ok(given);
    }
    let has_settings = |policy: &Arc<Policy>| !policy.object["spec"]["paramKind"].is_null();
    let may_wait = !registered.validating.is_empty() || registered.policies.iter().any(has_settings);
    let was_given = may_wait && given.is_some();
    let kept = given.filter(|_| !may_wait);
    let write = Write::new(call, None, Some(new), old, dry).await?;
    policies::check(&registered, &write).await?;
    hooks::validate(&registered.validating, &write).await?;
    if was_given { services::give(call, new, old).await } else { Ok(kept) }
}

/// Asks about the end of an object.
pub(crate) async fn end(call: &Call, old: &Value, dry: bool) -> Result<(), ApiError> {
    let Some(registered) = asked(call).await? else { return Ok(()) };
    if registered.mutating.is_empty() && registered.validating.is_empty() && registered.policies.is_empty() {
        return Ok(());
    }
    let write = Write::new(call, None, None, Some(old), dry).await?;
    hooks::mutate_end(&registered.mutating, &write).await?;
    policies::check(&registered, &write).await?;
    hooks::validate(&registered.validating, &write).await
}

/// Asks about what is written under an object's name without being one of its kind (a binding, an eviction, a request for
/// a token), or what a connection is to be for; webhooks may change it.
pub(crate) async fn beside(call: &Call, subject: Subject, object: &mut Value, dry: bool) -> Result<(), ApiError> {
    let Some(registered) = asked(call).await? else { return Ok(()) };
    if registered.mutating.is_empty() && registered.validating.is_empty() && registered.policies.is_empty() {
        return Ok(());
    }
    let again = hooks::mutate(call, Some(subject), &registered.mutating, object, None, dry).await?;
    again.mutate(call, object, None, dry).await?;
    let write = Write::new(call, Some(subject), Some(object), None, dry).await?;
    policies::check(&registered, &write).await?;
    hooks::validate(&registered.validating, &write).await
}
