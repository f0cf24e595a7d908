//! Pulls: from a name to a complete image in the store.
//!
//! ```text
//! tag or digest ─► index? ─► manifest ─► configuration ─► layers, several at once ─► one sync ─► record
//! ```
//!
//! Layers that several pulls want at the same time are fetched once. A pull that is dropped stops fetching unless
//! somebody else waits for the same layer. After a failure of the network, complete layers are kept for the next
//! attempt; after any other, nothing is.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::{BoxFuture, FutureExt, Shared, WeakShared, join_all};
use tokio::sync::Semaphore;

use super::document::{self, BlobRef, Config, DocumentError, Manifest, Platform};
use super::layer::{self, Expected, LayerError};
use super::media::{Compression, Document};
use super::registry::{Credentials, MANIFEST_LIMIT, RegistryError, RegistryOptions, Repository, download};
use super::store::{NewImage, Store};
use super::{Digest, LayerRecord, Progress, Record, Reference, StoreError};

/// How deep indexes may refer to indexes.
const INDEX_DEPTH: usize = 3;
/// Layers in work: one per processor, within these bounds. Each takes two threads and a few megabytes.
const LAYERS_AT_ONCE: std::ops::RangeInclusive<usize> = 2..=8;

/// Why an image has not been pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The registry cannot be reached, or refuses.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// What it gave makes no image.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A manifest or configuration is not the one that was asked for.
    #[error("{document} has digest {actual}, but {expected} was asked for")]
    Digest {
        /// Which one.
        document: &'static str,
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// A manifest refers to one that is longer than any may be.
    #[error("{document} is longer than {MANIFEST_LIMIT} bytes")]
    TooLong {
        /// Which one.
        document: &'static str,
    },
    /// Indexes that refer to each other.
    #[error("the index refers to further indexes too deeply")]
    TooDeep,
    /// A layer could not be unpacked.
    #[error("layer {digest}")]
    Layer {
        /// Digest of its blob.
        digest: Digest,
        /// Why not.
        #[source]
        source: LayerError,
    },
    /// The image could not be recorded.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Somebody else's attempt at a shared layer failed, or this one's.
    #[error(transparent)]
    Shared(Arc<PullError>),
}

impl PullError {
    /// Whether the network is to blame, so that what is complete shall be kept for another attempt.
    fn is_passing(&self) -> bool {
        match self {
            Self::Registry(error) => error.is_passing(),
            Self::Shared(error) => error.is_passing(),
            _ => false,
        }
    }

    /// The registry's failure, if it is one.
    pub fn registry(&self) -> Option<&RegistryError> {
        match self {
            Self::Registry(error) => Some(error),
            Self::Shared(error) => error.registry(),
            _ => None,
        }
    }
}

type LayerResult = Result<LayerRecord, Arc<PullError>>;
type LayerFuture = BoxFuture<'static, LayerResult>;

/// Pulls images into a store. One per process, so that pulls share layers. Clones share it.
#[derive(Debug, Clone)]
pub struct Puller(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    options: RegistryOptions,
    permits: Arc<Semaphore>,
    in_flight: Mutex<HashMap<Digest, InFlight>>,
}

/// A layer that somebody waits for, and the bytes of it that have come.
#[derive(Debug)]
struct InFlight {
    layer: WeakShared<LayerFuture>,
    taken: Arc<AtomicU64>,
}

/// An image whose documents are here and whose layers are not.
struct Resolved {
    /// What the name stood for.
    top: Digest,
    manifest_digest: Digest,
    manifest_content: Vec<u8>,
    manifest: Manifest,
    config_content: Vec<u8>,
    config: Config,
}

impl Puller {
    /// A puller into `store`.
    pub fn new(store: Store, options: RegistryOptions) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let permits = Arc::new(Semaphore::new(processors.clamp(*LAYERS_AT_ONCE.start(), *LAYERS_AT_ONCE.end())));
        Self(Arc::new(Inner { store, options, permits, in_flight: Mutex::default() }))
    }

    /// The store that images go to.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Pulls an image, with the first of the credentials that the registry accepts; without any, anonymously.
    ///
    /// # Errors
    /// When the image is not complete in the store afterwards.
    pub async fn pull(&self, name: &Reference, credentials: &[Credentials]) -> Result<Record, PullError> {
        Box::pin(self.pull_showing(name, credentials, &Progress::default())).await
    }

    /// As [`Puller::pull`], and shows how far it is.
    ///
    /// # Errors
    /// When the image is not complete in the store afterwards.
    pub async fn pull_showing(
        &self,
        name: &Reference,
        credentials: &[Credentials],
        progress: &Progress,
    ) -> Result<Record, PullError> {
        let mut candidates = credentials.iter().cloned().map(Some);
        let mut candidate = candidates.next().unwrap_or(None);
        loop {
            let denied = match Box::pin(self.pull_as(name, candidate, progress)).await {
                Err(error) if matches!(error.registry(), Some(RegistryError::Denied { .. })) => error,
                other => return other,
            };
            match candidates.next() {
                Some(next) => candidate = next,
                None => return Err(denied),
            }
        }
    }

    async fn pull_as(
        &self,
        name: &Reference,
        credentials: Option<Credentials>,
        progress: &Progress,
    ) -> Result<Record, PullError> {
        progress.begin(name.domain());
        let repository = Arc::new(Repository::new(name, credentials, self.0.options.clone()));
        let resolved = resolve(&repository, name).await?;
        let diff_ids = resolved.config.diff_ids.clone();
        let store = self.0.store.clone();
        let (lease, present) = blocking(move || store.lease(&diff_ids)).await?;

        let blobs = resolved.config.diff_ids.iter().zip(&resolved.manifest.layers);
        let layers = blobs.map(|(diff_id, (blob, compression))| {
            let known = present.get(diff_id).map(|&size| LayerRecord { diff_id: diff_id.clone(), size });
            let missing = Missing { diff_id: diff_id.clone(), blob: blob.clone(), compression: *compression };
            let repository = &repository;
            async move {
                match known {
                    Some(known) => Ok(known),
                    None => self.layer(repository, missing, progress).await,
                }
            }
        });
        let store = self.0.store.clone();
        match complete(join_all(layers).await) {
            (layers, None) => {
                let image = new_image(name, resolved, layers);
                let record = blocking(move || store.commit(image)).await?;
                drop(lease);
                Ok(record)
            }
            (complete, Some(error)) => {
                drop(lease);
                let kept = if error.is_passing() { complete } else { Vec::new() };
                blocking(move || store.keep(kept)).await?;
                Err(error)
            }
        }
    }

    /// One layer, by whoever began with it first. Another's failure (a lack of rights, say) is not held against us.
    async fn layer(
        &self,
        repository: &Arc<Repository>,
        missing: Missing,
        progress: &Progress,
    ) -> Result<LayerRecord, PullError> {
        loop {
            let (future, taken, ours) = self.join(repository, &missing);
            progress.part(&missing.diff_id.to_string(), missing.blob.size, taken);
            match future.await {
                Ok(layer) => return Ok(layer),
                Err(error) if ours => return Err(PullError::Shared(error)),
                Err(_) => {}
            }
        }
    }

    /// The layer's future, the count of its bytes, and whether it has just been made.
    fn join(&self, repository: &Arc<Repository>, missing: &Missing) -> (Shared<LayerFuture>, Arc<AtomicU64>, bool) {
        let mut in_flight = self.0.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        in_flight.retain(|_, one| one.layer.upgrade().is_some());
        if let Some(one) = in_flight.get(&missing.diff_id)
            && let Some(running) = one.layer.upgrade()
            && running.peek().is_none()
        {
            return (running, Arc::clone(&one.taken), false);
        }
        let taken = Arc::new(AtomicU64::new(0));
        let (store, permits) = (self.0.store.clone(), Arc::clone(&self.0.permits));
        let future = fetch(store, permits, Arc::clone(repository), missing.clone(), Arc::clone(&taken));
        let shared = future.map(|result| result.map_err(Arc::new)).boxed().shared();
        let one = shared.downgrade().map(|layer| InFlight { layer, taken: Arc::clone(&taken) });
        in_flight.extend(one.map(|one| (missing.diff_id.clone(), one)));
        (shared, taken, true)
    }
}

#[derive(Debug, Clone)]
struct Missing {
    diff_id: Digest,
    blob: BlobRef,
    compression: Compression,
}

/// Downloads and unpacks one layer; the network here, the rest in threads of its own.
async fn fetch(
    store: Store,
    permits: Arc<Semaphore>,
    repository: Arc<Repository>,
    missing: Missing,
    taken: Arc<AtomicU64>,
) -> Result<LayerRecord, PullError> {
    let _permit = permits.acquire().await;
    let digest = missing.blob.digest.clone();
    let (sender, source) = download(taken);
    let expected =
        Expected { blob: Some(missing.blob.digest), diff_id: missing.diff_id, compression: Some(missing.compression) };
    let storing = blocking(move || layer::store_layer(&store, source, &expected));
    let streaming = repository.stream_blob(&digest, missing.blob.size, sender);
    let (streamed, stored) = tokio::join!(streaming, storing);
    streamed?;
    stored.map_err(|source| PullError::Layer { digest, source })
}

/// The complete layers, and the first failure if there is one.
fn complete(results: Vec<Result<LayerRecord, PullError>>) -> (Vec<LayerRecord>, Option<PullError>) {
    let mut failure = None;
    let mut layers = Vec::new();
    for result in results {
        match result {
            Ok(layer) => layers.push(layer),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    (layers, failure)
}

async fn resolve(repository: &Repository, name: &Reference) -> Result<Resolved, PullError> {
    let platform = Platform::of_host();
    let mut fetched = repository.manifest(&name.selector()).await?;
    let top = verify("manifest", &fetched.content, name.digest())?;
    let mut digest = top.clone();
    for _ in 0..INDEX_DEPTH {
        if document::kind(&fetched.content, fetched.media_type.as_deref())? == Document::Manifest {
            let manifest = Manifest::parse(&fetched.content)?;
            if manifest.config.size > MANIFEST_LIMIT {
                return Err(PullError::TooLong { document: "configuration" });
            }
            let config_content = repository.small_blob(&manifest.config.digest).await?;
            verify("configuration", &config_content, Some(&manifest.config.digest))?;
            let config = Config::parse(&config_content, manifest.layers.len(), &platform)?;
            let manifest_content = fetched.content;
            return Ok(Resolved { top, manifest_digest: digest, manifest_content, manifest, config_content, config });
        }
        let selected = document::select(&fetched.content, &platform)?;
        fetched = repository.manifest(&selected.digest.to_string()).await?;
        digest = verify("manifest", &fetched.content, Some(&selected.digest))?;
    }
    Err(PullError::TooDeep)
}

/// The digest of the content, which is the one that was asked for.
fn verify(document: &'static str, content: &[u8], expected: Option<&Digest>) -> Result<Digest, PullError> {
    match expected {
        Some(expected) if expected.matches(content) => Ok(expected.clone()),
        Some(expected) => Err(PullError::Digest { document, expected: expected.clone(), actual: Digest::of(content) }),
        None => Ok(Digest::of(content)),
    }
}

fn new_image(name: &Reference, resolved: Resolved, layers: Vec<LayerRecord>) -> NewImage {
    let record = Record {
        id: resolved.manifest.config.digest,
        manifest: resolved.manifest_digest,
        tags: name.tagged().into_iter().collect(),
        digests: [name.with_digest(&resolved.top)].into(),
        layers,
        defaults: resolved.config.defaults,
        pinned: false,
    };
    NewImage { record, manifest: resolved.manifest_content, config: resolved.config_content }
}

/// Runs blocking work in a thread of the runtime; a panic in it is passed on.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::future::pending().await,
        },
    }
}
