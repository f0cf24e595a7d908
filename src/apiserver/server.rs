//! The server's value and its one entrance.

use std::sync::Arc;

use api::status::ApiError;
use api::user::UserInfo;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use store::Store;
use task::{SharedClock, Tasks};
use tokio::net::TcpListener;

use crate::authn::StaticTokens;
use crate::{Entropy, NodeConnector, VersionInfo};

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A response body; that of a watch has no end.
pub type Body = BoxBody<Bytes, BoxError>;

/// What the server is made of.
pub struct Config {
    /// Keeps the objects.
    pub store: Arc<dyn Store>,
    /// For time stamps and ages.
    pub clock: SharedClock,
    /// For UIDs and generated names.
    pub entropy: Entropy,
    /// What `/version` says.
    pub version: VersionInfo,
    /// Reaches kubelets, for logs.
    pub nodes: Arc<dyn NodeConnector>,
    /// Bearer tokens from a file; usually none.
    pub tokens: StaticTokens,
}

/// Who makes a request, after authentication.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The user.
    pub user: UserInfo,
}

/// The API server; share it by `Arc`.
pub struct ApiServer {
    pub(crate) config: Config,
}

impl ApiServer {
    /// A server over a store; it listens nowhere until [`ApiServer::serve`].
    pub fn new(config: Config) -> Arc<Self> {
        Arc::new(Self { config })
    }

    /// Makes the objects that every cluster has, and keeps them there; returns once they exist.
    ///
    /// # Errors
    /// If the store refuses.
    pub async fn start(self: &Arc<Self>, tasks: &Tasks) -> Result<(), ApiError> {
        let _ = (tasks, &self.config);
        Err(ApiError::unavailable("start-up objects are not made yet"))
    }

    /// Answers one request of an authenticated caller.
    pub async fn handle<B>(self: &Arc<Self>, caller: Caller, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if request.uri().path().starts_with("/api") {
            return crate::respond::error(&ApiError::forbidden("", "", "", &caller.user.username));
        }
        crate::respond::no_such_path()
    }

    /// Accepts connections until the tasks are told to end; then lets requests in flight finish for a moment.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, tls: Arc<rustls::ServerConfig>, tasks: Tasks) {
        let _ = (listener, tls);
        tasks.stopping().await;
    }
}
