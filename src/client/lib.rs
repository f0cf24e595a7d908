//! Typed access to the Kubernetes API over a [`Transport`]: HTTPS to any API server, or in process to our own.
//!
//! Used by everything that acts on objects (kubelet, scheduler, controllers): [`Client`] for single requests,
//! [`Informer`] for a live copy of a selection of objects, [`reconcile`] for working through what changed, and
//! [`events`] for telling users about it. It deliberately knows no kind: types come from `k8s-openapi`, or are narrower
//! structs of the caller that implement the same traits. Invariant: whoever uses it goes through the API server's whole
//! pipeline, also in process.

mod client;
mod error;
pub mod events;
mod informer;
mod kubeconfig;
mod object;
mod options;
mod partial;
pub mod reconcile;
pub mod scripted;
mod transport;
mod watch;

pub use client::Client;
pub use error::{ClientError, unless_overtaken};
pub use informer::{Dirty, Informer, Sink, Tracked, follow, follow_selected};
pub use kubeconfig::{Kubeconfig, KubeconfigError};
pub use object::{Key, Object, Scope};
pub use options::{DeleteOptions, ListOptions, Page, Patch};
pub use partial::{Owner, Partial, PartialMetadata};
pub use transport::https::{AuthorityError, Fingerprint, HttpsConfig, HttpsError, HttpsTransport, Identity, authority};
pub use transport::{Body, BoxError, Impersonating, Transport, TransportError};
pub use watch::{Watch, WatchEvent};
