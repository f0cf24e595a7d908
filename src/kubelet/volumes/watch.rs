//! Notices when what the volumes of running pods are made of has changed.
//!
//! One watch for each object that any pod of this node refers to, of its metadata alone: no secret is kept in memory for
//! this. A worker asks [`Follower::is_stale`] at each look and is told to look when an object changes, appears or goes.
//! Invariant: a change that came after an object was read for a volume is never missed, because the states are compared,
//! not counted. Objects that say that they never change are not watched (KEP-1412).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use client::{Client, ListOptions, Partial, Sink, follow_selected};
use k8s_openapi::api::core::v1::Pod;
use task::Tasks;
use tokio::sync::Notify;

/// An object that volumes are made of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectName {
    /// `configmaps` or `secrets`.
    pub(crate) collection: &'static str,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// Which state of an object was seen; none for its absence.
type Version = Option<String>;

/// What the volumes of a pod have been made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MadeOf {
    /// Objects that may change, as they were.
    objects: BTreeMap<ObjectName, Version>,
    /// Labels and annotations of the pod, if a volume may show them.
    metadata: Option<Metadata>,
}

type Metadata = (Option<BTreeMap<String, String>>, Option<BTreeMap<String, String>>);

fn metadata(pod: &Pod) -> Metadata {
    (pod.metadata.labels.clone(), pod.metadata.annotations.clone())
}

impl MadeOf {
    /// An object was read, or is not there.
    pub(crate) fn object(&mut self, object: ObjectName, version: Version, immutable: bool) {
        if immutable {
            self.objects.remove(&object);
        } else {
            self.objects.insert(object, version);
        }
    }

    /// A volume shows what the pod says of itself.
    pub(crate) fn pod(&mut self, pod: &Pod) {
        self.metadata = Some(metadata(pod));
    }
}

/// All watches of this node.
#[derive(Default)]
pub(crate) struct Watches(Mutex<BTreeMap<ObjectName, Weak<Watched>>>);

/// One watched object. The watch ends with its last follower.
struct Watched {
    object: ObjectName,
    /// As last seen; none before the first look.
    seen: Mutex<Option<Version>>,
    looks: Mutex<Vec<Weak<Notify>>>,
    tasks: Tasks,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watches {
    fn get(&self, object: &ObjectName, client: &Client, tasks: &Tasks) -> Arc<Watched> {
        let mut all = lock(&self.0);
        all.retain(|_, watched| watched.strong_count() > 0);
        if let Some(watched) = all.get(object).and_then(Weak::upgrade) {
            return watched;
        }
        let own = tasks.child();
        let watched = Arc::new(Watched {
            object: object.clone(),
            seen: Mutex::default(),
            looks: Mutex::default(),
            tasks: own.clone(),
        });
        let path = format!("/api/v1/namespaces/{}/{}", object.namespace, object.collection);
        let options = ListOptions::fields(&format!("metadata.name={}", object.name));
        follow_selected(&client.partial(), &own, &path, options, Arc::new(Eye(Arc::downgrade(&watched))));
        all.insert(object.clone(), Arc::downgrade(&watched));
        watched
    }
}

/// What sees for a watched object, and does not keep it alive.
struct Eye(Weak<Watched>);

impl Eye {
    fn see(&self, version: impl FnOnce(&ObjectName) -> Option<Version>) {
        let Some(watched) = self.0.upgrade() else { return };
        let Some(version) = version(&watched.object) else { return };
        *lock(&watched.seen) = Some(version);
        lock(&watched.looks).retain(|look| match look.upgrade() {
            Some(look) => {
                look.notify_one();
                true
            }
            None => false,
        });
    }
}

impl Sink<Partial> for Eye {
    fn replace(&self, objects: Vec<Partial>) {
        self.see(|own| {
            let found = objects.into_iter().find(|object| object.metadata.name == own.name);
            Some(found.map(|object| object.metadata.resource_version))
        });
    }

    fn put(&self, object: Partial) {
        self.see(|own| (object.metadata.name == own.name).then_some(Some(object.metadata.resource_version)));
    }

    fn remove(&self, object: Partial) {
        self.see(|own| (object.metadata.name == own.name).then_some(None));
    }
}

/// What one worker follows for its pod.
pub(crate) struct Follower {
    look: Arc<Notify>,
    watched: BTreeMap<ObjectName, Arc<Watched>>,
    /// What the volumes have been made of, or have been tried to.
    last: MadeOf,
}

impl Follower {
    pub(crate) fn new(look: Arc<Notify>) -> Self {
        Self { look, watched: BTreeMap::new(), last: MadeOf::default() }
    }

    /// The volumes have been made; their objects are watched from now on.
    pub(crate) fn made(&mut self, of: MadeOf, watches: &Watches, client: Option<&Client>, tasks: &Tasks) {
        self.watched.retain(|object, _| of.objects.contains_key(object));
        for object in of.objects.keys() {
            let Some(client) = client.filter(|_| !self.watched.contains_key(object)) else { continue };
            let watched = watches.get(object, client, tasks);
            lock(&watched.looks).push(Arc::downgrade(&self.look));
            self.watched.insert(object.clone(), watched);
        }
        self.last = of;
        // What was seen meanwhile is compared at the next look.
        if !self.watched.is_empty() {
            self.look.notify_one();
        }
    }

    /// Whether something is newer than the volumes. What made them stale once does so once only: if they cannot be made
    /// anew, that is tried again in its own time.
    pub(crate) fn is_stale(&mut self, pod: &Pod) -> bool {
        let mut stale = false;
        for (object, version) in &mut self.last.objects {
            let seen = self.watched.get(object).and_then(|watched| lock(&watched.seen).clone());
            if let Some(seen) = seen.filter(|seen| seen != version) {
                *version = seen;
                stale = true;
            }
        }
        if let Some(shown) = &mut self.last.metadata {
            let current = metadata(pod);
            if *shown != current {
                *shown = current;
                stale = true;
            }
        }
        stale
    }
}
