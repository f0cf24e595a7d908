//! The two bridges between parts that run in one process: components to the API server, the API server to the kubelet.
//!
//! Requests take the same pipeline as those from outside; what is saved is the connection.

use std::sync::{Arc, OnceLock};

use api::user::UserInfo;
use apiserver::{ApiServer, Caller, Kubelets, NodeConnector, NodeError};
use async_trait::async_trait;
use bytes::Bytes;
use client::{Transport, TransportError};
use http::{Request, Response};
use http_body_util::Full;
use kubelet::Kubelet;

/// A component's way to the API server of the same process, with the component's identity.
pub(super) struct ToApiServer {
    server: Arc<ApiServer>,
    user: UserInfo,
}

impl ToApiServer {
    /// The way of a component that acts as `user`.
    pub(super) fn connect(server: &Arc<ApiServer>, user: UserInfo) -> Arc<dyn Transport> {
        Arc::new(Self { server: server.clone(), user })
    }
}

#[async_trait]
impl Transport for ToApiServer {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<client::Body>, TransportError> {
        let caller = Caller { user: self.user.clone() };
        Ok(self.server.handle(caller, request.map(Full::new)).await)
    }
}

/// The API server's way to kubelets: to that of the same process, which starts later, without a network.
pub(super) struct ToKubelets {
    own: OnceLock<(String, Arc<Kubelet>)>,
    others: Kubelets,
}

impl ToKubelets {
    /// A way that is over the network yet for all.
    pub(super) fn new(others: Kubelets) -> Self {
        Self { own: OnceLock::new(), others }
    }

    /// From now on requests for `node` reach this kubelet.
    pub(super) fn connect(&self, node: &str, kubelet: Arc<Kubelet>) {
        // A second kubelet in one process does not exist: the composition calls this once.
        let _ = self.own.set((node.to_owned(), kubelet));
    }
}

#[async_trait]
impl NodeConnector for ToKubelets {
    async fn send(&self, node: &str, request: Request<Bytes>) -> Result<Response<apiserver::Body>, NodeError> {
        match self.own.get() {
            Some((name, kubelet)) if name == node => Ok(kubelet.handle(request).await),
            _ => self.others.send(node, request).await,
        }
    }
}
