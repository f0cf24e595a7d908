//! What update and patch have in common: from the next state of an object, as a client wants it, to the stored one.

use api::status::{ApiError, FieldError};
use serde_json::{Value, json};
use store::{Entry, Expect, StoreError};

use crate::authz::escalation;
use crate::call::Call;
use crate::object::{self, has_finalizers, is_terminating, meta, metadata_mut};
use crate::{admission, managed, services, storage};

/// What became of an attempt.
pub(super) enum Attempt {
    /// Done; the object as it is served.
    Done(Value),
    /// Somebody else was faster.
    Lost,
}

/// What a client asks of the state that it replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Concurrency {
    /// Exactly one state: a stale resourceVersion is a conflict.
    Certain,
    /// Whatever is there.
    Any,
}

/// Checks the preconditions that the new object itself carries: uid and resourceVersion.
pub(super) fn preconditions(call: &Call, new: &Value, old: &Value) -> Result<Concurrency, ApiError> {
    let (name, uid) = (meta(old, "name"), meta(new, "uid"));
    if !uid.is_empty() && uid != meta(old, "uid") {
        let current = meta(old, "uid");
        let text = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {current}");
        return Err(call.conflict(name, &text));
    }
    match meta(new, "resourceVersion") {
        "" | "0" if call.row.unconditional_update => Ok(Concurrency::Any),
        "" | "0" => {
            let error = FieldError::invalid("metadata.resourceVersion", &json!(0), "must be specified for an update");
            Err(ApiError::invalid(call.row.group, call.row.kind, name, &[error]))
        }
        version if version == meta(old, "resourceVersion") => Ok(Concurrency::Certain),
        _ => Err(call.modified(name)),
    }
}

/// Takes a new state through admission, defaults and checks and stores it in the place of `entry`. What it changes is its
/// writer's.
pub(super) async fn replace(
    call: &Call,
    mut new: Value,
    old: &Value,
    entry: &Entry,
    dry: bool,
) -> Result<Attempt, ApiError> {
    call.row.fill_defaults(&mut new);
    managed::record(call, old, &mut new);
    replace_applied(call, new, old, entry, dry).await
}

/// As [`replace`], for a state whose managed fields are as they are to be.
pub(super) async fn replace_applied(
    call: &Call,
    mut new: Value,
    old: &Value,
    entry: &Entry,
    dry: bool,
) -> Result<Attempt, ApiError> {
    let row = &call.row;
    if row.namespaced && meta(&new, "namespace").is_empty() {
        metadata_mut(&mut new).insert("namespace".to_owned(), old["metadata"]["namespace"].clone());
    }
    admission::update(call, &mut new, old, dry).await?;
    escalation::check(call, &new, Some(old)).await?;
    admission::certificates::update(call, &mut new, old).await?;
    row.fill_defaults(&mut new);
    let is_status = call.request.subresource == "status";
    let part = row.part(&call.request.subresource);
    if let Some(part) = part {
        row.prepare_part(part, &mut new, old);
    } else if is_status {
        row.prepare_status(&mut new, old);
    } else {
        row.prepare_update(&mut new, old);
    }
    let given = services::give(call, &mut new, Some(old)).await?;
    let wrong = match part {
        Some(part) => (part.validate)(&new, old),
        None if is_status => row.check_status(&new, old),
        None => row.check_update(&new, old),
    };
    if !wrong.is_empty() {
        return Err(ApiError::invalid(row.group, row.kind, meta(old, "name"), &wrong));
    }
    let given = admission::ask(call, &mut new, Some(old), dry, given).await?;
    let _charged = admission::check(call, &new, Some(old)).await?;
    let attempt = put(call, new, old, entry, dry).await?;
    if let (Attempt::Done(new), false) = (&attempt, dry) {
        services::given(call, new, Some(old), given).await;
    }
    Ok(attempt)
}

/// Stores the final form of a new state; an object that was only waiting for its last finalizer goes instead.
pub(super) async fn put(call: &Call, new: Value, old: &Value, entry: &Entry, dry: bool) -> Result<Attempt, ApiError> {
    let (mut new, mut stored) = call.server.settle(&call.row, new).await?;
    let mut value = object::encode(&stored)?;
    if value != entry.value && managed::differ_by_times(&new, old) {
        // When somebody last changed what stays as it is does not matter.
        stored["metadata"]["managedFields"] = old["metadata"]["managedFields"].clone();
        let unchanged = object::encode(&stored)?;
        if unchanged == entry.value {
            new["metadata"]["managedFields"] = old["metadata"]["managedFields"].clone();
            value = unchanged;
        }
    }
    if value == entry.value || dry {
        object::stamp(&mut new, entry.revision);
        return Ok(Attempt::Done(new));
    }
    let (store, durability) = (&call.server.config.store, storage::durability(&call.row, &new, Some(old)));
    let result = if is_finished(call, &new) {
        store.delete(&entry.key, entry.revision, durability).await
    } else {
        store.put(&entry.key, value, Expect::At(entry.revision), durability).await
    };
    match result {
        Ok(revision) => {
            object::stamp(&mut new, revision);
            Ok(Attempt::Done(new))
        }
        Err(StoreError::Conflict { .. }) => Ok(Attempt::Lost),
        Err(error) => Err(storage::failed(error)),
    }
}

/// Whether nothing holds an object any more that is marked for deletion.
pub(super) fn is_finished(call: &Call, object: &Value) -> bool {
    let grace = object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    is_terminating(object) && grace == 0 && !has_finalizers(object) && !has_own_finalizers(call, object)
}

/// Namespaces have finalizers in `spec` as well.
pub(super) fn has_own_finalizers(call: &Call, object: &Value) -> bool {
    call.row.group.is_empty()
        && call.row.kind == "Namespace"
        && object["spec"]["finalizers"].as_array().is_some_and(|list| !list.is_empty())
}
