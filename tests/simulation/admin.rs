//! The user of the cluster, whose requests are never lost.

use std::sync::Arc;

use api::user::{MASTERS, UserInfo};
use apiserver::Caller;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::Value;

use crate::wire::Door;

/// Speaks to the API server directly.
#[derive(Clone)]
pub(crate) struct Admin(pub(crate) Arc<Door>);

impl Admin {
    /// The answer's code and body; waits for the server to run.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        self.send(method, path, body, "application/json").await
    }

    /// The answer to a strategic merge patch.
    pub(crate) async fn patch(&self, path: &str, patch: &Value) -> (u16, Value) {
        self.send("PATCH", path, Some(patch), "application/strategic-merge-patch+json").await
    }

    async fn send(&self, method: &str, path: &str, body: Option<&Value>, kind: &str) -> (u16, Value) {
        let mut door = self.0.subscribe();
        let server = door.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let request = Request::builder().method(method).uri(path).header("content-type", kind);
        let caller = Caller { user: UserInfo::authenticated("admin", &[MASTERS]) };
        let response = server.handle(caller, request.body(Full::new(bytes)).unwrap()).await;
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&body).unwrap_or_default())
    }

    /// All objects of a collection.
    pub(crate) async fn list(&self, path: &str) -> Vec<Value> {
        let (code, list) = self.ask("GET", path, None).await;
        assert_eq!(code, 200, "{path}: {list}");
        list["items"].as_array().cloned().unwrap_or_default()
    }
}
