//! How requests reach an API server.

pub(crate) mod https;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::combinators::BoxBody;

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A response body; that of a watch has no end.
pub type Body = BoxBody<Bytes, BoxError>;

/// The request did not reach the server, or its answer did not come back.
#[derive(Debug, thiserror::Error)]
#[error("API server {server} is unreachable")]
pub struct TransportError {
    /// Its address, or `in process`.
    pub server: String,
    /// Why.
    #[source]
    pub source: BoxError,
}

/// Carries one request to an API server. The request's URI has path and query only.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Sends the request with this transport's identity and returns when the head of the answer is there.
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, TransportError>;
}

/// A way on which another user acts than the one whose way it is; that one must be allowed to impersonate the other.
pub struct Impersonating {
    way: Arc<dyn Transport>,
    user: HeaderValue,
}

impl Impersonating {
    /// Requests go `way` and are those of `user`.
    pub fn of(user: &'static str, way: Arc<dyn Transport>) -> Arc<dyn Transport> {
        Arc::new(Self { way, user: HeaderValue::from_static(user) })
    }
}

#[async_trait]
impl Transport for Impersonating {
    async fn send(&self, mut request: Request<Bytes>) -> Result<Response<Body>, TransportError> {
        request.headers_mut().insert("impersonate-user", self.user.clone());
        self.way.send(request).await
    }
}
