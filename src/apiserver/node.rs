//! The seam to nodes: how a request reaches a kubelet.

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};

use crate::{Body, BoxError};

/// A node's kubelet did not answer.
#[derive(Debug, thiserror::Error)]
#[error("the kubelet of node {node} is unreachable")]
pub struct NodeError {
    /// The node's name.
    pub node: String,
    /// Why.
    #[source]
    pub source: BoxError,
}

/// Carries one request to a node's kubelet API, as it is served on port 10250; the URI has path and query only, e.g.
/// `/containerLogs/default/web/server?follow=true`.
#[async_trait]
pub trait NodeConnector: Send + Sync + 'static {
    /// Sends the request with the API server's identity and returns when the head of the answer is there. A request that
    /// asks for another protocol has the client's connection among its extensions, as [`hyper::upgrade::OnUpgrade`]; who
    /// answers it by 101 speaks that protocol with the client.
    async fn send(&self, node: &str, request: Request<Bytes>) -> Result<Response<Body>, NodeError>;
}
