//! What all parts of one kubelet share: settings, seams, the API, and the board of pods.
//!
//! Handed down by [`crate::Kubelet`]. The board is written by workers and read by the kubelet's API; it decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::events::{EventType, Recorder};
use client::{Client, Informer, ListOptions, Scope};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodStatus, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use tokio::sync::{Notify, Semaphore};

use crate::config::{KubeletConfig, Seams};
use crate::container::{ConfigError, Context, Dns, Token, TokenWish, links};
use crate::directory::Directories;
use crate::eviction::Pressure;
use crate::metrics::Metrics;
use crate::node::Capacity;
use crate::pod::eviction::Eviction;
use crate::sources::SOURCE;
use crate::volumes::Watches;

/// How long a container waits for the first list of Services.
const SERVICES_PATIENCE: Duration = Duration::from_secs(5);

/// Shared by everything below one [`crate::Kubelet`].
pub(crate) struct Shared {
    pub(crate) config: KubeletConfig,
    pub(crate) seams: Seams,
    pub(crate) client: Option<Client>,
    pub(crate) recorder: Option<Recorder>,
    pub(crate) capacity: Capacity,
    /// When this agent began.
    pub(crate) began_at: Timestamp,
    /// All Services, for the variables that name them.
    services: Option<Informer<Service>>,
    board: Mutex<BTreeMap<String, Entry>>,
    /// Tokens that are good for some time yet, by the pods' UIDs.
    tokens: Mutex<BTreeMap<String, BTreeMap<TokenWish, Token>>>,
    /// Why pods must end, by UID.
    evictions: Mutex<BTreeMap<String, Eviction>>,
    /// What the node lacks.
    pressure: Mutex<Pressure>,
    /// Which pods have claims that only one may use.
    claims: Mutex<BTreeMap<String, String>>,
    /// Objects that volumes are made of.
    pub(crate) watches: Watches,
    /// Those of logs and manifests that are watched.
    pub(crate) directories: Directories,
    /// Whether what is to stay in memory has its file system.
    pub(crate) in_memory: tokio::sync::OnceCell<()>,
    /// Held, on blocking threads only, while ids are picked for a pod.
    users: Mutex<()>,
    /// Places for connections that have changed their protocol.
    pub(crate) sessions: Arc<Semaphore>,
    pub(crate) metrics: Metrics,
}

/// A pod on this node and how it fares.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) pod: Arc<Pod>,
    pub(crate) status: PodStatus,
    look: Arc<Notify>,
}

impl Shared {
    pub(crate) fn new(
        config: KubeletConfig,
        seams: Seams,
        client: Option<Client>,
        recorder: Option<Recorder>,
        capacity: Capacity,
    ) -> Self {
        let services =
            client.as_ref().map(|client| Informer::spawn(client, &seams.tasks, Scope::Cluster, ListOptions::default()));
        let (board, claims, users) = (Mutex::default(), Mutex::default(), Mutex::default());
        let in_memory = tokio::sync::OnceCell::new();
        let (directories, began_at) = (Directories::new(&seams.tasks), seams.clock.now());
        Self {
            config,
            seams,
            client,
            recorder,
            capacity,
            began_at,
            services,
            board,
            claims,
            tokens: Mutex::default(),
            evictions: Mutex::default(),
            pressure: Mutex::default(),
            watches: Watches::default(),
            directories,
            in_memory,
            users,
            sessions: Arc::new(Semaphore::new(crate::stream::SESSIONS)),
            metrics: Metrics::default(),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.seams.clock.now()
    }

    /// Reports an event, if there is anybody to report to.
    pub(crate) fn event(&self, subject: &ObjectReference, kind: EventType, reason: &str, message: &str) {
        if let Some(recorder) = &self.recorder {
            recorder.event(subject, kind, reason, message);
        }
    }

    /// What containers must know about this node; addresses and references of a pod are added by its worker.
    pub(crate) fn context(&self) -> Context {
        Context {
            host_ips: self.config.node_ips.clone(),
            node_memory: self.capacity.memory_bytes,
            allocatable: self.capacity.allocatable(&self.config).amounts(),
            huge_page_sizes: self.capacity.huge_pages.keys().copied().collect(),
            seccomp_profiles: self.config.root.join("seccomp"),
            ..Context::default()
        }
    }

    /// The variables that name Services to a pod. A static pod does not wait for an API server, which it may be itself.
    pub(crate) async fn links(&self, pod: &Pod) -> Result<Vec<(String, String)>, PrepareError> {
        let Some(services) = &self.services else { return Ok(Vec::new()) };
        let is_static = pod.metadata.annotations.as_ref().is_some_and(|own| own.contains_key(SOURCE));
        if !is_static && tokio::time::timeout(SERVICES_PATIENCE, services.synced()).await.is_err() {
            return Err(PrepareError::Services);
        }
        let all = services.snapshot();
        Ok(links(pod, all.iter().map(Arc::as_ref)))
    }

    pub(crate) fn dns(&self) -> Dns {
        Dns { servers: self.config.cluster_dns.clone(), domain: self.config.cluster_domain.clone() }
    }

    /// Pods take turns at picking ids.
    pub(crate) fn picking_users(&self) -> MutexGuard<'_, ()> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn board(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes how a pod fares on the board.
    pub(crate) fn post(&self, uid: &str, pod: Arc<Pod>, status: PodStatus, look: &Arc<Notify>) {
        self.board().insert(uid.to_owned(), Entry { pod, status, look: Arc::clone(look) });
    }

    /// Takes a pod off the board.
    pub(crate) fn unpost(&self, uid: &str) {
        self.board().remove(uid);
        self.claims().retain(|_, holder| holder != uid);
        self.evictions().remove(uid);
        self.tokens().remove(uid);
    }

    fn evictions(&self) -> MutexGuard<'_, BTreeMap<String, Eviction>> {
        self.evictions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tokens(&self) -> MutexGuard<'_, BTreeMap<String, BTreeMap<TokenWish, Token>>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A token that a pod was given and that need not be renewed yet.
    pub(crate) fn token(&self, uid: &str, wish: &TokenWish) -> Option<Token> {
        self.tokens().get(uid)?.get(wish).filter(|token| token.renew_at > self.now()).cloned()
    }

    /// Keeps a token in case that a volume is made again before it ends.
    pub(crate) fn keep_token(&self, uid: &str, wish: &TokenWish, token: &Token) {
        self.tokens().entry(uid.to_owned()).or_default().insert(wish.clone(), token.clone());
    }

    /// What the node lacks.
    pub(crate) fn pressure(&self) -> Pressure {
        *self.pressure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_pressure(&self, pressure: Pressure) {
        *self.pressure.lock().unwrap_or_else(PoisonError::into_inner) = pressure;
    }

    /// Says that a pod that has a worker must end, and why.
    pub(crate) fn evict(&self, uid: &str, eviction: Eviction) {
        self.evictions().entry(uid.to_owned()).or_insert(eviction);
        // One that is not on the board has not looked yet.
        if let Some(look) = self.board().get(uid).map(|entry| Arc::clone(&entry.look)) {
            look.notify_one();
        }
    }

    /// Why a pod must end, if it must.
    pub(crate) fn eviction(&self, uid: &str) -> Option<Eviction> {
        self.evictions().get(uid).cloned()
    }

    /// What there is about pods that run or will.
    pub(crate) fn running<T>(&self, of: impl Fn(&Pod) -> Option<T>) -> Vec<(String, T)> {
        let board = self.board();
        let runs = |entry: &Entry| {
            entry.pod.metadata.deletion_timestamp.is_none()
                && !matches!(entry.status.phase.as_deref(), Some("Succeeded" | "Failed"))
        };
        let running = board.iter().filter(|(_, entry)| runs(entry));
        running.filter_map(|(uid, entry)| Some((uid.clone(), of(&entry.pod)?))).collect()
    }

    fn claims(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a claim that only one pod may use to a pod, unless another that is not over has it: one that was given it, or
    /// that has run before this agent started.
    pub(crate) fn take_claim(&self, claim: &str, uid: &str, uses: impl Fn(&Pod) -> bool) -> bool {
        let mut claims = self.claims();
        let is_over = |status: &PodStatus| matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let has_begun = |status: &PodStatus| {
            let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
            containers.into_iter().any(|one| one.container_id.as_ref().is_some_and(|id| !id.is_empty()))
        };
        let others = self.board().iter().any(|(other, entry)| {
            let holds = claims.get(claim) == Some(other) || has_begun(&entry.status);
            other != uid && !is_over(&entry.status) && holds && uses(&entry.pod)
        });
        if !others {
            claims.insert(claim.to_owned(), uid.to_owned());
        }
        !others
    }

    /// Pods whose work is over.
    pub(crate) fn finished(&self) -> BTreeSet<String> {
        let is_over = |entry: &Entry| matches!(entry.status.phase.as_deref(), Some("Succeeded" | "Failed"));
        self.board().iter().filter(|(_, entry)| is_over(entry)).map(|(uid, _)| uid.clone()).collect()
    }

    /// All pods.
    pub(crate) fn pods(&self) -> Vec<Entry> {
        self.board().values().cloned().collect()
    }

    /// A pod by its name: the newest of them, for a former one may be ending still.
    pub(crate) fn pod(&self, namespace: &str, name: &str) -> Option<Entry> {
        let named = |entry: &&Entry| {
            let metadata = &entry.pod.metadata;
            metadata.namespace.as_deref() == Some(namespace) && metadata.name.as_deref() == Some(name)
        };
        self.board().values().filter(named).max_by_key(|entry| age(&entry.pod.metadata)).cloned()
    }
}

/// What grows from an object to its successor of the same name: the number of its state, since both may be of one second.
fn age(metadata: &ObjectMeta) -> (Option<u64>, Option<Time>) {
    let revision = metadata.resource_version.as_ref().and_then(|text| text.parse().ok());
    (revision, metadata.creation_timestamp.clone())
}

/// `name_namespace(uid)`, as upstream's `format.Pod`.
pub(crate) fn in_full(metadata: &ObjectMeta) -> String {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    format!("{}_{}({})", text(&metadata.name), text(&metadata.namespace), text(&metadata.uid))
}

/// Why a container could not be made ready to start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrepareError {
    /// What it asks for does not exist or makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The API server did not tell.
    #[error("cannot read {kind} {name:?}")]
    Fetch {
        kind: &'static str,
        name: String,
        #[source]
        source: Box<client::ClientError>,
    },
    /// The API server gave no token.
    #[error("failed to fetch token")]
    Token {
        #[source]
        source: Box<client::ClientError>,
    },
    /// There is nobody who gives tokens.
    #[error("failed to fetch token: there is no API server")]
    NoTokens,
    /// The Services are not known yet.
    #[error("services have not yet been read at least once, cannot construct envvars")]
    Services,
    /// A file could not be written.
    #[error("cannot write {what}")]
    Write {
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_pods_of_one_second_the_later_one_is_newer() {
        let of = |revision: &str| {
            let created = Some(Time("2026-01-02T03:04:05Z".parse().unwrap()));
            ObjectMeta {
                resource_version: Some(revision.to_owned()),
                creation_timestamp: created,
                ..ObjectMeta::default()
            }
        };
        assert!(age(&of("10")) > age(&of("9")));
    }
}
