//! What certificates are used by while others take their place: the way to the API server, and the kubelet's own server.

use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use bytes::Bytes;
use client::{Body, HttpsTransport, Transport, TransportError};
use http::{Request, Response};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// The way to the API server with the newest certificate. What is under way by an older one goes on.
pub(super) struct Rotating {
    current: RwLock<Arc<HttpsTransport>>,
}

impl Rotating {
    pub(super) fn new(first: HttpsTransport) -> Self {
        Self { current: RwLock::new(Arc::new(first)) }
    }

    /// From now on requests take this way.
    pub(super) fn replace(&self, next: HttpsTransport) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
    }

    fn current(&self) -> Arc<HttpsTransport> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Transport for Rotating {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, TransportError> {
        self.current().send(request).await
    }
}

/// The newest certificate of the kubelet as a server; before there is one, nobody can connect.
#[derive(Debug, Default)]
pub(super) struct Serving {
    current: RwLock<Option<Arc<CertifiedKey>>>,
}

impl Serving {
    /// From now on this one is shown.
    pub(super) fn replace(&self, next: CertifiedKey) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(next));
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
