//! The objects that every cluster has: its first namespaces, made again whenever one is removed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use api::resources;
use api::status::ApiError;
use api::user::{MASTERS, UserInfo};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use store::Watched;
use task::Tasks;

use crate::server::{ApiServer, Caller};
use crate::storage;

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
const RETRY: Duration = Duration::from_secs(1);

impl ApiServer {
    /// Makes the objects that every cluster has, and keeps them there; returns once they exist.
    ///
    /// # Errors
    /// If the store refuses.
    pub async fn start(self: &Arc<Self>, tasks: &Tasks) -> Result<(), ApiError> {
        self.ensure_namespaces().await?;
        self.started.store(true, Ordering::Release);
        tasks.spawn("system-namespaces", Arc::clone(self).keep_namespaces());
        Ok(())
    }

    async fn ensure_namespaces(self: &Arc<Self>) -> Result<(), ApiError> {
        let row = resources::find("", "v1", "namespaces").ok_or_else(|| ApiError::internal("no namespaces"))?;
        for name in NAMESPACES {
            let key = storage::key(row, "", name);
            if self.config.store.get(&key).await.map_err(storage::failed)?.is_none() {
                self.create_namespace(name).await?;
            }
        }
        Ok(())
    }

    /// Creates a namespace as any client would.
    async fn create_namespace(self: &Arc<Self>, name: &str) -> Result<(), ApiError> {
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        let request = Request::post("/api/v1/namespaces")
            .body(Full::new(Bytes::from(namespace.to_string())))
            .map_err(ApiError::internal)?;
        let user = UserInfo::authenticated("system:apiserver", &[MASTERS]);
        let response = self.handle(Caller { user }, request).await;
        let code = response.status().as_u16();
        if matches!(code, 201 | 409) {
            return Ok(());
        }
        let body = response.into_body().collect().await.map_err(ApiError::internal)?.to_bytes();
        let status: Value = serde_json::from_slice(&body).unwrap_or_default();
        Err(ApiError::from_value(code, &status))
    }

    async fn keep_namespaces(self: Arc<Self>) {
        loop {
            if let Err(error) = self.watch_namespaces().await {
                tracing::warn!(%error, "the system namespaces could not be checked");
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Repairs after each removal; returns when the watch ends.
    async fn watch_namespaces(self: &Arc<Self>) -> Result<(), ApiError> {
        let row = resources::find("", "v1", "namespaces").ok_or_else(|| ApiError::internal("no namespaces"))?;
        let store = &self.config.store;
        let mut watch = store.watch(&storage::prefix(row, ""), store.revision()).await.map_err(storage::failed)?;
        loop {
            self.ensure_namespaces().await?;
            loop {
                match watch.next().await {
                    Some(Watched::Changed(change)) if change.after.is_none() => break,
                    Some(Watched::Changed(_)) => {}
                    Some(Watched::Overrun) | None => return Ok(()),
                }
            }
        }
    }
}
