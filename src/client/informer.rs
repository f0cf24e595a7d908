//! A live copy of a selection of objects: list, then watch, for ever.
//!
//! ```text
//!            list ok               opened
//!   Empty ───────────► Behind ───────────────► Live ──┐ progress
//!     ▲  ◄──┐ failed      │ ▲  ◄──┐ failed       │ ▲───┘
//!     │     └─ wait       │ │     └─ wait        │
//!     └───────────────────┴─┼────────────────────┤ expired
//!                           └────────────────────┘ ended
//! ```
//!
//! The machine (`machine.rs`) only decides; the loop here acts. Readers see a store that is at most one event behind and
//! learn which keys to look at again from a [`Dirty`] set, so a slow reader costs no memory beyond the number of keys.
//! Invariant: whatever change the server acknowledged, every subscriber has the key marked dirty after the store shows it.

mod dirty;
mod machine;
mod store;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use task::Tasks;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::client::Client;
use crate::error::ClientError;
use crate::object::{Key, Object, Scope, collection_path};
use crate::options::ListOptions;
use crate::watch::{Watch, WatchEvent};

pub use dirty::Dirty;
use machine::{Machine, Outcome, Step};
use store::Store;

/// Objects asked for at once while listing.
const PAGE: u32 = 500;
/// A watch that ends sooner than this counts as failed, lest a server that ends them at once is hammered.
const SHORT: Duration = Duration::from_secs(1);

/// An object that can be followed: it says which state of it this is.
pub trait Tracked: DeserializeOwned + Send + Sync + 'static {
    /// Its `resourceVersion`.
    fn revision(&self) -> &str;
}

impl<K: Object> Tracked for K {
    fn revision(&self) -> &str {
        self.metadata().resource_version.as_deref().unwrap_or_default()
    }
}

/// Who is told what there is. Called from one task, in the order of the changes.
pub trait Sink<K>: Send + Sync + 'static {
    /// This is everything that there is; called once at first, and whenever changes may have been missed.
    fn replace(&self, objects: Vec<K>);
    /// An object is there in this state.
    fn put(&self, object: K);
    /// An object is gone; its last state.
    fn remove(&self, object: K);
}

/// Tells a sink of the collection at a path, until the task group ends.
pub fn follow<K: Tracked, S: Sink<K>>(client: &Client, tasks: &Tasks, path: &str, sink: Arc<S>) {
    follow_selected(client, tasks, path, ListOptions::default(), sink);
}

/// As [`follow`], of what the options select.
pub fn follow_selected<K: Tracked, S: Sink<K>>(
    client: &Client,
    tasks: &Tasks,
    path: &str,
    options: ListOptions,
    sink: Arc<S>,
) {
    tasks.spawn("follower", Copier::new(client, path.to_owned(), options, sink).run());
}

/// A live copy of a selection of objects; clones share it.
pub struct Informer<K> {
    store: Arc<Store<K>>,
    synced: watch::Receiver<bool>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self { store: Arc::clone(&self.store), synced: self.synced.clone() }
    }
}

impl<K: Object> Informer<K> {
    /// Starts to copy what `options` select within `scope`; goes on until the task group ends.
    pub fn spawn(client: &Client, tasks: &Tasks, scope: Scope, options: ListOptions) -> Self {
        let (announce, synced) = watch::channel(false);
        let store = Arc::new(Store::default());
        let copy = Arc::new(Copy { store: Arc::clone(&store), announce });
        tasks.spawn("informer", Copier::new(client, collection_path::<K>(&scope), options, copy).run());
        Self { store, synced }
    }

    /// The object as last seen.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.store.get(key)
    }

    /// All objects as last seen, in no particular order.
    pub fn snapshot(&self) -> Vec<Arc<K>> {
        self.store.snapshot()
    }

    /// The keys that change from now on, and at first all that exist.
    pub fn subscribe(&self) -> Dirty {
        self.store.subscribe()
    }

    /// Whether the first listing is complete.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Waits for the first listing to be complete; for ever, if the task group ends before.
    pub async fn synced(&self) {
        if self.synced.clone().wait_for(|synced| *synced).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The store of an informer, and who waits for its first listing.
struct Copy<K> {
    store: Arc<Store<K>>,
    announce: watch::Sender<bool>,
}

impl<K: Object> Sink<K> for Copy<K> {
    fn replace(&self, objects: Vec<K>) {
        self.store.replace(objects);
        self.announce.send_replace(true);
    }

    fn put(&self, object: K) {
        self.store.put(object);
    }

    fn remove(&self, object: K) {
        self.store.remove(&Key::of(object.metadata()));
    }
}

/// The task behind an informer.
struct Copier<K, S> {
    client: Client,
    path: String,
    options: ListOptions,
    sink: Arc<S>,
    watch: Option<(Watch<K>, Instant)>,
}

impl<K: Tracked, S: Sink<K>> Copier<K, S> {
    fn new(client: &Client, path: String, options: ListOptions, sink: Arc<S>) -> Self {
        Self { client: client.clone(), path, options, sink, watch: None }
    }

    async fn run(mut self) {
        let mut machine = Machine::new(&format!("{} {}", self.client.agent(), self.path));
        loop {
            let outcome = match machine.step() {
                Step::Wait(duration) => {
                    tokio::time::sleep(duration).await;
                    Outcome::Waited
                }
                Step::List => self.list().await,
                Step::Watch { revision } => self.open(&revision).await,
                Step::Read => self.read().await,
            };
            machine.advance(outcome);
        }
    }

    async fn list(&mut self) -> Outcome {
        self.watch = None;
        match self.list_all().await {
            Ok((items, revision)) => {
                self.sink.replace(items);
                Outcome::Listed { revision }
            }
            Err(error) => self.failure("list", &error),
        }
    }

    async fn list_all(&self) -> Result<(Vec<K>, String), ClientError> {
        let mut options = ListOptions { limit: Some(PAGE), ..self.options.clone() };
        let mut items = Vec::new();
        loop {
            let page = self.client.list_at::<K>(&self.path, &options).await?;
            items.extend(page.items);
            if page.continue_token.is_empty() {
                return Ok((items, page.revision));
            }
            options.continue_token = page.continue_token;
        }
    }

    async fn open(&mut self, revision: &str) -> Outcome {
        match self.client.watch_at::<K>(&self.path, &self.options, revision).await {
            Ok(watch) => {
                self.watch = Some((watch, Instant::now()));
                Outcome::Opened
            }
            Err(error) => self.failure("watch", &error),
        }
    }

    async fn read(&mut self) -> Outcome {
        let Some((watch, opened)) = &mut self.watch else { return Outcome::Ended { early: true } };
        match watch.next().await {
            Some(Ok(event)) => self.take(event),
            Some(Err(error)) => self.failure("watch", &error),
            None => Outcome::Ended { early: opened.elapsed() < SHORT },
        }
    }

    fn take(&self, event: WatchEvent<K>) -> Outcome {
        let revision = match event {
            WatchEvent::Bookmark(revision) => revision,
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let revision = object.revision().to_owned();
                self.sink.put(object);
                revision
            }
            WatchEvent::Deleted(object) => {
                let revision = object.revision().to_owned();
                self.sink.remove(object);
                revision
            }
        };
        Outcome::Progress { revision }
    }

    fn failure(&self, operation: &'static str, error: &ClientError) -> Outcome {
        let path = self.path.as_str();
        if error.is_expired() {
            tracing::debug!(path, operation, "history is gone, listing again");
            return Outcome::Expired;
        }
        tracing::warn!(path, operation, error = error as &dyn std::error::Error, "cannot follow objects");
        Outcome::Failed { retry_after: error.retry_after() }
    }
}
