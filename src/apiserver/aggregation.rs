//! API groups that other servers serve: requests for them go on to the Service that an APIService names.
//!
//! After kube-aggregator. [`keeper`] follows the APIServices, asks whoever stands behind them and says whether they
//! answer; [`forward`] passes requests on, [`discovery`] lists their groups beside those that are served here. A server
//! of a group knows by the certificate of the [`FrontProxy`] that it may believe which user is asking; its authority and
//! the names of the headers stand in the ConfigMap `extension-apiserver-authentication` of `kube-system`.
//! Invariants: what a client says of itself in such headers never goes on; without an identity of its own this server
//! forwards nothing; this server itself believes nobody's headers.
//!
//! ```text
//! request ─► authn, authz ─► Remotes has its group and version? ─► forward ─► Service's endpoint (TLS, own certificate)
//!                                      └─ no ─► rows of this server
//! keeper: APIServices, slices, time ─► GET /apis/<group>/<version> ─► condition Available, Remotes
//! ```

mod check;
pub(crate) mod discovery;
mod forward;
mod keeper;
mod remote;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use task::Tasks;

use crate::pki::Credential;
use crate::request::RequestInfo;
use crate::server::ApiServer;
pub(crate) use forward::{Passed, forward};
pub(crate) use remote::Remote;

/// The user that the certificate names; servers of groups are told to believe no other.
pub const FRONT_PROXY: &str = "front-proxy-client";

/// By what other servers know that this one speaks for its users.
#[derive(Debug)]
pub struct FrontProxy {
    /// Who signed the certificate: an authority that signs nothing else; PEM.
    pub authority: String,
    /// The certificate of [`FRONT_PROXY`].
    pub credential: Credential,
    /// Whose client certificates other servers may take as well as this one does; PEM.
    pub clients: String,
}

/// Versions of groups that others serve.
#[derive(Debug, Default)]
pub(crate) struct Remotes(BTreeMap<(String, String), Arc<Remote>>);

impl Remotes {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn get(&self, group: &str, version: &str) -> Option<&Arc<Remote>> {
        self.0.get(&(group.to_owned(), version.to_owned()))
    }

    /// In the order in which clients prefer them.
    pub(crate) fn sorted(&self) -> Vec<&Arc<Remote>> {
        let mut all: Vec<&Arc<Remote>> = self.0.values().collect();
        let rank = |remote: &Remote| {
            let minimums = self.0.values().filter(|other| other.group == remote.group).map(|other| other.minimum);
            std::cmp::Reverse(minimums.max())
        };
        all.sort_by(|a, b| {
            (rank(a), &a.group, -a.priority, &a.version).cmp(&(rank(b), &b.group, -b.priority, &b.version))
        });
        all
    }
}

/// What this server knows of others.
#[derive(Debug, Default)]
pub(crate) struct Aggregation {
    front: OnceLock<FrontProxy>,
    present: RwLock<Arc<Remotes>>,
}

impl Aggregation {
    pub(crate) fn remotes(&self) -> Arc<Remotes> {
        Arc::clone(&self.present.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Who else answers a request.
    pub(crate) fn of(&self, info: &RequestInfo) -> Option<Arc<Remote>> {
        let remotes = self.remotes();
        if remotes.is_empty() {
            return None;
        }
        match info {
            RequestInfo::Resource(request) => remotes.get(&request.group, &request.version).cloned(),
            RequestInfo::Path { path, .. } => {
                let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
                match segments.as_slice() {
                    ["apis", group, version] => remotes.get(group, version).cloned(),
                    ["openapi", "v3", "apis", group, version] => {
                        remotes.get(group, version).filter(|remote| remote.schema.is_some()).cloned()
                    }
                    _ => None,
                }
            }
        }
    }
}

impl ApiServer {
    /// Lets other servers serve groups of the API, and registers its own; with the tasks it ends.
    pub fn aggregate(self: &Arc<Self>, front: FrontProxy, tasks: &Tasks) {
        // Whoever asks twice has the same identity.
        let _ = self.aggregation.front.set(front);
        tasks.spawn("api groups of others", keeper::keep(Arc::clone(self)));
    }
}
