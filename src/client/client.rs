//! Single requests.

use std::sync::Arc;

use api::status::ApiError;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::error::ClientError;
use crate::object::{Key, Object, Scope, collection_path, object_path};
use crate::options::{DeleteOptions, ListOptions, Page, Patch};
use crate::transport::{Body, Transport};
use crate::watch::{Watch, WatchStart};

const JSON: &str = "application/json";
const PARTIAL: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
const PARTIAL_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

/// Speaks to one API server with one identity; cheap to clone.
#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
    agent: Arc<str>,
    accept: &'static str,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("agent", &self.agent).finish_non_exhaustive()
    }
}

/// The parts of any `…List` that are read.
#[derive(Deserialize)]
#[serde(bound = "K: DeserializeOwned")]
struct ListBody<K> {
    #[serde(default)]
    metadata: ListMeta,
    items: Option<Vec<K>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ListMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    continue_token: String,
}

impl Client {
    /// A client that calls itself `agent` in its `User-Agent`, e.g. `coracle-kubelet/edge-1`. Back-off jitter derives
    /// from the name too, so nodes should not share one.
    pub fn new(transport: Arc<dyn Transport>, agent: &str) -> Self {
        Self { transport, agent: agent.into(), accept: JSON }
    }

    /// The same client, whose answers have nothing of objects but their metadata.
    pub fn partial(&self) -> Self {
        Self { accept: PARTIAL, ..self.clone() }
    }

    /// The client's name.
    pub fn agent(&self) -> &str {
        &self.agent
    }

    /// Reads an object.
    pub async fn get<K: Object>(&self, key: &Key) -> Result<K, ClientError> {
        self.call(Method::GET, &object_path::<K>(key), None).await
    }

    /// Reads an object that may be absent.
    pub async fn get_opt<K: Object>(&self, key: &Key) -> Result<Option<K>, ClientError> {
        match self.get(key).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads one page of a list: all of it unless [`ListOptions::limit`] is set.
    pub async fn list<K: Object>(&self, scope: &Scope, options: &ListOptions) -> Result<Page<K>, ClientError> {
        self.list_at(&collection_path::<K>(scope), options).await
    }

    /// Reads one page of the collection at a path.
    pub async fn list_at<K: DeserializeOwned>(
        &self,
        path: &str,
        options: &ListOptions,
    ) -> Result<Page<K>, ClientError> {
        let path = format!("{path}{}", options.query().as_str());
        let accept = if self.accept == PARTIAL { PARTIAL_LIST } else { self.accept };
        let list: ListBody<K> = Self { accept, ..self.clone() }.call(Method::GET, &path, None).await?;
        Ok(Page {
            items: list.items.unwrap_or_default(),
            revision: list.metadata.resource_version,
            continue_token: list.metadata.continue_token,
        })
    }

    /// Creates an object in the namespace that its metadata names.
    pub async fn create<K: Object>(&self, object: &K) -> Result<K, ClientError> {
        let namespace = object.metadata().namespace.clone().unwrap_or_default();
        let scope = if namespace.is_empty() { Scope::Cluster } else { Scope::Namespace(namespace) };
        let path = collection_path::<K>(&scope);
        let body = encode(&Method::POST, &path, object)?;
        self.call(Method::POST, &path, Some((JSON, body))).await
    }

    /// Replaces an object; a stale `resourceVersion` in its metadata is a conflict.
    pub async fn replace<K: Object>(&self, object: &K) -> Result<K, ClientError> {
        self.put(object, "").await
    }

    /// Replaces an object's status.
    pub async fn replace_status<K: Object>(&self, object: &K) -> Result<K, ClientError> {
        self.put(object, "/status").await
    }

    async fn put<K: Object>(&self, object: &K, subresource: &str) -> Result<K, ClientError> {
        let path = format!("{}{subresource}", object_path::<K>(&Key::of(object.metadata())));
        let body = encode(&Method::PUT, &path, object)?;
        self.call(Method::PUT, &path, Some((JSON, body))).await
    }

    /// Changes an object.
    pub async fn patch<K: Object>(&self, key: &Key, patch: &Patch) -> Result<K, ClientError> {
        self.patch_at(key, "", patch).await
    }

    /// Changes an object's status.
    pub async fn patch_status<K: Object>(&self, key: &Key, patch: &Patch) -> Result<K, ClientError> {
        self.patch_at(key, "/status", patch).await
    }

    async fn patch_at<K: Object>(&self, key: &Key, subresource: &str, patch: &Patch) -> Result<K, ClientError> {
        let path = format!("{}{subresource}", object_path::<K>(key));
        let (content_type, value) = patch.parts();
        let body = encode(&Method::PATCH, &path, value)?;
        self.call(Method::PATCH, &path, Some((content_type, body))).await
    }

    /// Deletes an object, or marks it for deletion if it has a grace period or finalizers.
    pub async fn delete<K: Object>(&self, key: &Key, options: &DeleteOptions) -> Result<(), ClientError> {
        self.delete_path(&object_path::<K>(key), options).await
    }

    /// Binds exactly the pod with this uid to a node, by its `binding` subresource.
    pub async fn bind(&self, pod: &Key, uid: &str, node: &str) -> Result<(), ClientError> {
        let path = format!("{}/binding", object_path::<Pod>(pod));
        let binding = json!({
            "kind": "Binding", "apiVersion": "v1",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": uid},
            "target": {"kind": "Node", "apiVersion": "v1", "name": node},
        });
        let body = encode(&Method::POST, &path, &binding)?;
        self.call::<Value>(Method::POST, &path, Some((JSON, body))).await.map(drop)
    }

    /// Watches from just after `revision`, which a list or an earlier watch gave.
    pub async fn watch<K: Object>(
        &self,
        scope: &Scope,
        options: &ListOptions,
        revision: &str,
    ) -> Result<Watch<K>, ClientError> {
        self.watch_at(&collection_path::<K>(scope), options, revision).await
    }

    /// Watches the collection at a path.
    pub(crate) async fn watch_at<K: DeserializeOwned>(
        &self,
        path: &str,
        options: &ListOptions,
        revision: &str,
    ) -> Result<Watch<K>, ClientError> {
        let start = WatchStart::new(&self.agent, path, revision);
        let path = start.path(options);
        let response = self.send(Method::GET, &path, None).await?;
        Ok(Watch::new(path, response.into_body(), start.silence()))
    }

    /// Any request that answers with JSON. The body, if any, is sent as JSON.
    pub async fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, ClientError> {
        let body = body.map(|value| encode(&method, path, value)).transpose()?;
        self.call(method, path, body.map(|bytes| (JSON, bytes))).await
    }

    /// Reads what is at a path.
    pub async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path, None).await
    }

    /// Changes the object at a path.
    pub async fn patch_path(&self, path: &str, patch: &Patch) -> Result<Value, ClientError> {
        let (content_type, value) = patch.parts();
        let body = encode(&Method::PATCH, path, value)?;
        self.call(Method::PATCH, path, Some((content_type, body))).await
    }

    /// Deletes the object at a path.
    pub async fn delete_path(&self, path: &str, options: &DeleteOptions) -> Result<(), ClientError> {
        let body = encode(&Method::DELETE, path, &options.body())?;
        self.call::<Value>(Method::DELETE, path, Some((JSON, body))).await.map(drop)
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Bytes)>,
    ) -> Result<T, ClientError> {
        let request = describe(&method, path);
        let response = self.send(method, path, body).await?;
        let bytes = collect(&request, response.into_body()).await?;
        serde_json::from_slice(&bytes).map_err(|source| ClientError::Decode { request, source })
    }

    /// Sends a request and turns an answer outside 2xx into an error.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Bytes)>,
    ) -> Result<Response<Body>, ClientError> {
        let description = describe(&method, path);
        let mut request =
            Request::builder().method(method).uri(path).header(ACCEPT, self.accept).header(USER_AGENT, &*self.agent);
        let mut bytes = Bytes::new();
        if let Some((content_type, content)) = body {
            request = request.header(CONTENT_TYPE, content_type);
            bytes = content;
        }
        let request =
            request.body(bytes).map_err(|source| ClientError::Request { request: description.clone(), source })?;
        let response = self.transport.send(request).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let bytes = collect(&description, response.into_body()).await?;
        Err(api_error(status, &bytes).into())
    }
}

/// The error that a refusal carries; a proxy in between may answer with something that is no Status.
fn api_error(status: http::StatusCode, body: &[u8]) -> ApiError {
    match serde_json::from_slice::<Value>(body) {
        Ok(value) if value["kind"] == "Status" => ApiError::from_value(status.as_u16(), &value),
        _ => {
            let text = String::from_utf8_lossy(body);
            let message = if text.trim().is_empty() { status.to_string() } else { text.trim().to_owned() };
            ApiError::new(status.as_u16(), status.canonical_reason().unwrap_or_default(), message)
        }
    }
}

async fn collect(request: &str, body: Body) -> Result<Bytes, ClientError> {
    match body.collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(source) => Err(ClientError::Body { request: request.to_owned(), source }),
    }
}

fn describe(method: &Method, path: &str) -> String {
    format!("{method} {path}")
}

fn encode<T: serde::Serialize + ?Sized>(method: &Method, path: &str, value: &T) -> Result<Bytes, ClientError> {
    match serde_json::to_vec(value) {
        Ok(bytes) => Ok(bytes.into()),
        Err(source) => Err(ClientError::Encode { request: describe(method, path), source }),
    }
}
