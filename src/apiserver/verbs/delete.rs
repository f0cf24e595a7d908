//! `DELETE` of an object or of a collection.
//!
//! ```text
//!                     ┌─ grace > 0 ──► marked: deletionTimestamp, deletionGracePeriodSeconds ─┐ shorter grace,
//! live ── DELETE ──┤                                                                       │ or grace 0
//!                     ├─ finalizers ─► marked, grace 0 ── last finalizer removed ───────────┤
//!                     └─ otherwise ─────────────────────────────────────────────────────────┴► gone
//! ```
//! Follows `BeforeDelete` of `k8s.io/apiserver/pkg/registry/rest/delete.go` and `Store.Delete` of `…/generic/registry`.
//! What becomes of dependents is written down here as a finalizer; the garbage collector acts on it.

mod options;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::resources::{Dependents, Resource, custom};
use api::status::ApiError;
use bytes::Bytes;
use http::HeaderMap;
use jiff::Timestamp;
use serde_json::{Value, json};
use store::{Entry, Expect, StoreError};

use super::write::has_own_finalizers;
use super::{ATTEMPTS, list};
use crate::call::{Call, Outcome};
use crate::negotiate::Form;
use crate::object::{self, has_finalizers, is_terminating, meta, metadata_mut};
use crate::query::Query;
use crate::request::ResourceRequest;
use crate::server::ApiServer;
use crate::{admission, startup, storage};
pub(super) use options::Options;
use options::settle_finalizers;

pub(super) async fn delete(call: &Call, bytes: &Bytes) -> Result<Outcome, ApiError> {
    let options = Options::read(bytes, &call.headers, &call.query)?;
    admission::delete(call, call.name())?;
    let outcome = delete_one(call, call.name(), call.namespace(), &options).await?;
    Ok(Outcome { warnings: warnings(call, &options), ..outcome })
}

pub(super) async fn delete_collection(call: &Call, bytes: &Bytes) -> Result<Outcome, ApiError> {
    let options = Options::read(bytes, &call.headers, &call.query)?;
    let (objects, revision) = list::matching(call).await?;
    for object in &objects {
        let (name, namespace) = (meta(object, "name"), meta(object, "namespace"));
        admission::delete(call, name)?;
        match delete_one(call, name, namespace, &options).await {
            Err(error) if error.code != 404 => return Err(error),
            _ => {}
        }
    }
    let row = &call.row;
    let list = json!({
        "kind": row.list_kind, "apiVersion": row.api_version(),
        "metadata": { "resourceVersion": revision.to_string() }, "items": objects,
    });
    // A list is no object of the kind: it is answered as it is, whatever form was asked for.
    Ok(Outcome { code: 200, object: list, warnings: warnings(call, &options) })
}

/// Deletes an object for the server itself, of a row that need not be served.
pub(crate) async fn remove(
    server: &Arc<ApiServer>,
    row: &Resource,
    namespace: &str,
    name: &str,
) -> Result<(), ApiError> {
    let request = ResourceRequest {
        verb: "delete".to_owned(),
        group: row.group.to_owned(),
        version: row.version.to_owned(),
        namespace: namespace.to_owned(),
        resource: row.plural.to_owned(),
        name: name.to_owned(),
        named_by_path: true,
        ..ResourceRequest::default()
    };
    let call = Call {
        server: Arc::clone(server),
        user: startup::own_user(),
        request,
        query: Query::parse(""),
        headers: HeaderMap::new(),
        row: row.clone(),
        form: Form::Plain,
        upgrade: None,
        warnings: Mutex::default(),
    };
    delete_one(&call, name, namespace, &Options::default()).await.map(drop)
}

/// What is left alone because nobody asked, where people may expect something else.
fn warnings(call: &Call, options: &Options) -> Vec<String> {
    match call.row.dependents {
        Dependents::Orphaned { warning } if options.propagation.is_none() && !warning.is_empty() => {
            vec![warning.to_owned()]
        }
        _ => Vec::new(),
    }
}

/// What is to be done with one object.
enum Step {
    /// Nothing: it is on its way already.
    Wait,
    /// Store this marked state.
    Mark(Value),
    /// Remove it; the state is what the client gets to see.
    Remove(Value),
}

/// Deletes an object of the call's kind, whatever the path of the call names.
pub(super) async fn delete_one(
    call: &Call,
    name: &str,
    namespace: &str,
    options: &Options,
) -> Result<Outcome, ApiError> {
    for _ in 0..ATTEMPTS {
        let (old, entry) = call.server.read(&call.row, namespace, name).await?;
        check(call, &old, options)?;
        // Who evicts was asked about that.
        if call.request.subresource.is_empty() {
            admission::end(call, &old, options.dry).await?;
        }
        let step = step(call, &old, options);
        if let Some(outcome) = act(call, step, old, &entry, options).await? {
            return Ok(outcome);
        }
    }
    Err(call.modified(name))
}

/// Carries out a step; none if somebody else was faster.
async fn act(
    call: &Call,
    step: Step,
    old: Value,
    entry: &Entry,
    options: &Options,
) -> Result<Option<Outcome>, ApiError> {
    let store = &call.server.config.store;
    let durability = storage::durability(&call.row, &old, None);
    // Of a kind that goes at once, the client hears by the code that it does not.
    let code = if options.tells_accepted { 202 } else { 200 };
    let (result, mut object, removed) = match step {
        Step::Wait => return Ok(Some(Outcome { code, ..Outcome::ok(old) })),
        Step::Mark(object) if options.dry => (Ok(entry.revision), object, false),
        Step::Remove(object) if options.dry => (Ok(entry.revision), object, true),
        Step::Mark(marked) => {
            let value = object::encode(&call.server.to_stored(&call.row, &marked).await?)?;
            (store.put(&entry.key, value, Expect::At(entry.revision), durability).await, marked, false)
        }
        Step::Remove(last) => (store.delete(&entry.key, entry.revision, durability).await, last, true),
    };
    match result {
        Ok(revision) => {
            object::stamp(&mut object, revision);
            let answer = if removed && !call.row.returns_deleted { success(call, &object) } else { object };
            Ok(Some(Outcome { code: if removed { 200 } else { code }, ..Outcome::ok(answer) }))
        }
        Err(StoreError::Conflict { .. }) => Ok(None),
        Err(error) => Err(storage::failed(error)),
    }
}

/// Checks the preconditions.
pub(super) fn check(call: &Call, old: &Value, options: &Options) -> Result<(), ApiError> {
    let name = meta(old, "name");
    if let Some(wanted) = options.uid.as_deref().filter(|wanted| *wanted != meta(old, "uid")) {
        let current = meta(old, "uid");
        let text = format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {current}");
        return Err(call.conflict(name, &text));
    }
    if let Some(wanted) = options.version.as_deref().filter(|wanted| *wanted != meta(old, "resourceVersion")) {
        let current = meta(old, "resourceVersion");
        let text = format!(
            "Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: {current}"
        );
        return Err(call.conflict(name, &text));
    }
    Ok(())
}

fn step(call: &Call, old: &Value, options: &Options) -> Step {
    let (terminating, own) = (is_terminating(old), has_own_finalizers(call, old));
    let pending = old["metadata"]["deletionGracePeriodSeconds"].as_u64().unwrap_or(0);
    // A repetition may only shorten, and says so itself; a namespace is its controller's.
    if terminating && (own || (pending > 0 && options.grace.is_none_or(|asked| asked >= pending))) {
        return Step::Wait;
    }
    let mut new = old.clone();
    settle_finalizers(&mut new, options.propagation, call.row.dependents);
    if !terminating && is_definition(&call.row) {
        custom::status::terminate(&mut new, &moment(call.now(), 0));
    }
    let held = has_finalizers(&new) || own;
    let grace = if call.row.graceful_deletion { grace_of_pod(old, options) } else { 0 };
    if terminating && pending > 0 {
        new = shortened(&new, pending, grace);
    } else if !terminating && (held || call.row.graceful_deletion) {
        new = marked(call, &new, grace);
    }
    let waits = new["metadata"]["deletionGracePeriodSeconds"].as_u64().unwrap_or(0) > 0;
    match (held || waits, new == *old) {
        (true, true) => Step::Wait,
        (true, false) => Step::Mark(new),
        (false, _) => Step::Remove(new),
    }
}

/// Whether objects of a kind bring kinds, whose objects go first.
fn is_definition(row: &Resource) -> bool {
    row.group == "apiextensions.k8s.io" && row.kind == "CustomResourceDefinition"
}

/// How long a pod gets: what the client or the pod says, nothing if no node has it or it has ended.
fn grace_of_pod(pod: &Value, options: &Options) -> u64 {
    let unscheduled = pod["spec"]["nodeName"].as_str().is_none_or(str::is_empty);
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if unscheduled || ended {
        return 0;
    }
    let own = match pod["spec"]["terminationGracePeriodSeconds"].as_i64() {
        Some(seconds) => u64::try_from(seconds).unwrap_or(1),
        None => 30,
    };
    options.grace.unwrap_or(own)
}

/// The object with its deletion asked for.
fn marked(call: &Call, old: &Value, grace: u64) -> Value {
    let mut new = old.clone();
    let metadata = metadata_mut(&mut new);
    metadata.insert("deletionTimestamp".to_owned(), moment(call.now(), grace).into());
    metadata.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
    if let Some(generation) = metadata.get("generation").and_then(Value::as_u64) {
        metadata.insert("generation".to_owned(), (generation + 1).into());
    }
    if call.row.group.is_empty() && call.row.kind == "Namespace" {
        metadata.remove("deletionGracePeriodSeconds");
        new["status"]["phase"] = json!("Terminating");
    }
    new
}

/// A marked object that gets less time, counted from when it was marked.
fn shortened(old: &Value, pending: u64, grace: u64) -> Value {
    let mut new = old.clone();
    let deadline: Option<Timestamp> = meta(old, "deletionTimestamp").parse().ok();
    let metadata = metadata_mut(&mut new);
    if let Some(deadline) = deadline {
        let marked_at = deadline - Duration::from_secs(pending);
        metadata.insert("deletionTimestamp".to_owned(), moment(marked_at, grace).into());
    }
    metadata.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
    new
}

fn moment(from: Timestamp, seconds: u64) -> String {
    let end = from.checked_add(Duration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
    end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn success(call: &Call, object: &Value) -> Value {
    let mut details = json!({ "name": meta(object, "name"), "kind": call.row.plural, "uid": meta(object, "uid") });
    if !call.row.group.is_empty() {
        details["group"] = json!(call.row.group);
    }
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details })
}
