//! Whom the cluster's users have set to be asked about writes: policies and webhooks.
//!
//! What the server writes at its start is not asked about, lest somebody keep it from starting; nor are the objects that
//! say who is asked, lest one keep itself from being mended.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::status::ApiError;
use serde_json::Value;
use tokio::sync::MutexGuard;

use super::attempt::{Subject, Write};
use super::registered::{GROUP, Policy, Registered};
use super::{hooks, mutations, policies};
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

/// What those have done who may change an object, and who of them is to do it once more if somebody has changed something
/// since (`reinvocationHandler` of `k8s.io/apiserver/pkg/admission/reinvocation.go`).
#[derive(Default)]
pub(crate) struct Round {
    pub(crate) changed: bool,
    subject: Option<Subject>,
    registered: Arc<Registered>,
    policies: BTreeSet<mutations::Key>,
    hooks: hooks::Asked,
}

/// Lets policies, and webhooks after them, change a new object or the next state of one.
pub(crate) async fn mutate(call: &Call, object: &mut Value, old: Option<&Value>, dry: bool) -> Result<Round, ApiError> {
    match asked(call).await? {
        Some(registered) if registered.has_mutating() => Round::first(call, None, registered, object, old, dry).await,
        _ => Ok(Round::default()),
    }
}

impl Round {
    async fn first(
        call: &Call,
        subject: Option<Subject>,
        registered: Arc<Registered>,
        object: &mut Value,
        old: Option<&Value>,
        dry: bool,
    ) -> Result<Self, ApiError> {
        let done = mutations::mutate(call, subject, &registered, object, old, dry, None).await?;
        let hooks = hooks::mutate(call, subject, &registered.mutating, object, old, dry).await?;
        Ok(Self { changed: done.changed || hooks.changed, subject, policies: done.again, hooks, registered })
    }

    /// Lets those change the object once more for whom something is other than it was; nobody a third time.
    pub(crate) async fn again(
        self,
        call: &Call,
        object: &mut Value,
        old: Option<&Value>,
        dry: bool,
    ) -> Result<(), ApiError> {
        if !self.changed {
            return Ok(());
        }
        if !self.policies.is_empty() {
            let only = Some(&self.policies);
            mutations::mutate(call, self.subject, &self.registered, object, old, dry, only).await?;
        }
        self.hooks.again(call, self.subject, object, old, dry).await
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
    if !registered.has_validating() {
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
    if !registered.has_mutating() && !registered.has_validating() {
        return Ok(());
    }
    if registered.has_mutating() {
        let again = Round::first(call, Some(subject), Arc::clone(&registered), object, None, dry).await?;
        again.again(call, object, None, dry).await?;
    }
    let write = Write::new(call, Some(subject), Some(object), None, dry).await?;
    policies::check(&registered, &write).await?;
    hooks::validate(&registered.validating, &write).await
}
