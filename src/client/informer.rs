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
        let store = Arc::new(Store::default());
        let (announce, synced) = watch::channel(false);
        let copier =
            Copier { client: client.clone(), scope, options, store: Arc::clone(&store), announce, watch: None };
        tasks.spawn("informer", copier.run());
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

/// The task behind an informer.
struct Copier<K> {
    client: Client,
    scope: Scope,
    options: ListOptions,
    store: Arc<Store<K>>,
    announce: watch::Sender<bool>,
    watch: Option<(Watch<K>, Instant)>,
}

impl<K: Object> Copier<K> {
    async fn run(mut self) {
        let mut machine = Machine::new(&format!("{} {}", self.client.agent(), collection_path::<K>(&self.scope)));
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
                self.store.replace(items);
                self.announce.send_replace(true);
                Outcome::Listed { revision }
            }
            Err(error) => failure::<K>("list", &error),
        }
    }

    async fn list_all(&self) -> Result<(Vec<K>, String), ClientError> {
        let mut options = ListOptions { limit: Some(PAGE), ..self.options.clone() };
        let mut items = Vec::new();
        loop {
            let page = self.client.list::<K>(&self.scope, &options).await?;
            items.extend(page.items);
            if page.continue_token.is_empty() {
                return Ok((items, page.revision));
            }
            options.continue_token = page.continue_token;
        }
    }

    async fn open(&mut self, revision: &str) -> Outcome {
        match self.client.watch::<K>(&self.scope, &self.options, revision).await {
            Ok(watch) => {
                self.watch = Some((watch, Instant::now()));
                Outcome::Opened
            }
            Err(error) => failure::<K>("watch", &error),
        }
    }

    async fn read(&mut self) -> Outcome {
        let Some((watch, opened)) = &mut self.watch else { return Outcome::Ended { early: true } };
        match watch.next().await {
            Some(Ok(event)) => self.take(event),
            Some(Err(error)) => failure::<K>("watch", &error),
            None => Outcome::Ended { early: opened.elapsed() < SHORT },
        }
    }

    fn take(&self, event: WatchEvent<K>) -> Outcome {
        let revision = match event {
            WatchEvent::Bookmark(revision) => revision,
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let revision = revision_of(&object);
                self.store.put(object);
                revision
            }
            WatchEvent::Deleted(object) => {
                self.store.remove(&Key::of(object.metadata()));
                revision_of(&object)
            }
        };
        Outcome::Progress { revision }
    }
}

fn revision_of<K: Object>(object: &K) -> String {
    object.metadata().resource_version.clone().unwrap_or_default()
}

fn failure<K: Object>(operation: &'static str, error: &ClientError) -> Outcome {
    if error.is_expired() {
        tracing::debug!(kind = K::KIND, operation, "history is gone, listing again");
        return Outcome::Expired;
    }
    tracing::warn!(kind = K::KIND, operation, error = error as &dyn std::error::Error, "cannot follow objects");
    Outcome::Failed { retry_after: error.retry_after() }
}
