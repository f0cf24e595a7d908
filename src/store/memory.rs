//! A store without a disk: for tests and simulations. It answers at once and keeps nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use task::SharedClock;

use crate::core::{Core, HistoryLimits, Request};
use crate::watch::HistoryWatch;
use crate::{Durability, Entry, Expect, Key, Page, Range, Revision, Shared, Store, StoreError, Watch};

/// Objects in memory only.
pub struct MemoryStore {
    core: Arc<Shared<Core>>,
    clock: SharedClock,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(clock: SharedClock, limits: HistoryLimits) -> Self {
        Self { core: Arc::new(Shared::new(Core::new(BTreeMap::new(), Revision(1), limits))), clock }
    }

    fn write(&self, request: Request) -> Result<Revision, StoreError> {
        let mut core = self.core.lock();
        let revision = Revision(core.newest().0 + 1);
        let write = core.evaluate(&HashMap::new(), request, revision)?;
        core.apply([write], self.clock.now());
        Ok(revision)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        Ok(self.core.lock().get(key))
    }

    async fn list(&self, range: Range) -> Result<Page, StoreError> {
        self.core.lock().list(&range)
    }

    async fn put(&self, key: &Key, value: Bytes, expect: Expect, _: Durability) -> Result<Revision, StoreError> {
        self.write(Request::Put { key: key.clone(), value, expect })
    }

    async fn delete(&self, key: &Key, expect: Revision, _: Durability) -> Result<Revision, StoreError> {
        self.write(Request::Delete { key: key.clone(), expect })
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        Ok(Box::new(HistoryWatch::start(&self.core, prefix, after)?))
    }

    fn revision(&self) -> Revision {
        self.core.lock().newest()
    }
}
