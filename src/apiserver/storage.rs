//! Keys of objects, and errors of the store in the words of the API.

use api::resources::Resource;
use api::status::{ApiError, Cause};
use bytes::Bytes;
use serde_json::Value;
use store::{Durability, Entry, Key, StoreError};

use crate::object;
use crate::server::ApiServer;

/// Where an object is stored.
pub(crate) fn key(row: &Resource, namespace: &str, name: &str) -> Key {
    let (row, namespace) = (row.stored(), if row.namespaced { namespace } else { "" });
    Key(format!("{}/{}/{namespace}/{name}", row.group, row.plural))
}

/// Where the objects of a kind are stored, in one namespace or (if it is empty) in all.
pub(crate) fn prefix(row: &Resource, namespace: &str) -> String {
    let row = row.stored();
    if row.namespaced && !namespace.is_empty() {
        format!("{}/{}/{namespace}/", row.group, row.plural)
    } else {
        format!("{}/{}/", row.group, row.plural)
    }
}

/// The stored form of an object of a row that no webhook converts.
pub(crate) fn encode(row: &Resource, object: &Value) -> Result<Bytes, ApiError> {
    object::encode(&row.to_stored(object))
}

/// The object of an entry, as one of a row that no webhook converts; [`ApiServer::load`] is for all.
pub(crate) fn load(row: &Resource, entry: &Entry) -> Result<Value, ApiError> {
    Ok(row.of_stored(object::of_entry(entry)?))
}

/// How durable a write is.
pub(crate) fn durability(row: &Resource, new: &Value, old: Option<&Value>) -> Durability {
    if row.written_behind(new, old) { Durability::WriteBehind } else { Durability::Durable }
}

/// An error of the store that no verb treats in its own way.
pub(crate) fn failed(error: StoreError) -> ApiError {
    match error {
        StoreError::Compacted { .. } => ApiError::expired("The resourceVersion for the provided list is too old."),
        StoreError::Future { asked, newest } => too_new(asked.0, newest.0),
        StoreError::Exists { .. } | StoreError::Conflict { .. } => ApiError::internal("unexpected conflict in storage"),
        error @ StoreError::Database { .. } => {
            tracing::error!(error = &error as &dyn std::error::Error, "the store failed");
            ApiError::internal(error)
        }
    }
}

/// 504 for a resourceVersion that has not been reached; clients know it by its cause.
pub(crate) fn too_new(asked: u64, newest: u64) -> ApiError {
    let text = format!("Too large resource version: {asked}, current: {newest}");
    let mut error = ApiError::timeout(text, 1);
    if let Some(details) = &mut error.details {
        let message = "Too large resource version".to_owned();
        details.causes = vec![Cause { reason: "ResourceVersionTooLarge".to_owned(), message, field: String::new() }];
    }
    error
}

impl ApiServer {
    /// An object with its entry, or 404.
    pub(crate) async fn read(&self, row: &Resource, namespace: &str, name: &str) -> Result<(Value, Entry), ApiError> {
        let entry = self.config.store.get(&key(row, namespace, name)).await.map_err(failed)?;
        let entry = entry.ok_or_else(|| ApiError::not_found(row.group, row.plural, name))?;
        Ok((self.load(row, &entry).await?, entry))
    }
}
