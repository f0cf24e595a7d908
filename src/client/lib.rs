//! Typed access to the Kubernetes API over a [`Transport`]: HTTPS to any API server, or in process to our own.
//!
//! Used by everything that acts on objects (kubelet, scheduler, controllers). It deliberately knows no kind: types come
//! from `k8s-openapi`. Invariant: whoever uses it goes through the API server's whole pipeline, also in process.

mod transport;

pub use transport::{Body, BoxError, Transport, TransportError};
