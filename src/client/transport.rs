//! How requests reach an API server.

pub(crate) mod https;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
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
