//! Gives definitions their names, and removes the objects of those that are deleted.
//!
//! The task looks at all definitions after each change of one and writes, as any client would, what
//! [`api::resources::custom::status`] decides. Whoever was faster is right: a conflict only means to look again.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use api::resources::custom::{self, status};
use api::status::ApiError;
use http::Method;
use serde_json::{Value, json};
use store::{Range, Watched};

use super::{Definition, Snapshot, row};
use crate::object::{self, meta};
use crate::server::ApiServer;
use crate::{storage, verbs};

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

/// Does what is to be done now. A definition with which that fails keeps no other from its names.
async fn settle(server: &Arc<ApiServer>) -> Result<Progress, ApiError> {
    let (mut progress, mut first) = (Progress::Done, None);
    let names: Vec<String> = server.kinds().await?.definitions.keys().cloned().collect();
    for name in names {
        // The names that one gets are taken for the next.
        let snapshot = server.kinds().await?;
        let Some(definition) = snapshot.definitions.get(&name) else { continue };
        match settle_one(server, &snapshot, &name, definition).await {
            Ok(Progress::Done) => {}
            Ok(Progress::Waiting) => progress = Progress::Waiting,
            Err(error) => drop(first.get_or_insert(error)),
        }
    }
    first.map_or(Ok(progress), Err)
}

async fn settle_one(
    server: &Arc<ApiServer>,
    snapshot: &Snapshot,
    name: &str,
    definition: &Definition,
) -> Result<Progress, ApiError> {
    if status::is_terminating(&definition.brief) {
        return empty(server, definition).await;
    }
    if let Some(next) = next_status(&now(server), snapshot, name, definition) {
        write_status(server, name, definition, &next).await?;
    }
    Ok(Progress::Done)
}

fn now(server: &ApiServer) -> String {
    server.config.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn next_status(now: &str, snapshot: &Snapshot, name: &str, definition: &Definition) -> Option<Value> {
    if let Err(error) = &definition.rows {
        return status::refused(&definition.brief, &error.to_string(), now);
    }
    let others = snapshot.definitions.iter().filter(|(other, _)| *other != name);
    let others = others.map(|(_, other)| other).filter(|other| other.group() == definition.group());
    status::next(&definition.brief, others.map(|other| &other.brief), now)
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
    let crds = self::row()?;
    let name = meta(&definition.brief, "name");
    // With its schemas, which the snapshot has of served versions only.
    let whole = match server.read(crds, "", name).await {
        Ok((whole, _)) => whole,
        Err(error) if error.code == 404 => return Ok(Progress::Done),
        Err(error) => return Err(error),
    };
    // One that never was established has no objects.
    if status::is_established(&whole) && remove_objects(server, &whole).await? == Progress::Waiting {
        return Ok(Progress::Waiting);
    }
    let rest: Vec<Value> = finalizers.into_iter().filter(|name| name != status::FINALIZER).collect();
    let patch = json!({ "metadata": { "uid": meta(&definition.brief, "uid"), "finalizers": rest } });
    let path = format!("/apis/{}/{}/{name}", crds.api_version(), crds.plural);
    accept(server.send(Method::PATCH, &path, &patch).await)?;
    Ok(Progress::Done)
}

/// Removes all objects of a definition, whether or not anybody can still ask for them. Each is taken in the version in
/// which it is stored, so that nobody has to convert it: a webhook that is gone keeps nothing.
async fn remove_objects(server: &Arc<ApiServer>, definition: &Value) -> Result<Progress, ApiError> {
    let row = |version: &str| custom::row_as_stored(definition, version).map_err(ApiError::internal);
    let Some(any) = row("")? else { return Ok(Progress::Done) };
    let mut rows = BTreeMap::new();
    let mut range = Range { prefix: storage::prefix(&any, ""), after: None, limit: Some(PORTION), at: None };
    let mut progress = Progress::Done;
    loop {
        let page = server.config.store.list(range.clone()).await.map_err(storage::failed)?;
        for entry in &page.entries {
            let object = object::of_entry(entry)?;
            if object::is_terminating(&object) {
                progress = Progress::Waiting;
                continue;
            }
            let version = object["apiVersion"].as_str().and_then(|version| version.rsplit('/').next());
            let row = match rows.entry(version.unwrap_or_default().to_owned()) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(free) => {
                    let row = row(free.key())?.unwrap_or_else(|| any.clone());
                    free.insert(row)
                }
            };
            accept(verbs::remove(server, row, meta(&object, "namespace"), meta(&object, "name")).await)?;
            let key = storage::key(row, meta(&object, "namespace"), meta(&object, "name"));
            if server.config.store.get(&key).await.map_err(storage::failed)?.is_some() {
                progress = Progress::Waiting;
            }
        }
        let Some(last) = page.entries.last().filter(|_| page.remaining > 0) else { return Ok(progress) };
        range.after = Some(last.key.clone());
    }
}

#[cfg(test)]
mod tests {
    use api::resources::Resource;
    use api::resources::custom::TooManyNames;

    use super::*;

    /// What the status of a definition becomes in so many rounds at most.
    fn settled(mut object: Value, rows: fn(&Value) -> Result<Vec<Arc<Resource>>, TooManyNames>) -> Value {
        for _ in 0..4 {
            let definition = Definition::of(&object, rows);
            let Some(next) = next_status("2026-01-02T03:04:05Z", &Snapshot::default(), "a", &definition) else {
                return object["status"].take();
            };
            object["status"] = next;
        }
        panic!("no end: {object}");
    }

    #[test]
    fn a_kind_that_cannot_be_served_says_so_until_it_can_be() {
        let names = json!({ "plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList" });
        let object = json!({ "spec": { "group": "example.com", "scope": "Cluster", "names": names } });
        let refused = settled(object.clone(), |_| Err(TooManyNames));
        assert!(
            !status::is_established(&json!({ "status": refused })) && status::is_refused(&json!({ "status": refused }))
        );
        let mut object = object;
        object["status"] = refused;
        let served = settled(object, |_| Ok(Vec::new()));
        assert!(status::is_established(&json!({ "status": served })), "{served}");
    }
}
