//! A client of the OCI distribution API, for pulling.
//!
//! One [`Repository`] serves one pull with one set of credentials: it keeps the connections and the token. It speaks
//! TLS, except to registries on loopback and those that are configured as insecure. It retries what passes (rates,
//! restarts, broken connections), follows redirects without carrying credentials to other hosts, and never reads more
//! than it was promised. It deliberately neither pushes nor interprets what it fetches.

mod auth;
mod blob;
mod error;
mod repository;
mod resolve;
mod transport;

use std::time::Duration;

pub use auth::Credentials;
pub(crate) use blob::download;
pub use error::RegistryError;
pub(crate) use repository::Repository;
pub use resolve::ResolveError;

/// As in containerd and distribution.
pub(crate) const MANIFEST_LIMIT: u64 = 4 << 20;

/// How registries are reached.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// Registries, as `host` or `host:port`, that are spoken to without TLS; those on loopback always are.
    pub insecure: Vec<String>,
    /// How often something that passes is tried again.
    pub attempts: u32,
    /// The pause before the first such try; doubled for each further one.
    pub pause: Duration,
    /// The longest that a registry may ask to wait; beyond it, the pull fails and says so.
    pub patience: Duration,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        let pause = Duration::from_millis(200);
        Self { insecure: Vec::new(), attempts: 5, pause, patience: Duration::from_secs(60) }
    }
}
