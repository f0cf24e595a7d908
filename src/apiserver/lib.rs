//! The API server: HTTP in front of the object store.
//!
//! The composition root makes one [`ApiServer`], serves it on TLS listeners and hands it to in-process components, whose
//! requests take the same way: authorization, admission, validation, storage. There is one create, one update, one
//! patch, one delete, one list and one watch, generic over the rows of `api::resources`; what differs between kinds
//! stands in their rows. It deliberately decides nothing about nodes or pods beyond admission.
//! Invariants: nobody else writes to the store; every error a client sees is a `Status`; an acknowledged write is as
//! durable as its row says; a watch never skips a change silently.
//!
//! ```text
//! connection → TLS, client certificate → authn → authz → route → negotiate → decode → admission → validate → store
//!              serve                     authn   authz   server  negotiate   body     admission    api        storage
//! ```

mod addresses;
mod admission;
mod aggregation;
mod body;
mod call;
mod components;
mod conversion;
mod definitions;
mod discovery;
mod entropy;
mod fairness;
mod health;
mod managed;
mod metrics;
mod negotiate;
mod node;
mod object;
mod openapi;
mod openid;
mod proxy;
mod query;
mod quotas;
mod render;
mod request;
mod respond;
mod select;
mod serve;
mod server;
mod services;
mod startup;
mod storage;
mod usage;
mod verbs;
mod version;
mod webhook;

pub mod authn;
pub mod authz;
pub mod pki;

pub use aggregation::{FRONT_PROXY, FrontProxy};
pub use api::resources::service::assign::{Network, NetworkError};
pub use components::Component;
pub use entropy::Entropy;
pub use node::{NodeConnector, NodeError};
pub use proxy::Kubelets;
pub use serve::{TlsConfigError, certified_key, tls_config, tls_config_by};
pub use server::{ApiServer, Body, BoxError, Caller, Config};
pub use version::VersionInfo;

#[cfg(test)]
mod tests;
