//! What a controller has done and its informer does not show yet.
//!
//! Upstream counts expectations (`pkg/controller/controller_utils.go`) and gives up on them after five minutes; here the
//! objects are known, and one that stays away is asked for.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::{Client, ClientError, Key, Object};
use tokio::time::Instant;

use super::is_deleting;
use super::owned::Owned;

/// How long the informer may take before the API server is asked.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// By the key of the owner.
#[derive(Debug, Default)]
pub(crate) struct Unseen(Mutex<HashMap<Key, Pending>>);

/// Uids by key.
#[derive(Debug, Clone)]
struct Pending {
    created: BTreeMap<Key, String>,
    deleted: BTreeMap<Key, String>,
    since: Instant,
}

impl Unseen {
    fn all(&self) -> MutexGuard<'_, HashMap<Key, Pending>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, owner: &Key, change: impl FnOnce(&mut Pending)) {
        let new = || Pending { created: BTreeMap::new(), deleted: BTreeMap::new(), since: Instant::now() };
        let mut all = self.all();
        let pending = all.entry(owner.clone()).or_insert_with(new);
        pending.since = Instant::now();
        change(pending);
    }

    pub(crate) fn created<K: Object>(&self, owner: &Key, object: &K) {
        let (key, uid) = identity(object);
        self.change(owner, |pending| drop(pending.created.insert(key, uid)));
    }

    pub(crate) fn deleted<K: Object>(&self, owner: &Key, object: &K) {
        let (key, uid) = identity(object);
        self.change(owner, |pending| drop(pending.deleted.insert(key, uid)));
    }

    /// The owner is gone.
    pub(crate) fn forget(&self, owner: &Key) {
        self.all().remove(owner);
    }

    /// Whether everything that was done for an owner can be seen.
    ///
    /// # Errors
    /// When the API server cannot be asked.
    pub(super) async fn settle<K: Object>(
        &self,
        client: &Client,
        objects: &Owned<K>,
        owner: &Key,
    ) -> Result<bool, ClientError> {
        self.settle_by(client, |key| objects.look(key), owner).await
    }

    /// The same where objects are looked at in another way.
    ///
    /// # Errors
    /// When the API server cannot be asked.
    pub(crate) async fn settle_by<K: Object>(
        &self,
        client: &Client,
        look: impl Fn(&Key) -> Option<Arc<K>>,
        owner: &Key,
    ) -> Result<bool, ClientError> {
        let Some(mut pending) = self.all().get(owner).cloned() else { return Ok(true) };
        let shown = |key: &Key, uid: &str| look(key).filter(|object| is_it(&**object, uid));
        pending.created.retain(|key, uid| shown(key, uid).is_none());
        pending.deleted.retain(|key, uid| shown(key, uid).is_some_and(|object| !is_deleting(object.metadata())));
        if pending.since.elapsed() >= PATIENCE {
            for (key, uid) in std::mem::take(&mut pending.created) {
                // It may have come and gone between two looks of the informer.
                if client.get_opt::<K>(&key).await?.is_some_and(|object| is_it(&object, &uid)) {
                    pending.created.insert(key, uid);
                }
            }
            for (key, uid) in std::mem::take(&mut pending.deleted) {
                let found = client.get_opt::<K>(&key).await?;
                if found.is_some_and(|object| is_it(&object, &uid) && !is_deleting(object.metadata())) {
                    pending.deleted.insert(key, uid);
                }
            }
        }
        let is_settled = pending.created.is_empty() && pending.deleted.is_empty();
        if is_settled {
            self.all().remove(owner);
        } else {
            self.all().insert(owner.clone(), pending);
        }
        Ok(is_settled)
    }
}

fn identity<K: Object>(object: &K) -> (Key, String) {
    (Key::of(object.metadata()), object.metadata().uid.clone().unwrap_or_default())
}

fn is_it<K: Object>(object: &K, uid: &str) -> bool {
    object.metadata().uid.as_deref() == Some(uid)
}
