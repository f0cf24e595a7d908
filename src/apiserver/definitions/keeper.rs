//! Gives definitions their names, and removes the objects of those that are deleted.
//!
//! The task looks at all definitions after each change of one and writes, as any client would, what
//! [`api::resources::custom::status`] decides. Whoever was faster is right: a conflict only means to look again.

use std::sync::Arc;
use std::time::Duration;

use api::resources::Resource;
use api::resources::custom::status;
use api::status::ApiError;
use http::Method;
use serde_json::{Value, json};
use store::{Range, Watched};

use super::{Definition, Snapshot, row};
use crate::object::{self, meta};
use crate::server::ApiServer;
use crate::storage;

/// How long to wait after an error, and how often to look whether finalizers have let objects go.
const RETRY: Duration = Duration::from_secs(1);
/// Objects are removed in portions.
const PORTION: usize = 500;

/// Whether anything is left to do without another change of a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Done,
    Waiting,
}

/// Keeps definitions in order for as long as the server runs.
pub(crate) async fn keep(server: Arc<ApiServer>) {
    loop {
        if let Err(error) = follow(&server).await {
            tracing::warn!(%error, "custom resource definitions could not be kept in order");
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn follow(server: &Arc<ApiServer>) -> Result<(), ApiError> {
    let store = &server.config.store;
    let prefix = storage::prefix(row()?, "");
    let mut watch = store.watch(&prefix, store.revision()).await.map_err(storage::failed)?;
    loop {
        let progress = settle(server).await?;
        let next = if progress == Progress::Waiting {
            match tokio::time::timeout(RETRY, watch.next()).await {
                Ok(next) => next,
                Err(_) => continue,
            }
        } else {
            watch.next().await
        };
        if let Some(Watched::Overrun) | None = next {
            return Ok(());
        }
    }
}

/// Does what is to be done now.
async fn settle(server: &Arc<ApiServer>) -> Result<Progress, ApiError> {
    let mut progress = Progress::Done;
    let names: Vec<String> = server.kinds().await?.definitions.keys().cloned().collect();
    for name in names {
        // The names that one gets are taken for the next.
        let snapshot = server.kinds().await?;
        let Some(definition) = snapshot.definitions.get(&name) else { continue };
        if status::is_terminating(&definition.brief) {
            if empty(server, definition).await? == Progress::Waiting {
                progress = Progress::Waiting;
            }
        } else if let Some(next) = next_status(server, &snapshot, &name, definition) {
            write_status(server, &name, definition, &next).await?;
        }
    }
    Ok(progress)
}

fn now(server: &ApiServer) -> String {
    server.config.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn next_status(server: &ApiServer, snapshot: &Snapshot, name: &str, definition: &Definition) -> Option<Value> {
    let now = now(server);
    if let Err(error) = &definition.rows {
        return status::refused(&definition.brief, &error.to_string(), &now);
    }
    let others = snapshot.definitions.iter().filter(|(other, _)| *other != name);
    let others = others.map(|(_, other)| other).filter(|other| other.group() == definition.group());
    status::next(&definition.brief, others.map(|other| &other.brief), &now)
}

async fn write_status(
    server: &Arc<ApiServer>,
    name: &str,
    definition: &Definition,
    status: &Value,
) -> Result<(), ApiError> {
    let row = row()?;
    let path = format!("/apis/{}/{}/{name}/status", row.api_version(), row.plural);
    let mut status = status.clone();
    for field in ["plural", "singular", "kind", "listKind", "shortNames", "categories"] {
        // In a merge patch only a null takes something away.
        if status["acceptedNames"][field].is_null() {
            status["acceptedNames"][field] = Value::Null;
        }
    }
    let patch = json!({ "metadata": { "uid": meta(&definition.brief, "uid") }, "status": status });
    accept(server.send(Method::PATCH, &path, &patch).await)
}

/// Whoever was faster, or removed it, may be right.
fn accept(result: Result<(), ApiError>) -> Result<(), ApiError> {
    match result {
        Err(error) if matches!(error.code, 404 | 409) => Ok(()),
        other => other,
    }
}

/// Removes the objects of a definition that goes, and then what keeps the definition.
async fn empty(server: &Arc<ApiServer>, definition: &Definition) -> Result<Progress, ApiError> {
    let finalizers = definition.brief["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    if !finalizers.iter().any(|name| name == status::FINALIZER) {
        return Ok(Progress::Done);
    }
    let served = definition.rows.as_ref().ok().into_iter().flatten();
    // In the form in which they are stored, nobody has to convert them: a webhook that is gone keeps nothing.
    let is_stored = |row: &Resource| row.custom.as_ref().is_some_and(|custom| custom.is_stored_version());
    if let Some(row) = served.max_by_key(|row| is_stored(row))
        && remove_objects(server, row).await? == Progress::Waiting
    {
        return Ok(Progress::Waiting);
    }
    let crds = self::row()?;
    let name = meta(&definition.brief, "name");
    let rest: Vec<Value> = finalizers.into_iter().filter(|name| name != status::FINALIZER).collect();
    let patch = json!({ "metadata": { "uid": meta(&definition.brief, "uid"), "finalizers": rest } });
    let path = format!("/apis/{}/{}/{name}", crds.api_version(), crds.plural);
    accept(server.send(Method::PATCH, &path, &patch).await)?;
    Ok(Progress::Done)
}

async fn remove_objects(server: &Arc<ApiServer>, row: &Resource) -> Result<Progress, ApiError> {
    let mut range = Range { prefix: storage::prefix(row, ""), after: None, limit: Some(PORTION), at: None };
    let mut progress = Progress::Done;
    loop {
        let page = server.config.store.list(range.clone()).await.map_err(storage::failed)?;
        for entry in &page.entries {
            let object = object::of_entry(entry)?;
            if object::is_terminating(&object) {
                progress = Progress::Waiting;
                continue;
            }
            let path = path(row, meta(&object, "namespace"), meta(&object, "name"));
            accept(server.send(Method::DELETE, &path, &Value::Null).await)?;
            let key = storage::key(row, meta(&object, "namespace"), meta(&object, "name"));
            if server.config.store.get(&key).await.map_err(storage::failed)?.is_some() {
                progress = Progress::Waiting;
            }
        }
        let Some(last) = page.entries.last().filter(|_| page.remaining > 0) else { return Ok(progress) };
        range.after = Some(last.key.clone());
    }
}

fn path(row: &Resource, namespace: &str, name: &str) -> String {
    let root = format!("/apis/{}", row.api_version());
    if row.namespaced {
        format!("{root}/namespaces/{namespace}/{}/{name}", row.plural)
    } else {
        format!("{root}/{}/{name}", row.plural)
    }
}
