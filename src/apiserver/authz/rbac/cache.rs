//! A [`Policy`] that follows the store.
//!
//! There is no task behind it: whoever asks takes in what has changed since the last time, so that a role counts for
//! the first request after the one that wrote it.

use bytes::Bytes;
use futures_util::FutureExt as _;
use serde_json::Value;
use store::{Range, Store, StoreError, Watch, Watched};
use tokio::sync::Mutex;

use super::{Policy, prefix};

/// Roles and bindings as the store has them now.
#[derive(Default)]
pub(crate) struct PolicyCache {
    inner: Mutex<Option<Followed>>,
}

struct Followed {
    policy: Policy,
    watch: Box<dyn Watch>,
}

impl PolicyCache {
    /// Asks the present policy.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn ask<T>(&self, store: &dyn Store, question: impl FnOnce(&Policy) -> T) -> Result<T, StoreError> {
        let mut inner = self.inner.lock().await;
        let followed = match inner.take() {
            Some(followed) => match followed.catch_up() {
                Some(followed) => followed,
                None => Followed::load(store).await?,
            },
            None => Followed::load(store).await?,
        };
        let answer = question(&followed.policy);
        *inner = Some(followed);
        Ok(answer)
    }
}

impl Followed {
    async fn load(store: &dyn Store) -> Result<Self, StoreError> {
        let page = store.list(Range { prefix: prefix(), after: None, limit: None, at: None }).await?;
        let watch = store.watch(&prefix(), page.revision).await?;
        let mut policy = Policy::default();
        for entry in &page.entries {
            put(&mut policy, &entry.key.0, Some(&entry.value));
        }
        Ok(Self { policy, watch })
    }

    /// Takes in what has changed; none if that is no longer known.
    fn catch_up(mut self) -> Option<Self> {
        while let Some(next) = self.watch.next().now_or_never() {
            match next {
                Some(Watched::Changed(change)) => put(&mut self.policy, &change.key.0, change.after.as_ref()),
                Some(Watched::Overrun) | None => return None,
            }
        }
        Some(self)
    }
}

fn put(policy: &mut Policy, key: &str, value: Option<&Bytes>) {
    // See `storage::key`: group, resource, namespace (empty for those of the cluster), name.
    let parts: Vec<&str> = key.splitn(4, '/').collect();
    let [_, resource, namespace, name] = parts[..] else { return };
    let object: Option<Value> = value.and_then(|bytes| serde_json::from_slice(bytes).ok());
    policy.put(resource, namespace, name, object.as_ref());
}
