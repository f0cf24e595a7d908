//! What an informer has seen. Who manages which field is left out: it is a good part of an object and nobody here asks.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use crate::informer::dirty::{Dirty, DirtySet};
use crate::object::{Key, Object};

/// Objects by key, and who wants to know of changes.
pub(super) struct Store<K> {
    inner: RwLock<Inner<K>>,
}

struct Inner<K> {
    objects: HashMap<Key, Arc<K>>,
    subscribers: Vec<Weak<DirtySet>>,
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        Self { inner: RwLock::new(Inner { objects: HashMap::new(), subscribers: Vec::new() }) }
    }
}

impl<K> Inner<K> {
    fn mark(&mut self, key: &Key) {
        self.subscribers.retain(|subscriber| match subscriber.upgrade() {
            Some(set) => {
                set.mark(key);
                true
            }
            None => false,
        });
    }
}

impl<K: Object> Store<K> {
    fn read(&self) -> RwLockReadGuard<'_, Inner<K>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner<K>> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.read().objects.get(key).cloned()
    }

    pub(super) fn snapshot(&self) -> Vec<Arc<K>> {
        self.read().objects.values().cloned().collect()
    }

    pub(super) fn subscribe(&self) -> Dirty {
        let set = Arc::new(DirtySet::default());
        let mut inner = self.write();
        inner.objects.keys().for_each(|key| set.mark(key));
        inner.subscribers.push(Arc::downgrade(&set));
        Dirty::new(set)
    }

    pub(super) fn put(&self, mut object: K) {
        object.metadata_mut().managed_fields = None;
        let key = Key::of(object.metadata());
        let mut inner = self.write();
        inner.objects.insert(key.clone(), Arc::new(object));
        inner.mark(&key);
    }

    pub(super) fn remove(&self, key: &Key) {
        let mut inner = self.write();
        inner.objects.remove(key);
        inner.mark(key);
    }

    /// Takes over a complete listing. Objects that are the same as before are not announced.
    pub(super) fn replace(&self, objects: Vec<K>) {
        let mut inner = self.write();
        let mut former = std::mem::take(&mut inner.objects);
        for mut object in objects {
            object.metadata_mut().managed_fields = None;
            let key = Key::of(object.metadata());
            let same = former.remove(&key).filter(|before| is_same(&**before, &object));
            if let Some(before) = same {
                inner.objects.insert(key, before);
            } else {
                inner.objects.insert(key.clone(), Arc::new(object));
                inner.mark(&key);
            }
        }
        former.keys().for_each(|key| inner.mark(key));
    }
}

fn is_same<K: Object>(before: &K, after: &K) -> bool {
    let (before, after) = (before.metadata(), after.metadata());
    before.uid == after.uid && before.resource_version.is_some() && before.resource_version == after.resource_version
}
